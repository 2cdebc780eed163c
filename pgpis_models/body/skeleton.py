"""The skeleton: build and pose in, joints and bone frames out. No clothes, no colours, no surfaces.

Space is measured in body heights: x to the right of the picture, y up, z towards the camera; the origin lies between the
hips. The person's own axes are (left, up, forward); heading 0 looks at the camera. A bone frame has the columns
(left, front, along), the last one from the bone's joint to the next.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

SHOULDER_HEIGHT, SHOULDER_WIDTH = 0.240, 0.096   # above the hip line, half the distance between the joints
NECK_HEIGHT = 0.268
UPPER_ARM, LOWER_ARM, HAND = 0.160, 0.140, 0.086
THIGH, SHANK, ANKLE = 0.245, 0.235, 0.046
HIP_WIDTH = 0.050
SOLE = 0.85   # share of the shank's angle that the sole takes part in
EYE_HEIGHT, EYE_ANGLE, EAR_HEIGHT = 0.120, math.radians(24.5), 0.114   # above the neck joint; from the middle of the face
HEAD_WIDTH, HEAD_DEPTH = 0.054, 0.058   # half axes of the face at the eyes
TORSO_RINGS = (-0.078, -0.070, -0.055, -0.035, -0.010, 0.015, 0.040, 0.065, 0.090, 0.115, 0.140, 0.165, 0.185, 0.205, 0.225,
               0.243, 0.257, 0.268, 0.277, 0.285, 0.294, 0.304)   # heights of the spine's stations above the hip line


Bends = tuple[float, float, float, float, float]   # radians that each finger's tip is turned by, thumb to little finger
RELAXED: Bends = (0.75,) * 5


@dataclass(frozen=True)
class Build:
    """Body measures, each a factor on the average of 1."""

    height: float = 1.0  # legs and torso, not the head
    shoulders: float = 1.0
    hips: float = 1.0
    waist: float = 1.0
    limbs: float = 1.0
    head: float = 1.0
    bust: float = 0.0  # 0..1


@dataclass(frozen=True)
class Lengths:
    """Lengths of the limbs' bones, each a factor on what `Build.height` makes of them."""

    upper_arm: float = 1.0
    lower_arm: float = 1.0
    thigh: float = 1.0
    shank: float = 1.0


@dataclass(frozen=True)
class Limb:
    """Two bones of an arm or a leg by their directions: unit vectors (outwards, up, forward) of the chest for arms, of the
    pelvis for legs. foot: radians that the toes point up from level, for legs; None: as the shank has it."""

    upper: tuple[float, float, float]
    lower: tuple[float, float, float]
    foot: float | None = None


@dataclass(frozen=True)
class Arm:
    lift: float  # radians from hanging (0) to straight up (pi)
    swing: float  # radians, where it is lifted to: 0 sideways, pi/2 forwards
    bend: float  # radians at the elbow
    toward: tuple[float, float, float]  # where the forearm bends to, as (outwards, up, forward)

    def limb(self) -> Limb:
        """The same as directions."""
        upper = np.array([math.sin(self.lift) * math.cos(self.swing), -math.cos(self.lift),
                          math.sin(self.lift) * math.sin(self.swing)])
        goal = np.asarray(self.toward)
        across = unit(goal - upper * float(goal @ upper))
        return Limb(tuple(upper), tuple(unit(math.cos(self.bend) * upper + math.sin(self.bend) * across)))


@dataclass(frozen=True)
class Leg:
    side: float  # radians outwards
    flex: float  # radians forwards
    knee: float  # radians, 0 = straight
    shin: float | None = None  # radians outwards of the shank; None: 0.6 of the thigh's

    def limb(self) -> Limb:
        """The same as directions; the sole follows the shank, flat on the ground when that stands upright."""
        back = self.flex - self.knee
        outward = math.sin(0.6 * self.side if self.shin is None else self.shin)
        upper = (math.sin(self.side), -math.cos(self.side) * math.cos(self.flex), math.cos(self.side) * math.sin(self.flex))
        return Limb(upper, tuple(unit(np.array([outward, -math.cos(back), math.sin(back)]))), SOLE * back)


@dataclass(frozen=True)
class Pose:
    """Joint angles in radians and the place in the frame; the frame is 1 high and 0.75 wide.

    `arms` and `legs` are (right, left). `scale` is the frame height per body height of a full figure, `zoom` multiplies it:
    1 shows the whole figure, shifted by `x` and `y`; more is a closer view with the top of the head `y` below the frame's
    upper edge. seated: a box stands below the hips. heading, then tip, then roll turn the whole body.
    """

    heading: float
    lean: float  # torso forwards
    tilt: float  # torso towards the person's left
    head_turn: float  # towards the person's left
    head_nod: float  # down
    arms: tuple[Arm | Limb, Arm | Limb]
    legs: tuple[Leg | Limb, Leg | Limb]
    scale: float = 0.86
    x: float = 0.0
    y: float = 0.0
    zoom: float = 1.0
    twist: float = 0.0  # of the chest against the hips, towards the person's left
    head_roll: float = 0.0  # towards the person's left shoulder
    seated: bool = False
    tip: float = 0.0   # of the whole body about its left axis, forwards: pi / 2 lies on its front
    roll: float = 0.0  # of the whole body towards its left
    hands: tuple[Bends, Bends] = (RELAXED, RELAXED)   # right, left


@dataclass(frozen=True)
class Bone:
    """origin (3,), frame (3, 3) with columns (left, front, along), length in body heights."""

    origin: np.ndarray
    frame: np.ndarray
    length: float

    @property
    def end(self) -> np.ndarray:
        """(3,): where the next bone begins."""
        return self.origin + self.frame[:, 2] * self.length


@dataclass(frozen=True)
class Skeleton:
    """pelvis, chest, head (3, 3) with columns (left, up, forward); spine: centres (R, 3) and frames (R, 3, 3) of the
    stations TORSO_RINGS; neck (3,): the joint below the head; arms: (upper, lower) per side, legs: (thigh, shank) per side,
    right first; feet (3, 3) per side, columns (left, up, toes); joints (18, 3) in OpenPose order; eyes (2, 3) right,
    left; hands: how far their fingers bend, right first."""

    pelvis: np.ndarray
    chest: np.ndarray
    head: np.ndarray
    spine: tuple[np.ndarray, np.ndarray]
    neck: np.ndarray
    arms: tuple[tuple[Bone, Bone], tuple[Bone, Bone]]
    legs: tuple[tuple[Bone, Bone], tuple[Bone, Bone]]
    feet: tuple[np.ndarray, np.ndarray]
    joints: np.ndarray
    eyes: np.ndarray
    hands: tuple[Bends, Bends] = (RELAXED, RELAXED)


def unit(a: np.ndarray) -> np.ndarray:
    """(N,), not zero -> the same direction, of length 1."""
    return a / math.sqrt(float(a @ a))


def turn(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The smallest rotation (3, 3) that takes unit vector a to unit vector b, each (3,)."""
    x, y, z = a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + k + k @ k / max(1e-6, 1.0 + float(a @ b))


def about_left(angle: float) -> np.ndarray:
    """(3, 3), of (left, up, forward): positive radians tip up towards forward."""
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def about_up(angle: float) -> np.ndarray:
    """(3, 3): positive radians turn forward towards left."""
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def about_forward(angle: float) -> np.ndarray:
    """(3, 3): positive radians tip up towards left."""
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])


def sole_pitch(limb: Limb) -> float:
    """Radians that the toes of a leg point up from level."""
    return SOLE * math.atan2(limb.lower[2], -limb.lower[1]) if limb.foot is None else limb.foot


# (left, up, forward) to a bone's (left, front, along) with the bone pointing down
DOWNWARDS = np.array([[1.0, 0, 0], [0, 0, -1.0], [0, 1.0, 0]])


def build_skeleton(build: Build, pose: Pose, lengths: Lengths | None = None) -> Skeleton:
    """The posed bones of a person."""
    h, lengths = build.height, lengths or Lengths()
    pelvis = about_up(pose.heading) @ about_left(pose.tip) @ about_forward(pose.roll)
    spine = _spine(pelvis, pose, h)
    chest = spine[1][-1]
    at = np.array(TORSO_RINGS) * h

    def on_spine(height):   # the chest is rigid above its lowest station
        return spine[0][14] + chest[:, 1] * (height * h - at[14])

    neck = on_spine(NECK_HEIGHT)
    head = chest @ about_up(pose.head_turn) @ about_left(pose.head_nod) @ about_forward(pose.head_roll)
    # half of the lean is taken back by the neck: people look ahead
    head = turn(chest[:, 1], unit(chest[:, 1] + pelvis[:, 1])) @ head
    joints = np.zeros((18, 3))
    joints[1] = on_spine(SHOULDER_HEIGHT + 0.008)
    arms = tuple(_arm(arm, side, chest, on_spine(SHOULDER_HEIGHT), build, lengths)
                 for arm, side in zip(pose.arms, (-1.0, 1.0), strict=True))
    legs, feet = zip(*(_leg(leg, side, pelvis, build, lengths) for leg, side in zip(pose.legs, (-1.0, 1.0), strict=True)),
                     strict=True)
    for first, (upper, lower) in zip((2, 5, 8, 11), arms + legs, strict=True):
        joints[first:first + 3] = upper.origin, lower.origin, lower.end
    joints[0] = on_head(neck, head, build.head, 0.0, 0.098, 1.15)
    eyes = np.array([on_head(neck, head, build.head, side * EYE_ANGLE, EYE_HEIGHT) for side in (-1, 1)])
    joints[14:16] = eyes
    joints[16:18] = [on_head(neck, head, build.head, side * math.radians(100), EAR_HEIGHT, 1.06) for side in (-1, 1)]
    return Skeleton(pelvis, chest, head, spine, neck, arms, legs, feet, joints, eyes, pose.hands)


def on_head(neck: np.ndarray, head: np.ndarray, scale: float, angle: float, height: float, out: float = 1.0) -> np.ndarray:
    """A point (3,) of the face at `angle` from its middle towards the person's left, `height` above the neck joint."""
    around = head[:, 0] * HEAD_WIDTH * math.sin(angle) + head[:, 2] * HEAD_DEPTH * math.cos(angle)
    return neck + (around * out + head[:, 1] * height) * scale


def _spine(pelvis: np.ndarray, pose: Pose, h: float) -> tuple[np.ndarray, np.ndarray]:
    """Centres and frames of the stations: the bend is shared out over the waist, hips and chest stay rigid."""
    at = np.array(TORSO_RINGS) * h
    share = np.clip((at / h - 0.01) / 0.20, 0, 1)
    share = share * share * (3 - 2 * share)
    share[14:] = 1.0
    frames = np.array([pelvis] * len(at))
    for n in np.flatnonzero(share > 0):
        if n > 14:
            frames[n] = frames[14]
            continue
        s = float(share[n])
        frames[n] = pelvis @ about_up(s * pose.twist) @ about_forward(s * pose.tilt) @ about_left(s * pose.lean)
    up = 0.5 * (frames[1:, :, 1] + frames[:-1, :, 1]) * np.diff(at)[:, None]
    centres = np.concatenate([np.zeros((1, 3)), np.cumsum(up, axis=0)]) + pelvis[:, 1] * at[0]
    return centres, frames


def _arm(arm: Arm | Limb, side: float, chest: np.ndarray, root: np.ndarray, build: Build,
         lengths: Lengths) -> tuple[Bone, Bone]:
    mirror = np.array([side, 1.0, 1.0])
    rest = unit(np.array([side, -1.0, 0.0]))
    limb = arm if isinstance(arm, Limb) else arm.limb()
    upper, lower = mirror * np.array(limb.upper), mirror * np.array(limb.lower)
    down = turn(np.array([0, -1.0, 0]), rest) @ DOWNWARDS
    upper_frame = chest @ turn(rest, upper) @ down
    lower_frame = chest @ turn(upper, lower) @ turn(rest, upper) @ down
    # a lifted arm takes the shoulder up and in with it
    raised = (0.5 + 0.5 * float(upper[1])) ** 1.3
    shoulder = root + chest @ (mirror * (np.array([SHOULDER_WIDTH * build.shoulders, 0, -0.004])
                                         + np.array([-0.016, 0.034, 0]) * raised))
    first = Bone(shoulder, upper_frame, UPPER_ARM * build.height * lengths.upper_arm)
    return first, Bone(first.end, lower_frame, LOWER_ARM * build.height * lengths.lower_arm)


def _leg(leg: Leg | Limb, side: float, pelvis: np.ndarray, build: Build,
         lengths: Lengths) -> tuple[tuple[Bone, Bone], np.ndarray]:
    """(thigh, shank) and the frame of the foot."""
    mirror = np.array([side, 1.0, 1.0])
    down = np.array([0, -1.0, 0])
    limb = leg if isinstance(leg, Limb) else leg.limb()
    thigh, shank = mirror * np.array(limb.upper), mirror * np.array(limb.lower)
    thigh_frame = pelvis @ turn(down, thigh) @ DOWNWARDS
    shank_frame = pelvis @ turn(thigh, shank) @ turn(down, thigh) @ DOWNWARDS
    first = Bone(pelvis @ (mirror * np.array([HIP_WIDTH * build.hips, 0.0, 0.0])), thigh_frame,
                 THIGH * build.height * lengths.thigh)
    # the toes follow the hips
    pitch = sole_pitch(limb)
    toes = unit(np.array([side * 0.16, math.sin(pitch), math.cos(pitch)]))
    up = unit(np.array([0, math.cos(pitch), -math.sin(pitch)]))
    left = unit(np.cross(up, toes))
    foot = pelvis @ np.stack([left, up, toes], axis=1)
    return (first, Bone(first.end, shank_frame, SHANK * build.height * lengths.shank)), foot
