"""CFLD's three networks beside the Swin backbone, and the bricks that they are made of.

Parameter names follow diffusers' transformer and ResNet blocks, as published.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import attend
from .pose_factored import FactoredRasters, stem

# Branch k of the appearance encoder feeds the UNet's attention 11 - k in the published numbering, up.(i // 3).(i % 3).
BRANCH_SITES = tuple(f"up.{index // 3}.{index % 3}" for index in range(11, 2, -1))


class Attention(nn.Module):
    """Multi-head attention; projections of query, key and value without bias."""

    def __init__(self, dim: int, heads: int, context_dim: int | None = None) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"{heads} attention heads do not divide the width {dim}")
        self.heads = heads
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_k = nn.Linear(context_dim or dim, dim, bias=False)
        self.to_v = nn.Linear(context_dim or dim, dim, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(dim, dim)])

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """x (B, L, C) attends to context (B, N, C'), or to itself. Returns (B, L, C)."""
        context = x if context is None else context
        return self.to_out[0](attend(self.to_q(x), self.to_k(context), self.to_v(context), self.heads))

    def probabilities(self, x: Tensor, context: Tensor) -> Tensor:
        """The attention weights (B, heads, L, N) that `forward` uses inside; each row sums to 1."""
        q, k = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (self.to_q(x), self.to_k(context)))
        return torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, dim=-1)


class GEGLU(nn.Module):
    """Linear to twice the width; the second half gates the first through an exact GELU."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.proj = nn.Linear(dim, 2 * hidden)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    """GEGLU feed-forward of ratio 4. Position 1 of `net` is a dropout of rate 0 in the published layout."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.net = nn.Sequential(GEGLU(dim, 4 * dim), nn.Identity(), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class TransformerBlock(nn.Module):
    """Pre-norm block with two attentions and a GEGLU feed-forward; the second attention may see a context."""

    def __init__(self, dim: int, heads: int, context_dim: int | None = None) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn1 = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.attn2 = Attention(dim, heads, context_dim)
        self.norm3 = nn.LayerNorm(dim)
        self.ff = FeedForward(dim)

    def forward(self, h: Tensor) -> Tensor:
        """h (B, L, C) -> (B, L, C) with two self-attentions, as in CFLD's appearance encoder."""
        h = h + self.attn1(self.norm1(h))
        h = h + self.attn2(self.norm2(h))
        return h + self.ff(self.norm3(h))


class TokenConv(nn.Conv2d):
    """A 1 x 1 convolution applied to tokens: (B, L, in) -> (B, L, out), the same numbers without the transposes."""

    def __init__(self, dim_in: int, dim_out: int) -> None:
        super().__init__(dim_in, dim_out, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        return F.linear(tokens, self.weight.flatten(1), self.bias)


def zero_conv(dim_in: int, dim_out: int) -> TokenConv:
    """A TokenConv that starts at zero, so that training starts from the unchanged base model."""
    conv = TokenConv(dim_in, dim_out)
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)
    return conv


class ResnetBlock(nn.Module):
    """GroupNorm, SiLU, 3 x 3 convolution, twice; a 1 x 1 shortcut where the width changes; no time embedding."""

    def __init__(self, dim_in: int, dim_out: int, groups: int) -> None:
        super().__init__()
        for dim in (dim_in, dim_out):
            if dim % groups:
                raise ValueError(f"{groups} normalisation groups do not divide the width {dim}")
        self.norm1 = nn.GroupNorm(groups, dim_in, eps=1e-6)
        self.conv1 = nn.Conv2d(dim_in, dim_out, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, dim_out, eps=1e-6)
        self.conv2 = nn.Conv2d(dim_out, dim_out, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(dim_in, dim_out, 1) if dim_in != dim_out else None

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, h, w) -> (B, C', h, w)."""
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (x if self.conv_shortcut is None else self.conv_shortcut(x))


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


class HybridGranularityAppearanceEncoder(nn.Module):
    """H_A: nine independent branches, three per scale, each giving the query bias of one site (section 3.3).

    The paper draws one branch per scale with self- and cross-attention; the code has three, with two
    self-attentions per block and neither position nor time embedding.
    """

    def __init__(self, feature_dims: tuple[int, ...], dims: tuple[int, ...], heads: tuple[int, ...], depth: int,
                 out_dims: tuple[int, ...], zero_in: bool = True) -> None:
        super().__init__()
        conv_in = zero_conv if zero_in else TokenConv
        scale_of = [branch // 3 for branch in range(9)]
        self.blocks = nn.ModuleList(
            nn.ModuleList(TransformerBlock(dims[scale], heads[scale]) for _ in range(depth)) for scale in scale_of)
        self.zero_conv_ins = nn.ModuleList(conv_in(feature_dims[scale], dims[scale]) for scale in scale_of)
        self.zero_conv_outs = nn.ModuleList(zero_conv(dims[scale], out_dims[scale]) for scale in scale_of)

    def forward(self, features: tuple[Tensor, Tensor, Tensor]) -> dict[str, Tensor]:
        """Three Swin maps (B, HW, C), fine to coarse -> query bias (B, HW, D) by site, up.3.2 to up.1.0."""
        biases = {}
        for branch, site in enumerate(BRANCH_SITES):
            h = self.zero_conv_ins[branch](features[branch // 3])
            for block in self.blocks[branch]:
                h = block(h)
            biases[site] = self.zero_conv_outs[branch](h)
        return biases


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
