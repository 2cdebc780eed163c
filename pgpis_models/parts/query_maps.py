"""What the learnable queries of a method look at, as pictures over the source."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

KINDS = ("local", "global")
DIGITS = 18   # of a query's number at most
DIM = 0.35    # brightness of the source where nothing is looked at


def query_maps(method: nn.Module, source: Tensor, kind: str) -> Tensor:
    """source (B, 3, H, W) in -1..1 -> (B, blocks, N, h, w), what each query of a kind looks at in each block; sums are 1.

    kind: one of KINDS, of which a method may have one alone. Raises ValueError for another, and for a method without
    queries (those with `query_maps(source, kind)` have them).
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind of query {kind!r}; expected one of {KINDS}")
    if not hasattr(method, "query_maps"):
        raise ValueError(f"{type(method).__name__} has no learnable queries; expected a checkpoint of method qen or cfld")
    return method.query_maps(source, kind)


def chosen_queries(text: str, count: int) -> list[int]:
    """Numbers such as "0-3, 7" -> [0, 1, 2, 3, 7], each once; all `count` when empty. Raises ValueError for others."""
    numbers: list[int] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        first, dash, last = part.partition("-")
        last = last if dash else first
        ends = [end.strip() for end in (first, last)]
        if not all(end.isdecimal() and len(end) <= DIGITS for end in ends) or int(last) < int(first):
            raise ValueError(f"queries {text[:60]!r}: {part[:60]!r} is neither a number nor a range; expected such "
                             "as 0-3, 7")
        if int(last) >= count:
            raise ValueError(f"queries {text[:60]!r} name {int(last)}; this checkpoint has {count} of that kind, from 0")
        numbers += range(int(first), int(last) + 1)
    return list(dict.fromkeys(numbers)) or list(range(count))


def over(picture: Tensor, maps: Tensor) -> Tensor:
    """Pictures (B, 3, H, W) in 0..1 and maps (B, N, h, w) -> (B N, 3, H, W): the source dimmed, and lit in warm colours
    where a map is high; each map is drawn relative to its own peak."""
    count, size = maps.shape[1], picture.shape[-2:]
    heat = F.interpolate(maps.float(), size=size, mode="bilinear", align_corners=False)
    heat = (heat / heat.amax((2, 3), keepdim=True).clamp_min(1e-12)).flatten(0, 1)[:, None]    # (B N, 1, H, W)
    base = picture.repeat_interleave(count, 0)
    warm = torch.cat([heat.sqrt(), heat, heat.square() * 0.3], 1)     # black, red, orange, yellow
    return (base * (DIM + (1 - DIM) * heat) * (1 - 0.6 * heat) + 0.6 * heat * warm).clamp(0, 1)
