"""Where a person of 18 joints faces, and how large the face is: what says beforehand that a picture will be a guess."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .keypoints import Keypoints

NOSE, NECK, RIGHT_SHOULDER, LEFT_SHOULDER, RIGHT_HIP, LEFT_HIP, RIGHT_EAR, LEFT_EAR = 0, 1, 2, 5, 8, 11, 16, 17
SHOULDERS = 0.78   # width of people's shoulders seen from the front, in lengths of the trunk from neck to hips
EYES = 0.38        # distance of the eyes of a face seen from the front, in lengths from neck to nose


@dataclass(frozen=True)
class Heading:
    """away: degrees that a person is turned from the camera, 0 (towards it) to 180 (seen from behind). side: +1 turned
    towards the person's left, -1 towards the right, 0 where it is not known."""

    away: float
    side: int

    def to(self, other: Heading) -> float:
        """Degrees from one to the other, 0 to 180; the least that they can be where a side is not known."""
        apart = abs(self.away - other.away)
        if self.side and other.side and self.side != other.side:
            apart = self.away + other.away
        return min(apart, 360 - apart)


def heading_of(pose: Keypoints) -> Heading | None:
    """From the shoulders' width against the trunk's length, left and right in their order, and the ear that is seen. None
    where shoulders or hips are missing, or the trunk points at the camera."""
    if not pose.present[[RIGHT_SHOULDER, LEFT_SHOULDER]].all() or not pose.present[[RIGHT_HIP, LEFT_HIP]].any():
        return None
    right, left = pose.xy[RIGHT_SHOULDER], pose.xy[LEFT_SHOULDER]
    hips = pose.xy[[joint for joint in (RIGHT_HIP, LEFT_HIP) if pose.present[joint]]].mean(0)
    trunk = hips - (right + left) / 2
    length = float(np.linalg.norm(trunk))
    across = np.array([trunk[1], -trunk[0]]) / max(length, 1e-9)   # to the right of the picture for one who stands
    wide = float((left - right) @ across)
    if length < 1e-6 or np.linalg.norm(left - right) > 2.5 * length:
        return None
    away = math.degrees(math.acos(float(np.clip(wide / (SHOULDERS * length), -1, 1))))
    ears = int(pose.present[RIGHT_EAR]) - int(pose.present[LEFT_EAR])   # who turns to the left shows the right ear
    return Heading(away, ears)


def eyes_apart(pose: Keypoints, size: tuple[int, int]) -> float | None:
    """Pixels between the eyes of this face seen from the front, in a picture of (H, W); None where no nose and neck is seen.
    From neck to nose, which turning does not shorten."""
    if not (pose.present[NOSE] and pose.present[NECK]):
        return None
    placed = pose.scaled_to(size).xy
    return EYES * float(np.linalg.norm(placed[NOSE] - placed[NECK]))
