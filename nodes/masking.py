"""Masks with soft edges, and pasting what must stay back to the pixel."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def feathered(mask: Tensor, size: tuple[int, int], feather: int) -> Tensor:
    """MASK (B, H, W) or (H, W) in 0..1 -> (B, 1, *size), rising from 0 at the mask's edge to 1 `feather` pixels inside.

    The fade lies inside the mask, so that nothing outside changes; at the picture's border there is none. Where the mask is
    narrower than two feathers the fade is steeper, so that it reaches 1 in the middle: no part of a mask vanishes. Raises
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
    ramps = [_ramp(one.cpu().numpy(), feather) for one in mask[:, 0]]
    return torch.minimum(torch.from_numpy(np.stack(ramps))[:, None].to(mask), mask)


def _ramp(mask: np.ndarray, feather: int) -> np.ndarray:
    """(H, W) -> (H, W) float32: each pixel's distance to the nearest 0, in shares of the feather or, where that is less, of
    the largest distance within a feather around it."""
    import cv2  # no cost when the host starts
    depth = cv2.distanceTransform((mask > 0).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # One more than the feather, as depth is 1 in the outermost row; without any 0 in the mask it is huge.
    depth = np.minimum(depth, np.float32(feather + 1))
    window = 2 * feather + 1
    reached = cv2.dilate(cv2.dilate(depth, np.ones((window, 1), np.uint8)), np.ones((1, window), np.uint8))
    return depth / np.maximum(reached, 1)


def paste(made: Tensor, kept: Tensor, mask: Tensor) -> Tensor:
    """made where mask is 1, kept where it is 0 (exactly), mixed between; (B, 3, H, W), mask (B, 1, H, W)."""
    return torch.where(mask > 0, torch.lerp(kept, made, mask), kept)
