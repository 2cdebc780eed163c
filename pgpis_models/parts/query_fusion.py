"""QEN's query feature fusion transformer: learnt queries read four maps of a backbone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import Attention, FeedForward

SCALES = 4   # of the backbone


class FusionBlock(nn.Module):
    """Local queries read the four maps one after another, finest first; then all queries read one another.

    Pre-norm with residuals and a GEGLU feed-forward: the paper does not state the block.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.cross_norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(SCALES))
        self.cross = nn.ModuleList(Attention(width, heads) for _ in range(SCALES))
        self.self_norm = nn.LayerNorm(width)
        self.self_attention = Attention(width, heads)
        self.ff_norm = nn.LayerNorm(width)
        self.ff = FeedForward(width)

    def read(self, local: Tensor, sources: Sequence[Tensor]) -> Tensor:
        """Stage 1: local queries (B, N_l, C) attend to F_1 .. F_4, each (B, L_i, C)."""
        for norm, attention, source in zip(self.cross_norms, self.cross, sources, strict=True):
            local = local + attention(norm(local), source)
        return local

    def forward(self, queries: Tensor, sources: Sequence[Tensor], local: int) -> Tensor:
        """queries (B, N, C), of which the first `local` are local -> (B, N, C)."""
        queries = torch.cat([self.read(queries[:, :local], sources), queries[:, local:]], 1)
        queries = queries + self.self_attention(self.self_norm(queries))   # stage 2: global queries read the local ones
        return queries + self.ff(self.ff_norm(queries))


class QueryFusionTransformer(nn.Module):
    """QFFT: learnable local and global queries fuse the backbone's maps into the conditioning tokens (section 3.2).

    Each map is normalised and projected to the queries' width, with a learnable embedding of its scale and a 2-D sine
    position: the paper does not state how maps of other widths are read, nor a norm behind the fusion; there is none.
    shared: number of global queries; 0 for none.
    """

    def __init__(self, local: int, shared: int, width: int, depth: int, heads: int, source_widths: Sequence[int],
                 grids: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.local, self.grids = local, tuple(grids)
        self.local_queries = nn.Parameter(torch.randn(local, width))
        self.global_queries = nn.Parameter(torch.randn(shared, width)) if shared else None
        self.source_norms = nn.ModuleList(nn.LayerNorm(size) for size in source_widths)
        self.source_in = nn.ModuleList(nn.Linear(size, width) for size in source_widths)
        self.scale_embedding = nn.Parameter(0.02 * torch.randn(SCALES, width))
        for number, grid in enumerate(grids):
            self.register_buffer(f"position_{number}", sine_positions(grid, width), persistent=False)
        self.blocks = nn.ModuleList(FusionBlock(width, heads) for _ in range(depth))

    def sources(self, features: Sequence[Tensor]) -> list[Tensor]:
        """The backbone's maps (B, L_i, C_i), finest first -> what the queries read, each (B, L_i, C)."""
        return [linear(norm(feature)) + self.scale_embedding[number] + getattr(self, f"position_{number}")
                for number, (norm, linear, feature) in enumerate(zip(self.source_norms, self.source_in, features,
                                                                     strict=True))]

    def queries(self, batch: int) -> Tensor:
        """The untouched queries (B, N, C), local ones first."""
        queries = [self.local_queries] + ([] if self.global_queries is None else [self.global_queries])
        return torch.cat(queries).expand(batch, -1, -1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Four maps (B, L_i, C_i), finest first -> tokens (B, N, C), local ones first."""
        sources, queries = self.sources(features), self.queries(features[0].shape[0])
        for block in self.blocks:
            queries = block(queries, sources, self.local)
        return queries

    def attention_maps(self, features: Sequence[Tensor]) -> Tensor:
        """What each query looks at, (B, blocks, N, h, w) on the finest grid; each map sums to 1.

        A local query's map is the mean over heads and scales of its cross-attention. A global query sees no map itself: it
        gets the local queries' maps, weighted with its self-attention to them.
        """
        sources, queries, maps = self.sources(features), self.queries(features[0].shape[0]), []
        for block in self.blocks:
            local, seen = queries[:, :self.local], []
            for norm, attention, source, grid in zip(block.cross_norms, block.cross, sources, self.grids, strict=True):
                weights = attention.probabilities(norm(local), source).mean(1).unflatten(-1, grid)   # (B, N_l, h, w)
                share = grid[0] * grid[1] / (self.grids[0][0] * self.grids[0][1])
                seen.append(F.interpolate(weights, size=self.grids[0], mode="nearest-exact") * share)
                local = local + attention(norm(local), source)
            looked = torch.stack(seen).mean(0)                                                       # (B, N_l, h, w)
            both = torch.cat([local, queries[:, self.local:]], 1)
            to_local = block.self_attention.probabilities(block.self_norm(both), block.self_norm(both)).mean(1)
            to_local = to_local[:, self.local:, :self.local]
            to_local = to_local / to_local.sum(-1, keepdim=True)
            maps.append(torch.cat([looked, torch.einsum("bgl,blhw->bghw", to_local, looked)], 1))
            queries = block(queries, sources, self.local)
        return torch.stack(maps, 1)


def sine_positions(grid: tuple[int, int], width: int) -> Tensor:
    """(h w, C) float32: sines and cosines of the row in the first half of the channels, of the column in the second.

    Wavelengths rise geometrically from 2 pi to 10000 * 2 pi cells, as in the transformer's 1-D code.
    """
    if width % 4:
        raise ValueError(f"the queries are {width} wide; expected a multiple of 4, for sine and cosine of row and column")
    frequency = torch.exp(torch.arange(width // 4, device="cpu") * (-math.log(10000.0) / (width // 4)))
    row, column = (torch.arange(side, device="cpu")[:, None] * frequency for side in grid)
    row, column = (torch.cat([angle.sin(), angle.cos()], -1) for angle in (row, column))
    return torch.cat([row[:, None].expand(-1, grid[1], -1), column[None].expand(grid[0], -1, -1)], -1).flatten(0, 1)
