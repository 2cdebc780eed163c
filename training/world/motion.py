"""A drawn person who moves: the poses of a short walk with a wave, for sequences."""

from __future__ import annotations

import json
import math

from pgpis_models.body.skeleton import Arm, Leg, Pose
from pgpis_models.poses.formats import to_pose_keypoint
from pgpis_models.poses.keypoints import Keypoints

from .drawing import Rendering, render
from .wardrobe import Identity

FORWARD, UP = (0.0, 0.0, 1.0), (0.0, 1.0, 0.0)   # where a forearm bends to, as (outwards, up, forward)


def walking_pose(phase: float) -> Pose:
    """The pose at `phase` of the cycle, 0..1: walking on the spot towards the viewer, the left hand waving.

    Cyclic, so that a film of it may be repeated without a jump.
    """
    turn = 2 * math.pi * phase
    stride, wave = 0.45 * math.sin(turn), math.sin(2 * turn)
    legs = tuple(Leg(0.05, sign * stride, 0.15 + 0.45 * max(0.0, -sign * math.cos(turn))) for sign in (1, -1))
    right = Arm(0.35, -1.25 * math.sin(turn), 0.3, FORWARD)
    left = Arm(1.75 + 0.15 * wave, 0.1, 1.2 + 0.45 * wave, UP)
    return Pose(math.radians(25 * math.sin(turn)), lean=0.05, tilt=0.04 * math.sin(turn), head_turn=0.2 * math.sin(turn),
                head_nod=-0.05, arms=(right, left), legs=legs, scale=0.84, x=0.01 * math.sin(turn), y=0.0,
                twist=-0.12 * math.sin(turn))


def walk(identity: Identity, frames: int, size: tuple[int, int]) -> list[Rendering]:
    """Renderings of one cycle; frames: of the cycle, size: (height, width)."""
    return [render(identity, walking_pose(n / frames), size) for n in range(frames)]


def walk_keypoints(identity: Identity, frames: int, size: tuple[int, int]) -> list[Keypoints]:
    """What a pose detector would report of the frames of `walk`."""
    return [Keypoints(drawn.keypoints, drawn.detected, size) for drawn in walk(identity, frames, size)]


def walk_text(identity: Identity, frames: int, size: tuple[int, int]) -> str:
    """The same as OpenPose JSON, one frame after another, as Load Pose reads it; pixels to one decimal."""
    told = []
    for frame in to_pose_keypoint(walk_keypoints(identity, frames, size)):
        joints = [round(value, 1) for value in frame["people"][0]["pose_keypoints_2d"]]
        joints = [int(value) if value == int(value) else value for value in joints]
        told.append({"canvas_width": size[1], "canvas_height": size[0], "people": [{"pose_keypoints_2d": joints}]})
    return json.dumps(told)
