"""Skeleton pictures as other programs draw them, and poses of drawn people to draw."""

from __future__ import annotations

import math

import cv2
import numpy as np

from pgpis_models.poses.by_hand import draw_people
from pgpis_models.poses.drawing import JOINT_COLOURS, LIMBS, draw_cfld, draw_openpose
from pgpis_models.poses.keypoints import Keypoints


def drawn_people(start: int, count: int) -> list[Keypoints]:
    """Poses of people of the demo world never trained on, full and closer views. Ears are missing at times,
    as in views from the side."""
    from training.world import drawing as world
    from training.world.bank import HELD_OUT, pose_seed
    made = []
    for person in range(start, start + count):
        identity = world.sample_identity(HELD_OUT + person)
        pose = world.sample_pose(pose_seed(HELD_OUT + person, person % 8))
        skeleton = world.build_skeleton(identity.build, pose)
        mesh = world.build_figure(identity.build, skeleton, identity.cut)
        head = mesh.points[mesh.triangles[mesh.segment == world.HEAD, 0]]
        view = world.frame_person(mesh.points, head, skeleton, identity.build, pose, (256, 192))
        xy = view.project(skeleton.joints)[:, :2]
        inside = (xy >= 0).all(axis=1) & (xy < (192, 256)).all(axis=1)
        inside[16:] &= np.random.default_rng(person).random(2) > 0.4
        made.append(Keypoints(xy, inside, (256, 192)))
    return made


def _limb(canvas: np.ndarray, a: np.ndarray, b: np.ndarray, width: int, colour: tuple) -> None:
    middle, (dx, dy) = (a + b) / 2, a - b
    outline = cv2.ellipse2Poly((int(middle[0]), int(middle[1])), (int(math.hypot(dx, dy) / 2), width),
                               int(math.degrees(math.atan2(dy, dx))), 0, 360, 1)
    cv2.fillConvexPoly(canvas, outline, colour)


def _discs(canvas: np.ndarray, pose: Keypoints, radius: int) -> None:
    for (x, y), seen, colour in zip(pose.xy, pose.present, JOINT_COLOURS, strict=True):
        if seen:
            cv2.circle(canvas, (int(x), int(y)), radius, colour, -1)


def openpose(pose: Keypoints, size: tuple[int, int], width: int = 4, radius: int = 4) -> np.ndarray:
    """Limbs laid at 60 % over joints, as OpenPose's Python ports do."""
    canvas, pose = np.zeros((*size, 3), np.uint8), pose.scaled_to(size)
    _discs(canvas, pose, radius)
    for (a, b), colour in zip(LIMBS, JOINT_COLOURS, strict=False):
        if pose.present[a] and pose.present[b]:
            above = canvas.copy()
            _limb(above, pose.xy[a], pose.xy[b], width, colour)
            canvas = cv2.addWeighted(canvas, 0.4, above, 0.6, 0)
    return canvas


def dwpose(pose: Keypoints, size: tuple[int, int], width: int = 4, radius: int = 4) -> np.ndarray:
    """Limbs darkened to 60 %, then joints, as DWPose does."""
    canvas, pose = np.zeros((*size, 3), np.uint8), pose.scaled_to(size)
    for (a, b), colour in zip(LIMBS, JOINT_COLOURS, strict=False):
        if pose.present[a] and pose.present[b]:
            _limb(canvas, pose.xy[a], pose.xy[b], width, colour)
    canvas = (canvas * 0.6).astype(np.uint8)
    _discs(canvas, pose, radius)
    return canvas


def ours(pose: Keypoints, size: tuple[int, int], width: int | None = None, radius: int | None = None) -> np.ndarray:
    return draw_people([pose], size) if width is None else draw_openpose(pose, size, width)


def cfld(pose: Keypoints, size: tuple[int, int], width: int = 2, radius: int = 3) -> np.ndarray:
    """Antialiased lines and discs, as CFLD draws them."""
    return draw_cfld(pose, size, width, radius).transpose(1, 2, 0)


DRAWERS = {"ours": ours, "openpose": openpose, "dwpose": dwpose, "cfld": cfld}
