"""Masks with soft edges, and pasting what must stay back to the pixel."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def feathered(mask: Tensor, size: tuple[int, int], feather: int) -> Tensor:
    """MASK (B, H, W) or (H, W) in 0..1 -> (B, 1, *size), fading from 0 at the mask's edge to 1 `feather` pixels inside.

    The fade lies inside the mask, so that nothing outside changes; at the picture's border there is none. Raises
    ValueError for other shapes and for a feather below 0.
    """
    if mask.ndim == 2:
        mask = mask[None]
    if mask.ndim != 3 or 0 in mask.shape:
        raise ValueError(f"the MASK has shape {tuple(mask.shape)}; expected (batch, height, width). Connect a MASK output")
    if feather < 0:
        raise ValueError(f"feather is {feather}; expected 0 or more pixels")
    mask = F.interpolate(mask[:, None].float(), size=size, mode="nearest-exact").clamp(0, 1)
    if feather == 0:
        return mask
    # Eroding by r and averaging over the same window keeps 0 outside and reaches 1 about 2 r inside.
    radius = max(1, round(feather / 2))
    eroded = -_windowed(F.max_pool2d, -mask, radius)
    return torch.minimum(_windowed(F.avg_pool2d, eroded, radius, count_include_pad=False), mask)


def _windowed(pool, picture: Tensor, radius: int, **arguments) -> Tensor:
    """A square window of 2 radius + 1 pixels, applied as a row and a column; steps keep the padding within torch's limit."""
    for kernel, padding in (((2 * radius + 1, 1), (radius, 0)), ((1, 2 * radius + 1), (0, radius))):
        picture = pool(picture, kernel, stride=1, padding=padding, **arguments)
    return picture


def paste(made: Tensor, kept: Tensor, mask: Tensor) -> Tensor:
    """made where mask is 1, kept where it is 0 (exactly), mixed between; (B, 3, H, W), mask (B, 1, H, W)."""
    return torch.where(mask > 0, torch.lerp(kept, made, mask), kept)
