"""Source-target pairs as FPDM's two stages want them, from mannequins or from photos in the DeepFashion layout.

A pair is two pictures (H, W, 3) uint8 and the target's pose; all that the authors do to them happens here, once for both
kinds of data: drawing, squashing, noise on joints, mirroring.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from pgpis_models.fpdm import FPDMConfig, FusionConfig
from pgpis_models.fpdm_pose import (
    CANVAS,
    PHOTO_CANVAS,
    augmented,
    clip_pixels,
    draw_fpdm,
    on_canvas,
    resized,
    source_pixels,
    target_pixels,
    unit_tensor,
)
from pgpis_models.keypoints import Keypoints
from training.config import FPDMSettings, TrainConfig
from training.data.bank import WATCHED, Bank, open_bank
from training.data.captions import KINDS
from training.data.deepfashion import DeepFashion, open_picture

HELD_OUT_PEOPLE, HELD_OUT_PHOTOS = 32, 64   # of the sample grids


@dataclass(frozen=True)
class Pair:
    """source, target: (H, W, 3) uint8 RGB. pose, source_pose: of the target and of the source. where: (person, source view,
    target view) of a bank, None for photos."""

    source: np.ndarray
    target: np.ndarray
    pose: Keypoints
    source_pose: Keypoints
    where: tuple[int, int, int] | None = None


class MannequinPictures:
    """Pairs of views of one drawn person."""

    licence = "demo weights trained on drawn mannequins; free to use under the pack's licence"
    loader_workers = 0

    def __init__(self, config: TrainConfig) -> None:
        self.bank: Bank = open_bank(config.data)
        self.test: Bank = open_bank(config.data, held_out=HELD_OUT_PEOPLE, start=WATCHED)
        self.lettered = config.fpdm.lettered
        self.letters = letters(self.bank)

    def draw(self, rng: np.random.Generator, size: int, per_person: int = 1) -> list[Pair]:
        """`size` pairs; `per_person` of them show one person, with different targets as far as there are views. A share of
        fpdm.lettered of the people wear letters, where anybody does, beside those whom chance brings."""
        views, people = self.bank.views, -(-size // per_person)
        pairs = []
        chosen = rng.choice(self.bank.people, people, replace=people > self.bank.people)
        if self.lettered and len(self.letters):
            more = round(self.lettered * people)
            chosen[:more] = rng.choice(self.letters, more)
        for who in chosen:
            order = rng.permutation(views)
            pairs += [self.pair(self.bank, who, order[(k + 1) % views], order[k % views]) for k in range(per_person)]
        return pairs[:size]

    def unseen(self) -> MannequinPictures:
        """The same of people never trained on."""
        other = copy.copy(self)
        other.bank, other.letters = self.test, letters(self.test)
        return other

    def held_out(self) -> list[Pair]:
        return [self.pair(self.test, who, 0, 1) for who in range(self.test.people)]

    @staticmethod
    def pair(bank: Bank, who: int, source: int, target: int) -> Pair:
        pose, source_pose = bank.poses([who, who], [target, source])
        return Pair(bank.image[who, source], bank.image[who, target], pose, source_pose,
                    (int(who), int(source), int(target)))


def letters(bank: Bank) -> np.ndarray:
    """Who of a bank wears a letter."""
    kind = KINDS["letter"]
    return np.flatnonzero(bank.caption[:, kind.token, kind.only] > 0.5)


class Photos:
    """Pairs of photos in the layout of training/data/deepfashion.py, drawn with replacement."""

    licence = "trained on photos, whose terms apply (DeepFashion: non-commercial research only)"

    def __init__(self, config: TrainConfig) -> None:
        self.train, self.test = (DeepFashion(config.data.root, split) for split in ("train", "test"))
        self.loader_workers = config.data.workers
        if not self.train.pairs or not self.test.pairs:
            raise ValueError(f"{config.data.root} has {len(self.train.pairs)} training and {len(self.test.pairs)} test "
                             "pairs; expected at least one of each")

    def draw(self, rng: np.random.Generator, size: int, per_person: int = 1) -> list[Pair]:
        if per_person != 1:
            raise ValueError(f"fpdm.pairs_per_person is {per_person}; photos are drawn pair by pair, expected 1")
        return [self.pair(self.train, index) for index in rng.integers(len(self.train.pairs), size=size)]

    def unseen(self) -> Photos:
        """The same of the test split."""
        other = copy.copy(self)
        other.train = self.test
        return other

    def held_out(self) -> list[Pair]:
        count = min(HELD_OUT_PHOTOS, len(self.test.pairs))
        return [self.pair(self.test, index) for index in np.linspace(0, len(self.test.pairs) - 1, count).astype(int)]

    @staticmethod
    def pair(photos: DeepFashion, index: int) -> Pair:
        source, target = photos.pairs[index]
        return Pair(np.asarray(open_picture(photos.folder / source)), np.asarray(open_picture(photos.folder / target)),
                    photos.poses[target], photos.poses[source])


def open_pictures(config: TrainConfig) -> MannequinPictures | Photos:
    """The pairs that a config asks for. Raises ValueError for another kind of data."""
    kinds = {"mannequins": MannequinPictures, "deepfashion": Photos}
    if config.data.kind not in kinds:
        raise ValueError(f"data.kind is {config.data.kind!r}; expected one of {sorted(kinds)}")
    return kinds[config.data.kind](config)


# --- tensors ------------------------------------------------------------------------------------------------

def fusion_tensors(pairs: Sequence[Pair], config: FusionConfig, canvas: Sequence[int] = ()) -> dict[str, Tensor]:
    """Stage 1: source, pose and target (B, 3, H, W) for the shared tower. canvas: (height, width) of the drawing, that of
    the authors' photos when empty. Photos are cropped where the config says so, pose pictures always squashed."""
    drawn = [draw_fpdm(pair.pose, tuple(canvas) or PHOTO_CANVAS) for pair in pairs]
    return {"source": clip_pixels([pair.source for pair in pairs], config.image, crop=config.crop),
            "pose": clip_pixels(drawn, config.image),
            "target": clip_pixels([pair.target for pair in pairs], config.image, crop=config.crop)}


def diffusion_tensors(pairs: Sequence[Pair], config: FPDMConfig, canvas: Sequence[int] = (),
                      low: np.ndarray | None = None, low_size: tuple[int, int] = (256, 256)) -> dict[str, Tensor]:
    """Stage 2: source and clip_source of the photo, pose and clip_pose of the drawn pose, as `FPDM.forward` takes them.

    canvas: (height, width) that poses are drawn on, config.pose_canvas when empty; poses that are on it already stay as
    they are. low, low_size: see `source_tensors`.
    """
    source, photos = source_tensors(pairs, config, low, low_size)
    drawn = [draw_fpdm(pair.pose, tuple(canvas) or config.pose_canvas) for pair in pairs]
    return {"source": source, "clip_source": clip_pixels(photos, config.fusion.image),
            "pose": unit_tensor(drawn, config.image_size), "clip_pose": clip_pixels(drawn, config.fusion.image)}


def source_tensors(pairs: Sequence[Pair], config: FPDMConfig, low: np.ndarray | None = None,
                   low_size: tuple[int, int] = (256, 256)) -> tuple[Tensor, list[np.ndarray]]:
    """The photos as the source tower takes them, (B, 3, *config.source_size), and as they were squashed for it. low: (B,)
    bool, sources that are first squashed to low_size."""
    read = [config.photo_size if low is None or not low[n] else low_size for n in range(len(pairs))]
    photos = [resized(pair.source, size) for pair, size in zip(pairs, read, strict=True)]
    return torch.cat([source_pixels([photo], config.source_size, size)
                      for photo, size in zip(photos, read, strict=True)]), photos


def varied(pair: Pair, settings: FPDMSettings, rng: np.random.Generator, canvas: Sequence[int] = CANVAS) -> Pair:
    """A training pair of stage 2 (FPDM's authors' code): noise on every joint, and some pairs mirrored, photos and pose
    alike. The pose comes back on the canvas (height, width), to be drawn there."""
    noise = settings.joint_noise * rng.standard_normal((18, 2)) if settings.joint_noise else None
    flip = bool(rng.random() < settings.flip)
    pose = augmented(on_canvas(pair.pose, tuple(canvas)), noise, flip)
    if not flip:
        return replace(pair, pose=pose)
    return replace(pair, source=pair.source[:, ::-1], target=pair.target[:, ::-1], pose=pose)


def latent_targets(pairs: Sequence[Pair], config: FPDMConfig) -> Tensor:
    """Target photos for the autoencoder, (B, 3, *config.image_size) in -1..1."""
    return target_pixels([pair.target for pair in pairs], config.image_size, config.image_size)
