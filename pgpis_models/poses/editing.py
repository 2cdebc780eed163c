"""Editing poses: another person's limb lengths, mirroring, size and place."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .drawing import LIMBS
from .formats import EmptyFrame, from_pose_keypoint, to_pose_keypoint
from .full_lists import with_full_lists
from .keypoints import JOINTS, MIRROR, Keypoints

NECK = JOINTS.index("neck")
PARENT = {child: parent for parent, child in LIMBS}   # every joint but the neck has one


def retarget(poses: Sequence[Keypoints], body: Sequence[Keypoints]) -> list[Keypoints]:
    """The poses with another person's limb lengths; directions, the neck's place and the canvas stay.

    poses: frames of one person. body: one or more poses of the person whose lengths they take, in pixels of the first
    pose's canvas once scaled to it (so a photo of another size is compared at the same size).

    A limb seen from the front looks shorter than it is, so a person's length of a limb is the longest that any of the
    frames shows, on the left or on the right; each limb is scaled by the ratio of the two lengths, which keeps
    foreshortening. Limbs that either person never shows are scaled by the median ratio of the others, and a joint whose
    parent is missing moves with its nearest present ancestor.

    Raises ValueError when poses or body are empty, a pose has no neck, or the two have no limb in common.
    """
    if not poses or not body:
        raise ValueError(f"{len(poses)} poses came to retarget and {len(body)} of the person to take lengths from; expected "
                         "one or more each")
    for number, pose in enumerate(poses, start=1):
        if not pose.present[NECK]:
            raise ValueError(f"pose {number} of {len(poses)} has no neck, which retargeting starts from; expected one. "
                             "Leave the person to retarget to unconnected, or use a pose with a neck")
    own, wanted = lengths(poses), lengths([one.scaled_to(poses[0].canvas) for one in body])
    ratios = {limb: wanted[limb] / own[limb] for limb in LIMBS if own[limb] > 0 and wanted[limb] > 0}
    if not ratios:
        raise ValueError("the pose and the person to retarget to have no limb in common; expected one that both show. "
                         "Use a picture that shows more of the person")
    middle = float(np.median(list(ratios.values())))
    return [with_ratios(pose, {limb: ratios.get(limb, middle) for limb in LIMBS}, middle) for pose in poses]


def lengths(poses: Sequence[Keypoints]) -> dict[tuple[int, int], float]:
    """Longest length in pixels of every limb over frames and over left and right; 0 where it is never seen."""
    found = dict.fromkeys(LIMBS, 0.0)
    for pose in poses:
        for limb in LIMBS:
            other = tuple(MIRROR[joint] for joint in limb)
            for a, b in (limb, other):
                if pose.present[a] and pose.present[b]:
                    found[limb] = max(found[limb], float(np.linalg.norm(pose.xy[b] - pose.xy[a])))
    return found


def with_ratios(pose: Keypoints, ratios: dict[tuple[int, int], float], middle: float = 1.0) -> Keypoints:
    """The pose with each limb `ratios` times as long, from the neck on, which is present. middle: for the way from a joint
    to the nearest that is present above it, where the joint between is missing."""
    xy = pose.xy.copy()
    for parent, child in LIMBS:   # parents come first
        ancestor = parent
        while not pose.present[ancestor]:
            ancestor = PARENT[ancestor]   # ends at the neck, which is present
        ratio = ratios[parent, child] if ancestor == parent else middle
        xy[child] = xy[ancestor] + (pose.xy[child] - pose.xy[ancestor]) * ratio
    return pose.with_joints(xy)


def edit(frames: list[dict], mirror: bool = False, scale: float = 1.0, shift: tuple[float, float] = (0.0, 0.0),
         person: int | str = "largest", body: list[dict] | None = None) -> list[dict]:
    """POSE_KEYPOINT -> POSE_KEYPOINT of the chosen person: retargeted, mirrored, scaled about its middle, then shifted.

    mirror: flipped left to right within the canvas. scale: factor above 0. shift: (right, down) as shares of the canvas's
    width and height. body: POSE_KEYPOINT of the person whose limb lengths to take (`retarget`).

    Frames without the person stay as they are, so that a sequence keeps its length. Hands and faces are left out, since
    they would no longer fit. Raises ValueError as from_pose_keypoint and retarget do, and for a scale that is not above 0.
    """
    if not scale > 0:
        raise ValueError(f"scale is {scale}; expected a factor above 0, such as 1.2 for a fifth larger")
    frames = [frames] if isinstance(frames, dict) else frames
    from_pose_keypoint(frames, person, empty="hold")   # the form, and that somebody is there at all
    poses: dict[int, Keypoints] = {}
    for number, frame in enumerate(frames):
        try:
            [poses[number]] = from_pose_keypoint([frame], person)
        except EmptyFrame:
            continue
    if body is not None:
        poses = dict(zip(poses, retarget(list(poses.values()), from_pose_keypoint(body, empty="hold")), strict=True))
    made = with_full_lists(frames)
    for number, pose in poses.items():
        pose = pose.mirrored() if mirror else pose
        height, width = pose.canvas
        [made[number]] = to_pose_keypoint(pose.scaled(scale).shifted(shift[0] * width, shift[1] * height))
    return made
