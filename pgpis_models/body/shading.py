"""Light on the body: a soft key light from the upper left, the sky, and what lies nearby takes a little of both."""

from __future__ import annotations

import numpy as np

from .raster import Hits

_LIGHT = np.array((-0.42, 0.52, 0.744), np.float32)  # unit, from the upper left behind the camera


def shade(normal: np.ndarray) -> np.ndarray:
    """(N,) factor 0.6..1 at points: a soft key light from the upper left, and the sky above."""
    key = 0.5 + 0.5 * (normal @ _LIGHT)
    return np.minimum(0.60 + 0.36 * key * key + 0.06 * (0.5 + 0.5 * normal[:, 1]), 1.0)


def covered(depth: np.ndarray, around: np.ndarray) -> np.ndarray:
    """(N,) share of light, 0..0.3, that points lose to what lies nearby and nearer. depth (N,): of the points, as in
    `Hits`; around (N,): `surroundings` at them."""
    return np.float32(0.30) * np.clip((around - depth - np.float32(0.004)) * np.float32(14.0), 0, 1)


def surroundings(hits: Hits, height: int, width: int, reach: float) -> np.ndarray:
    """(H * W,) mean depth of the person's surface within `reach` pixels."""
    import cv2

    depth, inside = np.zeros((2, height * width), np.float32)
    depth[hits.sample], inside[hits.sample] = hits.depth, 1.0
    stack = np.stack([depth, inside], axis=1).reshape(height, width, 2)
    side = 2 * max(1, round(reach)) + 1
    for _ in range(2):
        stack = cv2.blur(stack, (side, side), borderType=cv2.BORDER_REPLICATE)
    return (stack[..., 0] / np.maximum(stack[..., 1], np.float32(1e-3))).ravel()
