"""The small networks of FPDM: the combiner of stage 1, and the encoders of stage 2."""

from __future__ import annotations

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
        """(B, N, width) -> (B, N, context)."""
        return self.net(tokens)


class ClassMLP(nn.Module):
    """Fusion embedding (B, E) to the time embedding's width (B, D): Linear, GELU, dropout, Linear, dropout."""

    def __init__(self, width: int, hidden: int, time: int, dropout: float = 0.2) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, time),
                                 nn.Dropout(dropout))

    def forward(self, fusion: Tensor) -> Tensor:
        """(B, width) -> (B, time)."""
        return self.net(fusion)
