"""Another person's pose in the proportions of the person of a photo: lengths of limbs from the photo's own pose."""

from __future__ import annotations

from collections.abc import Sequence

from ..poses.drawing import LIMBS
from ..poses.editing import lengths, with_ratios
from ..poses.keypoints import TORSO, Keypoints
from .bodies import size_of_pose

OF_PERSON, AS_GIVEN = "of the person", "as given"
PROPORTIONS = (OF_PERSON, AS_GIVEN)
# Lengths on the average body, shares of its standing height; torso and head are the measure, and keep the pose's own.
SHARES = {(1, 2): 0.095, (1, 5): 0.095, (2, 3): 0.160, (5, 6): 0.160, (3, 4): 0.140, (6, 7): 0.140,
          (8, 9): 0.244, (11, 12): 0.244, (9, 10): 0.235, (12, 13): 0.235}
UPRIGHT = 0.8   # of the standing height that other limbs tell: a torso that tells less leans to the camera
PLAUSIBLE = (0.82, 1.25)   # of the average: what is shorter points at the camera, what is longer was found wrongly


def in_proportions(targets: Sequence[Keypoints], person: Keypoints, together: bool = False) -> list[Keypoints]:
    """The targets with limbs as long against the whole body as the person's; directions, the neck's place and the canvas
    stay.

    A limb changes where both the person and the target show it about as long as people have it: one that points at the
    camera, or that a photo of head and shoulders does not show, keeps the pose's own ratio. together: the targets are frames
    of one movement, whose limbs are as long as the frame shows them that shows them longest. Targets without a neck, from
    which limbs start, stay.
    """
    own = _shares([person])
    groups = [list(targets)] if together else [[target] for target in targets]
    made = []
    for group in groups:
        theirs = _shares(group)
        ratios = {limb: own[limb] / theirs[limb] if limb in own and limb in theirs else 1.0 for limb in LIMBS}
        made += [with_ratios(one, ratios) if one.present[1] else one for one in group]
    return made


def _shares(poses: Sequence[Keypoints]) -> dict[tuple[int, int], float]:
    """Lengths against those of the average body of the same height, of the limbs that are seen whole."""
    seen = [pose for pose in poses if pose.present.any()]
    if not seen:
        return {}
    found = lengths(seen)
    size, torso = max(size_of_pose(pose) for pose in seen), max(found[1, 8], found[1, 11]) / TORSO
    size = torso if torso > UPRIGHT * size else size
    found = {limb: found[limb] / size / share for limb, share in SHARES.items()}
    return {limb: share for limb, share in found.items() if PLAUSIBLE[0] <= share <= PLAUSIBLE[1]}
