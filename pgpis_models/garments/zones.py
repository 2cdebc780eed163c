"""Where the body's parts lie in a picture: from DensePose's parts, or around the limbs of a skeleton."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..framing.finding import before_ground
from ..poses.keypoints import Keypoints
from ..surface.densepose import IUV

NOTHING, TORSO, UPPER_ARM, LOWER_ARM, HAND, THIGH, SHANK, FOOT, HEAD = range(9)
ZONES = 9
_OF_PART = np.array((NOTHING, TORSO, TORSO, HAND, HAND, FOOT, FOOT, *[THIGH] * 4, *[SHANK] * 4, *[UPPER_ARM] * 4,
                     *[LOWER_ARM] * 4, HEAD, HEAD), np.uint8)   # of DensePose part 0..24

# Half widths of limbs as shares of the trunk's length, neck to middle of the hips; clothes included.
_BONES = ((2, 3, UPPER_ARM, 0.15, 0.12), (3, 4, LOWER_ARM, 0.12, 0.09), (5, 6, UPPER_ARM, 0.15, 0.12),
          (6, 7, LOWER_ARM, 0.12, 0.09), (8, 9, THIGH, 0.22, 0.16), (9, 10, SHANK, 0.16, 0.10),
          (11, 12, THIGH, 0.22, 0.16), (12, 13, SHANK, 0.16, 0.10))
_HAND, _FOOT = 0.22, 0.30   # lengths beyond wrist and ankle, likewise
_NECK, _SHOULDERS, _HIPS, _FACE = 1, (2, 5), (8, 11), (0, 14, 15, 16, 17)
_CHIN = 0.47      # of the way from the neck joint to the eyes, on which OpenPose's neck lies at the shoulders' height
_TRUNK = 2.2      # length of the trunk, neck to crotch, in lengths from the neck joint to the eyes
_TRUNK_OF_HEAD = 1.6   # the same in lengths of DensePose's head, crown to collar
_HALF_FACE = 0.36  # half width of a face seen from the front, of chin to crown
_CROWN = 1.75     # the same for the top of the skull
FARTHEST = 3      # half widths from a limb's middle: what lies farther is not the person


@dataclass(frozen=True, eq=False)
class Body:
    """A person in a picture of H x W pixels.

    zone (H, W) uint8: which zone each pixel belongs to, NOTHING outside of the person. down (H, W) float32: how far below
    the trunk's upper end, 1 at its lower end. above (H, W) float32: height on the head, 0 at the chin, 1 at the crown.
    aside (H, W) float32: distance from the middle of the face in half widths of the head. front: whether the face is turned
    to the camera, None when that is not known.
    """

    zone: np.ndarray
    down: np.ndarray
    above: np.ndarray
    aside: np.ndarray
    front: bool | None


def body_of(photo: np.ndarray, densepose: IUV | None, pose: Keypoints | None) -> Body:
    """Photo (H, W, 3) uint8 with its DensePose, its pose or both, of its size -> Body. One of the two must be given."""
    zone = _OF_PART[densepose.part] if densepose is not None else _around(photo, pose)
    return Body(zone, _down(zone, pose), *_on_head(zone, pose))


def _grid(size: tuple[int, int]) -> np.ndarray:
    """(H, W, 2) float32: x and y of pixel centres."""
    y, x = np.mgrid[:size[0], :size[1]].astype(np.float32) + np.float32(0.5)
    return np.stack([x, y], axis=-1)


def _middle(pose: Keypoints, joints) -> np.ndarray | None:
    seen = [joint for joint in joints if pose.present[joint]]
    return pose.xy[seen].mean(0) if seen else None


def _trunk(zone: np.ndarray, pose: Keypoints | None) -> tuple[np.ndarray, np.ndarray]:
    """Upper and lower end of the trunk, x and y in pixels."""
    at = np.argwhere(zone == TORSO)[:, ::-1] + 0.5
    if pose is not None:
        top, low = _middle(pose, (_NECK,)), _middle(pose, _HIPS)
        if top is not None and low is not None and np.linalg.norm(low - top) > 4:
            return top, low + 0.16 * (low - top)   # the trunk goes on below the hip joints
        face = _middle(pose, (14, 15)) if pose.present[[14, 15]].any() else _middle(pose, _FACE)
        if top is not None and face is not None and np.linalg.norm(top - face) > 3:
            straight = top - face if len(at) < 9 else at.mean(0) - top
            straight = straight / max(float(np.linalg.norm(straight)), 1e-6)
            return top, top + _TRUNK * np.linalg.norm(top - face) * straight
    if len(at) < 9:
        return np.zeros(2), np.array((0.0, float(zone.shape[0])))
    axis = np.linalg.svd(at - at.mean(0), full_matrices=False)[2][0]
    head, legs = (np.argwhere(np.isin(zone, kinds))[:, ::-1] for kinds in ((HEAD,), (THIGH, SHANK)))
    towards = at.mean(0) - head.mean(0) if len(head) else legs.mean(0) - at.mean(0) if len(legs) else np.array((0.0, 1.0))
    if abs(axis @ towards) < 0.7 * np.linalg.norm(towards):   # a trunk that is wider than long
        axis = towards / max(float(np.linalg.norm(towards)), 1e-6)
    axis = axis if axis @ towards > 0 else -axis
    along = (at - at.mean(0)) @ axis
    top, low = at.mean(0) + along.min() * axis, at.mean(0) + along.max() * axis
    if not len(legs) and len(head):   # cut off by the picture's edge: as long as the head says
        low = top + max(_TRUNK_OF_HEAD * float(np.ptp(head @ axis)), float(np.ptp(along))) * axis
    return top, low


def _down(zone: np.ndarray, pose: Keypoints | None) -> np.ndarray:
    top, low = _trunk(zone, pose)
    axis = low - top
    return ((_grid(zone.shape) - top) @ axis / max(float(axis @ axis), 1e-6)).astype(np.float32)


def _on_head(zone: np.ndarray, pose: Keypoints | None) -> tuple[np.ndarray, np.ndarray, bool | None]:
    """above, aside and front of `Body`."""
    grid = _grid(zone.shape)
    at = np.argwhere(zone == HEAD)[:, ::-1] + 0.5
    front = None if pose is None else bool(pose.present[[0, 14, 15]].any())
    eyes = None if pose is None else _middle(pose, (14, 15) if pose.present[[14, 15]].any() else _FACE)
    if eyes is not None and pose.present[_NECK] and np.linalg.norm(eyes - pose.xy[_NECK]) > 3:
        neck, ears = pose.xy[_NECK], _middle(pose, (16, 17))
        up = eyes - neck if ears is None else (eyes + ears) / 2 - neck
        up = up / float(np.linalg.norm(up))
        rise = max(float((eyes - neck) @ up), 1.0)
        chin, high = neck + _CHIN * rise * up, (_CROWN - _CHIN) * rise
        face = _middle(pose, (0, 14, 15)) if front else eyes
        seen = pose.xy[[joint for joint in (16, 17) if pose.present[joint]]]
    elif len(at):
        trunk = np.argwhere(zone == TORSO)[:, ::-1] + 0.5
        up = at.mean(0) - trunk.mean(0) if len(trunk) else np.array((0.0, -1.0))
        up = up / max(float(np.linalg.norm(up)), 1e-6)
        along = at @ up
        high = max(0.87 * float(np.ptp(along)), 1.0)
        chin = at.mean(0) + (along.max() - high - at.mean(0) @ up) * up
        face, seen = chin + 0.35 * high * up, np.zeros((0, 2))
    else:
        return np.zeros(zone.shape, np.float32), np.zeros(zone.shape, np.float32), front
    across = np.array((-up[1], up[0]))
    aside = (grid - face) @ across
    half = [_HALF_FACE * high] * 2   # towards both sides: to the ear where it shows, beyond which there is no face
    for ear in seen:
        offset = float((ear - face) @ across)
        half[int(offset > 0)] = max(1.1 * abs(offset), 0.3 * high)
    aside = aside / np.where(aside > 0, half[1], half[0])
    return ((grid - chin) @ up / high).astype(np.float32), aside.astype(np.float32), front


def _around(photo: np.ndarray, pose: Keypoints) -> np.ndarray:
    """Zones (H, W) from the skeleton: what stands out of the picture's ground, by the nearest limb."""
    grid, present, xy = _grid(photo.shape[:2]), pose.present, pose.xy
    unit = _unit(pose)
    best, zone = np.full(photo.shape[:2], 1e9, np.float32), np.zeros(photo.shape[:2], np.uint8)

    def claim(a, b, kind: int, first: float, last: float) -> None:
        reach = unit * max(first, last) * FARTHEST + 1
        low, high = np.minimum(a, b) - reach, np.maximum(a, b) + reach
        (x0, y0), (x1, y1) = (np.clip(corner, 0, best.shape[::-1]).astype(int) for corner in (np.floor(low), np.ceil(high)))
        box = slice(y0, y1), slice(x0, x1)
        axis = b - a
        share = np.clip((grid[box] - a) @ axis / max(float(axis @ axis), 1e-6), 0, 1)
        away = np.linalg.norm(grid[box] - (a + share[..., None] * axis), axis=-1) / (unit * (first + share * (last - first)))
        nearer = away < best[box]
        best[box][nearer], zone[box][nearer] = away[nearer], kind
    top, low = _middle(pose, (_NECK, *_SHOULDERS)), _middle(pose, _HIPS)
    if top is not None:
        low = top + (0, unit) if low is None else low
        corners = [xy[joint] for joint in (2, 5, 11, 8) if present[joint]]
        for corner in corners:
            claim(corner, top if corner[1] < (top[1] + low[1]) / 2 else low, TORSO, 0.14, 0.2)
        claim(top, low, TORSO, 0.26, 0.34)
    for a, b, kind, first, last in _BONES:
        if present[a] and not present[b]:   # off the picture or hidden: straight on from the joint before
            before = xy[a - 1] if kind in (LOWER_ARM, SHANK) and present[a - 1] else top
            if before is not None and np.linalg.norm(xy[a] - before) > 1:
                claim(xy[a], xy[a] + unit * (xy[a] - before) / np.linalg.norm(xy[a] - before), kind, first, last)
        if present[a] and present[b]:
            claim(xy[a], xy[b], kind, first, last)
            along = (xy[b] - xy[a]) / max(float(np.linalg.norm(xy[b] - xy[a])), 1e-6)
            if kind == LOWER_ARM:
                claim(xy[b] + 0.04 * unit * along, xy[b] + _HAND * unit * along, HAND, 0.10, 0.10)
            if kind == SHANK:
                claim(xy[b] + 0.04 * unit * along, xy[b] + 0.1 * unit * along, FOOT, 0.16, 0.2)
    face = _middle(pose, _FACE)
    if face is not None and present[_NECK]:
        claim(xy[_NECK] + 0.25 * (face - xy[_NECK]), face, HEAD, 0.14, 0.32)
        claim(face, face + 0.3 * (face - xy[_NECK]), HEAD, 0.34, 0.36)
    zone[~person_around(photo, best)] = NOTHING
    return zone


def _unit(pose: Keypoints) -> float:
    """Length of the trunk in pixels, or what comes nearest to it."""
    top, low = _middle(pose, (_NECK, *_SHOULDERS)), _middle(pose, _HIPS)
    lengths = [] if top is None or low is None else [float(np.linalg.norm(low - top))]
    if pose.present[list(_SHOULDERS)].all():
        lengths.append(1.3 * float(np.linalg.norm(pose.xy[2] - pose.xy[5])))
    x0, y0, x1, y1 = pose.bounds
    return max([*lengths, 0.15 * max(x1 - x0, y1 - y0), 4.0])


def person_around(photo: np.ndarray, away: np.ndarray) -> np.ndarray:
    """(H, W) bool: the person whose limbs are near; away (H, W): distance from the nearest limb in its half widths."""
    import cv2  # no cost when the host starts
    plain = before_ground(photo)
    if plain is not None:
        return plain & (away < FARTHEST)
    marks = np.full(away.shape, cv2.GC_BGD, np.uint8)
    marks[away < 2.2], marks[away < 1.0], marks[away < 0.45] = cv2.GC_PR_BGD, cv2.GC_PR_FGD, cv2.GC_FGD
    if (marks == cv2.GC_BGD).any() and (marks == cv2.GC_FGD).any():
        cv2.setRNGSeed(0)
        cv2.grabCut(photo, marks, None, np.zeros((1, 65)), np.zeros((1, 65)), 4, cv2.GC_INIT_WITH_MASK)
    return np.isin(marks, (cv2.GC_FGD, cv2.GC_PR_FGD))
