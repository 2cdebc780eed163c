"""What each pixel of a drawn person shows, from the painter itself: a pixel shows a garment where its paint follows that
garment's colour, and hair above the hairline of the head's chart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pgpis_models.body.head import HAIR_STYLES, HEAD_SPAN, hairline
from training.world.drawing import Rendering
from training.world.paint import albedo
from training.world.wardrobe import Identity

CHIN = 0.047   # height on the head's chart, body heights: the skull's grid ends here, the neck's chart lies below 0.024


def drawn_parts(who: Identity, drawn: Rendering) -> dict[str, np.ndarray]:
    """Masks (H, W) bool by the names that `part_mask` knows. A dress is cut at its waist, where the two paints meet."""
    shown = drawn.part > 0
    part, u, v = drawn.part[shown], drawn.u[shown], drawn.v[shown]

    def follows(*colours: str) -> np.ndarray:
        red, blue = (albedo(replace(who, **dict.fromkeys(colours, dye)), part, u, v) for dye in ((1., 0., 0.), (0., 0., 1.)))
        return np.abs(red - blue).max(1) > 0.3
    height = HEAD_SPAN[1] - v * (HEAD_SPAN[1] - HEAD_SPAN[0])
    angle = np.where(part == 24, 0.5 - u, 0.5 + u)
    hair = (part >= 23) & (height > hairline(HAIR_STYLES[who.hair_style], angle))
    upper, lower = follows("top", "top_second", "letter_rgb"), follows("bottom", "bottom_second")
    face = (part >= 23) & ~hair & (height > CHIN) & ~upper
    belt = follows("belt") if who.belt is not None else np.zeros(len(part), bool)
    flat = {"upper garment": upper, "lower garment": lower, "all clothes": upper | lower | belt, "hair": hair,
            "skin": face | (follows("skin") & ~hair), "face": face}
    masks = {name: np.zeros(drawn.part.shape, bool) for name in flat}
    for name, values in flat.items():
        masks[name][shown] = values
    return masks


def grown(mask: np.ndarray, pixels: int) -> np.ndarray:
    """The mask with everything within so many pixels of it, along rows and columns."""
    padded = np.pad(mask, pixels)
    height, width = mask.shape
    return np.any([padded[y:y + height, x:x + width] for y in range(2 * pixels + 1) for x in range(2 * pixels + 1)], axis=0)
