"""What stands around a person: a plain light ground, the soft shadow on it, and the box of those who sit.

All of it stays within 0.05 (RGB distance) of the ground's colour, so a person is where the picture differs from it.
"""

from __future__ import annotations

import numpy as np

from pgpis_models.body.mesh import Mesh
from pgpis_models.body.raster import View
from pgpis_models.body.skeleton import Pose, Skeleton

from .wardrobe import BACKGROUND

DARKEST = 0.030   # share of light that shadow or box may take; 0.030 of BACKGROUND is 0.045 in RGB distance
_BOX = ((-0.130, 0.130), (-0.135, 0.130))   # left and forward of the hips
SEAT = -0.060     # height of the box's top above the hips
_FACES = ((0, 1, 5, 4, 0.020), (1, 3, 7, 5, 0.026), (3, 2, 6, 7, 0.020), (2, 0, 4, 6, 0.012))   # corners, light they lose


def paint_stage(mesh: Mesh, skeleton: Skeleton, pose: Pose, view: View, size: tuple[int, int]) -> np.ndarray:
    """The picture without its person, (H * W, 3) float32 RGB 0..1."""
    height, width = size
    floor = float(mesh.points[:, 1].min())
    lost = np.zeros((height, width), np.float32)
    places = [bones[1].end for bones in skeleton.legs]
    blobs = [((place[0], place[2]), 0.060, float(np.exp(-8 * max(0.0, place[1] - floor - 0.05)))) for place in places]
    middle = (np.mean([p[0] for p in places]), np.mean([p[2] for p in places]))
    blobs.append((middle, 0.17, 0.45))
    for (x, z), radius, strength in blobs:
        _blob(lost, view, np.array([x, floor, z + 0.01]), radius, strength * DARKEST)
    np.minimum(lost, DARKEST, out=lost)
    if pose.seated:
        _box(lost, skeleton, view, floor)
    return (np.array(BACKGROUND, np.float32) * (1 - lost[..., None])).reshape(-1, 3)


def _blob(lost: np.ndarray, view: View, place: np.ndarray, radius: float, strength: float) -> None:
    """A soft round shadow on the floor, seen from the side an ellipse."""
    height, width = lost.shape
    x, y, _ = view.project(place[None])[0]
    wide = radius * view.scale
    tall = wide * 0.22
    y0, y1 = int(max(0, y - 2.5 * tall)), int(min(height, y + 2.5 * tall + 1))
    if y1 <= y0:
        return
    across = np.exp(-(((np.arange(width) + 0.5 - x) / wide) ** 2)).astype(np.float32)
    down = np.exp(-(((np.arange(y0, y1) + 0.5 - y) / tall) ** 2)).astype(np.float32)
    lost[y0:y1] += np.float32(strength) * down[:, None] * across


def _box(lost: np.ndarray, skeleton: Skeleton, view: View, floor: float) -> None:
    """A studio cube below the hips, in the ground's own colour: faces that the camera sees, a little darker."""
    (x0, x1), (z0, z1) = _BOX
    corners = np.array([(x, 0.0, z) for x in (x0, x1) for z in (z0, z1)]) @ skeleton.pelvis.T
    top, bottom = corners + (0, SEAT, 0), corners + (0, floor, 0)
    points = view.project(np.concatenate([top, bottom]))[:, :2]
    _quad(lost, points[[0, 1, 3, 2]], 0.003)
    for *index, tone in _FACES:
        # seen from outside a face runs clockwise in the picture
        _quad(lost, points[index], tone)


def _quad(lost: np.ndarray, corners: np.ndarray, tone: float) -> None:
    """Fills a convex quadrilateral (4, 2) that runs clockwise in the picture (rows go down); another is seen from behind."""
    height, width = lost.shape
    (x0, y0), (x1, y1) = np.floor(corners.min(0)).astype(int), np.ceil(corners.max(0)).astype(int)
    x0, y0, x1, y1 = max(0, x0), max(0, y0), min(width, x1), min(height, y1)
    edges = np.roll(corners, -1, 0) - corners
    if x1 <= x0 or y1 <= y0 or edges[0, 0] * edges[1, 1] - edges[0, 1] * edges[1, 0] <= 0:
        return
    x, y = np.arange(x0, x1) + 0.5, (np.arange(y0, y1) + 0.5)[:, None]
    cover = np.ones((y1 - y0, x1 - x0))
    for (px, py), (ex, ey) in zip(corners, edges, strict=True):
        inside = (ex * (y - py) - ey * (x - px)) / max(1e-6, float(np.hypot(ex, ey)))
        np.minimum(cover, np.clip(inside + 0.5, 0, 1), out=cover)
    part = lost[y0:y1, x0:x1]
    part += (cover * (tone - part)).astype(np.float32)
