"""A Swin transformer as a tower of FPDM: the demo's, where pictures are small and towers are trained from nothing.

The published model has vision transformers of 300 million parameters here. A small Swin learns the same in minutes, and its
backbone and decoder are those of CFLD's demo, so that one may start from the other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from .cfld_parts import PerceptionRefinedDecoder
from .checkpoint import difference, shapes_of
from .metrics import IMAGENET_MEAN, IMAGENET_STD
from .swin import SwinBackbone

BLOCK = re.compile(r"layers\.(\d+)\.blocks\.(\d+)\.")   # stage and block in the names of a backbone's weights


@dataclass(frozen=True)
class SwinSizes:
    """A Swin transformer.

    image: (height, width) in pixels of the picture that it reads; no other size goes in. patch, window, width, depths,
    heads: see SwinBackbone. tokens: that a decoder reads from the deepest map, token_width wide; decoder_depth,
    decoder_heads: of that decoder. Without tokens the tower only gives one vector of the whole picture.
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

    def __post_init__(self) -> None:
        for name in ("image", "window", "depths", "heads"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # lists come from JSON and YAML
        if self.tokens and (self.token_width < 1 or self.decoder_depth < 1 or self.token_width % self.decoder_heads):
            raise ValueError(f"a Swin tower of {self.tokens} tokens has token_width {self.token_width}, decoder_depth "
                             f"{self.decoder_depth} and decoder_heads {self.decoder_heads}; expected a depth of 1 or more "
                             "and heads that divide the width")

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
        self.sizes, self.mean, self.std = sizes, mean, std
        self.backbone = SwinBackbone(sizes.image, sizes.window, sizes.width, sizes.depths, sizes.heads, sizes.patch,
                                     drop_path=0.0)
        deepest = self.backbone.widths[-1]
        self.decoder = PerceptionRefinedDecoder(sizes.tokens, sizes.token_width, sizes.decoder_depth, sizes.decoder_heads,
                                                sizes.grid[0] * sizes.grid[1], deepest) if sizes.tokens else None
        self.norm_out = None if sizes.tokens else nn.LayerNorm(sizes.pooled_width)

    def deepest(self, pixels: Tensor) -> Tensor:
        """pixels (B, 3, H, W) of sizes.image -> the deepest map (B, h w, C)."""
        mean, std = (pixels.new_tensor(values).reshape(1, 3, 1, 1) for values in (self.mean, self.std))
        return self.backbone((pixels * std + mean) * 2 - 1)[-1]

    def pooled(self, pixels: Tensor) -> Tensor:
        """pixels as in `deepest` -> (B, sizes.pooled_width). Raises ValueError for a tower that gives tokens."""
        if self.norm_out is None:
            raise ValueError("this Swin tower gives tokens; one with tokens = 0 gives a vector of the whole picture")
        return self.norm_out(self.deepest(pixels).flatten(1))

    def forward(self, pixels: Tensor) -> Tensor:
        """pixels as in `deepest` -> tokens (B, sizes.tokens, sizes.token_width). Raises ValueError for a tower without."""
        if self.decoder is None:
            raise ValueError("this Swin tower has no tokens; set tokens, token_width, decoder_depth and decoder_heads")
        return self.decoder(self.deepest(pixels))

    def _too_deep(self, name: str) -> bool:
        """Whether a backbone's entry belongs to a block that this tower's stage has not."""
        block = BLOCK.match(name)
        return bool(block) and int(block[1]) < len(self.sizes.depths) and int(block[2]) >= self.sizes.depths[int(block[1])]

    def load_parts(self, state: Mapping[str, Tensor], what: str) -> None:
        """Starts from the `backbone.*` and, where there is one, `decoder.*` of another model, such as CFLD's, and leaves its
        other entries, and the last blocks of stages that are deeper there. Raises ValueError, beginning with `what`, when
        they are of other sizes."""
        for part in ("backbone", "decoder") if self.decoder is not None else ("backbone",):
            given = {name.removeprefix(f"{part}."): value for name, value in state.items() if name.startswith(f"{part}.")}
            module = getattr(self, part)
            if part == "backbone":
                given = {name: value for name, value in given.items() if not self._too_deep(name)}
            wrong = difference(shapes_of(module.state_dict()), shapes_of(given))
            if wrong:
                raise ValueError(f"{what} does not fit the {part} of the Swin tower: {wrong}; use a file of the same sizes, "
                                 "or none")
            module.load_state_dict(given)
