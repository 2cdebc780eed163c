"""Whole-body keypoints with 133 points (COCO-WholeBody, as HRNet and DWPose give them for sign-language videos such as
PHOENIX) to POSE_KEYPOINT frames: 18 body joints, with hands and face kept.

Order of the 133 points: 17 COCO joints, 6 of the feet, 68 of the face, 21 of the left hand, 21 of the right hand.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..reading import read_json, read_numbers, read_text
from .keypoints import checked_size

POINTS = 133
EXPECTED = "133 points (x, y and perhaps a confidence) of each frame"
FACE, LEFT_HAND, RIGHT_HAND = slice(23, 91), slice(91, 112), slice(112, 133)
# COCO's 17 joints in OpenPose-COCO order: nose, neck (made of the shoulders), right arm, left arm, right leg, left leg,
# right and left eye, right and left ear.
BODY_OF_COCO = (0, None, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3)
LEFT_SHOULDER, RIGHT_SHOULDER, LEFT_EYE, RIGHT_EYE = 5, 6, 1, 2


def wholebody_to_pose_keypoint(points: Any, canvas: tuple[int, int], scores: Any = None) -> list[dict]:
    """133 points of one person per frame -> POSE_KEYPOINT, one frame with one person each, in pixels of the canvas.

    points: (133, 2 or 3) or (T, 133, 2 or 3): x and y in pixels and, where there is a third column, a confidence.
    canvas: (H, W) in pixels. scores: (133,) or (T, 133) confidences, for points that come without them.

    A point at (0, 0) or (-1, -1), not finite, or of confidence 0 or less is missing and gets confidence 0; without
    confidences all others get 1. The neck is the middle of the shoulders with the lower confidence of the two, missing if
    either is. The face has OpenPose's 70 points: the last two, the pupils, are COCO's eyes. Feet have no place in 18
    joints and are left out. A frame without any point becomes a frame without people.

    Raises ValueError for other shapes, and for confidences given twice.
    """
    height, width = checked_size(canvas, "canvas")
    try:
        points = np.asarray(points, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:   # the last for a whole number with hundreds of digits
        raise ValueError(f"whole-body points are not an array of numbers ({error}); expected (frames, 133, 2 or 3)") \
            from error
    single = points.ndim == 2
    points = points[None] if single else points
    if points.ndim != 3 or points.shape[1] != POINTS or points.shape[2] not in (2, 3):
        raise ValueError(f"whole-body points have shape {points.shape[1:] if single else points.shape}; expected (133, 2 "
                         "or 3) or (frames, 133, 2 or 3): x, y and perhaps a confidence of each COCO-WholeBody point")
    if scores is not None:
        if points.shape[2] == 3:
            raise ValueError("confidences came as the third column and as scores; expected one of them")
        scores = np.asarray(scores, dtype=np.float64)
        if scores.shape not in ((POINTS,), points.shape[:2]):
            raise ValueError(f"scores have shape {scores.shape}; expected {points.shape[:2]}, one per point")
        points = np.concatenate([points, np.broadcast_to(scores, points.shape[:2])[..., None]], 2)
    elif points.shape[2] == 2:
        points = np.concatenate([points, np.ones((*points.shape[:2], 1))], 2)
    return [_frame(frame, height, width) for frame in points]


def _frame(points: np.ndarray, height: int, width: int) -> dict:
    xy, confidence = points[:, :2], points[:, 2]
    missing = ~np.isfinite(points).all(1) | (xy == 0).all(1) | (xy == -1).all(1) | (np.nan_to_num(confidence) <= 0)
    points = np.where(missing[:, None], 0.0, points)
    body = np.stack([_neck(points) if index is None else points[index] for index in BODY_OF_COCO])
    face = np.concatenate([points[FACE], points[[RIGHT_EYE, LEFT_EYE]]])
    person = {"pose_keypoints_2d": _flat(body), "face_keypoints_2d": _flat(face),
              "hand_left_keypoints_2d": _flat(points[LEFT_HAND]), "hand_right_keypoints_2d": _flat(points[RIGHT_HAND])}
    return {"people": [] if missing.all() else [person], "canvas_height": height, "canvas_width": width}


def _neck(points: np.ndarray) -> np.ndarray:
    left, right = points[LEFT_SHOULDER], points[RIGHT_SHOULDER]
    if min(left[2], right[2]) <= 0:
        return np.zeros(3)
    return np.array([*(left[:2] + right[:2]) / 2, min(left[2], right[2])])


def _flat(rows: np.ndarray) -> list[float]:
    return [float(value) for value in rows.reshape(-1)]


def load_wholebody(path: str | Path, canvas: tuple[int, int]) -> list[dict]:
    """A file of whole-body points -> POSE_KEYPOINT frames, as `wholebody_to_pose_keypoint` makes them.

    .npy: (133, 2 or 3) or (frames, 133, 2 or 3). .json: the same as nested lists. .txt: 133 lines "x y" or "x y
    confidence" of one frame; commas for spaces are fine. canvas: (H, W) in pixels of the video. Raises ValueError that
    names the file for anything else; objects in an .npy file are refused, since reading them could run code.
    """
    path = Path(path)
    kind = path.suffix.lower()
    try:
        if kind == ".npy":
            points: Any = read_numbers(path, EXPECTED)
        elif kind == ".json":
            points = read_json(path, EXPECTED)
        elif kind == ".txt":
            points = point_rows(read_text(path, EXPECTED).splitlines())
        else:
            raise ValueError(f"its name ends in {kind!r}; expected .npy, .json or .txt")
        return wholebody_to_pose_keypoint(points, canvas)
    except ValueError as error:
        raise error if str(error).startswith(path.name) else ValueError(f"{path.name}: {error}") from error


def point_rows(lines: Iterable[str]) -> Sequence[Sequence[float]]:
    """133 lines "x y" or "x y confidence" of one frame -> numbers. Raises ValueError for anything else."""
    rows = []
    for number, line in enumerate(lines, start=1):
        fields = line.replace(",", " ").split()
        if not fields:
            continue
        try:
            row = [float(value) for value in fields]
        except ValueError:
            row = [math.nan]
        if len(row) not in (2, 3) or (rows and len(row) != len(rows[0])):
            raise ValueError(f"line {number} is {line[:60]!r}; expected 'x y' or 'x y confidence', the same on every line")
        rows.append(row)
    if len(rows) != POINTS:
        raise ValueError(f"{len(rows)} lines with points; expected 133, one per COCO-WholeBody point")
    return rows
