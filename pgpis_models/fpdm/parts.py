"""The small networks of FPDM: the combiner of stage 1, and the encoders of stage 2."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Combiner(nn.Module):
    """Joins the embeddings of a source person and a pose picture, after CLIP4Cir's combiner (Baldrati et al. 2022).

    width: of the embeddings. projection, hidden: widths inside. dropout: in four places. Published names.
    """

    def __init__(self, width: int, projection: int, hidden: int, dropout: float = 0.5) -> None:
        super().__init__()
        self.kpt_projection_layer = nn.Linear(width, projection)
        self.image_projection_layer = nn.Linear(width, projection)
        self.combiner_layer = nn.Linear(2 * projection, hidden)
        self.output_layer = nn.Linear(hidden, width)
        self.dynamic_scalar = nn.Sequential(nn.Linear(2 * projection, hidden), nn.ReLU(), nn.Dropout(dropout),
                                            nn.Linear(hidden, 1), nn.Sigmoid())
        self.dropout = nn.Dropout(dropout)

    def raw(self, source: Tensor, pose: Tensor) -> Tensor:
        """source, pose (B, E), not normalised -> (B, E), not normalised."""
        k = self.dropout(F.relu(self.kpt_projection_layer(pose)))
        i = self.dropout(F.relu(self.image_projection_layer(source)))
        both = torch.cat([k, i], -1)  # pose first
        share = self.dynamic_scalar(both)  # (B, 1): how much of the pose's own embedding passes
        change = self.output_layer(self.dropout(F.relu(self.combiner_layer(both))))
        return change + share * pose + (1.0 - share) * source

    def forward(self, source: Tensor, pose: Tensor) -> Tensor:
        """source, pose (B, E) -> the fusion embedding (B, E), of length 1."""
        return F.normalize(self.raw(source, pose), dim=-1)


class SourceMLP(nn.Module):
    """Source tokens (B, N, C) to context tokens (B, N, D): Linear, GELU, dropout, norm, Linear, dropout."""

    def __init__(self, width: int, hidden: int, context: int, dropout: float = 0.2) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout), nn.LayerNorm(hidden),
                                 nn.Linear(hidden, context), nn.Dropout(dropout))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.net(tokens)


class ClassMLP(nn.Module):
    """Fusion embedding (B, E) to the time embedding's width (B, D): Linear, GELU, dropout, Linear, dropout."""

    def __init__(self, width: int, hidden: int, time: int, dropout: float = 0.2) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, time),
                                 nn.Dropout(dropout))

    def forward(self, fusion: Tensor) -> Tensor:
        return self.net(fusion)


class PoseGuider(nn.Module):
    """Pose picture to a map that is added after the UNet's conv_in (the conditioning embedding of ControlNet).

    widths: channels of the four resolutions 1, 1/2, 1/4, 1/8. out: channels of conv_in's output. The last convolution
    starts at zero, so that training starts from the unchanged base.
    """

    def __init__(self, widths: Sequence[int], out: int, channels: int = 3) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList()
        for before, after in pairwise(widths):
            self.blocks.append(nn.Conv2d(before, before, 3, padding=1))
            self.blocks.append(nn.Conv2d(before, after, 3, padding=1, stride=2))
        self.conv_out = nn.Conv2d(widths[-1], out, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)

    def forward(self, pose: Tensor) -> Tensor:
        """pose (B, 3, H, W) in [0, 1] -> (B, out, H / 8, W / 8)."""
        h = F.silu(self.conv_in(pose))
        for block in self.blocks:
            h = F.silu(block(h))
        return self.conv_out(h)
