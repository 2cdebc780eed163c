"""Letters and signs that clothes carry."""

from __future__ import annotations

import math

import numpy as np

# Letters as strokes in the square -1..1, y up
_STROKES = {
    "A": ((-0.78, -1, 0, 1), (0.78, -1, 0, 1), (-0.5, -0.3, 0.5, -0.3)), "E": ((-0.6, -1, -0.6, 1), (-0.6, 1, 0.7, 1),
          (-0.6, 0, 0.5, 0), (-0.6, -1, 0.7, -1)), "H": ((-0.7, -1, -0.7, 1), (0.7, -1, 0.7, 1), (-0.7, 0, 0.7, 0)),
    "K": ((-0.65, -1, -0.65, 1), (-0.6, -0.1, 0.7, 1), (-0.2, 0.2, 0.75, -1)), "N": ((-0.7, -1, -0.7, 1), (0.7, -1, 0.7, 1),
          (-0.7, 1, 0.7, -1)), "T": ((-0.8, 1, 0.8, 1), (0, -1, 0, 1)), "X": ((-0.75, -1, 0.75, 1), (-0.75, 1, 0.75, -1)),
    "Z": ((-0.7, 1, 0.7, 1), (0.7, 1, -0.7, -1), (-0.7, -1, 0.7, -1)),
}


def inside_emblem(name: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Inside of a letter or sign in the square -1..1, y up; x and y (N,) -> (N,) bool."""
    if name in _STROKES:
        inside = np.zeros(x.shape, bool)
        for x0, y0, x1, y1 in _STROKES[name]:
            dx, dy = 0.85 * (x1 - x0), 0.80 * (y1 - y0)  # room for half the width of the stroke
            along = np.clip(((x - 0.85 * x0) * dx + (y - 0.80 * y0) * dy) / (dx * dx + dy * dy), 0, 1)
            inside |= (x - 0.85 * x0 - along * dx) ** 2 + (y - 0.80 * y0 - along * dy) ** 2 < 0.21 ** 2
        return inside
    r, angle = np.hypot(x, y), np.arctan2(x, y)
    if name == "heart":
        a, b = np.abs(x) * 1.15, y * 1.15 - 0.15
        return (a * a + b * b - 1) ** 3 < 1.6 * a * a * b ** 3
    if name == "star":
        sector = np.abs((angle / (2 * math.pi / 5) + 0.5) % 1.0 - 0.5) * 2  # 0 at a tip, 1 between two
        return r < 1.0 - 0.55 * np.sqrt(sector)
    if name == "ring":
        return (r < 1.0) & (r > 0.52)
    return ((np.abs(x) < 0.32) | (np.abs(y) < 0.32)) & (np.maximum(np.abs(x), np.abs(y)) < 1.0)
