"""The demo world: clothed people of whom everything is known exactly, drawn with numpy.

`render(sample_identity(seed), sample_pose(seed))` gives a picture with its keypoints, DensePose parts and charts. Rays are
orthographic, one per sample; the nearest surface wins and is coloured afterwards from its chart. What is drawn follows
from the identity and from angles that the keypoints show: hands go on from the forearm, feet follow the heading, nothing
else is random.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from training.world.body import HEAD, L_ARM, L_LEG, R_ARM, R_LEG, SKIRT, TORSO, Arm, Body, Build, Leg, Pose, build_body
from training.world.cloth import BOTTOMS, EMBLEMS, HAIR_STYLES, PATTERNS, Identity, albedo, sample_identity, texture_atlas

__all__ = ["BOTTOMS", "EMBLEMS", "HAIR_STYLES", "PATTERNS", "Arm", "Build", "Identity", "Leg", "Pose", "Rendering",
           "contact_sheet", "render", "sample_identity", "sample_pose", "texture_atlas"]

BACKGROUND = (0.86, 0.86, 0.88)
ASPECT = 0.75  # width of the frame per height
MARGIN = 0.012  # of the frame height, kept free on every side

# DensePose parts per segment: (back, front); for the head (right, left)
_PARTS = np.array([(1, 2), (23, 24), (16, 18), (20, 22), (3, 3), (15, 17), (19, 21), (4, 4),
                   (7, 9), (11, 13), (6, 6), (8, 10), (12, 14), (5, 5)], np.uint8)
_WHOLE = np.isin(np.arange(14), (R_ARM[2], L_ARM[2], R_LEG[2], L_LEG[2]))
_LIGHT = np.array((-0.30, 0.42, 0.857), np.float32)  # unit, from the upper left behind the camera

# segments whose surface may lie on top of a joint without hiding it
_AROUND = ((HEAD,), (TORSO, HEAD), (R_ARM[0], TORSO), R_ARM[:2], R_ARM[1:], (L_ARM[0], TORSO), L_ARM[:2], L_ARM[1:],
           (R_LEG[0], TORSO), R_LEG[:2], R_LEG[1:], (L_LEG[0], TORSO), L_LEG[:2], L_LEG[1:],
           (HEAD,), (HEAD,), (HEAD,), (HEAD,))
_FACE = (0, 14, 15, 16, 17)


@dataclass(frozen=True)
class Rendering:
    """A picture with its truth; H, W are the canvas. Keypoints are in OpenPose order, "right" is the person's right.

    image (H, W, 3) uint8 RGB; keypoints (18, 2) float32 x, y in pixels with pixel centres at +0.5; visible (18,) bool: in
    the canvas and not hidden by another part of the body; detected (18,) bool: what a detector would report, body
    joints whenever in the canvas, face points only when turned to the camera and not covered; part (H, W) uint8 0..24;
    u, v (H, W) float32 0..1; face_box x0, y0, x1, y1 in pixels or None; identity: the seed of the person.
    """

    image: np.ndarray
    keypoints: np.ndarray
    visible: np.ndarray
    detected: np.ndarray
    part: np.ndarray
    u: np.ndarray
    v: np.ndarray
    face_box: tuple[float, float, float, float] | None
    identity: int

    def part_mask(self, *parts: int) -> np.ndarray:
        """(H, W) bool, where one of the DensePose parts shows."""
        return np.isin(self.part, parts)

    def iuv(self) -> np.ndarray:
        """(H, W, 3) uint8: part, round(255 u), round(255 v)."""
        return np.stack([self.part, np.rint(self.u * 255).astype(np.uint8), np.rint(self.v * 255).astype(np.uint8)], axis=-1)


_FORWARD, _INWARD, _UP = (-0.15, 0.25, 1.0), (-1.0, 0.05, 0.35), (-0.12, 1.0, 0.25)


def _sample_arm(rng, gesture: str) -> Arm:

    def u(low, high):
        return float(rng.uniform(low, high))

    if gesture == "hang":
        return Arm(u(0.14, 0.34), u(-0.3, 0.5), u(0.05, 0.40), _FORWARD)
    if gesture == "akimbo":
        return Arm(u(0.70, 0.95), u(-0.45, -0.15), u(1.45, 1.80), _INWARD)
    if gesture == "wave":
        return Arm(u(1.15, 1.75), u(-0.1, 0.35), u(1.00, 1.75), _UP)
    if gesture == "up":
        return Arm(u(2.35, 2.90), u(-0.1, 0.3), u(0.05, 0.45), _UP)
    if gesture == "out":
        return Arm(u(0.55, 1.25), u(-0.2, 0.4), u(0.05, 0.50), _FORWARD)
    if gesture == "hold":  # forearm in front of the body
        return Arm(u(0.20, 0.45), u(0.2, 1.0), u(1.20, 1.90), (-0.55, 0.2, 1.0))
    return Arm(u(0.50, 1.20), u(1.25, 1.65), u(0.10, 0.90), (-0.2, 0.5, 0.8))  # reach forwards


def sample_pose(seed: int) -> Pose:
    """The pose of this seed: stand or walk with the arms down, akimbo, waving, up, out, holding or reaching."""
    rng = np.random.default_rng((seed, 7002))

    def u(low, high):
        return float(rng.uniform(low, high))

    kind = rng.random()
    if kind < 0.45:
        heading = u(-50, 50)
    elif kind < 0.65:
        heading = 180 + u(-40, 40)
    else:
        heading = u(50, 140) * (1 if rng.random() < 0.5 else -1)
    gestures, odds = ("hang", "akimbo", "wave", "up", "out", "hold", "reach"), (0.32, 0.14, 0.12, 0.09, 0.14, 0.10, 0.09)
    first = str(rng.choice(gestures, p=odds))
    second = first if rng.random() < 0.45 else str(rng.choice(gestures, p=odds))
    arms = [_sample_arm(rng, first), _sample_arm(rng, second)]
    stance = rng.random()
    if stance < 0.40:  # stand
        legs = [Leg(u(0.02, 0.14), u(-0.05, 0.08), u(0.0, 0.10)) for _ in range(2)]
    elif stance < 0.55:  # legs apart
        legs = [Leg(u(0.16, 0.32), u(-0.05, 0.05), u(0.0, 0.12)) for _ in range(2)]
    elif stance < 0.88:  # walk
        stride = u(0.25, 0.55)
        legs = [Leg(u(0.0, 0.06), stride * u(0.8, 1.0), u(0.05, 0.30)),
                Leg(u(0.0, 0.06), -stride * u(0.7, 1.0), u(0.15, 0.75))]
        swing = u(0.25, 0.55)
        if first == second == "hang":  # the arm opposite to the leading leg goes forward
            arms = [Arm(swing, -1.25, u(0.1, 0.3), _FORWARD), Arm(swing, 1.25, u(0.3, 0.8), _FORWARD)]
    else:  # one knee up
        legs = [Leg(u(0.02, 0.10), u(0.0, 0.08), u(0.0, 0.06)), Leg(u(0.04, 0.16), u(0.5, 1.0), u(0.8, 1.5))]
    if rng.random() < 0.5:
        arms, legs = arms[::-1], legs[::-1]
    return Pose(math.radians(heading), lean=u(-0.06, 0.20), tilt=u(-0.10, 0.10), head_turn=u(-0.35, 0.35),
                head_nod=u(-0.15, 0.22), arms=tuple(arms), legs=tuple(legs), scale=u(0.78, 0.90), x=u(-0.03, 0.03),
                y=u(-0.015, 0.015))


@dataclass(frozen=True)
class _Hits:
    """Nearest surfaces: flat pixel index, segment, depth (K,), unit normal to the camera (K, 3), part, u, v (K,)."""

    pixel: np.ndarray
    segment: np.ndarray
    depth: np.ndarray
    normal: np.ndarray
    part: np.ndarray
    u: np.ndarray
    v: np.ndarray


def _extents(body: Body) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of each slice in the picture plane, (P, 2) low and high, in body heights."""
    s0, s1, s2, half = body.profiles.T
    peak = np.clip(np.where(s2 < 0, -s1 / np.where(s2 < 0, 2 * s2, 1.0), half), -half, half)
    largest = np.max([s0 + s1 * t + s2 * t * t for t in (-half, half, peak)], axis=0)
    girth = np.sqrt(np.maximum(largest, 0)[:, None] * (body.frames[:, :2, 0] ** 2 + body.frames[:, :2, 1] ** 2))
    reach = np.abs(body.frames[:, :2, 2]) * half[:, None] + girth
    return body.origins[:, :2] - reach, body.origins[:, :2] + reach


def _trace(body: Body, bounds, scale: float, left: float, top: float, height: int, width: int) -> _Hits:
    """Rays through pixel centres; scale is pixels per body height, (left, top) the corner in body heights."""
    low, high = bounds
    x0 = np.clip(np.ceil((low[:, 0] - left) * scale - 0.5).astype(np.int64), 0, width)
    x1 = np.clip(np.floor((high[:, 0] - left) * scale - 0.5).astype(np.int64) + 1, x0, width)
    y0 = np.clip(np.ceil((top - high[:, 1]) * scale - 0.5).astype(np.int64), 0, height)
    y1 = np.clip(np.floor((top - low[:, 1]) * scale - 0.5).astype(np.int64) + 1, y0, height)

    # f(x, y, z) is a quadratic in z for each slice: with A = inverse(M), z = -(b0 + b1 x + b2 y) / a +- sqrt(e(x, y))
    inverse = np.linalg.inv(body.frames)
    s0, s1, s2, half = body.profiles.T
    form = np.einsum("pki,pkj,pk->pij", inverse, inverse, np.stack([np.ones_like(s2), np.ones_like(s2), -s2], axis=1))
    linear = -0.5 * s1[:, None] * inverse[:, 2]
    a = form[:, 2, 2]
    a = np.where(np.abs(a) < 1e-3, np.where(a < 0, -1e-3, 1e-3), a)
    b = np.stack([linear[:, 2], form[:, 0, 2], form[:, 1, 2]], axis=1) / a[:, None]
    c = [-s0, 2 * linear[:, 0], 2 * linear[:, 1], form[:, 0, 0], 2 * form[:, 0, 1], form[:, 1, 1]]
    b0, b1, b2 = b.T
    quadratic = [b0 * b0, 2 * b0 * b1, 2 * b0 * b2, b1 * b1, 2 * b1 * b2, b2 * b2]
    e = np.stack(quadratic, axis=1) - np.stack(c, axis=1) / a[:, None]
    e, b = e.astype(np.float32), b.astype(np.float32)
    axis, half = inverse[:, 2].astype(np.float32), (half * 1.0001 + 1e-7).astype(np.float32)
    centre = body.origins.astype(np.float32)

    # all (slice, pixel) pairs in one flat list: few numpy calls whatever the number of slices
    wide, count = x1 - x0, (x1 - x0) * (y1 - y0)
    slices = np.repeat(np.arange(len(count), dtype=np.int32), count)
    order = np.arange(count.sum(), dtype=np.int32) - np.repeat((np.cumsum(count) - count).astype(np.int32), count)
    row = order // np.repeat(np.maximum(wide, 1).astype(np.int32), count)
    column = order - row * np.repeat(wide.astype(np.int32), count) + np.repeat(x0.astype(np.int32), count)
    row += np.repeat(y0.astype(np.int32), count)
    step = np.float32(1 / scale)
    x = (column.astype(np.float32) + np.float32(0.5)) * step + np.repeat(np.float32(left) - centre[:, 0], count)
    y = (row.astype(np.float32) + np.float32(0.5)) * -step + np.repeat(np.float32(top) - centre[:, 1], count)
    rest = [np.repeat(e[:, i], count) for i in range(6)]
    root = rest[0] + x * (rest[1] + rest[3] * x + rest[4] * y) + y * (rest[2] + rest[5] * y)
    hit = np.flatnonzero(root >= 0)
    slices, x, y, root, pixel = slices[hit], x[hit], y[hit], np.sqrt(root[hit]), (row * np.int32(width) + column)[hit]
    b = b[slices]
    middle = -(b[:, 0] + b[:, 1] * x + b[:, 2] * y)
    a = axis[slices]
    t, slope, limit = a[:, 0] * x + a[:, 1] * y + a[:, 2] * middle, a[:, 2] * root, half[slices]
    near = np.abs(t + slope) <= limit
    kept = np.flatnonzero(near | (np.abs(t - slope) <= limit))
    z = np.where(near, middle + root, middle - root)[kept]
    slices, x, y, pixel = slices[kept], x[kept], y[kept], pixel[kept]
    depth = z + centre[slices, 2]
    nearest = np.full(height * width, -np.inf, np.float32)
    np.maximum.at(nearest, pixel, depth)
    first = np.flatnonzero(depth == nearest[pixel])
    owner = np.full(height * width, -1, np.int32)
    owner[pixel[first]] = first
    pixel = np.flatnonzero(owner >= 0)
    first = owner[pixel]
    slices, x, y, z, depth = slices[first], x[first], y[first], z[first], depth[first]

    form, linear = form.astype(np.float32), linear.astype(np.float32)
    local = np.stack([x, y, z], axis=1)
    normal = np.einsum("kij,kj->ki", form[slices], local) + linear[slices]
    normal /= np.sqrt(np.einsum("ki,ki->k", normal, normal))[:, None] * np.where(normal[:, 2] < 0, -1, 1)[:, None]
    point = local + centre[slices]

    segment = body.segments[slices]
    charts = body.charts.astype(np.float32)[segment]
    point = point - charts[:, 0]
    across, front, v = (np.einsum("ki,ki->k", charts[:, i], point) for i in (1, 2, 3))
    angle = np.arctan2(front, across) * np.float32(1 / math.pi)  # 0 = the person's left, 0.5 = front, +-1 = right
    second = front >= 0
    u = np.abs(angle)
    skirt = np.flatnonzero(segment == SKIRT)
    if skirt.size:  # its left half shows the left thigh's charts from the outer to the inner seam, the right half alike
        segment[skirt] = np.where(u[skirt] < 0.5, L_LEG[0], R_LEG[0])
        u[skirt] = (2 * u[skirt]) % 1
    head = np.flatnonzero(segment == HEAD)
    if head.size:
        u[head] = np.abs(np.arctan2(across[head], front[head])) * np.float32(1 / math.pi)
        second[head] = across[head] >= 0
    whole = _WHOLE[segment]
    u = np.where(whole, 0.5 + 0.5 * angle, u)
    part = _PARTS[segment, second.astype(np.int8)]
    return _Hits(pixel, segment, depth, normal, part, np.clip(u, 0, 1), np.clip(v, 0, 1))


def _shade(normal: np.ndarray) -> np.ndarray:
    """(K,) factor 0.75..1: darker where the surface turns away from the light."""
    return np.minimum(0.75 + 0.28 * np.maximum(normal @ _LIGHT, 0), 1.0)


def render(identity: Identity, pose: Pose, size: tuple[int, int] = (128, 96)) -> Rendering:
    """Draw a person; size is (H, W).

    The frame's height fills H; widths other than 0.75 H show more or less at both sides.
    """
    height, width = size
    style = HAIR_STYLES[identity.hair_style]
    body = build_body(identity.build, pose, style, identity.skirt, identity.leg_cloth)
    bounds = _extents(body)
    (left, low), (right, high) = bounds[0].min(axis=0), bounds[1].max(axis=0)

    # the whole body stays in the 4:3 frame: shift first, shrink only where that is not enough
    scale = min(pose.scale, (ASPECT - 2 * MARGIN) / (right - left), (1 - 2 * MARGIN) / (high - low))
    x = np.clip(pose.x, MARGIN - ASPECT / 2 - scale * left, ASPECT / 2 - MARGIN - scale * right)
    standing = 0.20 * identity.build.head + 0.80 * identity.build.height
    y = np.clip(pose.y - scale * (low + standing / 2), MARGIN - 0.5 - scale * low, 0.5 - MARGIN - scale * high)
    scale, x, y = float(scale * height), float(x / scale), float(y / scale)  # pixels per body height; the hip's place
    corner = (-0.5 * width / scale - x, 0.5 * height / scale - y)

    fine = _trace(body, bounds, 2 * scale, *corner, 2 * height, 2 * width)
    canvas = np.empty((4 * height * width, 3), np.float32)
    canvas[:] = BACKGROUND
    canvas[fine.pixel] = albedo(identity, fine.part, fine.u, fine.v) * _shade(fine.normal)[:, None]
    canvas = canvas.reshape(height, 2, width, 2, 3)
    image = (canvas[:, 0, :, 0] + canvas[:, 0, :, 1] + canvas[:, 1, :, 0] + canvas[:, 1, :, 1]) * np.float32(255 / 4)
    image = np.rint(image).clip(0, 255).astype(np.uint8)

    hits = _trace(body, bounds, scale, *corner, height, width)
    maps = [np.zeros(height * width, kind) for kind in (np.uint8, np.float32, np.float32)]
    for target, values in zip(maps, (hits.part, hits.u, hits.v), strict=True):
        target[hits.pixel] = values
    part, u, v = (m.reshape(height, width) for m in maps)

    def to_pixels(points):
        return np.stack([(points[:, 0] - corner[0]) * scale, (corner[1] - points[:, 1]) * scale], axis=1)

    keypoints = to_pixels(body.joints)
    inside = np.all((keypoints >= 0) & (keypoints < (width, height)), axis=1)
    visible = inside & _uncovered(body, hits, keypoints, height, width)
    detected = inside.copy()
    detected[list(_FACE)] = visible[list(_FACE)]
    face_box = None
    if detected[[0, 14, 15]].any():
        face = to_pixels(body.face)
        face_box = tuple(float(c) for c in (*face.min(axis=0), *face.max(axis=0)))
    return Rendering(image, keypoints.astype(np.float32), visible, detected, part, u, v, face_box, identity.seed)


def _uncovered(body: Body, hits: _Hits, keypoints: np.ndarray, height: int, width: int) -> np.ndarray:
    """(18,) bool: the surface in front of a joint belongs to it and is not far in front of it."""
    depth, segment = np.full(height * width, np.inf, np.float32), np.full(height * width, -1, np.int32)
    depth[hits.pixel], segment[hits.pixel] = hits.depth, hits.segment
    column, row = (np.clip(np.floor(keypoints[:, i]).astype(int), 0, n - 1) for i, n in ((0, width), (1, height)))
    front, owner = depth[row * width + column], segment[row * width + column]
    result = np.zeros(18, bool)
    away = body.head_axes  # columns left, up, forward
    facing = {0: away[2, 2] + 0.10, 14: -0.44 * away[2, 0] + 0.90 * away[2, 2], 15: 0.44 * away[2, 0] + 0.90 * away[2, 2],
              16: -away[2, 0] + 0.20, 17: away[2, 0] + 0.20}
    for joint, around in enumerate(_AROUND):
        if joint in facing:  # on the surface; a point at the outline may fall on the background
            covered = owner[joint] >= 0 and front[joint] - body.joints[joint, 2] > 0.022
            result[joint] = facing[joint] > 0.08 and not covered
        else:
            result[joint] = owner[joint] in around and front[joint] - body.joints[joint, 2] < 0.085
    return result


def contact_sheet(count_identities: int, poses_each: int, size: tuple[int, int] = (256, 192), seed: int = 0) -> np.ndarray:
    """A grid with one person per row, RGB uint8, with gaps of 2 pixels."""
    height, width = size
    sheet = np.full((count_identities * (height + 2) - 2, poses_each * (width + 2) - 2, 3), 255, np.uint8)
    for i in range(count_identities):
        who = sample_identity(seed + i)
        for j in range(poses_each):
            picture = render(who, sample_pose(seed * 1000 + i * poses_each + j), size).image
            sheet[i * (height + 2):i * (height + 2) + height, j * (width + 2):j * (width + 2) + width] = picture
    return sheet
