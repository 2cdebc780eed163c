"""Pose-masked attention of QEN: from a skeleton picture to the patches that may attend, and the attention itself.

A skeleton is binarised, blurred to dilate it, and thresholded: that is the pose region m_p. A patch of an attention site
lies in the region when any pixel in it does. Equation numbers are those of the QEN paper.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

# Which (patch, query) pairs are seen, by the ablation's names for the masks (section 4.5).
MASK_MODES = ("none", "simple", "simple_local", "full")
BINARISE = 0.1        # of 1: pixels brighter than this in any channel belong to the skeleton; JPEG noise is darker
REFERENCE = 512       # pixels of height at which the blur is given

log = logging.getLogger(__name__)


def skeleton_region(picture: Tensor, size: tuple[int, int], sigma: float = 8.0, threshold: float = 1 / 255) -> Tensor:
    """Skeleton pictures (B, C, H, W), uint8 or 0..1 -> the dilated region (B, 1, *size), 1 inside and 0 outside.

    The drawing is binarised, brought to `size` by any-pooling, blurred, and cut at `threshold` of its peak. sigma: of the
    blur, in pixels of a picture REFERENCE high. The paper says binarise and blur; it gives neither sigma nor threshold.
    """
    limit = BINARISE if picture.is_floating_point() else 255 * BINARISE
    drawn = any_pool((picture > limit).any(1, keepdim=True), size)
    sigma = sigma * size[0] / REFERENCE
    if sigma <= 0:
        return drawn
    radius = math.ceil(sigma * (math.sqrt(-2 * math.log(min(threshold, 0.5))) + 1))   # beyond it all limbs add up to less
    offsets = torch.arange(-radius, radius + 1, device=drawn.device, dtype=drawn.dtype)
    kernel = torch.exp(-offsets.square() / (2 * sigma ** 2))
    kernel = kernel / kernel.sum()
    blurred = F.conv2d(drawn, kernel.view(1, 1, -1, 1), padding=(radius, 0))
    blurred = F.conv2d(blurred, kernel.view(1, 1, 1, -1), padding=(0, radius))
    return (blurred > threshold * blurred.amax((2, 3), keepdim=True)).to(drawn.dtype)


def any_pool(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """mask (B, 1, H, W), any size -> (B, 1, *size) float32: 1 where any pixel that a cell touches is above 0.5.

    A cell of a mask that is smaller than `size` takes the pixels that it lies on.
    """
    return F.adaptive_max_pool2d((mask > 0.5).float(), tuple(size))


def checked_region(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """A region of any size (B, 1, H, W) any-pooled to `size`; one without a pixel inside becomes everywhere, with a warning.

    Raises ValueError when it is not such a tensor.
    """
    if not isinstance(mask, Tensor) or mask.ndim != 4 or mask.shape[1] != 1 or 0 in mask.shape:
        what = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        raise ValueError(f"the pose region is {what}; expected a mask (batch, 1, height, width) of any size")
    region = any_pool(mask, size)
    empty = region.amax((1, 2, 3)) == 0
    if bool(empty.any()):
        log.warning("%d of %d pose masks have no person in them: attention is not masked there. Check the pose.",
                    int(empty.sum()), len(empty))
        region = torch.where(empty[:, None, None, None], torch.ones_like(region), region)
    return region


def seen_queries(region: Tensor, local: int, total: int, mode: str) -> Tensor | None:
    """Which queries each patch sees: region (B, 1, h, w) at the site's own size -> (B, h w, N) bool; None: all of them.

    local, total: number of local queries, which come first, and of all N. Modes, as in table 3:
    none          every patch sees every query (B1, B3)
    simple        eq. (9) on all queries: a patch of the region sees all, another none (B2)
    simple_local  eq. (9) on the local queries, which alone are attended to (B4)
    full          eq. (5): a patch of the region sees all, another the global ones
    Were the global queries of B4 seen everywhere, eq. (9) on the local ones would be eq. (5), and B4 the full model; the
    paper tells them apart as a mask "to local queries" and one "to both local and global queries".
    """
    if mode not in MASK_MODES:
        raise ValueError(f"unknown mask mode {mode!r}; expected one of {MASK_MODES}")
    if mode == "none":
        return None
    inside = (region > 0.5).flatten(1)[:, :, None]                           # (B, h w, 1)
    is_local = (torch.arange(total, device=region.device) < local)[None, None]  # (1, 1, N)
    if mode == "simple":
        return inside.expand(-1, -1, total)
    return inside & is_local if mode == "simple_local" else inside | ~is_local


def seen_by_level(region: Tensor | None, latent: Sequence[int], local: int, total: int, mode: str,
                  levels: int = 4) -> list[Tensor | None]:
    """`seen_queries` at each level of the UNet, latents (height, width) first; each next level is halved, rounded up."""
    if region is None or mode == "none":
        return [None] * levels
    sizes = [tuple(-(-side // 2 ** level) for side in latent) for level in range(levels)]
    return [seen_queries(any_pool(region, size), local, total, mode) for size in sizes]


def pose_masked_attention(query: Tensor, key: Tensor, value: Tensor, heads: int, seen: Tensor | None) -> Tensor:
    """softmax(Q K^T / sqrt(d) + M) V, eqs. (3) and (4), on projected tokens, with M = 0 where seen and -inf elsewhere.

    query (R, L, D), key and value (R, N, D); seen (R, L, N) bool, None for no mask. A patch that sees nothing, which
    eq. (9) leaves undefined, gets 0. Returns (R, L, D).
    """
    rows, length, width = query.shape
    q, k, v = (t.view(rows, -1, heads, width // heads).transpose(1, 2) for t in (query, key, value))
    if seen is None:
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(rows, length, width)
    blind = ~seen.any(-1, keepdim=True)                      # (R, L, 1)
    # Blind rows see everything, then lose it: what a fused kernel does with no key differs between them.
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=(seen | blind)[:, None])
    return out.transpose(1, 2).reshape(rows, length, width).masked_fill(blind, 0)
