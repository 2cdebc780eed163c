"""Hands with a thumb and four fingers that bend, and shoes: shapes that are made once and moved to their bone."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from .mesh import Grids, columns, grid_normals, ring, smooth, tube
from .skeleton import ANKLE, RELAXED, Bends, Bone

HAND_SPAN = (-0.010, 0.088)

# per finger from the index to the little one: place along `front`, where it starts, length, radius
_FINGERS = ((0.0165, 0.043, 0.036, 0.0066), (0.0055, 0.045, 0.041, 0.0068), (-0.0055, 0.044, 0.037, 0.0065),
            (-0.0160, 0.040, 0.029, 0.0057))


@dataclass(frozen=True)
class _Finger:
    """start, heading, bend (3,): an axis from `start` that turns from `heading` towards `bend`; length and radii."""

    start: np.ndarray
    heading: np.ndarray
    bend: np.ndarray
    length: float
    radii: tuple[float, float, float]

    def axis(self, bent: float, rings: int) -> tuple[np.ndarray, np.ndarray]:
        """Centres (R, 3) and directions (R, 3); bent: radians that its tip is turned by."""
        lean = bent * np.linspace(0, 1, rings)
        along = np.cos(lean)[:, None] * self.heading + np.sin(lean)[:, None] * self.bend
        steps = np.concatenate([np.zeros((1, 3)), np.cumsum(0.5 * (along[1:] + along[:-1]), 0)])
        return self.start + steps * self.length / (rings - 1), along


def _fingers(medial: int) -> list[_Finger]:
    """Thumb to little finger in the axes (left, front, along) of the forearm, from the wrist."""
    heading = np.array([0.25 * medial, 0.62, 0.76])
    found = [_Finger(np.array([0.002 * medial, 0.012, 0.006]), heading / np.sqrt(heading @ heading),
                     np.array([0.35 * medial, -0.45, 0.82]), 0.044, (0.0105, 0.0080, 0.0070))]
    for ahead, begin, length, radius in _FINGERS:
        heading = np.array([0, 2.2 * ahead, 1.0])
        found.append(_Finger(np.array([0, ahead, begin - 0.004]), heading / np.sqrt(heading @ heading),
                             np.array([float(medial), 0, 0]), length, (radius, 0.92 * radius, 0.8 * radius)))
    return found


def _sweep(finger: _Finger, bent: float, count: int, rings: int):
    """A finger as a tube. Points (R, C, 3)."""
    heading, bend, radii, t = finger.heading, finger.bend, finger.radii, np.linspace(0, 1, rings)
    centres, along = finger.axis(bent, rings)
    side = np.cross(bend, heading)
    left = np.broadcast_to(side, along.shape)
    front = np.cross(along, left)
    radius = np.interp(t, (0, 0.7, 1), radii) * np.sqrt(np.clip(1 - np.clip((t - 0.78) / 0.225, 0, 1) ** 2, 0, 1))
    return tube(centres, left, front, radius, radius, ring(columns(count)))


@functools.lru_cache(maxsize=64)
def _hand_shape(medial: int, bends: Bends) -> list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Grids (points, normals, angle, v) in the axes (left, front, along) of the forearm, from the wrist."""
    low, high = HAND_SPAN
    s = np.array([-0.010, 0.0, 0.010, 0.020, 0.030, 0.040, 0.046, 0.050, 0.052])
    thick = smooth(s, (-0.01, 0.015, 0.035, 0.046, 0.052), (0.0130, 0.0135, 0.0115, 0.0090, 0.001))
    broad = smooth(s, (-0.01, 0.008, 0.025, 0.042, 0.048, 0.052), (0.0165, 0.0185, 0.0225, 0.0235, 0.021, 0.012))
    centres = np.stack([0 * s, 0 * s, s], axis=1)
    palm = tube(centres, np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), thick, broad, ring(columns(12), 0.9))
    grids = [(palm, grid_normals(palm), columns(12), (s - low) / (high - low))]
    first, *others = _fingers(medial)
    for n, finger in enumerate(others):
        points = _sweep(finger, bends[n + 1], 7, 7)
        # each finger has a quarter of the chart's breadth
        quarter = (n + (columns(7) + 1) / 2) / 2 - 1
        grids.append((points, grid_normals(points), quarter, (points[..., 2] - low) / (high - low)))
    thumb = _sweep(first, bends[0], 8, 8)
    grids.append((thumb, grid_normals(thumb), columns(8), (thumb[..., 2] - low) / (high - low)))
    return grids


def hand(grids: Grids, segment: int, forearm: Bone, medial: int, limbs: float, bends: Bends = RELAXED) -> None:
    """The hand at the end of a forearm; medial +1 for the right one, whose palm faces the person's left, else -1."""
    frame = forearm.frame * np.array([limbs, limbs, 1.0])   # so slightly uneven that the normals stay as they are
    for points, normals, angle, v in _hand_shape(medial, bends):
        grids.add(segment, forearm.end + points @ frame.T, normals @ forearm.frame.T, angle, v)


def hand_points(forearm: Bone, medial: int, limbs: float, bends: Bends = RELAXED) -> np.ndarray:
    """The 21 points of a hand (wrist, then root, two joints and tip of thumb to little finger), (21, 3), on the axes of what
    `hand` draws."""
    frame = forearm.frame * np.array([limbs, limbs, 1.0])
    joints = [finger.axis(bent, 13)[0][[0, 5, 9, 12]] for finger, bent in zip(_fingers(medial), bends, strict=True)]
    return forearm.end + np.concatenate([np.zeros((1, 3)), *joints]) @ frame.T


@functools.lru_cache(maxsize=1)
def _shoe() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A grid (points, normals, angle, v) in the axes (left, up, toes), from the ankle; `up` is the section's front."""
    s = np.array([-0.042, -0.040, -0.035, -0.025, -0.010, 0.010, 0.030, 0.050, 0.066, 0.080, 0.090, 0.096, 0.0995, 0.100])
    wide = smooth(s, (-0.042, -0.039, -0.030, -0.005, 0.025, 0.060, 0.080, 0.094, 0.100),
                  (0.001, 0.013, 0.024, 0.0285, 0.0285, 0.0340, 0.0315, 0.0190, 0.001))
    top = smooth(s, (-0.042, -0.036, -0.020, 0.008, 0.030, 0.060, 0.085, 0.100), (0.026, 0.046, 0.058, 0.060, 0.050, 0.034,
                                                                               0.027, 0.014))
    sole = smooth(s, (-0.042, -0.036, 0.07, 0.100), (0.024, 0.002, 0.0, 0.012))
    middle = (top + sole) / 2 - ANKLE
    points = tube(np.stack([0 * s, middle, s], axis=1), np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), wide, (top - sole) / 2,
                  ring(columns(16), 0.72))
    low, high = -0.042, 0.100
    return points, grid_normals(points), columns(16), (s - low) / (high - low)


def foot(grids: Grids, segment: int, ankle: np.ndarray, frame: np.ndarray, limbs: float) -> None:
    """The shoe below an ankle; frame (3, 3) with columns (left, up, toes)."""
    points, normals, angle, v = _shoe()
    grids.add(segment, ankle + points @ (frame * np.array([limbs, 1.0, 1.0])).T, normals @ frame.T, angle, v)
