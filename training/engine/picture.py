"""Labelled picture grids: the form in which results are looked at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

GAP = 4        # pixels between pictures
LABEL = 18     # pixels above each column


def grid(columns: Sequence[Tensor | np.ndarray], labels: Sequence[str], scale: int = 2, per_row: int = 2) -> np.ndarray:
    """Pictures side by side: one row per item, one column per kind, `per_row` items in a line.

    columns: each (B, 3, H, W) in -1..1 or (B, H, W, 3) uint8. Returns (H, W, 3) uint8.
    """
    pictures = [as_uint8(column) for column in columns]
    count, height, width = pictures[0].shape[:3]
    lines = -(-count // per_row)
    cell_w, cell_h = width * scale + GAP, height * scale + GAP
    sheet = Image.new("RGB", (per_row * (len(pictures) * cell_w + 3 * GAP), LABEL + lines * cell_h), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(13)
    for item in range(count):
        line, slot = divmod(item, per_row)
        for index, column in enumerate(pictures):
            x = slot * (len(pictures) * cell_w + 3 * GAP) + index * cell_w
            if line == 0:
                draw.text((x + 2, 1), labels[index], fill="black", font=font)
            picture = Image.fromarray(column[item]).resize((width * scale, height * scale), Image.Resampling.NEAREST)
            sheet.paste(picture, (x, LABEL + line * cell_h))
    return np.asarray(sheet)


def as_uint8(pictures: Tensor | np.ndarray) -> np.ndarray:
    """(B, 3, H, W) in -1..1 -> (B, H, W, 3) uint8; uint8 arrays pass through."""
    if isinstance(pictures, np.ndarray):
        return pictures
    return ((pictures.detach().float().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
