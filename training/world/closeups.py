"""The demo's sheet: people side by side, with the face and a hand of each enlarged below."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from training.engine.picture import as_uint8
from training.world.bank import Bank
from training.world.measures import SOURCE_VIEW, TARGET_VIEW

GAP, LABEL = 4, 18          # pixels between pictures, and above the columns
FACE, HAND = 15.0, 11.0     # half sides of the close-ups at zoom 1, pixels
PER_LINE = 2                # people in a line
SOURCES = ("source",)       # columns that show the source's view; the others show the target's
WRISTS = (4, 7)             # of the 18 joints


def sheet(columns: Mapping[str, Tensor], bank: Bank) -> np.ndarray:
    """Columns (N, 3, H, W) in 0..1 by label, of the first N people of a bank -> (H', W', 3) uint8."""
    pictures = {name: as_uint8(column * 2 - 1) for name, column in columns.items()}
    count, height, width = next(iter(pictures.values())).shape[:3]
    side = (width - GAP) // 2
    cell_w, cell_h = width + GAP, height + side + 3 * GAP
    block = len(pictures) * cell_w + 3 * GAP
    lines = -(-count // PER_LINE)
    page = Image.new("RGB", (PER_LINE * block, LABEL + lines * cell_h), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(13)
    for person in range(count):
        line, slot = divmod(person, PER_LINE)
        for index, (name, column) in enumerate(pictures.items()):
            x, y = slot * block + index * cell_w, LABEL + line * cell_h
            if line == 0:
                draw.text((x + 2, 1), name, fill="black", font=font)
            picture = Image.fromarray(column[person])
            page.paste(picture, (x, y))
            view = SOURCE_VIEW if name in SOURCES else TARGET_VIEW
            for place, (centre, half) in enumerate(closeups(bank, person, view)):
                box = (centre[0] - half, centre[1] - half, centre[0] + half, centre[1] + half)
                crop = picture.transform((side, side), Image.Transform.EXTENT, box, Image.Resampling.BICUBIC,
                                         fillcolor=(255, 255, 255))
                page.paste(crop, (x + place * (side + GAP), y + height + GAP))
    return np.asarray(page)


def closeups(bank: Bank, person: int, view: int) -> list[tuple[np.ndarray, float]]:
    """(centre, half side) in pixels of the face and of the hand that lies most within the picture."""
    zoom, keypoints = float(bank.zoom[person, view]), bank.keypoints[person, view]
    height, width = bank.size
    face = bank.eyes[person, view].mean(0) + (0, 3.0 * zoom)
    inside = [min(x, y, width - x, height - y) for x, y in keypoints[list(WRISTS)]]
    wrist = WRISTS[int(np.argmax(inside))]
    forearm = keypoints[wrist] - keypoints[wrist - 1]
    hand = keypoints[wrist] + forearm / max(1e-3, float(np.hypot(*forearm))) * 6.0 * zoom
    return [(face, FACE * zoom), (hand, HAND * zoom)]
