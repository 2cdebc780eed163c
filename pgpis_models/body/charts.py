"""From the body's segments to DensePose: which of the 24 parts a point of the surface belongs to, and its u and v there."""

from __future__ import annotations

import numpy as np

from .figure import HEAD, L_ARM, L_LEG, R_ARM, R_LEG, SKIRT

# DensePose parts per segment: (back, front); for the head (right, left)
_PARTS = np.array([(1, 2), (23, 24), (16, 18), (20, 22), (3, 3), (15, 17), (19, 21), (4, 4),
                   (7, 9), (11, 13), (6, 6), (8, 10), (12, 14), (5, 5), (0, 0)], np.uint8)
_WHOLE = np.isin(np.arange(15), (R_ARM[2], L_ARM[2], R_LEG[2], L_LEG[2]))


def charts(segment: np.ndarray, angle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """DensePose part and u of each hit; both (K,)."""
    second, u = angle >= 0, np.abs(angle)
    skirt = np.flatnonzero(segment == SKIRT)
    if skirt.size:  # its left half shows the left thigh's charts from the outer to the inner seam, the right half alike
        segment = segment.copy()
        segment[skirt] = np.where(u[skirt] < 0.5, L_LEG[0], R_LEG[0])
        u[skirt] = (2 * u[skirt]) % 1
    head = np.flatnonzero(segment == HEAD)
    if head.size:   # u from the middle of the face to that of the back
        aside = (angle[head] + np.float32(0.5)) % np.float32(2.0) - np.float32(1.0)
        u[head], second[head] = np.abs(aside), aside < 0
    u = np.where(_WHOLE[segment], 0.5 + 0.5 * angle, u)
    return _PARTS[segment, second.astype(np.int8)], np.clip(u, 0, 1)
