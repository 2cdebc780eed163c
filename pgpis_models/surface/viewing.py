"""How well a photo shows the surface under each pixel: how many pixels it spends there, how obliquely it looks, how near the
outline is, and how sharp it is. Read from the Jacobian of U and V over pixels, so that it holds for any photo."""

from __future__ import annotations

import numpy as np

from .densepose import IUV
from .filling import opencv
from .layout import TILE

JUMP = 40.0        # texels between neighbouring pixels, from which on they do not touch on the body
WINDOW = 5         # pixels per side over which the Jacobian is averaged: U and V come in 8 bits
FACING = 0.9       # quantile of a part's pixel density that counts as seen straight on
OUTLINE = 3.0      # pixels from a part's outline, up to which the background shines through or the part is ill placed
FLAT = 1e-3        # change of grey (0..1) below which a photo says nothing of its sharpness
FOLDED = 0.05      # texels (area) per pixel; less is a fault of U and V, not a closer look


def quality(iuv: IUV) -> tuple[np.ndarray, np.ndarray]:
    """(H, W) float32 each: quality of the pixel's view, and texels between it and its neighbour where they are farthest.

    Quality is pixels per texel (area), times the cosine of the angle between surface and view, as the part's own best
    density shows it, and falls to a third at the part's outline. Between photos at one texel the stretch of the chart
    cancels, so that they compare. 0 and 0 where there is no part.
    """
    cv2 = opencv()
    good, step = np.zeros(iuv.size, np.float32), np.zeros(iuv.size, np.float32)
    across, down = iuv.u * np.float32(TILE - 1), iuv.v * np.float32(1 - TILE)
    for part in np.unique(iuv.part[iuv.part > 0]):
        mask = iuv.part == part
        place = tuple(slice(found[0], found[-1] + 1) for found in (np.flatnonzero(mask.any(axis)) for axis in (1, 0)))
        inside = mask[place]
        longest, area = stretch(across[place], down[place], inside)
        density = 1 / np.maximum(area, FOLDED)
        best = np.quantile(density[inside], FACING)
        density = np.minimum(density, best)
        padded = np.pad(inside, 1).astype(np.uint8)
        border = cv2.distanceTransform(padded, cv2.DIST_L2, 3)[1:-1, 1:-1]
        value = density * (density / best) * np.minimum(border / OUTLINE, 1)
        good[place][inside], step[place][inside] = value[inside], longest[inside]
    return good, step


def stretch(across: np.ndarray, down: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Texels per pixel of one part: in the direction in which they are most (the Jacobian's larger singular value), and as
    an area (its determinant); JUMP and its square for a pixel alone. across, down (h, w): the texel's coordinates; inside
    (h, w) bool: the part."""
    (a, b), (c, d) = (_slopes(value, inside, (across, down)) for value in (across, down))
    area = np.nan_to_num(np.abs(a * d - b * c), nan=JUMP * JUMP)
    square = a * a + b * b + c * c + d * d
    longest = np.sqrt((square + np.sqrt(np.maximum(square * square - 4 * area * area, 0))) / 2)
    return np.nan_to_num(np.minimum(longest, JUMP), nan=JUMP), area


def _slopes(value: np.ndarray, inside: np.ndarray, place: tuple[np.ndarray, np.ndarray]) -> list[np.ndarray]:
    """Change of `value` per pixel, along columns and along rows, averaged over neighbours that touch on the body; nan where
    none does. place: the texel's two coordinates, which say what touches."""
    cv2, found = opencv(), []
    for axis in (1, 0):
        first, second = (np.s_[:, :-1], np.s_[:, 1:]) if axis else (np.s_[:-1], np.s_[1:])
        touch = inside[first] & inside[second]
        for each in place:
            touch = touch & (np.abs(each[second] - each[first]) < JUMP)
        total, count = np.zeros(value.shape, np.float32), np.zeros(value.shape, np.float32)
        for side in (first, second):
            total[side] += np.where(touch, value[second] - value[first], 0)
            count[side] += touch
        total, count = (cv2.boxFilter(each, -1, (WINDOW, WINDOW), normalize=False, borderType=cv2.BORDER_CONSTANT)
                        for each in (total, count))
        found.append(np.where(count > 0.5, total / np.maximum(count, 1), np.float32(np.nan)))
    return found


def sharpness(image: np.ndarray, iuv: IUV) -> float:
    """Fine detail of the person over coarse detail, about 0 for a blurred photo and 1 for a sharp one; of image (H, W, 3)
    uint8. The ratio does not tell stripes from plain cloth, as their contrast would. 1 where there is nothing to see."""
    cv2 = opencv()
    grey = sum(image[..., channel].astype(np.float32) for channel in range(3)) / 3 / 255
    inside = cv2.erode((iuv.part > 0).astype(np.uint8), np.ones((5, 5), np.uint8)).view(bool)   # not the outline's own edge
    once, twice = (cv2.GaussianBlur(grey, (0, 0), sigma) for sigma in (1.0, 2.0))
    if not inside.any() or (coarse := float(np.abs(once - twice)[inside].mean())) < FLAT:
        return 1.0
    return min(float(np.abs(grey - once)[inside].mean()) / coarse, 1.0)
