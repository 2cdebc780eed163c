"""How far along arms and legs each pixel of a body lies, from DensePose's parts or from a skeleton."""

from __future__ import annotations

import numpy as np

from ..poses.keypoints import Keypoints
from ..surface.densepose import IUV
from .zones import FOOT, HAND, LOWER_ARM, SHANK, THIGH, UPPER_ARM, Body

ARMS, LEGS = (UPPER_ARM, LOWER_ARM, HAND), (THIGH, SHANK, FOOT)
_LEFT_PARTS = (8, 10, 12, 14, 15, 17, 19, 21, 4, 5)   # of DensePose
_JOINTS = {ARMS: ((2, 3, 4), (5, 6, 7)), LEGS: ((8, 9, 10), (11, 12, 13))}   # right, left


def along_limbs(body: Body, densepose: IUV | None, pose: Keypoints | None) -> np.ndarray:
    """(H, W) float32: 0 at shoulder or hip, 1 at elbow or knee, 2 at wrist or ankle; NaN elsewhere. Arguments as of
    `zones.body_of`. Where a joint is not known, the bone ends where its pixels do."""
    result = np.full(body.zone.shape, np.nan, np.float32)
    for limb, joints in _JOINTS.items():
        for side, three in enumerate(joints):
            own = np.isin(body.zone, limb[:2]) & (_side(body, limb, densepose, pose) == side)
            for bone in (0, 1):
                at = own & (body.zone == limb[bone])
                if at.any():
                    result[at] = bone + _along_bone(at, body, own, limb, bone, three, pose)
    return result


def _side(body: Body, limb: tuple[int, ...], densepose: IUV | None, pose: Keypoints | None) -> np.ndarray:
    """(H, W) int: 0 right, 1 left, of the limb's pixels."""
    if densepose is not None:
        return np.isin(densepose.part, _LEFT_PARTS).astype(int)
    nearest = []
    for joints in _JOINTS[limb]:
        points = [pose.xy[joint] for joint in joints if pose.present[joint]]
        nearest.append(_distance_to_line(body.zone.shape, points))
    return (nearest[1] < nearest[0]).astype(int)


def _distance_to_line(size: tuple[int, int], points: list[np.ndarray]) -> np.ndarray:
    import cv2  # no cost when the host starts
    line = np.ones(size, np.uint8)
    if not points:
        return np.full(size, np.inf, np.float32)
    corners = np.round(np.array(points)).astype(np.int32).reshape(-1, 1, 2)
    cv2.polylines(line, [np.concatenate([corners, corners[-1:]])], False, 0)
    return cv2.distanceTransform(line, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) if not line.all() else np.full(size, np.inf)


def _along_bone(at: np.ndarray, body: Body, own: np.ndarray, limb: tuple[int, ...], bone: int, joints: tuple[int, ...],
                pose: Keypoints | None) -> np.ndarray:
    """(N,) float: share of the bone's length from its start, of the pixels `at`."""
    places = np.argwhere(at)[:, ::-1] + 0.5
    first, last = joints[bone], joints[bone + 1]
    if pose is not None and pose.present[[first, last]].all() and np.linalg.norm(pose.xy[first] - pose.xy[last]) > 3:
        axis = pose.xy[last] - pose.xy[first]
        return np.clip((places - pose.xy[first]) @ axis / float(axis @ axis), 0, 1)
    start, end = _ends(at, body, own, limb, bone)
    if start is None and end is None:
        return _outwards(places, body)
    away = np.linalg.norm(places - (start if start is not None else end), axis=1)
    share = np.clip(away / max(float(np.quantile(away, 0.98)), 1e-6), 0, 1)
    return share if start is not None else 1 - share


def _ends(at: np.ndarray, body: Body, own: np.ndarray, limb: tuple[int, ...], bone: int):
    """Where the bone's pixels meet those of the bone before and after it, each (2,) or None; for an upper bone the joint in
    the middle of the limb alone is told, since an arm that hangs touches the trunk everywhere."""
    import cv2  # no cost when the host starts

    def meeting(other: np.ndarray):
        near = at & (cv2.dilate(other.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0)
        return np.argwhere(near)[:, ::-1].mean(0) + 0.5 if near.sum() > 2 else None
    if bone == 0:
        return None, meeting(own & (body.zone == limb[1]))
    start = meeting(own & (body.zone == limb[0]))
    return (start, None) if start is not None else (None, meeting(body.zone == limb[2]))


def _outwards(places: np.ndarray, body: Body) -> np.ndarray:
    """(N,) float: shares along the pixels' longest axis, from the end that lies nearer to the middle of the person."""
    middle = np.argwhere(body.zone > 0)[:, ::-1].mean(0)
    axis = np.linalg.svd(places - places.mean(0), full_matrices=False)[2][0] if len(places) > 2 else np.array((0.0, 1.0))
    axis = axis if axis @ (places.mean(0) - middle) > 0 else -axis
    along = places @ axis
    return (along - along.min()) / max(float(np.ptp(along)), 1e-6)
