"""CFLD's pose adapter (after T2I-Adapter): a pose raster to maps for the UNet's down blocks."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..poses.factored import FactoredRasters, stem
from .blocks import ResnetBlock


class PoseAdapter(nn.Module):
    """H_P: pose raster to one map per down block 0, 1, 2, in the manner of T2I-Adapter (section 3.1)."""

    def __init__(self, channels: int, unshuffle: int, dims: tuple[int, ...], groups: int) -> None:
        super().__init__()
        self.unshuffle = unshuffle
        self.conv_in = nn.Conv2d(channels * unshuffle ** 2, dims[0], 1)
        self.resnets = nn.ModuleList(ResnetBlock(dim_in, dim_out, groups)
                                     for dim_in, dim_out in zip((dims[0],) + tuple(dims), dims))

    def forward(self, pose: Tensor | FactoredRasters) -> tuple[Tensor, ...]:
        """pose (B, C, H, W) in [0, 1], full or factored -> (B, D_i, h / 2**i, w / 2**i), h = H / unshuffle; odd sizes
        round up."""
        h = stem(pose, self.conv_in.weight, self.conv_in.bias, self.unshuffle)
        maps = []
        for index, resnet in enumerate(self.resnets):
            if index:
                h = F.avg_pool2d(h, 2, ceil_mode=True)  # the UNet's strided convolutions round odd sizes up as well
            h = resnet(h)
            maps.append(h)
        return tuple(maps)
