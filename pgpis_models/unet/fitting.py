"""Spatial rows at the size of the latents: conditions are made once, at a method's own size, and follow latents of another
size and the same shape (a second pass on larger latents, a training that begins on smaller ones).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor

from .sites import SITES

SLACK = 1.0   # cells by which a side may differ from the exact aspect: odd sides are rounded at each level


def fitted_rows(rows: Mapping[str, Tensor], latent: tuple[int, int]) -> dict[str, Tensor]:
    """The rows of `injections.Rows` for latents of (height, width): stem, down residuals and query biases are resized where
    they are of another size; those that fit pass untouched.

    Raises ValueError naming both shapes where the latents have another aspect.
    """
    return {name: _fitted(name, value, latent) for name, value in rows.items()}


def _fitted(name: str, value: Tensor, latent: tuple[int, int]) -> Tensor:
    field, _, where = name.partition(".")
    if field == "stem":
        return fitted_map(value, latent, name)
    if field == "down_residual":
        return fitted_map(value, at_level(latent, int(where)), name)
    if field == "query_bias":
        return fitted_tokens(value, at_level(latent, SITES[where].level), name)
    return value


def at_level(latent: tuple[int, int], level: int) -> tuple[int, int]:
    """Size of a level of the UNet: each is half of the one before, rounded up."""
    return -(-latent[0] // 2 ** level), -(-latent[1] // 2 ** level)


def fitted_map(value: Tensor, size: tuple[int, int], name: str = "the map") -> Tensor:
    """(B, C, h, w) -> (B, C, *size): means when it shrinks, bilinear when it grows. Raises ValueError for another aspect."""
    height, width = value.shape[-2:]
    if abs(height * size[1] / size[0] - width) > SLACK and abs(width * size[0] / size[1] - height) > SLACK:
        raise ValueError(f"{name} was made for a picture of aspect {height}:{width} (height:width), the latents here are "
                         f"{size[0]}:{size[1]}; expected latents of the same aspect: the shape that the checkpoint makes, "
                         "larger or smaller")
    return resized_map(value, size)


def resized_map(value: Tensor, size: tuple[int, int]) -> Tensor:
    """As `fitted_map`, to any aspect: inside a UNet whose size another node changes sides are rounded."""
    if value.shape[-2:] == tuple(size):
        return value
    if size[0] <= value.shape[-2] and size[1] <= value.shape[-1]:
        return F.adaptive_avg_pool2d(value, size)
    return F.interpolate(value, size, mode="bilinear", align_corners=False)


def resized_tokens(value: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Tokens of `grid` (B, grid[0] grid[1], C) as `resized_map` does it -> (B, size[0] size[1], C)."""
    return resized_map(value.transpose(1, 2).unflatten(2, grid), size).flatten(2).transpose(1, 2)


def fitted_tokens(value: Tensor, size: tuple[int, int], name: str = "the tokens") -> Tensor:
    """Tokens of a grid (B, h w, C) -> (B, size[0] size[1], C), where h : w is the aspect of `size`. Raises ValueError where
    their number makes no grid of that aspect."""
    count = value.shape[1]
    if count == size[0] * size[1]:
        return value
    ideal = math.sqrt(count * size[0] / size[1])
    rows = next((rows for rows in (round(ideal), math.floor(ideal), math.ceil(ideal)) if rows and count % rows == 0
                 and abs(rows * size[1] / size[0] - count // rows) <= SLACK), None)
    if rows is None:
        raise ValueError(f"{name} has {count} tokens, which make no grid of the latents' aspect {size[0]}:{size[1]} "
                         "(height:width); expected latents of the shape that the checkpoint makes, larger or smaller")
    grid = value.transpose(1, 2).unflatten(2, (rows, count // rows))
    return fitted_map(grid, size, name).flatten(2).transpose(1, 2)
