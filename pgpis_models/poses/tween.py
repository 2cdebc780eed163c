"""Poses between key poses, in the picture: limbs turn and their lengths change evenly."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from .drawing import LIMBS
from .keypoints import Keypoints

NECK = 1
EASINGS: dict[str, Callable[[float], float]] = {   # share of the time -> share of the way
    "linear": lambda t: t,
    "ease in and out": lambda t: t * t * (3 - 2 * t),
    "ease in": lambda t: t * t,
    "ease out": lambda t: t * (2 - t),
    "slow, then at once": lambda t: t ** 4,
}


def eased(easing: str, count: int) -> list[float]:
    """Shares of the way at `count` frames between two keys, without the keys. Raises ValueError for an easing that is not
    known."""
    if easing not in EASINGS:
        raise ValueError(f"easing is {easing!r}; expected one of {', '.join(EASINGS)}")
    return [EASINGS[easing]((n + 1) / (count + 1)) for n in range(count)]


def between(first: Keypoints, second: Keypoints, share: float) -> Keypoints:
    """The pose at a share 0..1 of the way: the neck moves straight, each limb turns the shorter way round and has a length
    between its two. Joints that one of the two lacks are missing; 0 and 1 are the keys themselves.

    Raises ValueError when the canvases differ.
    """
    if first.canvas != second.canvas:
        raise ValueError(f"two key poses have canvases of {first.canvas} and {second.canvas} (height, width); expected one "
                         "size. Draw or load them at the same")
    if share <= 0 or share >= 1:
        return first if share <= 0 else second
    both = first.present & second.present
    xy = (1 - share) * first.xy + share * second.xy
    for parent, child in LIMBS:   # parents come first
        if not (both[parent] and both[child]):
            continue
        a, b = first.xy[child] - first.xy[parent], second.xy[child] - second.xy[parent]
        start, turn = math.atan2(a[1], a[0]), math.remainder(math.atan2(b[1], b[0]) - math.atan2(a[1], a[0]), 2 * math.pi)
        length = (1 - share) * float(np.hypot(*a)) + share * float(np.hypot(*b))
        angle = start + share * turn
        xy[child] = xy[parent] + length * np.array([math.cos(angle), math.sin(angle)])
    return Keypoints(xy, both, first.canvas)
