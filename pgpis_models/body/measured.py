"""The body in another person's proportions: factors of build and limbs from the joints of a pose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..poses.editing import lengths
from ..poses.keypoints import Keypoints
from .skeleton import (
    HIP_WIDTH,
    LOWER_ARM,
    NECK_HEIGHT,
    SHANK,
    SHOULDER_HEIGHT,
    SHOULDER_WIDTH,
    THIGH,
    UPPER_ARM,
    Build,
    Lengths,
)

# What the body itself has between the joints that a pose shows, in body heights.
_TORSO = SHOULDER_HEIGHT + 0.008
_LIMBS = {"upper_arm": ((2, 3), UPPER_ARM), "lower_arm": ((3, 4), LOWER_ARM), "thigh": ((8, 9), THIGH),
          "shank": ((9, 10), SHANK)}
RANGE = (0.6, 1.6)   # factors beyond are a limb that points at the camera, or a joint found wrongly


@dataclass(frozen=True)
class Proportions:
    """build: of the trunk; lengths: of the limbs."""

    build: Build = Build()
    lengths: Lengths = Lengths()


def of_person(poses: Sequence[Keypoints], build: Build | None = None) -> Proportions:
    """Proportions of the person whom one or more poses show, each length the longest that is seen (`editing.lengths`).

    The torso, neck to hips, is the measure; a person who shows none is measured by the limbs that are seen. What is not seen
    keeps the body's own ratio. Raises ValueError when no length is seen.
    """
    build = build or Build()
    seen = lengths(poses)
    hips = [np.linalg.norm(one.xy[1] - (one.xy[8] + one.xy[11]) / 2) for one in poses if one.present[[1, 8, 11]].all()]
    own = {name: seen[limb] / length for name, (limb, length) in _LIMBS.items() if seen[limb] > 0}
    size = max(hips) / _TORSO if hips else float(np.median(list(own.values()))) if own else 0.0   # pixels per body height
    if not size > 0:
        raise ValueError("the person whose proportions to take shows neither torso nor limbs; expected a pose with some. "
                         "Leave it unconnected, or use a picture that shows more of the person")

    def factor(value: float) -> float:
        return float(np.clip(value / size, *RANGE))

    def across(right: int, left: int, half: float, usual: float) -> float:
        wide = [np.linalg.norm(one.xy[right] - one.xy[left]) for one in poses if one.present[[right, left]].all()]
        return factor(max(wide) / (2 * half)) if wide else usual

    made = replace(build, height=1.0, shoulders=across(2, 5, SHOULDER_WIDTH, build.shoulders),
                   hips=across(8, 11, HIP_WIDTH, build.hips))
    if seen[(1, 0)] > 0:
        made = replace(made, head=float(np.clip(seen[(1, 0)] / size / (NECK_HEIGHT - _TORSO + 0.098), 0.8, 1.3)))
    return Proportions(made, Lengths(**{name: factor(value) for name, value in own.items()}))
