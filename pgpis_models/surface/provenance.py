"""A picture of where a texture map comes from: a colour per photo, and another for what no photo shows."""

from __future__ import annotations

import numpy as np

from .densepose import IUV
from .merging import Merged
from .texture import render

# Of photos 1, 2, ...; told apart by people who see few colours (Okabe and Ito 2008).
COLOURS = {"orange": (230, 159, 0), "sky blue": (86, 180, 233), "green": (0, 158, 115), "yellow": (240, 228, 66),
           "blue": (0, 114, 178), "vermilion": (213, 94, 0), "purple": (204, 121, 167)}
INVENTED = (128, 128, 128)   # filled in
OUTSIDE = 255                # grey level around the person, on a pose


def sources_picture(merged: Merged) -> np.ndarray:
    """(H, W, 3) uint8 on the texture: the photos' COLOURS (from the eighth photo on again from the first), mixed as the
    photos are; INVENTED where the texel is filled in; black where nothing is known."""
    palette = np.array(list(COLOURS.values()), np.float32)
    colours = palette[np.arange(len(merged.shares)) % len(palette)]
    picture = np.rint(np.einsum("nhw,nc->hwc", merged.shares, colours)).astype(np.uint8)
    picture[merged.texture.valid & ~merged.texture.seen] = INVENTED
    picture[~merged.texture.valid] = 0
    return picture


def sources_on_pose(picture: np.ndarray, iuv: IUV) -> np.ndarray:
    """`sources_picture` on a person of that pose, (H, W, 3) uint8: black where nothing is known of the person, OUTSIDE
    around."""
    drawn, _ = render(picture, iuv)
    drawn[iuv.part == 0] = OUTSIDE
    return drawn
