"""The surfaces of a posed body: torso, arms, legs and skirt as grids; hands, feet and head come from their own files.

Clothes change the shape only as far as `Cut` says. Every grid carries its chart: `angle` around and `v` along.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .extremities import HAND_SPAN, foot, hand
from .head import HEAD_SPAN, add_head
from .mesh import Grids, Mesh, columns, follow, grid_normals, ring, smooth, tube
from .skeleton import LOWER_ARM, SHANK, THIGH, TORSO_RINGS, UPPER_ARM, Bone, Build, Skeleton, unit

# Segments. A segment has one chart; two DensePose parts share it except at hands and feet.
TORSO, HEAD = 0, 1
R_ARM, L_ARM, R_LEG, L_LEG = (2, 3, 4), (5, 6, 7), (8, 9, 10), (11, 12, 13)  # upper, lower, hand or foot
SKIRT = 14  # one surface that shows the charts of both thighs

ARM_CAP, LEG_CAP, ANKLE_RUN = 0.025, 0.036, 0.012   # how far limbs go on before their first and behind their last joint
FOOT_SPAN = (-0.042, 0.100)

# half widths, half depths and shifts forwards of the trunk at the stations TORSO_RINGS
TORSO_WIDE = (0.001, 0.042, 0.080, 0.098, 0.1035, 0.0985, 0.089, 0.0795, 0.0745, 0.0745, 0.0785, 0.084, 0.088, 0.092,
              0.0965, 0.1000, 0.1000, 0.0950, 0.080, 0.059, 0.039, 0.0265)
_TORSO_DEEP = (0.001, 0.036, 0.055, 0.0630, 0.0650, 0.062, 0.057, 0.053, 0.051, 0.051, 0.0535, 0.057, 0.059, 0.0585, 0.055,
               0.0505, 0.0465, 0.043, 0.0395, 0.036, 0.031, 0.025)
_TORSO_AHEAD = (-0.005, -0.005, -0.007, -0.008, -0.007, -0.004, -0.002, 0.0, 0.002, 0.003, 0.004, 0.004, 0.004, 0.003, 0.0,
                -0.002, -0.003, -0.003, -0.002, -0.001, 0.0, 0.001)


@dataclass(frozen=True)
class Cut:
    """What clothes and hair do to the outline. Lengths are shares: sleeve of shoulder to wrist, leg of hip to ankle, skirt
    of the thigh (0: none); ease and fit 0..1: how far sleeves and legs stand off; flare 0..1 of the skirt; waist:
    where a skirt starts, body heights above the hip line."""

    sleeve: float = 0.0
    ease: float = 0.0
    leg: float = 0.0
    fit: float = 0.0
    skirt: float = 0.0
    flare: float = 0.0
    waist: float = 0.055
    hair: str = "cropped"


def chart_spans(build: Build) -> dict[str, tuple[float, float]]:
    """Per kind of segment, the distance from its joint at v = 0 (negative: before the joint) and at v = 1."""
    h = build.height
    return {
        "torso": (-TORSO_RINGS[-1] * h, -TORSO_RINGS[0] * h),
        "head": (-HEAD_SPAN[1] * build.head, -HEAD_SPAN[0] * build.head),
        "upper_arm": (-ARM_CAP, UPPER_ARM * h), "lower_arm": (0.0, LOWER_ARM * h), "hand": HAND_SPAN,
        "thigh": (-LEG_CAP, THIGH * h), "shank": (0.0, SHANK * h + ANKLE_RUN), "foot": FOOT_SPAN,
    }


def build_figure(build: Build, skeleton: Skeleton, cut: Cut) -> Mesh:
    """The mesh of a posed person, in body heights."""
    grids = Grids()
    _torso(grids, build, skeleton)
    add_head(grids, HEAD, build, skeleton, cut.hair)
    for bones, segments, medial, bends in zip(skeleton.arms, (R_ARM, L_ARM), (1, -1), skeleton.hands, strict=True):
        _arm(grids, bones, segments, build, cut)
        hand(grids, segments[2], bones[1], medial, build.limbs, bends)
    for bones, frame, segments in ((skeleton.legs[0], skeleton.feet[0], R_LEG), (skeleton.legs[1], skeleton.feet[1], L_LEG)):
        _leg(grids, bones, segments, skeleton.pelvis, build, cut)
        foot(grids, segments[2], bones[1].end, frame, build.limbs)
    if cut.skirt > 0:
        _skirt(grids, build, skeleton, cut)
    return grids.mesh()


def torso_section(build: Build, height: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Half width, half depth and shift forwards of the trunk at heights (N,) above the hip line (before `build.height`),
    each (N,), in body heights."""
    # hips, waist and shoulders widen their own heights
    factor = smooth(height, (-0.08, 0.0, 0.10, 0.20, 0.25, 0.30), (
        build.hips, build.hips, build.waist, 0.5 + 0.5 * build.shoulders, build.shoulders, 1.0))
    wide, deep, ahead = (np.interp(height, TORSO_RINGS, values) for values in (TORSO_WIDE, _TORSO_DEEP, _TORSO_AHEAD))
    return wide * factor, deep * (0.5 + 0.5 * factor), ahead


def _torso(grids: Grids, build: Build, skeleton: Skeleton) -> None:
    at, angle = np.array(TORSO_RINGS), columns(32)
    centres, frames = skeleton.spine
    wide, deep, ahead = torso_section(build, at)
    section = ring(angle, 0.85)
    # one wide, flat swell: two would fold stripes and letters
    swell = (0.010 + 0.030 * build.bust) * np.exp(-((at - 0.187) / 0.028) ** 2)
    front = np.maximum(np.sin(np.pi * angle), 0) ** 1.5
    centres = centres + frames[:, :, 2] * ahead[:, None]
    points = tube(centres, frames[:, :, 0], frames[:, :, 2], wide, deep, section)
    points += frames[:, None, :, 2] * (swell[:, None] * front)[..., None]
    v = (at[-1] - at) / (at[-1] - at[0])
    # stations go up, rings along the downward axis
    points = points[::-1]
    normals = grid_normals(points)
    hangs = np.mean([_hangs(thigh, skeleton.pelvis) for thigh, _ in skeleton.legs])
    normals = _like_trunk(points, normals, hangs * np.clip(0.6 - at[::-1] / 0.03, 0, 1), skeleton.pelvis, build)
    grids.add(TORSO, points, normals, angle, v[::-1])


def _hangs(thigh: Bone, pelvis: np.ndarray) -> float:
    """1 for a thigh that hangs from the hips, 0 for one that is lifted by 60 degrees or more."""
    return float(np.clip(-2 * (thigh.frame[:, 2] @ pelvis[:, 1]) - 0.9, 0, 1))


def _like_trunk(points, normals, share: np.ndarray, pelvis: np.ndarray, build: Build) -> np.ndarray:
    """Normals (R, C, 3) moved by share (R,) to those of the trunk's section at the hips: trunk and legs then meet without a
    crease."""
    wide, deep, _ = torso_section(build, np.zeros(1))
    local = points @ pelvis
    trunk = np.stack([local[..., 0] / wide ** 2, 0 * local[..., 1], local[..., 2] / deep ** 2], axis=2) @ pelvis.T
    trunk /= np.sqrt((trunk * trunk).sum(2, keepdims=True)) + 1e-9
    mixed = normals + share[:, None, None] * (trunk - normals)
    return mixed / (np.sqrt((mixed * mixed).sum(2, keepdims=True)) + 1e-9)


def _limb(grids: Grids, segments: tuple[int, ...], bones: tuple[Bone, Bone], stations, wide, deep, back, rounding: float,
          spans, count: int, merge=None) -> None:
    """A bent tube, cut at its joint into the charts of its two bones. merge: what changes its normals near the trunk."""
    angle = columns(count)
    centres, left, front = follow(bones, stations, rounding)
    points = tube(centres - front * back[:, None], left, front, wide, deep, ring(angle))
    normals = grid_normals(points)
    if merge is not None:
        normals = merge(points, normals)
    joint = int(np.searchsorted(stations, bones[0].length - 1e-9))
    for segment, part, offset, (low, high) in ((segments[0], slice(0, joint + 1), 0.0, spans[0]),
                                               (segments[1], slice(joint, None), bones[0].length, spans[1])):
        grids.add(segment, points[part], normals[part], angle, (stations[part] - offset - low) / (high - low))


def _stations(cap: float, first: float, second: float, run: float, hem: float, counts: tuple[int, int]) -> np.ndarray:
    """Distances of rings from the first joint: a round cap, both bones, and two rings close together at a hem."""
    hem = float(np.clip(hem, 0.02, first + second + run - 0.002))
    return np.sort(np.concatenate([-cap * np.array([0.999, 0.92, 0.72, 0.40]), np.linspace(0, first, counts[0])[:-1],
                                   np.linspace(first, first + second, counts[1]), [first + second + run],
                                   [hem - 0.0012, hem + 0.0012]]))


def _arm(grids: Grids, bones: tuple[Bone, Bone], segments: tuple[int, ...], build: Build, cut: Cut) -> None:
    k, upper, lower = build.limbs, bones[0].length, bones[1].length
    hem = cut.sleeve * (upper + lower)
    s = _stations(ARM_CAP, upper, lower, 0.004, hem, (7, 8))
    share = np.clip(s, 0, None) / np.where(s < upper, upper, 1) * (s < upper) + (s >= upper) * (1 + (s - upper) / lower)
    radius = k * smooth(share, (0, 0.2, 0.5, 0.85, 1.0, 1.25, 1.5, 1.85, 2.0),
                        (0.0300, 0.0320, 0.0295, 0.0262, 0.0255, 0.0272, 0.0245, 0.0178, 0.0165))
    if cut.sleeve > 0:
        worn = s < hem
        flare = 0.0030 + cut.ease * 0.007 * np.clip(s / max(hem, 0.05), 0, 1) * (1.0 if cut.sleeve < 0.9 else 0.5)
        radius = radius + worn * flare
    cap = np.sqrt(np.clip(1 - (np.minimum(s, 0) / ARM_CAP) ** 2, 0, 1))
    flat = smooth(share, (0, 1.5, 1.9, 2.0), (1.0, 1.0, 0.86, 0.80))
    _limb(grids, segments, bones, s, radius * cap * flat, radius * cap / np.sqrt(flat), 0 * s, 0.030,
          ((-ARM_CAP, upper), (0.0, lower)), 14)


def _leg(grids: Grids, bones: tuple[Bone, Bone], segments: tuple[int, ...], pelvis: np.ndarray, build: Build,
         cut: Cut) -> None:
    k, upper, lower = build.limbs, bones[0].length, bones[1].length
    hem = cut.leg * (upper + lower) if cut.leg < 1 else upper + lower + 0.006
    s = _stations(LEG_CAP, upper, lower, ANKLE_RUN, hem, (8, 10))
    share = np.where(s < upper, np.clip(s, 0, None) / upper, 1 + (s - upper) / lower)
    radius = k * thigh_radius(share)
    calf = 0.006 * k * np.exp(-((share - 1.30) / 0.22) ** 2)
    if cut.leg > 0 and cut.skirt == 0:
        loose = smooth(share, (0, 0.6, 1.0, 1.5, 2.0), (0.058, 0.053, 0.0475, 0.047, 0.048)) * k
        worn = s < hem
        cloth = np.maximum(radius + 0.0035, radius + cut.fit * (loose - radius))
        radius = np.where(worn, cloth, radius)
        calf = np.where(worn, calf * (1 - 0.8 * cut.fit), calf)
    cap = np.sqrt(np.clip(1 - (np.minimum(s, 0) / LEG_CAP) ** 2, 0, 1))
    share = np.clip(1 - (s + 0.01) / 0.09, 0, 1) * _hangs(bones[0], pelvis)

    def merge(points, normals):
        return _like_trunk(points, normals, share, pelvis, build)

    _limb(grids, segments, bones, s, radius * cap, radius * cap, calf, 0.040,
          ((-LEG_CAP, upper), (0.0, lower + ANKLE_RUN)), 16, merge)


def thigh_radius(share: np.ndarray) -> np.ndarray:
    """Radius of a leg of average build in body heights, at shares of any shape: 0 hip, 1 knee, 2 ankle."""
    return smooth(share, (0, 0.2, 0.55, 0.85, 1.0, 1.12, 1.3, 1.55, 1.8, 2.0),
                  (0.0480, 0.0560, 0.0490, 0.0395, 0.0375, 0.0365, 0.0395, 0.0335, 0.0240, 0.0220))


def _skirt(grids: Grids, build: Build, skeleton: Skeleton, cut: Cut) -> None:
    """A tube around both thighs that starts at the waist: its section is the ellipse around the two."""
    (right, _), (left, _) = skeleton.legs
    rise, length = cut.waist * build.height, cut.skirt * right.length
    waist = skeleton.pelvis[:, 1] * rise
    frame = np.stack([skeleton.pelvis[:, 0], skeleton.pelvis[:, 2], -skeleton.pelvis[:, 1]], axis=1)
    along = unit(right.frame[:, 2] + left.frame[:, 2])
    first, second = Bone(waist, frame, rise), Bone(np.zeros(3), np.stack([along] * 3, axis=1), length)
    s = np.linspace(0, rise + length, 14)
    centres, aside, ahead = follow((first, second), s, 0.9 * rise)
    down = np.clip(s - rise, 0, None)
    gap = (left.origin - right.origin) / 2 + down[:, None] * (left.frame[:, 2] - right.frame[:, 2]) / 2
    gap = np.stack([(gap * aside).sum(1), (gap * ahead).sum(1)], axis=1)
    upright = max(0.25, -float(along @ skeleton.pelvis[:, 1]))
    radius = build.limbs * thigh_radius(down / right.length) + 0.007 + cut.flare * upright * 0.30 * down
    # along the gap the section reaches around both: half the gap and a radius
    apart = np.sqrt((gap * gap).sum(1))
    gap *= (np.sqrt((apart + radius) ** 2 - radius ** 2) / np.maximum(apart, 1e-6))[:, None]
    # the symmetric root of the spread (2, 2) keeps left near left
    a, b, d = radius ** 2 + gap[:, 0] ** 2, gap[:, 0] * gap[:, 1], radius ** 2 + gap[:, 1] ** 2
    root = np.sqrt(np.maximum(a * d - b * b, 1e-12))
    scale = 1 / np.sqrt(a + d + 2 * root)
    a, b, d = (a + root) * scale, b * scale, (d + root) * scale
    hips = np.clip(s / (rise + 0.07), 0, 1)
    hips = hips * hips * (3 - 2 * hips)
    # down to the hips it lies on the trunk
    wide, deep, shift = torso_section(build, (rise - s) / build.height)
    lies = np.clip(0.9 + 6 * s, 0, 1.0)
    a = np.maximum(hips * a, (wide + 0.004) * lies)
    d = np.maximum(hips * d, (deep + np.abs(shift) + 0.004) * lies)
    b = b * hips
    # and from there cloth hangs straight, unless the thighs are lifted
    hangs = np.mean([_hangs(thigh, skeleton.pelvis) for thigh, _ in skeleton.legs])
    taper = 1 - 0.10 * (1 - cut.flare) * np.clip(down / max(length, 0.1), 0, 1)
    a, d = (value + hangs * np.maximum(np.maximum.accumulate(value) * taper - value, 0) for value in (a, d))
    for value in (a, d):
        value[1:-1] = (value[:-2] + 2 * value[1:-1] + value[2:]) / 4 + 0.001
    angle = columns(32)
    c, t = ring(angle, 0.85)
    across, depth = a[:, None] * c + b[:, None] * t, b[:, None] * c + d[:, None] * t
    points = centres[:, None] + aside[:, None] * across[..., None] + ahead[:, None] * depth[..., None]
    low, high = chart_spans(build)["thigh"]
    v = (s - rise - low) / (high - low)
    grids.add(SKIRT, points, grid_normals(points), angle, v)
    # the hem is closed a little inside, so that one never looks into an empty tube
    inner = points[-1] + along * -0.004
    middle = inner.mean(0)
    lid = np.stack([inner, middle + (inner - middle) * 0.02])
    grids.add(SKIRT, lid, np.broadcast_to(along, lid.shape), angle, np.full(2, v[-1]))
