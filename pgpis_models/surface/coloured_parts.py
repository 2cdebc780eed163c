"""DensePose pictures that show parts as colours, as comfyui_controlnet_aux's DensePose Estimator makes them.

Part p has the colour 255 p / 24 (truncated) of OpenCV's map viridis (MagicAnimate's) or parula; the ground is viridis's
darkest colour or black. Such a picture holds no U and V.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from .densepose import IUV, PARTS, check_picture

MAPS = {"viridis": (68, 1, 84), "parula": (0, 0, 0)}   # with their ground, RGB
NEAR = 4.5      # Euclidean distance of 8-bit RGB: what is nearer to a colour is that colour, since neighbours lie 9 apart
CHUNK = 2 ** 14   # pixels that are compared at a time
SURE = 0.9      # share of the pixels that must be; the rest lies along edges of pictures that were resized or saved as JPEG


@cache
def colours_of(name: str) -> np.ndarray:
    """(25, 3) uint8 RGB: the ground's colour, and those of parts 1 to 24."""
    import cv2  # no cost when the host starts
    values = (np.arange(PARTS + 1, dtype=np.float32) * np.float32(255 / PARTS)).astype(np.uint8)
    table = cv2.applyColorMap(values[:, None], getattr(cv2, f"COLORMAP_{name.upper()}"))[:, 0, ::-1].copy()
    table[0] = MAPS[name]
    return table


def read_coloured_parts(picture: np.ndarray) -> IUV:
    """Coloured picture (H, W, 3) uint8 RGB of either map -> IUV whose U and V are 0 everywhere.

    Raises ValueError for a picture of other colours.
    """
    check_picture(picture, "the DensePose picture")
    found = {name: _nearest(picture.reshape(-1, 3), colours_of(name)) for name in MAPS}
    shares = {name: float(near.mean()) for name, (_, near) in found.items()}
    best = max(shares, key=shares.__getitem__)
    if shares[best] < SURE:
        raise ValueError(f"{shares[best]:.0%} of the DensePose picture's pixels have a colour of the map {best}, the "
                         f"nearest of {', '.join(MAPS)}; expected {SURE:.0%} or more. Take the picture of controlnet_aux's "
                         "DensePose Estimator as it is, never resized with interpolation")
    part = found[best][0].reshape(picture.shape[:2])
    return IUV(part, np.zeros(part.shape, np.float32), np.zeros(part.shape, np.float32))


def looks_coloured(picture: np.ndarray) -> bool:
    """Whether `read_coloured_parts` would read it."""
    try:
        return bool(read_coloured_parts(picture).part.any())
    except ValueError:
        return False


def has_charts(iuv: IUV) -> bool:
    """Whether U and V are known: False for what coloured pictures give."""
    return bool(iuv.u.any() or iuv.v.any())


def _nearest(colours: np.ndarray, table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Colours (N, 3) uint8 -> index (N,) uint8 of the nearest row of a table, and whether it is NEAR."""
    index, near = np.empty(len(colours), np.uint8), np.empty(len(colours), bool)
    rows, wide = table.astype(np.float32), np.float32(1 << len(table).bit_length())   # more than rows
    # wide times |row|^2 - 2 row * colour, plus the row's number: whole numbers, below 2 ** 24 for up to 31 rows: exact
    factors = np.concatenate([-2 * wide * rows, wide * np.square(rows).sum(1, keepdims=True)
                              + np.arange(len(rows), dtype=np.float32)[:, None]], 1)
    for first in range(0, len(colours), CHUNK):   # distances of all would take thirty times the picture
        part = slice(first, first + CHUNK)
        some = np.ones((4, len(colours[part])), np.float32)
        some[:3] = colours[part].T
        away, index[part] = np.divmod((factors @ some).min(0), wide)
        near[part] = away + np.square(some[:3]).sum(0) <= NEAR ** 2
    return index, near
