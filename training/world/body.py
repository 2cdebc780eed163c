"""The bodies of the demo world: build and pose in, quadric surfaces and joints out.

Space is measured in body heights: x to the right of the picture, y up, z towards the camera. A limb is a lathe: its squared
radius is a quadratic B-spline along its axis, so each span is one quadric that a ray meets in closed form and the
profile has no creases. The person's own axes are (left, up, forward); heading 0 looks at the camera.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

# Segments. A segment has one chart frame; two DensePose parts share it except at hands and feet.
TORSO, HEAD = 0, 1
R_ARM, L_ARM, R_LEG, L_LEG = (2, 3, 4), (5, 6, 7), (8, 9, 10), (11, 12, 13)  # upper, lower, hand or foot
SKIRT = 14  # one surface that shows the charts of both thighs
SEGMENTS = 14

HEAD_TOP, CHIN, HEAD_BOTTOM = 0.205, 0.055, -0.115  # above the neck joint; below the neck only long hair is left
HEAD_WIDTH, HEAD_DEPTH, HEAD_BACK = 0.053, 0.063, 0.006  # half axes of the skull; the axis lies a little behind the neck
EYE_HEIGHT, EYE_ANGLE, EAR_HEIGHT = 0.122, math.radians(26.0), 0.116

TORSO_TOP, TORSO_BOTTOM = 0.312, -0.062  # above the hip line
NECK_HEIGHT = 0.285
UPPER_ARM, LOWER_ARM, HAND = 0.165, 0.142, 0.088
THIGH, SHANK, ANKLE = 0.240, 0.232, 0.046


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
class Arm:
    lift: float  # radians from hanging (0) to straight up (pi)
    swing: float  # radians, where it is lifted to: 0 sideways, pi/2 forwards
    bend: float  # radians at the elbow
    toward: tuple[float, float, float]  # where the forearm bends to, as (outwards, up, forward)


@dataclass(frozen=True)
class Leg:
    side: float  # radians outwards
    flex: float  # radians forwards
    knee: float  # radians, 0 = straight


@dataclass(frozen=True)
class Pose:
    """Joint angles in radians and the place in the frame; the frame is 1 high and 0.75 wide.

    `arms` and `legs` are (right, left). `scale` is the frame height per body height, `x` and `y` shift the centre.
    """

    heading: float
    lean: float  # torso forwards
    tilt: float  # torso towards the person's left
    head_turn: float  # towards the person's left
    head_nod: float  # down
    arms: tuple[Arm, Arm]
    legs: tuple[Leg, Leg]
    scale: float = 0.86
    x: float = 0.0
    y: float = 0.0


@dataclass
class Surfaces:
    """Quadric slices: points o + M (x, y, t) with x^2 + y^2 = s0 + s1 t + s2 t^2 and |t| <= half."""

    frames: list[np.ndarray] = field(default_factory=list)  # (3, 3), columns are the axes
    origins: list[np.ndarray] = field(default_factory=list)
    profiles: list[tuple[float, float, float, float]] = field(default_factory=list)  # s0, s1, s2, half
    segments: list[int] = field(default_factory=list)

    def _add(self, segment, frame, origin, middle, half, s0, s1, s2):
        self.frames.append(frame)
        self.origins.append(origin + frame[:, 2] * middle)
        self.profiles.append((s0, s1, s2, half))
        self.segments.append(segment)

    def ellipsoid(self, segment, centre, axes, radii):
        """axes (3, 3) orthonormal columns, radii along them."""
        self._add(segment, axes * np.asarray(radii), centre, 0.0, 1.0, 1.0, 0.0, -1.0)

    def lathe(self, segment, origin, axes, start, stop, radii, aspect=(1.0, 1.0), caps=(True, True)):
        """A body around axes[:, 2] from start to stop; radii are spline controls at equal distances.

        A cap closes an end with half an ellipsoid; an end of radius 0 is round by itself (r^2 linear is a paraboloid).
        """
        frame = axes * np.array([aspect[0], aspect[1], 1.0])
        s = [r * r for r in radii]
        h = (stop - start) / (len(s) - 1)
        self._add(segment, frame, origin, start + h / 4, h / 4, 0.75 * s[0] + 0.25 * s[1], (s[1] - s[0]) / h, 0.0)
        self._add(segment, frame, origin, stop - h / 4, h / 4, 0.75 * s[-1] + 0.25 * s[-2], (s[-1] - s[-2]) / h, 0.0)
        for i in range(1, len(s) - 1):
            second = s[i + 1] - 2 * s[i] + s[i - 1]
            self._add(segment, frame, origin, start + i * h, h / 2, s[i] + second / 8,
                      (s[i + 1] - s[i - 1]) / (2 * h), second / (2 * h * h))
        for cap, end, sign, r in ((caps[0], start, -1, radii[0]), (caps[1], stop, 1, radii[-1])):
            if cap and r > 0:  # r^2 - (t - end)^2 about the middle of the cap
                self._add(segment, frame, origin, end + sign * r / 2, r / 2, 0.75 * r * r, -sign * r, -1.0)


@dataclass(frozen=True)
class Body:
    """What the renderer needs, in body heights.

    frames (P, 3, 3), origins (P, 3), profiles (P, 4), segments (P,): see Surfaces.
    charts (15, 4, 3): origin, then the two section axes and the axis from v = 0 to v = 1, divided by their lengths squared
    so that a dot product gives the chart coordinate.
    joints (18, 3), face (9, 3): the outline points of the face.
    """

    frames: np.ndarray
    origins: np.ndarray
    profiles: np.ndarray
    segments: np.ndarray
    charts: np.ndarray
    joints: np.ndarray
    face: np.ndarray
    head_axes: np.ndarray


def radii_of(build: Build, leg_cloth: float = 0.0) -> dict[str, tuple[float, ...]]:
    """Spline controls of each limb's radius; leg_cloth 0..1 says how far trousers widen the shank."""
    k = build.limbs
    shank = (0.037, 0.046, 0.036, 0.023)
    loose = (0.039, 0.043, 0.041, 0.038)
    return {
        "upper_arm": tuple(k * r for r in (0.033, 0.034, 0.026)),
        "lower_arm": tuple(k * r for r in (0.026, 0.030, 0.018)),
        "thigh": tuple(k * r for r in (0.050, 0.059, 0.048, 0.038)),
        "shank": tuple(k * (a + leg_cloth * (b - a)) for a, b in zip(shank, loose, strict=True)),
    }


def chart_spans(build: Build, leg_cloth: float = 0.0) -> dict[str, tuple[float, float]]:
    """Per kind of segment, the distance from its joint at v = 0 (negative: before the joint) and at v = 1."""
    r, h = radii_of(build, leg_cloth), build.height
    return {
        "torso": (-TORSO_TOP * h, -TORSO_BOTTOM),
        "head": (-HEAD_TOP * build.head, -HEAD_BOTTOM * build.head),
        "upper_arm": (-r["upper_arm"][0], UPPER_ARM * h + r["upper_arm"][-1]),
        "lower_arm": (-r["lower_arm"][0], LOWER_ARM * h + r["lower_arm"][-1]),
        "hand": (-0.012, HAND * h),
        "thigh": (-r["thigh"][0], THIGH * h + r["thigh"][-1]),
        "shank": (-r["shank"][0], SHANK * h + r["shank"][-1]),
        "foot": (-0.045, 0.098),
    }


def unit(a: np.ndarray) -> np.ndarray:
    return a / math.sqrt(float(a @ a))


def turn(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The smallest rotation (3, 3) that takes unit vector a to unit vector b."""
    x, y, z = a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + k + k @ k / max(1e-6, 1.0 + float(a @ b))


def _about_left(angle: float) -> np.ndarray:  # positive tips up towards forward
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def _about_up(angle: float) -> np.ndarray:  # positive turns forward towards left
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def _about_forward(angle: float) -> np.ndarray:  # positive tips up towards left
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])


# (left, up, forward) to a lathe's (left, forward, axis) with the axis pointing down
_DOWNWARDS = np.array([[1.0, 0, 0], [0, 0, -1.0], [0, 1.0, 0]])


def build_body(build: Build, pose: Pose, hair_style: str = "short", skirt: float = 0.0, leg_cloth: float = 0.0) -> Body:
    """The posed surfaces; skirt is the share of the thigh that a skirt covers, 0 for none."""
    surfaces, charts, joints = Surfaces(), np.zeros((SEGMENTS + 1, 4, 3)), np.zeros((18, 3))
    spans, radii, h, k = chart_spans(build, leg_cloth), radii_of(build, leg_cloth), build.height, build.limbs
    world = _about_up(pose.heading)
    chest = world @ _about_forward(pose.tilt) @ _about_left(pose.lean)
    neck = chest[:, 1] * NECK_HEIGHT * h
    joints[1] = neck - chest[:, 1] * 0.014

    def chart(segment, kind, origin, axes, section=(1.0, 1.0)):
        low, high = spans[kind]
        charts[segment, 0] = origin + axes[:, 2] * low
        charts[segment, 1], charts[segment, 2] = axes[:, 0] / section[0], axes[:, 1] / section[1]
        charts[segment, 3] = axes[:, 2] / (high - low)

    axes = chest @ _DOWNWARDS
    chart(TORSO, "torso", np.zeros(3), axes, (1.0, 0.62))
    _torso(surfaces, axes, build, skirt > 0)
    head = chest @ _about_up(pose.head_turn) @ _about_left(pose.head_nod)
    # half of the lean is taken back by the neck: people look ahead
    head = turn(chest[:, 1], unit(chest[:, 1] + world[:, 1])) @ head
    skull = head @ _DOWNWARDS
    chart(HEAD, "head", neck - head[:, 2] * HEAD_BACK, skull, (HEAD_WIDTH, HEAD_DEPTH))
    face = _head(surfaces, neck, head, chest, build, hair_style, joints)

    for arm, segments, side, first in ((pose.arms[0], R_ARM, -1.0, 2), (pose.arms[1], L_ARM, 1.0, 5)):
        mirror = np.array([side, 1.0, 1.0])
        rest = unit(np.array([side, -1.0, 0.0]))
        upper = np.array([side * math.sin(arm.lift) * math.cos(arm.swing), -math.cos(arm.lift),
                          math.sin(arm.lift) * math.sin(arm.swing)])
        goal = np.asarray(arm.toward) * mirror
        across = unit(goal - upper * float(goal @ upper))
        lower = unit(math.cos(arm.bend) * upper + math.sin(arm.bend) * across)
        down = turn(np.array([0, -1.0, 0]), rest) @ _DOWNWARDS
        upper_axes = chest @ turn(rest, upper) @ down
        lower_axes = chest @ turn(upper, lower) @ turn(rest, upper) @ down
        shoulder = neck + chest @ (mirror * np.array([0.107 * build.shoulders, -0.014, -0.004]))
        # a lifted arm takes the shoulder up and in with it
        raised = (0.5 - 0.5 * math.cos(arm.lift)) ** 1.5
        shoulder = shoulder + chest @ (mirror * np.array([-0.014, 0.024, 0])) * raised
        elbow = shoulder + upper_axes[:, 2] * UPPER_ARM * h
        wrist = elbow + lower_axes[:, 2] * LOWER_ARM * h
        joints[first:first + 3] = shoulder, elbow, wrist
        surfaces.lathe(segments[0], shoulder, upper_axes, 0.0, UPPER_ARM * h, radii["upper_arm"])
        surfaces.lathe(segments[1], elbow, lower_axes, 0.0, LOWER_ARM * h, radii["lower_arm"])
        chart(segments[0], "upper_arm", shoulder, upper_axes)
        chart(segments[1], "lower_arm", elbow, lower_axes)
        chart(segments[2], "hand", wrist, lower_axes)
        surfaces.lathe(segments[2], wrist, lower_axes, -0.012, HAND * h, [k * r for r in (0.017, 0.025, 0.029, 0.024, 0.0)],
                       aspect=(0.62, 1.0))
        thumb = unit(lower_axes[:, 2] + 0.75 * lower_axes[:, 1])
        surfaces.lathe(segments[2], wrist + lower_axes[:, 2] * 0.016, turn(lower_axes[:, 2], thumb) @ lower_axes,
                       0.0, 0.042, (0.012, 0.010, 0.008))

    for leg, segments, side, first in ((pose.legs[0], R_LEG, -1.0, 8), (pose.legs[1], L_LEG, 1.0, 11)):
        mirror = np.array([side, 1.0, 1.0])
        down = np.array([0, -1.0, 0])
        thigh = mirror * np.array([math.sin(leg.side), -math.cos(leg.side) * math.cos(leg.flex),
                                   math.cos(leg.side) * math.sin(leg.flex)])
        back = leg.flex - leg.knee
        shank = mirror * np.array([math.sin(leg.side) * 0.6, -math.cos(back), math.sin(back)])
        shank = unit(shank)
        thigh_axes = world @ turn(down, thigh) @ _DOWNWARDS
        shank_axes = world @ turn(thigh, shank) @ turn(down, thigh) @ _DOWNWARDS
        hip = world @ (mirror * np.array([0.052 * build.hips, 0.0, 0.0]))
        knee = hip + thigh_axes[:, 2] * THIGH * h
        ankle = knee + shank_axes[:, 2] * SHANK * h
        joints[first:first + 3] = hip, knee, ankle
        surfaces.lathe(segments[0], hip, thigh_axes, 0.0, THIGH * h, radii["thigh"])
        surfaces.lathe(segments[1], knee, shank_axes, 0.0, SHANK * h, radii["shank"])
        chart(segments[0], "thigh", hip, thigh_axes)
        chart(segments[1], "shank", knee, shank_axes)
        # the toes follow the heading; the sole follows the shank, flat on the ground when that stands upright
        pitch = 0.85 * back
        toes = np.array([side * 0.13, math.sin(pitch), math.cos(pitch)])
        toes = unit(toes)
        up = unit(np.array([0, math.cos(pitch), -math.sin(pitch)]))
        left = unit(np.cross(up, toes))
        foot_axes = world @ np.stack([left, up, toes], axis=1)
        sole = ankle - foot_axes[:, 1] * 0.020
        chart(segments[2], "foot", sole, foot_axes)
        surfaces.lathe(segments[2], sole, foot_axes, -0.045, 0.098, (0.0, 0.036, 0.031, 0.034, 0.033, 0.0),
                       aspect=(1.0, 0.80))
    if skirt > 0:
        charts[SKIRT] = _skirt(surfaces, world, joints, build, skirt * THIGH * h, spans["thigh"])
    return Body(np.array(surfaces.frames), np.array(surfaces.origins), np.array(surfaces.profiles),
                np.array(surfaces.segments), charts, joints, face, head)


def _torso(surfaces: Surfaces, axes: np.ndarray, build: Build, skirted: bool) -> None:
    h, s, hip, waist = build.height, build.shoulders, build.hips, build.waist
    widths = (0.034, 0.092 * s, 0.108 * s, 0.090 * s, 0.074 * waist, 0.076 * waist, 0.091 * hip, 0.100 * hip, 0.0)
    surfaces.lathe(TORSO, np.zeros(3), axes, -TORSO_TOP * h, -TORSO_BOTTOM, widths, aspect=(1.0, 0.62))
    left, front, down = axes.T
    if not skirted:  # a skirt hangs straight behind
        for side in (-1.0, 1.0):
            surfaces.ellipsoid(TORSO, left * side * 0.038 * hip - front * 0.020 + down * 0.014, axes,
                               (0.054 * hip, 0.046, 0.060))
    # one wide, flat swell: two would fold stripes and letters
    surfaces.ellipsoid(TORSO, front * (0.022 + 0.014 * build.bust) - down * 0.200 * h, axes,
                       (0.084 * s, 0.044, 0.066))


def _head(surfaces: Surfaces, neck, head, chest, build: Build, hair_style: str, joints) -> np.ndarray:
    k, axes = build.head, head @ _DOWNWARDS
    left, up, front = head.T
    axis = neck - front * HEAD_BACK
    section = (HEAD_WIDTH * k, HEAD_DEPTH * k)
    surfaces.lathe(HEAD, axis, axes, -HEAD_TOP * k, -CHIN * k, (0.0, 0.95, 1.06, 1.0, 0.88, 0.62, 0.0), aspect=section)
    surfaces.lathe(HEAD, neck - chest[:, 2] * 0.006, turn(chest[:, 1], unit(chest[:, 1] + up)) @ chest @ _DOWNWARDS,
                   -0.085 * k, 0.035, (0.028, 0.028, 0.034, 0.046))

    def on_skull(angle, height, out=1.0):  # angle from the front towards the person's left
        around = left * HEAD_WIDTH * math.sin(angle) + front * HEAD_DEPTH * math.cos(angle)
        return axis + around * k * out + up * height * k

    joints[0] = on_skull(0.0, 0.100, 1.14)
    joints[14], joints[15] = on_skull(-EYE_ANGLE, EYE_HEIGHT), on_skull(EYE_ANGLE, EYE_HEIGHT)
    for joint, side in ((16, -1.0), (17, 1.0)):
        joints[joint] = on_skull(side * math.radians(97), EAR_HEIGHT, 1.04)
        surfaces.ellipsoid(HEAD, joints[joint], axes, (0.008 * k, 0.013 * k, 0.020 * k))
    surfaces.ellipsoid(HEAD, on_skull(0.0, 0.104, 0.97), axes, (0.011 * k, 0.013 * k, 0.017 * k))

    def hair(top, bottom, profile, width, depth, back):
        surfaces.lathe(HEAD, axis - front * back * k, axes, -top * k, -bottom * k, profile,
                       (width * k, depth * k), (False, False))

    if hair_style in ("short", "bun"):
        hair(0.213, 0.075, (0.0, 0.98, 1.08, 1.02, 0.86, 0.0), 0.056, 0.062, 0.009)
    elif hair_style == "bob":
        hair(0.214, 0.035, (0.0, 1.0, 1.05, 1.02, 1.04, 1.06, 0.9), 0.061, 0.063, 0.017)
    elif hair_style == "long":
        hair(0.214, -0.100, (0.0, 1.05, 1.08, 1.0, 0.96, 1.04, 1.12, 1.05, 0.0), 0.061, 0.057, 0.023)
    elif hair_style == "afro":
        hair(0.240, 0.062, (0.0, 1.05, 1.12, 1.05, 0.90, 0.0), 0.074, 0.078, 0.014)
    if hair_style == "bun":
        surfaces.ellipsoid(HEAD, axis - front * 0.066 * k + up * 0.180 * k, axes, (0.033 * k, 0.030 * k, 0.030 * k))
    points = [on_skull(math.radians(a), y) for a in (-62, 0, 62) for y in (0.090, EYE_HEIGHT, 0.150)]
    return np.array(points + [on_skull(0.0, CHIN + 0.004, 0.5), on_skull(0.0, 0.172, 0.9)])


def _skirt(surfaces: Surfaces, world, joints, build: Build, length: float, span: tuple[float, float]) -> np.ndarray:
    """A tube around both thighs: its section at the hem is the ellipse around the two. Returns its chart (4, 3)."""
    hems = [joints[hip] + unit(joints[hip + 1] - joints[hip]) * length for hip in (8, 11)]
    left, forward = world[:, 0], world[:, 2]
    gap = (hems[1] - hems[0]) / 2
    across = np.array([gap @ left, gap @ forward]) * 1.25
    spread = np.eye(2) * (0.060 * build.limbs) ** 2 + np.outer(across, across)
    values, vectors = np.linalg.eigh(spread)
    section = vectors @ np.diag(np.sqrt(values)) @ vectors.T  # the symmetric root keeps left near left
    rise = 0.055
    waist = world[:, 1] * rise
    hem = (hems[0] + hems[1]) / 2
    along = hem - waist
    reach = math.sqrt(float(along @ along))
    axes = np.stack([left * section[0, 0] + forward * section[1, 0], left * section[0, 1] + forward * section[1, 1],
                     along / reach], axis=1)
    # the waist ring stays inside the torso however long the stride stretches the section
    wide = min(0.084 * build.waist / section[0, 0], 0.052 / section[1, 1])
    sides, depth = 0.100 * build.hips / section[0, 0], 0.072 / section[1, 1]
    hips = math.sqrt(sides * depth)
    surfaces.lathe(SKIRT, waist, axes, 0.0, reach, (wide, hips, max(1.02, 0.5 * (hips + 1.0)), 1.08), caps=(False, False))
    # the thighs' v runs down the skirt itself: cloth hangs from the waist and does not turn with a leg
    chart = np.linalg.inv(axes)
    chart[2] *= (length + rise) / reach / (span[1] - span[0])
    start = waist + axes[:, 2] * (rise + span[0]) * reach / (length + rise)
    return np.concatenate([start[None], chart])
