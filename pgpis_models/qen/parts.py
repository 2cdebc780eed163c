"""QEN's pose embedding beside the query fusion and the control branch."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class PoseStack(nn.Module):
    """ControlNet's pose embedding: a skeleton picture through strided convolutions to the latents' size.

    Parameter names are diffusers'. The last convolution starts at zero, as in ControlNet. The paper does not state it.
    """

    def __init__(self, channels: int, widths: Sequence[int], out: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList()
        for before, after in zip(widths[:-1], widths[1:], strict=True):
            self.blocks.append(nn.Conv2d(before, before, 3, padding=1))
            self.blocks.append(nn.Conv2d(before, after, 3, padding=1, stride=2))
        self.conv_out = nn.Conv2d(widths[-1], out, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)

    def forward(self, picture: Tensor) -> Tensor:
        """picture (B, 3, 8 h, 8 w) in 0..1 -> (B, C, h, w)."""
        h = F.silu(self.conv_in(picture))
        for block in self.blocks:
            h = F.silu(block(h))
        return self.conv_out(h)
