"""Bricks of several methods: attention, feed-forward, transformer block, and convolutions on tokens and maps."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..unet.attention import attend


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
        """(B, L, dim) -> (B, L, hidden)."""
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    """GEGLU feed-forward of ratio 4. Position 1 of `net` is a dropout of rate 0 in the published layout."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.net = nn.Sequential(GEGLU(dim, 4 * dim), nn.Identity(), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, dim) -> the same shape."""
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
        """(B, L, in) -> (B, L, out)."""
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
