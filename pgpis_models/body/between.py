"""Bodies between key bodies, in 3D: limbs turn in space, so that bones keep their lengths and the camera walks along."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields
from itertools import pairwise

import numpy as np

from ..poses.tween import between as between_poses
from ..poses.tween import eased
from .camera import Camera
from .frames import Figure
from .measured import Proportions
from .skeleton import Build, Lengths, Limb, sole_pitch
from .state import State


def between(first: Figure, second: Figure, share: float) -> Figure:
    """The figure at a share 0..1 of the way: angles the shorter way round, bones along great circles. 0 and 1 are the keys
    themselves."""
    if share <= 0 or share >= 1:
        return first if share <= 0 else second
    a, b = first.state, second.state

    def angles(one, other):
        return tuple(x + share * math.remainder(y - x, 360.0) for x, y in zip(one, other, strict=True))

    def even(kind, one, other):
        return kind(**{name.name: (1 - share) * getattr(one, name.name) + share * getattr(other, name.name)
                       for name in fields(kind)})

    (yaw, pitch), p, q = angles((a.camera.yaw, a.camera.pitch), (b.camera.yaw, b.camera.pitch)), a.camera, b.camera
    camera = Camera(yaw, pitch, p.zoom ** (1 - share) * q.zoom ** share, (1 - share) * p.x + share * q.x,
                    (1 - share) * p.y + share * q.y)
    arms, legs = (tuple(_limb(one, other, share) for one, other in zip(getattr(a, name), getattr(b, name), strict=True))
                  for name in ("arms", "legs"))
    state = State(angles(a.root, b.root), angles(a.torso, b.torso), angles(a.head, b.head), arms, legs, camera)
    one, other = first.proportions, second.proportions
    return Figure(state, Proportions(even(Build, one.build, other.build), even(Lengths, one.lengths, other.lengths)))


def _limb(one: Limb, other: Limb, share: float) -> Limb:
    foot = None
    if one.foot is not None or other.foot is not None:
        foot = (1 - share) * sole_pitch(one) + share * sole_pitch(other)
    return Limb(_turned(one.upper, other.upper, share), _turned(one.lower, other.lower, share), foot)


def _turned(one, other, share: float) -> tuple[float, float, float]:
    """The unit vector at a share of the great circle from one to the other; of two that are opposite by way of the front."""
    a, b = np.array(one, float), np.array(other, float)
    angle = math.acos(float(np.clip(a @ b, -1, 1)))
    across = b - a * (a @ b)
    if np.linalg.norm(across) < 1e-6:
        if angle < 1:
            return tuple(a)
        front = np.array([0.0, 0, 1]) if abs(a[2]) < 0.9 else np.array([1.0, 0, 0])
        across = front - a * (a @ front)
    across /= np.linalg.norm(across)
    return tuple(math.cos(share * angle) * a + math.sin(share * angle) * across)


def tweened(keys: Sequence, count: int, easing: str, loop: bool = False) -> list:
    """Key poses with `count` more between each two: Figures in 3D, Keypoints in the picture, all of one kind. loop: and from
    the last to the first, which is not repeated."""
    join = between if isinstance(keys[0], Figure) else between_poses
    shares, made = eased(easing, count), []
    for first, second in pairwise([*keys, keys[0]] if loop else keys):
        made += [first, *(join(first, second, share) for share in shares)]
    return made if loop else [*made, keys[-1]]
