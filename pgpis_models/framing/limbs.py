"""The surface that a skeleton stands for, limb by limb: in place of DensePose where only joints are known.

Each limb is a flat strip about its two joints, with V along it and U across, so that a point keeps its U and V when the
limb turns, moves or changes its length: an affine map for each limb. The strips are ours; part numbers are DensePose's where
they say the same.
"""

from __future__ import annotations

import numpy as np

from ..poses.keypoints import Keypoints
from ..surface.densepose import IUV
from .bodies import FACE, NECK, size_of_pose

# joints, part, half of the width as a share of the standing height; what is drawn later covers what is drawn before
LEGS = (((8, 9), 9, 0.045), ((11, 12), 10, 0.045), ((9, 10), 13, 0.035), ((12, 13), 14, 0.035))
ARMS = (((2, 3), 18, 0.03), ((5, 6), 17, 0.03), ((3, 4), 22, 0.028), ((6, 7), 21, 0.028))
BEYOND = {13: 0.25, 14: 0.25, 22: 0.45, 21: 0.45}   # of their length that foot and hand reach over the last joint
SHOULDERS, HIPS = (2, 5), (8, 11)
BACK, FRONT, HEAD = 1, 2, 24
TORSO_OVER = 0.08      # of its height that the torso reaches over neck and hips
NARROWEST = 0.05       # half of the width of a torso seen from the side
HEAD_LENGTH, HEAD_WIDTH = 0.085, 0.07   # half of them
HEAD_RISE = 0.02       # of the middle of the head over that of the face


def surface_of_pose(pose: Keypoints, size: tuple[int, int]) -> IUV:
    """A skeleton -> its strips on a picture of `size` = (H, W) pixels; limbs with a missing joint are left out."""
    pose = pose.scaled_to(size)
    maps = np.zeros(size, np.uint8), np.zeros(size, np.float32), np.zeros(size, np.float32)
    height, xy, present = size_of_pose(pose), pose.xy, pose.present
    for joints, part, wide in LEGS:
        _limb(maps, pose, joints, part, wide * height)
    if present[[*SHOULDERS, *HIPS]].all():
        top, bottom = xy[list(SHOULDERS)].mean(0), xy[list(HIPS)].mean(0)
        across = xy[SHOULDERS[1]] - xy[SHOULDERS[0]]
        half = max(np.linalg.norm(across) / 2, NARROWEST * height)
        part = FRONT if across[0] >= 0 else BACK   # whose right shoulder is at the right shows the back
        _strip(maps, top, bottom, half * (1 + TORSO_OVER), TORSO_OVER, TORSO_OVER, part)
    if present[list(FACE)].any():
        middle = xy[[joint for joint in FACE if present[joint]]].mean(0)
        up = middle - xy[NECK] if present[NECK] else np.array([0.0, -1.0])
        up = up / max(np.linalg.norm(up), 1e-6)
        middle = middle + up * HEAD_RISE * height
        reach = up * HEAD_LENGTH * height
        _strip(maps, middle + reach, middle - reach, HEAD_WIDTH * height, 0.0, 0.0, HEAD)
    for joints, part, wide in ARMS:
        _limb(maps, pose, joints, part, wide * height)
    return IUV(*maps)


def _limb(maps: tuple, pose: Keypoints, joints: tuple[int, int], part: int, half: float) -> None:
    if pose.present[list(joints)].all():
        _strip(maps, *pose.xy[list(joints)], half, 0.0, BEYOND.get(part, 0.0), part)


def _strip(maps: tuple, start: np.ndarray, end: np.ndarray, half: float, before: float, beyond: float, part: int) -> None:
    """Draws the strip from `start` to `end`, `half` wide to each side and as shares of its length longer at both ends."""
    along = end - start
    length = float(np.linalg.norm(along))
    if length < 1 or half <= 0:   # points at the camera
        return
    direction = along / length
    side = np.array((-direction[1], direction[0])) * half
    corners = [end + offset for end in (start - before * along, end + beyond * along) for offset in (side, -side)]
    low, high = np.floor(np.min(corners, 0)) - 1, np.ceil(np.max(corners, 0)) + 1
    (x0, y0), (x1, y1) = (np.clip(corner, 0, maps[0].shape[::-1]).astype(int) for corner in (low, high))
    rows, columns = np.mgrid[y0:y1, x0:x1]
    x, y = columns + 0.5 - start[0], rows + 0.5 - start[1]
    t = (x * direction[0] + y * direction[1]) / length
    s = (y * direction[0] - x * direction[1]) / half
    inside = (t >= -before) & (t <= 1 + beyond) & (np.abs(s) <= 1)
    for target, value in zip(maps, (part, (s + 1) / 2, (t + before) / (1 + before + beyond)), strict=True):
        target[y0:y1, x0:x1][inside] = value if np.isscalar(value) else np.clip(value[inside], 0, 1)
