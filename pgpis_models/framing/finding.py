"""People in masks, and a person in front of a plain ground."""

from __future__ import annotations

import numpy as np

GROUND = 0.07     # Euclidean distance of RGB in 0..1: nearer to the ground's colour is ground, shadows on it included
PLAIN = 0.75      # share of a photo's border that a plain ground fills
PERSON = 0.1      # of the largest patch of a mask: smaller ones are parts of a person, not people
SPECK = 0.002     # of the picture: what stands out of the ground and is smaller is nobody


def people_in(mask: np.ndarray) -> np.ndarray:
    """Mask (H, W) bool -> (H, W) int32: 0 where nobody is, then a number per person from left to right. People are the large
    connected patches; small patches go with the person whose box is nearest."""
    import cv2  # no cost when the host starts
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    x, y, width, height, areas = stats[1:count].T
    large = np.flatnonzero(areas >= PERSON * areas.max())
    large = large[np.argsort(x[large], kind="stable")]
    person = np.zeros(count, np.int32)   # of each label; 0 is the ground's
    person[large + 1] = np.arange(1, len(large) + 1)
    x0, y0, x1, y1 = x[large], y[large], (x + width)[large], (y + height)[large]
    reach, widest = 0.1 * (y1 - y0).max(), (x1 - x0).max()   # beyond it no person is near
    small = np.flatnonzero(person[1:] == 0)
    small = small[np.argsort(x[small], kind="stable")]
    for patch in np.array_split(small, len(small) // 128 + 1) if len(small) else ():
        left, right, top = x[patch, None], (x + width)[patch, None], y[patch, None]
        first, last = np.searchsorted(x0, (left.min() - reach - widest, right.max() + reach))
        some = slice(first, last + 1)
        if first == len(x0):
            continue
        gaps = np.maximum(np.maximum(x0[some] - right, left - x1[some]), 0)
        gaps += np.maximum(np.maximum(y0[some] - top - height[patch, None], top - y1[some]), 0)
        nearest = gaps.argmin(1)
        close = gaps.min(1) < 0.1 * (y1 - y0)[some][nearest]
        person[patch[close] + 1] = first + nearest[close] + 1
    return person[labels]


def before_ground(photo: np.ndarray) -> np.ndarray | None:
    """Photo (H, W, 3) uint8 -> (H, W) bool, where it differs from its plain ground; None when its border shows no such."""
    colour = ground_colour(photo)
    away = np.sqrt(np.square((photo.astype(np.float32) - colour) / 255).sum(-1)) > GROUND
    border = np.concatenate([away[0], away[-1], away[:, 0], away[:, -1]])
    if border.mean() > 1 - PLAIN:
        return None
    import cv2  # no cost when the host starts
    count, labels, stats, _ = cv2.connectedComponentsWithStats(away.astype(np.uint8), connectivity=8)
    specks = np.flatnonzero(stats[:, cv2.CC_STAT_AREA] < SPECK * away.size)
    return away & ~np.isin(labels, specks)


def ground_colour(photo: np.ndarray) -> np.ndarray:
    """(3,) float32, the median along the border of a photo (H, W, 3)."""
    border = np.concatenate([photo[0], photo[-1], photo[:, 0], photo[:, -1]])
    return np.median(border, axis=0).astype(np.float32)
