"""The 133 whole-body points of a posed body: exact places of what a detector looks for, hands and face too."""

from __future__ import annotations

import math

import numpy as np

from .extremities import hand_points
from .skeleton import ANKLE, EYE_ANGLE, EYE_HEIGHT, Build, Skeleton, on_head

# COCO's 17 joints by their place in the 18 of OpenPose
_COCO = (0, 15, 14, 17, 16, 5, 2, 6, 3, 7, 4, 11, 8, 12, 9, 13, 10)
_EYE = ((-1.0, 0.0), (-0.4, 1.0), (0.4, 1.0), (1.0, 0.0), (0.4, -1.0), (-0.4, -1.0))   # from the person's right, around
_LIPS = [(math.cos(at), math.sin(at)) for at in np.linspace(math.pi, -math.pi, 13)[:-1]]


def whole_points(skeleton: Skeleton, build: Build) -> np.ndarray:
    """(133, 3) in body heights, in COCO-WholeBody's order; the left hand before the right one."""
    right, left = (hand_points(bones[1], medial, build.limbs, bends)
                   for bones, medial, bends in zip(skeleton.arms, (1, -1), skeleton.hands, strict=True))
    face = np.array([on_head(skeleton.neck, skeleton.head, build.head, *place) for place in _face()])
    feet = [point for side in (1, 0) for point in _foot(skeleton, side)]
    return np.concatenate([skeleton.joints[list(_COCO)], feet, face, left, right])


def _foot(skeleton: Skeleton, side: int) -> list[np.ndarray]:
    """Big toe, small toe and heel; side 0 right, 1 left."""
    ankle, frame, outwards = skeleton.legs[side][1].end, skeleton.feet[side], 1 if side else -1
    return [ankle + frame @ np.array([aside * outwards, -ANKLE + 0.012, ahead])
            for aside, ahead in ((-0.012, 0.095), (0.026, 0.080), (0.0, -0.038))]


def _face() -> list[tuple[float, float, float]]:
    """The 68 points as (angle from the middle towards the person's left, height above the neck joint, how far out)."""
    jaw = [(at, 0.052 + 0.055 * (at / 95) ** 2, 1.02) for at in np.linspace(-95, 95, 17)]
    brows = [(side * at, 0.134 + 0.004 * math.sin(math.pi * share), 1.0) for side, ends in ((-1, (38, 11)), (1, (11, 38)))
             for at, share in zip(np.linspace(*ends, 5), np.linspace(0, 1, 5), strict=True)]
    nose = [(0.0, height, out) for height, out in zip(np.linspace(0.122, 0.098, 4), (1.0, 1.05, 1.1, 1.15), strict=True)]
    nose += [(at, 0.091, 1.06) for at in np.linspace(-10, 10, 5)]
    centre = math.degrees(EYE_ANGLE)
    eyes = [(side * centre + 8 * x, EYE_HEIGHT + 0.004 * y, 1.0) for side in (-1, 1) for x, y in _EYE]
    mouth = [(17 * x, 0.073 + 0.008 * y, 1.02) for x, y in _LIPS]
    inner = [(12 * x, 0.073 + 0.003 * y, 1.02) for x, y in (_LIPS[n] for n in (0, 2, 3, 4, 6, 8, 9, 10))]
    return [(math.radians(at), height, out) for at, height, out in [*jaw, *brows, *nose, *eyes, *mouth, *inner]]
