"""CFLD's fine appearance: the hybrid-granularity appearance encoder."""

from __future__ import annotations

from torch import Tensor, nn

from ..parts.blocks import TokenConv, TransformerBlock, zero_conv

# Branch k of the appearance encoder feeds the UNet's attention 11 - k in the published numbering, up.(i // 3).(i % 3).
BRANCH_SITES = tuple(f"up.{index // 3}.{index % 3}" for index in range(11, 2, -1))


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
