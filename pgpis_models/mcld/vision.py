"""Small image encoders that an MCLD checkpoint may bring, for worlds without CLIP and face recognition (the demo).

They stand where the authors' frozen encoders stand: one tower for source photo -> tokens I and texture map -> tokens A, and
face crop -> the face embedding. They are trained with the method. Published sizes have none.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..parts.swin_tower import SwinTower
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
            raise ValueError(f"face_widths is {tuple(widths)}; expected three, one per halving to 1/{CELL}")
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
                             "(`mcld_inputs.face_crops` makes them)")
        return self.out(self.map(crop).flatten(1))


class Vision(nn.Module):
    """What a checkpoint brings in place of CLIP (`tower`, for photo and texture map) and of face recognition (`face`)."""

    def __init__(self, config: MCLDConfig) -> None:
        super().__init__()
        self.tower = SwinTower(config.vision, mean=(0.5,) * 3, std=(0.5,) * 3)   # takes pictures in -1..1 as they are
        self.face = FaceReader(config.face_pixels, config.face_widths, config.face_width)
