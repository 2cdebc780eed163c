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
    flat, where = np.unique(picture.reshape(-1, 3), axis=0, return_inverse=True)
    count = np.bincount(where.ravel(), minlength=len(flat))
    found = {name: _nearest(flat, colours_of(name)) for name in MAPS}
    shares = {name: float(count[away <= NEAR].sum() / count.sum()) for name, (_, away) in found.items()}
    best = max(shares, key=shares.__getitem__)
    if shares[best] < SURE:
        raise ValueError(f"{shares[best]:.0%} of the DensePose picture's pixels have a colour of the map {best}, the "
                         f"nearest of {', '.join(MAPS)}; expected {SURE:.0%} or more. Take the picture of controlnet_aux's "
                         "DensePose Estimator as it is, never resized with interpolation")
    part = found[best][0][where.ravel()].reshape(picture.shape[:2]).astype(np.uint8)
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
    """Colours (N, 3) -> index (N,) of the nearest row of a table, and the distance to it."""
    away = np.linalg.norm(colours[:, None].astype(np.float32) - table[None], axis=-1)
    return away.argmin(1), away.min(1)
