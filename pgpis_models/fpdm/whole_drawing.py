"""FPDM's picture of a whole-body pose, hands and face too, for sign language (RWTH-PHOENIX-Weather 2014T).

The authors published a class for it (`ProcessingSignKeypoints`) and no weights: 133 discs, limbs between them, colours of
a random generator of seed 777, blended as their 18 joints are. Its list of limbs has two slips, mended here: one entry holds
three limbs of the mouth, and the little finger of the right hand lacks one. The width of limbs is not in it; here it is that
of the discs.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from ..poses.keypoints import Keypoints, checked_size
from ..poses.wholebody import LEFT_HAND, POINTS, RIGHT_HAND, WholeBody, whole_body
from .drawing import on_canvas, painted

RADIUS = 2   # pixels of any canvas, of discs and half the width of limbs
# RGB; drawn as BGR by the authors, which swaps red and blue.
COLOURS = tuple(tuple(int(value) for value in colour[::-1])
                for colour in np.random.RandomState(777).choice(np.arange(256), 3 * POINTS).reshape(POINTS, 3))
_BODY = ((10, 8), (8, 6), (6, 5), (5, 7), (7, 9), (6, 12), (5, 11), (12, 11), (12, 14), (14, 16), (11, 13), (13, 15),
         (23, 24), (24, 25), (25, 26))
_RIGHT_LITTLE = (131, 130)   # the limb that the authors' list lacks
_MOUTH = ((82, 71), (71, 83), (87, 77))   # one entry of their list, of one colour


def _finger(root: int, number: int) -> list[tuple[int, int]]:
    """Finger 1 (thumb) to 5 from its tip to the wrist, `root`."""
    points = [root + 4 * number - step for step in range(4)]
    return list(pairwise([*points, root]))


def _limbs() -> tuple[tuple[int, int, tuple[int, int, int]], ...]:
    """(point, point, colour) in drawing order."""
    nose, right_eye, left_eye = ([*pairwise(range(first, last + 1)), (last, back)]
                                 for first, last, back in ((50, 58, 53), (59, 64, 59), (65, 70, 65)))
    single = [*_BODY, *pairwise(range(23, 40)), *pairwise(range(40, 50)), *nose, *right_eye, *left_eye,
              *pairwise(range(71, 88))]
    entries = [[limb] for limb in single] + [list(_MOUTH)]
    entries += [[limb] for number in (1, 2, 3, 4, 5) for limb in _finger(LEFT_HAND.start, number)]
    entries += [[limb] for number in (5, 4, 3, 2, 1) for limb in _finger(RIGHT_HAND.start, number) if limb != _RIGHT_LITTLE]
    entries.append([_RIGHT_LITTLE])
    return tuple((a, b, COLOURS[number]) for number, limbs in enumerate(entries) for a, b in limbs)


LIMBS = _limbs()


def draw_whole(keypoints: Keypoints, size: tuple[int, int]) -> np.ndarray:
    """A whole-body pose -> (H, W, 3) uint8, RGB on black. Of plain Keypoints the body alone. Needs OpenCV.

    size: (H, W) to draw on; discs and limbs have 2 pixels in radius and half width on any.
    """
    size = checked_size(size, "size")
    pose = on_canvas(keypoints, size)
    if not isinstance(pose, WholeBody):
        pose = whole_body(pose, {}, (1.0, 1.0), 0.0)
    return painted(pose.points, pose.seen, size, COLOURS, LIMBS, RADIUS)
