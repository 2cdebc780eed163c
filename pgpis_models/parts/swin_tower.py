"""A Swin transformer as a vision tower: of the demo, where pictures are small and towers are trained in minutes.

Published models have CLIP or DINOv2 here, of 300 million parameters. The decoders are CFLD's and QEN's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .perception_decoder import PerceptionRefinedDecoder
from .pixels import IMAGENET_MEAN, IMAGENET_STD
from .query_fusion import SCALES, QueryFusionTransformer
from .swin import SwinBackbone

READS = ("deepest", "all")   # which of the backbone's maps a decoder reads


@dataclass(frozen=True)
class SwinSizes:
    """A Swin transformer.

    image: (height, width) in pixels of the picture that it reads; no other size goes in. patch, window, width, depths,
    heads: see SwinBackbone. tokens: that a decoder reads from the backbone's maps, token_width wide; decoder_depth,
    decoder_heads: of that decoder. reads: "deepest", the decoder is CFLD's and sees the deepest map; "all", it is QEN's
    query fusion, without global queries, and sees all four, since what moves an outline by a pixel is gone in the deepest.
    Without tokens the tower only gives one vector of the whole picture.
    """

    image: tuple[int, int]
    window: tuple[int, int]
    width: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    patch: int = 4
    tokens: int = 0
    token_width: int = 0
    decoder_depth: int = 0
    decoder_heads: int = 1
    reads: str = "deepest"

    def __post_init__(self) -> None:
        for name in ("image", "window", "depths", "heads"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # lists come from JSON and YAML
        if self.tokens and (self.token_width < 1 or self.decoder_depth < 1 or self.token_width % self.decoder_heads):
            raise ValueError(f"a Swin tower of {self.tokens} tokens has token_width {self.token_width}, decoder_depth "
                             f"{self.decoder_depth} and decoder_heads {self.decoder_heads}; expected a depth of 1 or more "
                             "and heads that divide the width")
        if self.reads not in READS:
            raise ValueError(f"a Swin tower's reads is {self.reads!r}; expected one of {', '.join(map(repr, READS))}")
        if self.tokens and self.reads == "all" and len(self.depths) != SCALES:
            raise ValueError(f"a Swin tower with reads 'all' has depths {self.depths}; expected {SCALES} stages, one for "
                             "each map that the query fusion reads")

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of the deepest map."""
        cell = self.patch * 2 ** (len(self.depths) - 1)
        return self.image[0] // cell, self.image[1] // cell

    @property
    def pooled_width(self) -> int:
        """Channels of the vector of the whole picture: the deepest map, flattened, since a pose is a matter of place."""
        return self.grid[0] * self.grid[1] * self.width * 2 ** (len(self.depths) - 1)


class SwinTower(nn.Module):
    """Pixels with a mean and deviation taken off (`mean`, `std`, of pictures in 0..1) to tokens or to one vector."""

    def __init__(self, sizes: SwinSizes, mean: tuple[float, ...] = IMAGENET_MEAN,
                 std: tuple[float, ...] = IMAGENET_STD) -> None:
        super().__init__()
        self.sizes = sizes
        for name, values in ("mean", mean), ("std", std):
            self.register_buffer(name, torch.tensor(values, device="cpu").view(1, 3, 1, 1), persistent=False)
        self.backbone = SwinBackbone(sizes.image, sizes.window, sizes.width, sizes.depths, sizes.heads, sizes.patch,
                                     drop_path=0.0)
        self.decoder = self._decoder() if sizes.tokens else None
        self.norm_out = None if sizes.tokens else nn.LayerNorm(sizes.pooled_width)

    def _decoder(self) -> PerceptionRefinedDecoder | QueryFusionTransformer:
        sizes = self.sizes
        if sizes.reads == "all":
            return QueryFusionTransformer(sizes.tokens, 0, sizes.token_width, sizes.decoder_depth, sizes.decoder_heads,
                                          self.backbone.widths, self.backbone.grids)
        return PerceptionRefinedDecoder(sizes.tokens, sizes.token_width, sizes.decoder_depth, sizes.decoder_heads,
                                        sizes.grid[0] * sizes.grid[1], self.backbone.widths[-1])

    def maps(self, pixels: Tensor) -> list[Tensor]:
        """pixels (B, 3, H, W) of sizes.image -> the backbone's maps (B, h w, C), finest first."""
        return self.backbone((pixels * self.std.to(pixels) + self.mean.to(pixels)) * 2 - 1)

    def pooled(self, pixels: Tensor) -> Tensor:
        """pixels as in `maps` -> (B, sizes.pooled_width). Raises ValueError for a tower that gives tokens."""
        if self.norm_out is None:
            raise ValueError("this Swin tower gives tokens; one with tokens = 0 gives a vector of the whole picture")
        return self.norm_out(self.maps(pixels)[-1].flatten(1))

    def forward(self, pixels: Tensor) -> Tensor:
        """pixels as in `maps` -> tokens (B, sizes.tokens, sizes.token_width). Raises ValueError for a tower without."""
        if self.decoder is None:
            raise ValueError("this Swin tower has no tokens; set tokens, token_width, decoder_depth and decoder_heads")
        maps = self.maps(pixels)
        return self.decoder(maps if self.sizes.reads == "all" else maps[-1])
