"""CFLD's perception-refined decoder: learnt queries read the deepest map of a backbone (section 3.2 of CFLD)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .blocks import TransformerBlock


class PerceptionRefinedDecoderBlock(TransformerBlock):
    """Cross-attention first, then self-attention (the paper says a standard decoder; the code does this)."""

    def forward(self, h: Tensor, position: Tensor, source: Tensor) -> Tensor:
        """h (B, N, C), position (N, C), source (B, L, C') -> (B, N, C)."""
        h = h + position  # into the residual stream, twice per block: as in the code
        h = h + self.attn2(self.norm2(h), source)
        h = h + position
        h = h + self.attn1(self.norm1(h))
        return h + self.ff(self.norm3(h))


class PerceptionRefinedDecoder(nn.Module):
    """H_D: learnable queries read the deepest source map and become the coarse prompt (section 3.2)."""

    def __init__(self, tokens: int, dim: int, depth: int, heads: int, source_tokens: int, source_dim: int) -> None:
        super().__init__()
        self.query_feat = nn.Parameter(0.02 * torch.randn(tokens, dim))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(tokens, dim))
        self.kv_pos_embed = nn.Parameter(0.02 * torch.randn(1, source_tokens, source_dim))
        self.blocks = nn.ModuleList(PerceptionRefinedDecoderBlock(dim, heads, source_dim) for _ in range(depth))

    def forward(self, source: Tensor) -> Tensor:
        """source (B, L, C'), the deepest Swin map -> prompt (B, N, C)."""
        source = source + self.kv_pos_embed
        h = self.query_feat.expand(source.shape[0], -1, -1)
        for block in self.blocks:
            h = block(h, self.pos_embed, source)
        return h

    def attention_maps(self, source: Tensor) -> Tensor:
        """source (B, L, C') -> cross-attention weights (B, blocks, heads, N, L); each row over L sums to 1."""
        context = source + self.kv_pos_embed
        h = self.query_feat.expand(source.shape[0], -1, -1)
        maps = []
        for block in self.blocks:
            maps.append(block.attn2.probabilities(block.norm2(h + self.pos_embed), context))
            h = block(h, self.pos_embed, context)
        return torch.stack(maps, 1)
