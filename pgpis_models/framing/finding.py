"""People in masks, and a person in front of a plain ground."""

from __future__ import annotations

import numpy as np

from .bodies import bounds

GROUND = 0.07     # Euclidean distance of RGB in 0..1: nearer to the ground's colour is ground, shadows on it included
PLAIN = 0.75      # share of a photo's border that a plain ground fills
PERSON = 0.1      # of the largest patch of a mask: smaller ones are parts of a person, not people
SPECK = 0.002     # of the picture: what stands out of the ground and is smaller is nobody


def people_in(mask: np.ndarray) -> list[np.ndarray]:
    """Mask (H, W) bool -> one mask per person, from left to right: its large connected patches. Small patches go with the
    person whose box is nearest."""
    import cv2  # no cost when the host starts
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    areas = stats[1:count, cv2.CC_STAT_AREA]
    large = [label for label in range(1, count) if areas[label - 1] >= PERSON * areas.max()]
    large.sort(key=lambda label: stats[label, cv2.CC_STAT_LEFT])
    people = [labels == label for label in large]
    boxes = [bounds(person) for person in people]
    for label in set(range(1, count)) - set(large):
        x, y, width, height = stats[label, :4]
        gaps = [max(x0 - x - width, x - x1, 0) + max(y0 - y - height, y - y1, 0) for x0, y0, x1, y1 in boxes]
        nearest = int(np.argmin(gaps))
        if gaps[nearest] < 0.1 * (boxes[nearest][3] - boxes[nearest][1]):
            people[nearest] |= labels == label
    return people


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
