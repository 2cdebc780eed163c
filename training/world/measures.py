"""What one sees, measured: pictures of drawn people against the targets of a bank, of which everything is known."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pgpis_models.metrics import psnr, ssim_gauss
from training.world.bank import Bank
from training.world.part_errors import part_colour, seen_texels, texel_error
from training.world.wardrobe import BACKGROUND

# what `score` measures, each with its unit
MEASURES = {"mask_iou": "", "legs": "", "part_colour": "", "sharpness": "", "eyes": "", "texel_error_seen": "",
            "texel_error_hidden": "", "psnr": "dB", "ssim": ""}
SOURCE_VIEW, TARGET_VIEW = 0, 1   # of a bank with two views
GROUND_DISTANCE = 0.07            # Euclidean RGB, 0..1: nearer to the ground's colour is ground
LEGS = (7, 8, 9, 10, 11, 12, 13, 14)   # DensePose parts of the thighs and shanks
GAP_WIDTH = 2                     # pixels of ground between the legs, at least, in a row
GAP_ROWS = 6                      # rows in which it shows, at least
EYE_HALF = 4.0                    # half width of an eye's patch in pixels, times the zoom
EYE_CORRELATION, EYE_CONTRAST = 0.8, 0.4


def score(made: Tensor, bank: Bank, reference: Tensor | None = None) -> dict[str, float]:
    """Measures of pictures (N, 3, H, W) in 0..1 against the targets of a bank.

    reference: the targets through the autoencoder, against which sharpness is measured; the targets themselves when None.

    mask_iou: person against the flat ground, both thresholded alike. legs: of targets with ground between the legs, the
    share where it is found. part_colour: share of body parts (30 pixels or more in source and target) whose mean colour is
    within 0.12 of the target's. sharpness: mean absolute gradient on the target's person over the reference's. eyes: of the
    eyes in closer views, the share that `eye_there`. texel_error_seen, texel_error_hidden: mean colour error at the
    target's true IUV, of texels that the source shows and that it hides. psnr (dB), ssim: of whole pictures.
    """
    target = pictures(bank, TARGET_VIEW)
    reference = target if reference is None else reference
    (part, u, v), (source_part, source_u, source_v) = (maps(bank, view) for view in (TARGET_VIEW, SOURCE_VIEW))
    seen, hidden = texel_error(made, target, part, u, v, source_part, source_u, source_v)
    return {"mask_iou": float(mask_overlap(made, target).mean()), "legs": legs_apart(made, target, part),
            "part_colour": part_colour(made, target, source_part, part),
            "sharpness": float(gradient(made, part > 0) / gradient(reference, part > 0)),
            "eyes": eyes_there(made, target, bank), "texel_error_seen": seen, "texel_error_hidden": hidden,
            "psnr": float(psnr(made, target).mean()), "ssim": float(ssim_gauss(made, target).mean())}


def hidden(bank: Bank) -> float:
    """Share of the pixels of the targets' people whose texel the source does not show."""
    person, seen = seen_texels(*maps(bank, TARGET_VIEW), *maps(bank, SOURCE_VIEW))
    return float((person & ~seen).sum() / person.sum())


def maps(bank: Bank, view: int) -> tuple[Tensor, Tensor, Tensor]:
    """Part, u and v of one view of everybody, each (N, H, W)."""
    uv = torch.from_numpy(bank.uv[:, view].astype(np.float64) / 255)
    return torch.from_numpy(bank.part[:, view].astype(np.int64)), uv[..., 0], uv[..., 1]


def pictures(bank: Bank, view: int) -> Tensor:
    """One view of everybody, (N, 3, H, W) in 0..1."""
    return bank.images(np.arange(bank.people), np.full(bank.people, view)) / 2 + 0.5


def person_mask(picture: Tensor) -> Tensor:
    """(N, 3, H, W) in 0..1 -> (N, H, W) bool: where it is not the ground's colour."""
    ground = torch.tensor(BACKGROUND, dtype=picture.dtype).view(1, 3, 1, 1)
    return (picture - ground).square().sum(1).sqrt() > GROUND_DISTANCE


def mask_overlap(made: Tensor, target: Tensor) -> Tensor:
    """(N,) intersection over union of the two person masks."""
    a, b = person_mask(made), person_mask(target)
    return (a & b).flatten(1).sum(1) / (a | b).flatten(1).sum(1).clamp_min(1)


def gradient(picture: Tensor, where: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring pixels within a mask (N, H, W)."""
    total, count = torch.zeros((), dtype=picture.dtype), 0
    for dim in (2, 3):
        inside = where.narrow(dim - 1, 1, where.shape[dim - 1] - 1) & where.narrow(dim - 1, 0, where.shape[dim - 1] - 1)
        total = total + (picture.diff(dim=dim).abs().mean(1) * inside).sum()
        count = count + inside.sum()
    return total / count


def gaps_between_legs(picture: Tensor, part: Tensor) -> Tensor:
    """(N, H, W) bool: ground of a picture with the target's legs on both sides of it in its row."""
    leg = torch.isin(part, torch.tensor(LEGS))
    left = leg.cumsum(2) > 0
    right = leg.flip(2).cumsum(2).flip(2) > 0
    return ~person_mask(picture) & left & right


def legs_apart(made: Tensor, target: Tensor, part: Tensor) -> float:
    """Of the targets that show ground between the legs (GAP_WIDTH pixels in GAP_ROWS rows), the share of made pictures that
    show it in at least half of those rows. part (N, H, W): of the target."""
    wanted = gaps_between_legs(target, part).sum(2) >= GAP_WIDTH          # (N, H)
    shown = (gaps_between_legs(made, part) & gaps_between_legs(target, part)).sum(2) >= GAP_WIDTH
    counts = wanted.sum(1)
    has = counts >= GAP_ROWS
    return float(((wanted & shown).sum(1) * 2 >= counts)[has].float().mean()) if has.any() else float("nan")


def eyes_there(made: Tensor, target: Tensor, bank: Bank) -> float:
    """Of the eyes that show in the closer target views, the share that is there."""
    found = [eye_there(made[person], target[person], bank.eyes[person, TARGET_VIEW, side],
                       float(bank.zoom[person, TARGET_VIEW]))
             for person in range(bank.people) if bank.zoom[person, TARGET_VIEW] > 1.3
             for side in (0, 1) if bank.eyes_visible[person, TARGET_VIEW, side]]
    return float(np.mean(found)) if found else float("nan")


def eye_there(made: Tensor, target: Tensor, centre: np.ndarray, zoom: float) -> bool:
    """Whether the patch around an eye, shifted by at most one pixel, correlates with the target's above EYE_CORRELATION and
    has EYE_CONTRAST of its contrast. made, target (3, H, W); centre: x, y in pixels."""
    half = int(round(EYE_HALF * zoom))
    x, y = int(centre[0]), int(centre[1])
    padded = [F.pad(picture.mean(0)[None, None], (half + 1,) * 4, mode="replicate")[0, 0] for picture in (made, target)]
    truth = padded[1][y + 1:y + 2 * half + 2, x + 1:x + 2 * half + 2]
    for dy in (0, 1, 2):
        for dx in (0, 1, 2):
            patch = padded[0][y + dy:y + dy + 2 * half + 1, x + dx:x + dx + 2 * half + 1]
            a, b = patch - patch.mean(), truth - truth.mean()
            contrast = float(a.square().mean().sqrt() / b.square().mean().sqrt().clamp_min(1e-6))
            correlation = float((a * b).mean() / (a.square().mean().sqrt() * b.square().mean().sqrt()).clamp_min(1e-9))
            if correlation > EYE_CORRELATION and contrast > EYE_CONTRAST:
                return True
    return False
