"""Masks that grow and have soft edges, and pasting what must stay back to the pixel."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

FADES = ("inside", "outside")
FEATHER = 0.02    # of the shorter side: broader ones let what is kept shine through as blotches
GROW = FEATHER    # so that the fade lies around the mask and no rim of the old garment stays


def feathered(mask: Tensor, size: tuple[int, int], feather: float, grow: float = 0.0, fade: str = FADES[0]) -> Tensor:
    """MASK (B, H, W) or (H, W) in 0..1 -> (B, 1, *size), grown by `grow` pixels (shrunk when negative), with a soft edge.

    fade "inside": rising from 0 at the mask's edge to 1 `feather` pixels inside, so that nothing outside changes; at the
    picture's border there is none. Where the mask is narrower than two feathers the fade is steeper, so that it reaches 1 in
    the middle: no part of a mask vanishes. fade "outside": 1 in the whole mask, falling to 0 `feather` pixels beyond. A mask
    that is black everywhere stays so. Raises ValueError for other shapes, for a feather below 0, and for a mask that shrinks
    to nothing.
    """
    if mask.ndim == 2:
        mask = mask[None]
    if mask.ndim != 3 or 0 in mask.shape:
        raise ValueError(f"the MASK has shape {tuple(mask.shape)}; expected (batch, height, width). Connect a MASK output")
    if not bool(mask.isfinite().all()):
        raise ValueError("the MASK holds values that are not finite (NaN or infinity); expected 0..1. Check the node that "
                         "made it")
    if feather < 0:
        raise ValueError(f"feather is {feather}; expected 0 or more")
    mask = F.interpolate(mask[:, None].float(), size=size, mode="nearest-exact").clamp(0, 1)
    edged = [_edged(one.cpu().numpy(), feather, grow, fade, f"the MASK of picture {number} of {len(mask)}")
             for number, one in enumerate(mask[:, 0], start=1)]
    return torch.from_numpy(np.stack(edged))[:, None].to(mask)


def _edged(mask: np.ndarray, feather: float, grow: float, fade: str, what: str) -> np.ndarray:
    if not mask.any():
        return mask
    if grow > 0:
        mask = np.maximum(mask, (_distance(mask < 0.5) <= grow).astype(np.float32))
    elif grow < 0:
        mask = mask * (_distance(mask >= 0.5) > -grow)
        if not mask.any():
            raise ValueError(f"{what} shrinks to nothing; expected a grow that leaves some of it. Raise grow")
    if feather == 0:
        return mask
    if fade == FADES[1]:
        return np.maximum(mask, np.clip(1 - _distance(mask < 0.5) / np.float32(feather + 1), 0, 1))
    return np.minimum(_ramp(mask, feather), mask)


def _distance(inside: np.ndarray) -> np.ndarray:
    """(H, W) bool -> (H, W) float32: pixels from each to the nearest outside, 0 there, huge where there is none."""
    import cv2  # no cost when the host starts
    return cv2.distanceTransform(inside.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)


def _ramp(mask: np.ndarray, feather: float) -> np.ndarray:
    """(H, W) -> (H, W) float32: each pixel's distance to the nearest 0, in shares of the feather or, where that is less, of
    the largest distance within a feather around it."""
    # One more than the feather, as depth is 1 in the outermost row; without any 0 in the mask it is huge.
    depth = np.minimum(_distance(mask > 0), np.float32(feather + 1))
    radius = int(np.ceil(feather))
    return depth / np.maximum(_highest(_highest(depth, radius).T, radius).T, 1)


def _highest(values: np.ndarray, radius: int) -> np.ndarray:
    """(H, W) -> (H, W): the largest of the values (0 or more) up to `radius` rows away, in a time that does not grow with
    the radius (van Herk 1992)."""
    window, rows = 2 * radius + 1, len(values)
    blocks = -(-(rows + 2 * radius) // window)
    padded = np.zeros((blocks * window, values.shape[1]), values.dtype)
    padded[radius:radius + rows] = values
    each = padded.reshape(blocks, window, -1)
    since = np.maximum.accumulate(each, axis=1).reshape(padded.shape)
    until = np.maximum.accumulate(each[:, ::-1], axis=1)[:, ::-1].reshape(padded.shape)
    return np.maximum(until[:rows], since[2 * radius:2 * radius + rows])


def paste(made: Tensor, kept: Tensor, mask: Tensor) -> Tensor:
    """made where mask is 1, kept where it is 0 (exactly), mixed between; (B, 3, H, W), mask (B, 1, H, W)."""
    return torch.where(mask > 0, torch.lerp(kept, made, mask), kept)
