"""Surfaces as grids of points: tubes, bent tubes, smooth normals, and all grids of a body joined into one mesh.

A grid has rings along an axis and columns around it. Columns run from angle -1 (the person's right, from behind) over -0.5
(back), 0 (left), 0.5 (front) to 1 (right again); rings run along the axis, so that (left, front, along) is right-handed.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Mesh:
    """points, normals (N, 3) float32; chart (N, 2) float32: angle -1..1 and v 0..1; triangles (T, 3) int32,
    counter-clockwise from outside; segment (T,) int8: see figure.py."""

    points: np.ndarray
    normals: np.ndarray
    chart: np.ndarray
    triangles: np.ndarray
    segment: np.ndarray


class Grids:
    """Collects grids and joins them into a Mesh."""

    def __init__(self) -> None:
        self._points, self._normals, self._charts, self._shapes, self._segments = [], [], [], [], []

    def add(self, segment: int, points: np.ndarray, normals: np.ndarray, angle: np.ndarray, v: np.ndarray) -> None:
        """points, normals (R, C, 3); angle (C,) or (R, C) in -1..1; v (R,) or (R, C)."""
        rings, columns = points.shape[:2]
        chart = np.empty((rings, columns, 2), np.float32)
        chart[..., 0] = angle
        chart[..., 1] = v if v.ndim == 2 else v[:, None]
        self._points.append(points.reshape(-1, 3))
        self._normals.append(normals.reshape(-1, 3))
        self._charts.append(chart.reshape(-1, 2))
        self._shapes.append((rings, columns))
        self._segments.append(segment)

    def mesh(self) -> Mesh:
        triangles, owner = _triangles(tuple(self._shapes))
        return Mesh(np.concatenate(self._points).astype(np.float32), np.concatenate(self._normals).astype(np.float32),
                    np.concatenate(self._charts).clip((-1, 0), (1, 1)), triangles, np.array(self._segments, np.int8)[owner])


@functools.lru_cache(maxsize=64)
def _triangles(shapes: tuple[tuple[int, int], ...]) -> tuple[np.ndarray, np.ndarray]:
    """Vertex numbers (T, 3) of all grids and the grid (T,) of each triangle."""
    made, owner, start = [], [], 0
    for number, (rings, columns) in enumerate(shapes):
        index = np.arange(rings * columns, dtype=np.int32).reshape(rings, columns) + start
        a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
        pair = np.stack([np.stack([a, b, c], -1), np.stack([b, d, c], -1)], 2).reshape(-1, 3)
        made.append(pair)
        owner.append(np.full(len(pair), number, np.int32))
        start += rings * columns
    return np.concatenate(made), np.concatenate(owner)


@functools.lru_cache(maxsize=16)
def columns(count: int) -> np.ndarray:
    """Angles (count + 1,) in units of pi at equal distances; the first and the last are one place."""
    return np.linspace(-1, 1, count + 1)


def ring(angle: np.ndarray, power: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Left and front share (C,) of points around a section; power below 1 makes it boxier."""
    c, s = np.cos(np.pi * angle), np.sin(np.pi * angle)
    if power != 1.0:
        c, s = np.sign(c) * np.abs(c) ** power, np.sign(s) * np.abs(s) ** power
    return c, s


@functools.lru_cache(maxsize=128)
def _curve(places: tuple[float, ...], values: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places, values and slopes of a curve that never leaves the range of neighbouring values (Fritsch and Butland)."""
    x, y = np.asarray(places, float), np.asarray(values, float)
    width, rise = np.diff(x), np.diff(y) / np.diff(x)
    slope = np.zeros(len(x))
    same = rise[1:] * rise[:-1] > 0
    a, b = 2 * width[1:] + width[:-1], width[1:] + 2 * width[:-1]
    slope[1:-1][same] = ((a + b)[same]) / (a[same] / rise[:-1][same] + b[same] / rise[1:][same])
    slope[0], slope[-1] = rise[0], rise[-1]
    return x, y, slope


def smooth(at: np.ndarray, places: tuple[float, ...], values: tuple[float, ...]) -> np.ndarray:
    """A smooth monotone-piecewise curve through (places, values), constant outside, at `at` (any shape)."""
    places, values, slope = _curve(tuple(places), tuple(values))
    n = np.clip(np.searchsorted(places, at, side="right") - 1, 0, len(places) - 2)
    width = places[n + 1] - places[n]
    t = np.clip((at - places[n]) / width, 0, 1)
    a, b = values[n], values[n + 1]
    return (a * (1 + 2 * t) * (1 - t) ** 2 + b * (3 - 2 * t) * t * t
            + width * t * (1 - t) * (slope[n] * (1 - t) - slope[n + 1] * t))


def grid_normals(points: np.ndarray) -> np.ndarray:
    """Outward unit normals (R, C, 3) of a grid whose first and last columns are one place."""
    down = np.empty_like(points)
    down[1:-1] = points[2:] - points[:-2]
    down[0], down[-1] = points[1] - points[0], points[-1] - points[-2]
    around = np.empty_like(points)
    around[:, 1:-1] = points[:, 2:] - points[:, :-2]
    around[:, 0] = around[:, -1] = points[:, 1] - points[:, -2]
    a0, a1, a2, d0, d1, d2 = (*np.moveaxis(around, 2, 0), *np.moveaxis(down, 2, 0))
    normals = np.stack([a1 * d2 - a2 * d1, a2 * d0 - a0 * d2, a0 * d1 - a1 * d0], axis=2)
    normals /= np.sqrt((normals * normals).sum(2, keepdims=True)) + 1e-12
    for end in (0, -1):   # at a pole all columns are one point with one normal
        if np.abs(points[end, 0] - points[end, points.shape[1] // 2]).max() < 2e-3:
            mean = normals[end].mean(0)
            normals[end] = mean / (np.sqrt(mean @ mean) + 1e-12)
    return normals


def tube(centres: np.ndarray, left: np.ndarray, front: np.ndarray, wide: np.ndarray, deep: np.ndarray,
         section: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Points (R, C, 3): centres (R, 3), axes (R, 3) or (3,), half widths and depths (R,), section from `ring`."""
    across = np.broadcast_to(left, centres.shape)[:, None] * (wide[:, None] * section[0])[..., None]
    ahead = np.broadcast_to(front, centres.shape)[:, None] * (deep[:, None] * section[1])[..., None]
    return centres[:, None] + across + ahead


def follow(bones: tuple, stations: np.ndarray, rounding: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centres, left and front axes, each (R, 3), at `stations` (distance from the first bone's origin) along two bones.

    The corner between them is a parabola that begins `rounding` before the joint and ends as far behind it.
    """
    first, second = bones
    a, b = first.frame[:, 2], second.frame[:, 2]
    t = np.clip((stations - first.length + rounding) / (2 * rounding), 0, 1)[:, None]
    past = np.maximum(stations - first.length - rounding, 0)[:, None]
    before = np.minimum(stations - first.length + rounding, 0)[:, None]
    centres = second.origin + rounding * (t * t * b - (1 - t) ** 2 * a) + before * a + past * b
    along = (1 - t) * a + t * b
    along /= np.sqrt((along * along).sum(1, keepdims=True))
    # the smallest rotation from a to `along`, applied to both axes of the first bone
    k = np.stack([a[1] * along[:, 2] - a[2] * along[:, 1], a[2] * along[:, 0] - a[0] * along[:, 2],
                  a[0] * along[:, 1] - a[1] * along[:, 0]], axis=1)
    scale = 1 / np.maximum(1e-6, 1 + along @ a)[:, None]

    def turned(x):
        kx = np.stack([k[:, 1] * x[2] - k[:, 2] * x[1], k[:, 2] * x[0] - k[:, 0] * x[2], k[:, 0] * x[1] - k[:, 1] * x[0]], 1)
        kk = k * (k @ x)[:, None] - x * (k * k).sum(1, keepdims=True)
        return x + kx + kk * scale

    return centres, turned(first.frame[:, 0]), turned(first.frame[:, 1])
