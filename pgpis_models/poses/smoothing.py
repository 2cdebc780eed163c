"""Sequences without trembling and without holes: the One-Euro filter over joints, and gaps filled between neighbours.

Casiez, Roussel and Vogel 2012, "1 Euro filter". It runs forwards and backwards over the whole sequence and the two are
averaged, so that even motion has no lag at all and starts and stops have less than one frame.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from .keypoints import Keypoints, standing_height

DERIVATIVE_CUTOFF = 0.15   # cycles per frame, of the speed that the cutoff follows
SPEED = 6.0                # cycles per frame of cutoff for each body size per frame
STILL = 0.04               # cycles per frame, of the cutoff at rest with strength 1


def smoothed(poses: Sequence[Keypoints], strength: float = 0.5) -> list[Keypoints]:
    """The poses of one person, frame after frame, with less trembling. strength: 0 leaves them, 1 is the most.

    A joint is filtered over each run of frames that have it; none is made up. Raises ValueError for a strength outside 0..1.
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"strength is {strength}; expected 0 to 1")
    if strength == 0 or len(poses) < 2:
        return list(poses)
    xy, present = np.stack([one.xy for one in poses]), np.stack([one.present for one in poses])
    cutoff = STILL / max(strength, 0.05) ** 2
    size = standing_height(poses)
    made = xy.copy()
    for joint in range(18):
        for start, end in runs(present[:, joint]):
            track = xy[start:end, joint]
            ahead = one_euro(track, cutoff, SPEED / size)
            back = one_euro(track[::-1], cutoff, SPEED / size)[::-1]
            made[start:end, joint] = (ahead + back) / 2
    return [Keypoints(place, one.present, one.canvas) for place, one in zip(made, poses, strict=True)]


def one_euro(track: np.ndarray, cutoff: float, gain: float) -> np.ndarray:
    """Filtered places (N, 2) of one point; cutoff: cycles per frame at rest; gain: cycles per frame for each unit of length
    per frame."""
    def share(frequency: float) -> float:
        return 1.0 / (1.0 + 1.0 / (2 * math.pi * frequency))

    speed_share, places = share(DERIVATIVE_CUTOFF), track.tolist()   # numbers of Python are much faster than arrays of two
    (x, y), across, down = places[0], 0.0, 0.0
    made = [(x, y)]
    for (x0, y0), (x1, y1) in pairwise(places):
        across, down = across + speed_share * (x1 - x0 - across), down + speed_share * (y1 - y0 - down)
        alpha = share(cutoff + gain * math.sqrt(across * across + down * down))
        x, y = x + alpha * (x1 - x), y + alpha * (y1 - y)
        made.append((x, y))
    return np.array(made, float)


def filled(poses: Sequence[Keypoints], longest: int) -> tuple[list[Keypoints], int]:
    """The poses with joints that are missing for up to `longest` frames put evenly between the frames before and after; and
    how many joints that were. What is missing at the start or the end stays so."""
    xy, present = np.stack([one.xy for one in poses]), np.stack([one.present for one in poses])
    xy, made = xy.copy(), present.copy()
    for joint in range(18):
        for start, end in runs(~present[:, joint]):
            if start == 0 or end == len(poses) or end - start > longest:
                continue
            t = (np.arange(start, end) - start + 1)[:, None] / (end - start + 1)
            xy[start:end, joint] = (1 - t) * xy[start - 1, joint] + t * xy[end, joint]
            made[start:end, joint] = True
    return ([Keypoints(place, there, one.canvas) for place, there, one in zip(xy, made, poses, strict=True)],
            int((made & ~present).sum()))


def runs(there: np.ndarray) -> list[tuple[int, int]]:
    """(N,) bool -> first and one past the last index of every run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], there, [False]]).astype(int)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
