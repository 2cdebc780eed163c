"""MCLD's networks beside the UNets. Parameter names are the published ones; the sizes come from MCLDConfig."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..unet.attention import attend
from ..unet.sites import SITES


class PerceiverAttention(nn.Module):
    """Latent queries attend to the input tokens and to themselves."""

    def __init__(self, dim: int, head_width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, heads * head_width, bias=False)
        self.to_kv = nn.Linear(dim, 2 * heads * head_width, bias=False)
        self.to_out = nn.Linear(heads * head_width, dim, bias=False)

    def forward(self, x: Tensor, latents: Tensor) -> Tensor:
        """x (B, N, D) input tokens, latents (B, Q, D) -> (B, Q, D)."""
        x, latents = self.norm1(x), self.norm2(latents)
        key, value = self.to_kv(torch.cat([x, latents], dim=1)).chunk(2, dim=-1)
        return self.to_out(attend(self.to_q(latents), key, value, self.heads))


class FaceProjector(nn.Module):
    """Face-recognition embedding to context tokens: the Resampler of IP-Adapter plus.

    in_width: of the embedding; out_width: the UNet's cross-attention width; tokens: learnt queries.
    """

    def __init__(self, in_width: int = 512, out_width: int = 768, dim: int = 1280, depth: int = 4, head_width: int = 64,
                 heads: int = 20, tokens: int = 16, ff_ratio: int = 4) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(1, tokens, dim) / dim**0.5)
        self.proj_in = nn.Linear(in_width, dim)
        self.proj_out = nn.Linear(dim, out_width)
        self.norm_out = nn.LayerNorm(out_width)
        self.layers = nn.ModuleList(
            nn.ModuleList([
                PerceiverAttention(dim, head_width, heads),
                nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, ff_ratio * dim, bias=False), nn.GELU(),
                              nn.Linear(ff_ratio * dim, dim, bias=False)),
            ]) for _ in range(depth))

    def forward(self, face: Tensor) -> Tensor:
        """face (B, N, in_width), N usually 1; zeros stand for no face -> (B, tokens, out_width)."""
        x = self.proj_in(face)
        latents = self.latents.expand(x.shape[0], -1, -1)
        for attention, feed_forward in self.layers:
            latents = latents + attention(x, latents)
            latents = latents + feed_forward(latents)
        return self.norm_out(self.proj_out(latents))


class WeightTree(nn.Module):
    """Parameters under dotted names, without a forward: weights that a binding's own network is run with.

    They are zeros until loaded; `named()` gives them flat.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        super().__init__()
        for name, shape in shapes.items():
            *path, last = name.split(".")
            module: nn.Module = self
            for part in path:
                if part not in dict(module.named_children()):
                    module.add_module(part, nn.Module())
                module = module.get_submodule(part)
            module.register_parameter(last, nn.Parameter(torch.zeros(shape)))

    def named(self) -> dict[str, nn.Parameter]:
        """Name -> the parameter itself, which a network that is given it trains too."""
        return dict(self.named_parameters())


class FaceAttention(WeightTree):
    """Key and value projections of the face tokens, one pair per site (MFCA, multi-focal conditioning aggregation).

    widths: of the UNet's four levels; context: width of the tokens. Initialised as any linear layer, as in the code.
    """

    def __init__(self, widths: tuple[int, ...], context: int) -> None:
        super().__init__({f"{self.block(name)}.{which}.weight": (widths[site.level], context)
                          for name, site in SITES.items() for which in ("to_k_ip", "to_v_ip")})
        for value in self.parameters():
            nn.init.kaiming_uniform_(value, a=5**0.5)

    @staticmethod
    def block(site: str) -> str:
        """Published name of a site's face projections, less the last two parts."""
        return f"{SITES[site].diffusers}.transformer_blocks.0.attn2.processor"

    def projections(self, site: str) -> tuple[Tensor, Tensor]:
        """(to_k, to_v) of a site, each (D, C) with D the width of the site."""
        return tuple(self.get_parameter(f"{self.block(site)}.{which}.weight") for which in ("to_k_ip", "to_v_ip"))


def through_float16(features: Tensor) -> Tensor:
    """Features of any shape rounded to float16 and back, as the authors' code hands those of the reference over (an
    effect of about 5e-4). Gradients pass as if there were no rounding: in float16 small ones would vanish.
    """
    rounded = features.to(torch.float16).to(features.dtype)
    return features + (rounded - features).detach() if features.requires_grad else rounded
