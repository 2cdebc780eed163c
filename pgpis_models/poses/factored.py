"""CFLD's pose input in factored form: the same numbers as `cfld_rasters`, a seventh of the work for the adapter's stem.

A Gaussian is the outer product of a column and a row, and the stem (pixel unshuffle, then a 1x1 convolution) is linear,
so it can be applied to the factors: the 18 maps are never made. For training, where rasters cost as much as the UNet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class FactoredRasters:
    """A batch of pose rasters. picture (B, 3, H, W) uint8 RGB; column (B, J, H) and row (B, J, W) float32 in 0..1."""

    picture: Tensor
    column: Tensor
    row: Tensor

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(B, 3 + J, H, W), as `full` would have it."""
        batch, joints, height = self.column.shape
        return batch, 3 + joints, height, self.row.shape[2]

    @property
    def ndim(self) -> int:
        return 4

    def __len__(self) -> int:
        return self.column.shape[0]

    def to(self, *args: Any, **kwargs: Any) -> FactoredRasters:
        """On another device."""
        return FactoredRasters(self.picture.to(*args, **kwargs), self.column.to(*args, **kwargs),
                               self.row.to(*args, **kwargs))

    def pin_memory(self) -> FactoredRasters:
        """In memory that a device copies from by itself; what a DataLoader calls."""
        return FactoredRasters(self.picture.pin_memory(), self.column.pin_memory(), self.row.pin_memory())

    def clone(self) -> FactoredRasters:
        return FactoredRasters(self.picture.clone(), self.column.clone(), self.row.clone())

    def copy_(self, other: FactoredRasters, non_blocking: bool = False) -> FactoredRasters:
        """Takes the values of another batch of the same shape."""
        for name in ("picture", "column", "row"):
            getattr(self, name).copy_(getattr(other, name), non_blocking=non_blocking)
        return self

    def full(self) -> Tensor:
        """The rasters themselves, (B, 3 + J, H, W) float32 in 0..1."""
        return torch.cat([self.picture / 255, self.column[..., None] * self.row[:, :, None]], 1)


def join(batches: Sequence[Tensor | FactoredRasters]) -> Tensor | FactoredRasters:
    """Several batches of rasters, each (B, 3 + J, H, W) and all of one kind, as one."""
    if isinstance(batches[0], Tensor):
        return torch.cat(list(batches))
    return FactoredRasters(*(torch.cat([getattr(b, name) for b in batches]) for name in ("picture", "column", "row")))


def stem(rasters: Tensor | FactoredRasters, weight: Tensor, bias: Tensor, unshuffle: int) -> Tensor:
    """1x1 convolution of the pixel-unshuffled rasters -> (B, O, H / u, W / u); u = unshuffle.

    weight (O, C * u * u, 1, 1), bias (O,), as in the adapter; u must divide H and W.
    """
    if isinstance(rasters, Tensor):
        return F.conv2d(F.pixel_unshuffle(rasters, unshuffle), weight, bias)
    u, outputs = unshuffle, weight.shape[0]
    batch, channels, height, width = rasters.shape
    joints, down, across = channels - 3, height // u, width // u
    cells = weight.view(outputs, channels, u, u)
    painted = F.conv2d(rasters.picture / 255, cells[:, :3], bias, stride=u)
    columns = rasters.column.view(batch, joints, down, u).permute(1, 0, 2, 3).reshape(joints, batch * down, u)
    partial = columns @ cells[:, 3:].permute(1, 2, 0, 3).reshape(joints, u, outputs * u)     # (J, B*down, O*u)
    partial = partial.view(joints, batch, down, outputs, u).permute(1, 2, 3, 0, 4).reshape(
        batch, down * outputs, joints * u)
    rows = rasters.row.view(batch, joints, across, u).permute(0, 1, 3, 2).reshape(batch, joints * u, across)
    heat = (partial @ rows).view(batch, down, outputs, across).permute(0, 2, 1, 3).contiguous()  # GroupNorm is slow else
    return painted + heat
