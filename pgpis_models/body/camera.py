"""The camera that walks around the body: parallel rays, so that a limb is as long far away as near."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from .raster import View
from .skeleton import about_left, about_up


@dataclass(frozen=True)
class Camera:
    """yaw: degrees around the upright axis, towards the body's left side (0 looks at its front, 90 at its left, 180 at its
    back); pitch: degrees that it looks down; zoom: picture heights per body height; x, y: where the middle of the hips
    stands, picture heights right of and above the picture's middle."""

    yaw: float = 0.0
    pitch: float = 5.0
    zoom: float = 0.86
    x: float = 0.0
    y: float = 0.0

    def view(self, size: tuple[int, int]) -> View:
        """What it sees on a canvas of (H, W) pixels."""
        height, width = size
        rotation = about_left(math.radians(self.pitch)) @ about_up(-math.radians(self.yaw))
        scale = self.zoom * height
        return View(rotation, scale, (-0.5 * width / height - self.x) / self.zoom, (0.5 - self.y) / self.zoom)


def walked_around(camera: Camera, steps: int) -> list[Camera]:
    """`steps` cameras at equal angles all around, the first as given."""
    return [replace(camera, yaw=(camera.yaw + 360.0 * step / steps + 180.0) % 360.0 - 180.0) for step in range(steps)]


def fitted(camera: Camera, points: np.ndarray, size: tuple[int, int], margin: float = 0.03) -> Camera:
    """The camera with zoom, x and y such that points (N, 3) fill a canvas of (H, W) pixels up to a margin, in picture
    heights."""
    height, width = size
    seen = points @ Camera(camera.yaw, camera.pitch).view(size).rotation[:2].T
    (left, low), (right, high) = seen.min(0), seen.max(0)
    zoom = float(min((1 - 2 * margin) / (high - low), (width / height - 2 * margin) / (right - left)))
    return Camera(camera.yaw, camera.pitch, zoom, float(-zoom * (left + right) / 2), float(-zoom * (low + high) / 2))
