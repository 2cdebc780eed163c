"""Pose-masked attention: which queries each patch of a site sees, and the attention itself (eqs. 3 to 5 and 9 of QEN).

Readings of ours: the paper cuts z_t into patches of p x p once and does not give p; here the positions of each attention
level of the control branch are the patches. Keys and values are of the queries after their fusion (eqs. 3 and 4 say
"learnable feature queries"), with no norm in between.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..poses.region import any_pool

# Which (patch, query) pairs are seen, by the ablation's names for the masks (section 4.5).
MASK_MODES = ("none", "simple", "simple_local", "full")


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
