"""Whole-body keypoints with 133 points (COCO-WholeBody, as HRNet and DWPose give them for sign-language videos such as
PHOENIX) to POSE_KEYPOINT frames: 18 body joints, with hands and face kept.

Order of the 133 points: 17 COCO joints, 6 of the feet, 68 of the face, 21 of the left hand, 21 of the right hand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..files.reading import read_json, read_numbers, read_text
from .keypoints import Keypoints, checked_size

POINTS = 133
EXPECTED = "133 points (x, y and perhaps a confidence) of each frame"
FACE, LEFT_HAND, RIGHT_HAND = slice(23, 91), slice(91, 112), slice(112, 133)
# COCO's 17 joints in OpenPose-COCO order: nose, neck (made of the shoulders), right arm, left arm, right leg, left leg,
# right and left eye, right and left ear.
BODY_OF_COCO = (0, None, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3)
LEFT_SHOULDER, RIGHT_SHOULDER, LEFT_EYE, RIGHT_EYE = 5, 6, 1, 2


def _mirror() -> tuple[int, ...]:
    body = (0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15, 20, 21, 22, 17, 18, 19)
    brows, eyes = range(26, 16, -1), (45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40)
    mouth = (54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65)
    face = (*range(16, -1, -1), *brows, 27, 28, 29, 30, 35, 34, 33, 32, 31, *eyes, *mouth)
    return (*body, *(23 + point for point in face), *range(112, 133), *range(91, 112))


MIRROR_POINTS = _mirror()   # point i of the mirrored person is point MIRROR_POINTS[i] of the original
LISTS = {"face_keypoints_2d": FACE, "hand_left_keypoints_2d": LEFT_HAND, "hand_right_keypoints_2d": RIGHT_HAND}


@dataclass(frozen=True, eq=False)
class WholeBody(Keypoints):
    """The 18 joints of one person, and 133 points with feet, face and hands in COCO-WholeBody's order.

    points: (133, 2) float64 pixels of the canvas; seen: (133,) bool. What moves the pose as a whole (`moved` and all that is
    made of it, `mirrored`) moves both, and hands and face go along with single joints (`with_joints`).
    """

    points: np.ndarray
    seen: np.ndarray

    def __post_init__(self):
        super().__post_init__()
        points, seen = np.array(self.points, dtype=np.float64), np.array(self.seen, dtype=bool)
        if points.shape != (POINTS, 2) or seen.shape != (POINTS,) or not np.isfinite(points[seen]).all():
            raise ValueError(f"WholeBody got points of shape {points.shape} and seen of shape {seen.shape}; expected (133, "
                             "2) and (133,), finite where seen")
        points[~seen] = 0.0
        for name, value in (("points", points), ("seen", seen)):
            value.setflags(write=False)
            object.__setattr__(self, name, value)

    @classmethod
    def of(cls, points: np.ndarray, seen: np.ndarray, canvas: tuple[int, int]) -> WholeBody:
        """Points (133, 2) in pixels, seen (133,) bool -> the pose; its 18 joints are made of them, the neck of the
        shoulders."""
        rows = np.concatenate([np.where(seen[:, None], points, 0.0), np.asarray(seen)[:, None]], axis=1)
        body = np.stack([_neck(rows) if index is None else rows[index] for index in BODY_OF_COCO])
        return cls(body[:, :2], body[:, 2] > 0, canvas, points, seen)

    def moved(self, change: Callable[[np.ndarray], np.ndarray], canvas: tuple[int, int] | None = None) -> WholeBody:
        """As `Keypoints.moved`, hands and face too."""
        return WholeBody(change(self.xy), self.present, canvas or self.canvas, change(self.points), self.seen)

    def with_joints(self, xy: np.ndarray) -> WholeBody:
        """The 18 joints at other places, (18, 2) pixels. Hands go along with their wrists, the face with the nose; feet,
        which no joint leads, are missing."""
        points, seen = self.points.copy(), self.seen.copy()
        for joint, index in enumerate(BODY_OF_COCO):
            if index is not None:
                points[index] = xy[joint]
        for joint, part in ((0, FACE), (7, LEFT_HAND), (4, RIGHT_HAND)):
            points[part] += np.asarray(xy[joint]) - self.xy[joint]
        seen[17:23] = False
        return WholeBody(xy, self.present, self.canvas, points, seen)

    def mirrored(self) -> WholeBody:
        other, order = super().mirrored(), list(MIRROR_POINTS)
        points = np.stack([self.canvas[1] - 1 - self.points[order, 0], self.points[order, 1]], axis=1)
        return WholeBody(other.xy, other.present, other.canvas, points, self.seen[order])

    def lists(self) -> dict[str, list[float]]:
        """Face (OpenPose's 70 points) and hands as a person of POSE_KEYPOINT has them, confidence 1 or 0."""
        rows = np.concatenate([self.points, self.seen[:, None]], axis=1)
        return {name: _flat(_face(rows) if name.startswith("face") else rows[part]) for name, part in LISTS.items()}


def whole_body(body: Keypoints, person: Mapping[str, Any], unit: tuple[float, float], least: float) -> WholeBody:
    """A body with hands and face of its dict in POSE_KEYPOINT. unit: pixels of 1 in x and in y. least: confidence below
    which a point is missing. Lists of another length, or not of numbers, count as missing; feet always are."""
    points, seen = np.zeros((POINTS, 2)), np.zeros(POINTS, bool)
    for joint, index in enumerate(BODY_OF_COCO):
        if index is not None:
            points[index], seen[index] = body.xy[joint], body.present[joint]
    for name, part in LISTS.items():
        try:
            rows = np.array([math.nan if value is None else float(value) for value in person.get(name) or ()]).reshape(-1, 3)
        except (TypeError, ValueError):
            continue
        if len(rows) == part.stop - part.start or (name.startswith("face") and len(rows) == 70):
            rows = rows[:part.stop - part.start]
            there = np.isfinite(rows).all(1) & (rows[:, 2] > 0) & (rows[:, 2] >= least)
            points[part], seen[part] = np.where(there[:, None], rows[:, :2], 0.0) * unit, there
    return WholeBody(body.xy, body.present, body.canvas, points, seen)


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
    person = {"pose_keypoints_2d": _flat(body), "face_keypoints_2d": _flat(_face(points)),
              "hand_left_keypoints_2d": _flat(points[LEFT_HAND]), "hand_right_keypoints_2d": _flat(points[RIGHT_HAND])}
    return {"people": [] if missing.all() else [person], "canvas_height": height, "canvas_width": width}


def _face(points: np.ndarray) -> np.ndarray:
    """OpenPose's 70 points of the face: the last two, the pupils, are COCO's eyes."""
    return np.concatenate([points[FACE], points[[RIGHT_EYE, LEFT_EYE]]])


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
