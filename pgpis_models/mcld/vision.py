"""Small image encoders that an MCLD checkpoint may bring, for worlds without CLIP and face recognition (the demo).

They stand where the authors' frozen encoders stand: source photo -> tokens I, texture map -> tokens A, face crop -> the
face embedding. They are trained with the method. Published sizes have none.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..unet.attention import attend
from .config import MCLDConfig

CELL = 8            # pixels of a picture per cell of its map
FACE_CELL = 8


class PictureMap(nn.Module):
    """Picture to a map of cells at 1/8 of its size: convolutions, and each cell's own mean colour beside them.

    There is no normalisation on the way, which would hide absolute colours.
    """

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        if len(widths) != 3:
            raise ValueError(f"vision_widths is {tuple(widths)}; expected three, one per halving to 1/{CELL}")
        self.steps = nn.ModuleList()
        for before, after in zip((3, *widths[:-1]), widths, strict=True):
            self.steps.append(nn.Conv2d(before, after, 3, stride=2, padding=1))
            self.steps.append(nn.Conv2d(after, after, 3, padding=1))
        self.width = widths[-1] + 3

    def forward(self, picture: Tensor) -> Tensor:
        """picture (B, 3, H, W) in -1..1, H and W multiples of 8 -> (B, H/8 * W/8, width)."""
        h = picture
        for down, same in zip(self.steps[::2], self.steps[1::2], strict=True):
            h = F.silu(down(h))
            h = h + F.silu(same(h))
        h = torch.cat([h, F.avg_pool2d(picture, CELL)], dim=1)
        return h.flatten(2).transpose(1, 2)


class Block(nn.Module):
    """Queries look at the map, at each other, and think."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.look = nn.ModuleList(nn.Linear(width, width) for _ in range(4))
        self.join = nn.ModuleList(nn.Linear(width, width) for _ in range(4))
        self.think = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, queries: Tensor, cells: Tensor) -> Tensor:
        """queries (B, N, D), cells (B, M, D) -> (B, N, D)."""
        queries = queries + self._attend(self.look, self.norms[0](queries), cells)
        own = self.norms[1](queries)
        queries = queries + self._attend(self.join, own, own)
        return queries + self.think(self.norms[2](queries))

    def _attend(self, layers: nn.ModuleList, queries: Tensor, cells: Tensor) -> Tensor:
        to_q, to_k, to_v, out = layers
        return out(attend(to_q(queries), to_k(cells), to_v(cells), self.heads))


class TokenReader(nn.Module):
    """Picture of a fixed size to tokens: learnt queries on its map.

    size: (height, width) in pixels. tokens, out_width: of the result.
    """

    def __init__(self, size: tuple[int, int], widths: tuple[int, ...], width: int, depth: int, heads: int, tokens: int,
                 out_width: int) -> None:
        super().__init__()
        self.size = tuple(size)
        self.map = PictureMap(widths)
        self.enter = nn.Linear(self.map.width, width)
        self.position = nn.Parameter(torch.randn(1, (size[0] // CELL) * (size[1] // CELL), width) * 0.5)
        self.queries = nn.Parameter(torch.randn(1, tokens, width))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.out = nn.Linear(width, out_width)

    def forward(self, picture: Tensor) -> Tensor:
        """picture (B, 3, H, W) in -1..1 of `size` -> (B, tokens, out_width). Raises ValueError for another size."""
        if picture.ndim != 4 or tuple(picture.shape[1:]) != (3, *self.size):
            raise ValueError(f"the picture to encode has shape {tuple(picture.shape)}; expected (B, 3, *{self.size}): "
                             "squash it to the checkpoint's own size")
        cells = self.enter(self.map(picture)) + self.position
        queries = self.queries.expand(len(picture), -1, -1)
        for block in self.blocks:
            queries = block(queries, cells)
        return self.out(queries)


class FaceReader(nn.Module):
    """Face crop to an embedding: convolutions to a few cells, all of which are then read by one layer."""

    def __init__(self, pixels: int, widths: tuple[int, ...], out_width: int) -> None:
        super().__init__()
        self.pixels = pixels
        self.map = PictureMap(widths)
        self.out = nn.Linear((pixels // FACE_CELL) ** 2 * self.map.width, out_width)

    def forward(self, crop: Tensor) -> Tensor:
        """crop (B, 3, P, P) in -1..1 -> (B, out_width). Raises ValueError for another size."""
        if crop.ndim != 4 or tuple(crop.shape[1:]) != (3, self.pixels, self.pixels):
            raise ValueError(f"the face crop has shape {tuple(crop.shape)}; expected (B, 3, {self.pixels}, {self.pixels}) "
                             "(`mcld.inputs.face_crops` makes them)")
        return self.out(self.map(crop).flatten(1))


class Vision(nn.Module):
    """The three encoders of a checkpoint with `vision_widths`: image, texture, face."""

    def __init__(self, config: MCLDConfig) -> None:
        super().__init__()
        reader = (config.vision_widths, config.vision_width, config.vision_depth, config.vision_heads,
                  config.image_tokens, config.prompt_width)
        self.image = TokenReader(config.image_size, *reader)
        self.texture = TokenReader(config.image_size, *reader)
        self.face = FaceReader(config.face_pixels, tuple(width // 2 for width in config.vision_widths), config.face_width)
