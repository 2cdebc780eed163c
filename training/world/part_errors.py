"""How far colours are off, by part of a body and by texel: what one can ask where DensePose is known exactly."""

from __future__ import annotations

import torch
from torch import Tensor

from pgpis_models.metrics import check_pair

PART_PIXELS, PART_THRESHOLD = 30, 0.12   # of `part_colour`: which parts count, and how far off is still right (RGB, 0..1)


def part_differences(difference: Tensor, parts: Tensor, numbers: int) -> tuple[Tensor, Tensor]:
    """Mean over each body part's pixels. difference: (B, 3, H, W). parts: (B, H, W) integers below `numbers` -> means
    (B, 3, numbers), 0 where a part is not there, and pixels of each part (B, numbers), of difference's type."""
    where, difference = parts.flatten(1).long(), difference.flatten(2)
    pixels = difference.new_zeros(len(where), numbers).scatter_add(1, where, torch.ones_like(difference[:, 0]))
    total = difference.new_zeros(len(where), 3, numbers).scatter_add(2, where[:, None].expand_as(difference), difference)
    return total / pixels.clamp(min=1)[:, None], pixels


def part_colour_counts(
    generated: Tensor, target: Tensor, source_parts: Tensor, target_parts: Tensor,
    min_pixels: int = PART_PIXELS, threshold: float = PART_THRESHOLD,
) -> tuple[Tensor, Tensor]:
    """How many body parts got the right colour -> hits (B,), parts (B,), both int64.

    generated, target: (B, 3, H, W) in [0, 1]. source_parts, target_parts: (B, H, W) integers, 0 background, 1.. parts,
    of the source and the target picture. A part counts when both show at least `min_pixels` of it; it is a hit when its
    mean colour over the target's pixels of it is within `threshold` (Euclidean RGB distance, colours in 0..1) of the
    target's. Sum both over all pictures before dividing: `part_colour` does.
    """
    check_pair(generated, target)
    _check_maps(target, source_parts=source_parts, target_parts=target_parts)
    numbers = 1 + int(max(source_parts.max(), target_parts.max()))
    difference, in_target = part_differences(generated.double() - target.double(), target_parts, numbers)
    shown = source_parts.flatten(1).long()
    in_source = shown.new_zeros(len(shown), numbers).scatter_add_(1, shown, torch.ones_like(shown))
    distance = difference.norm(dim=1)  # (B, P)
    counted = (in_source >= min_pixels) & (in_target >= min_pixels)
    counted[:, 0] = False  # background
    hits = counted & (distance <= threshold)
    return hits.sum(1), counted.sum(1)


def part_colour(
    generated: Tensor, target: Tensor, source_parts: Tensor, target_parts: Tensor,
    min_pixels: int = PART_PIXELS, threshold: float = PART_THRESHOLD,
) -> float:
    """Share of the body parts of all pictures whose mean colour is right, 0..1; see `part_colour_counts`. nan when no
    part is large enough in both source and target."""
    hits, parts = part_colour_counts(generated, target, source_parts, target_parts, min_pixels, threshold)
    return float(hits.sum()) / float(parts.sum()) if parts.sum() else float("nan")


def texel_error(
    generated: Tensor, target: Tensor,
    target_part: Tensor, target_u: Tensor, target_v: Tensor,
    source_part: Tensor, source_u: Tensor, source_v: Tensor,
    texels: int = 16,
) -> tuple[float, float]:
    """Mean absolute RGB error over the person, (seen, hidden): apart for texels that the source shows and hides.

    generated, target: (B, 3, H, W) in [0, 1]. *_part: (B, H, W) integers, 0 background. *_u, *_v: (B, H, W) in [0, 1],
    position on the part. Each part is cut into texels x texels squares; a target pixel is seen when a pixel of the
    source of the same row of the batch lies in the same square. All pixels of the batch weigh the same; nan where there
    is no such pixel.
    """
    check_pair(generated, target)
    _check_maps(target, target_part=target_part, target_u=target_u, target_v=target_v, source_part=source_part,
                source_u=source_u, source_v=source_v)
    person, seen = seen_texels(target_part, target_u, target_v, source_part, source_u, source_v, texels)
    error = (generated.double() - target.double()).abs().mean(1).flatten(1)
    return float(error[person & seen].mean()), float(error[person & ~seen].mean())


def seen_texels(target_part: Tensor, target_u: Tensor, target_v: Tensor, source_part: Tensor, source_u: Tensor,
                source_v: Tensor, texels: int = 16) -> tuple[Tensor, Tensor]:
    """(B, H*W) bool each: the pixels of the target's person, and those whose texel the source shows (see `texel_error`)."""
    target_texel = _texel_index(target_part, target_u, target_v, texels)  # (B, H*W)
    source_texel = _texel_index(source_part, source_u, source_v, texels)
    count = 1 + int(max(target_texel.max(), source_texel.max()))
    shown = torch.zeros(len(target_part), count, dtype=torch.bool, device=target_part.device)
    return target_part.flatten(1) > 0, shown.scatter_(1, source_texel, True).gather(1, target_texel)


def _texel_index(part: Tensor, u: Tensor, v: Tensor, texels: int) -> Tensor:
    """(B, H*W) int64: a number of its own for each (part, column, row); background shares those of part 0."""
    person = part > 0
    for name, values in (("u", u), ("v", v)):
        low, high = (float(edge) for edge in values[person].aminmax()) if person.any() else (0.0, 0.0)
        if low < -1e-6 or high > 1 + 1e-6:
            raise ValueError(f"{name} of the person reaches from {low:.3f} to {high:.3f}; expected 0 to 1. Divide "
                             f"8-bit values by 255.")
    column, row = ((values.double() * texels).floor().clamp(0, texels - 1).long() for values in (u, v))
    return ((part.long() * texels + column) * texels + row).flatten(1)


def _check_maps(pictures: Tensor, **maps: Tensor) -> None:
    expected = (len(pictures), *pictures.shape[-2:])
    wrong = {name: tuple(value.shape) for name, value in maps.items() if tuple(value.shape) != expected}
    if wrong:
        raise ValueError(f"maps of other shapes than the pictures' {expected}: {wrong}; expected (B, H, W) each, one "
                         f"value per pixel of the pictures.")
