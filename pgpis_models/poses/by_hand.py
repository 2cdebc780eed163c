"""Poses that somebody edits: text of any editor to frames that every node can take, a person to begin with, and pictures of
all people of a frame. The page's side is web/pose_editor."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .drawing import draw_openpose
from .files import parse_poses
from .formats import BODY_KEYS, NOBODY, body_key, from_pose_keypoint, to_pose_keypoint
from .keypoints import Keypoints, checked_size

# A standing person seen from the front: x from the middle, y from the top, in shares of the person's frame.
STANDING = (
    (0, 0.09), (0, 0.18),
    (-0.098, 0.18), (-0.132, 0.325), (-0.147, 0.46), (0.098, 0.18), (0.132, 0.325), (0.147, 0.46),
    (-0.06, 0.475), (-0.067, 0.695), (-0.073, 0.91), (0.06, 0.475), (0.067, 0.695), (0.073, 0.91),
    (-0.019, 0.072), (0.019, 0.072), (-0.041, 0.083), (0.041, 0.083),
)
BODY = BODY_KEYS[0]
LENGTHS = {"face_keypoints_2d": 70, "hand_left_keypoints_2d": 21, "hand_right_keypoints_2d": 21}


def standing(canvas: tuple[int, int]) -> Keypoints:
    """A standing person in the middle of a canvas (H, W), as the editor begins with."""
    height, width = checked_size(canvas, "canvas")
    frame = min(height, 2 * width)
    xy = np.array(STANDING) * frame + (width / 2, (height - frame) / 2)
    return Keypoints(xy, np.ones(18, bool), (height, width))


def edited_frames(text: str, canvas: tuple[int, int]) -> list[dict]:
    """POSE_KEYPOINT frames of a text that an editor wrote: JSON of POSE_KEYPOINT, of OpenPose, of editors that write
    {width, height, keypoints: [[[x, y], ...]]}, or any other text that `parse_poses` reads.

    canvas: (H, W) in pixels, for frames that do not say theirs. All lists have their full length and only finite numbers;
    what was not finite is missing. A frame may have no people. Raises ValueError that says where the text has another form.
    """
    frames = parse_poses(_in_known_form(text), canvas, "the text of the pose")
    from_pose_keypoint(frames, empty=NOBODY)   # the form of every frame
    return [finished(frame) for frame in frames]


def _in_known_form(text: str) -> str:
    """Text whose frames have `keypoints` in place of `people` in the form of the others; other text as it is."""
    if '"keypoints"' not in text or '"people"' in text:
        return text
    try:
        content = json.loads(text.removeprefix("\ufeff"))
    except (ValueError, RecursionError):
        return text   # parse_poses says what is wrong with it
    frames = content if isinstance(content, list) else [content]
    if not all(isinstance(frame, dict) and isinstance(frame.get("keypoints"), list) for frame in frames):
        return text
    made = []
    for frame in frames:
        people = [{BODY: [value for joint in (person if isinstance(person, list) else []) for value in _joint(joint)]}
                  for person in frame["keypoints"]]
        sides = {f"canvas_{side}": frame.get(f"canvas_{side}", frame.get(side)) for side in ("width", "height")}
        made.append({"people": people} | {key: value for key, value in sides.items() if value is not None})
    return json.dumps(made)


def _joint(joint: Any) -> list:
    there = isinstance(joint, list) and len(joint) >= 2 and None not in joint[:2]
    return [*joint[:2], 1] if there else [0, 0, 0]


def finished(frame: dict) -> dict:
    """A frame that `from_pose_keypoint` reads, with the lists that other nodes need: face (70) and hands (21 each) are there
    at full length, and joints with a number that is none are (0, 0, 0), confidence 0."""
    people = []
    for person in frame.get("people") or []:
        lists = {BODY: _finite(person.get(body_key(person)), 18)}
        lists |= {key: _finite(person.get(key), count) for key, count in LENGTHS.items()}
        people.append(person | lists)
    return frame | {"people": people}


def _finite(values: Any, count: int) -> list[float]:
    flat = [value for item in (() if values is None else values)
            for value in (item if isinstance(item, (list, tuple, np.ndarray)) else (item,))]
    rows = [flat[place:place + 3] for place in range(0, len(flat) - 2, 3)]
    made = []
    for row in rows or [[0.0] * 3] * count:
        try:
            numbers = [math.nan if value is None else float(value) for value in row]
        except (TypeError, ValueError):
            numbers = [math.nan]
        made += numbers if all(map(math.isfinite, numbers)) else [0.0, 0.0, 0.0]
    return made


def fitted_to(pose: Keypoints, size: tuple[int, int]) -> Keypoints:
    """The pose on a canvas (H, W) of other sides: scaled to fit, its aspect ratio kept, in the middle."""
    if pose.canvas == tuple(size):
        return pose
    (height, width), (old_height, old_width) = size, pose.canvas
    scale = min(width / old_width, height / old_height)
    xy = pose.xy * scale + ((width - scale * old_width) / 2, (height - scale * old_height) / 2)
    return Keypoints(xy, pose.present, (height, width))


def draw_people(people: Sequence[Keypoints], size: tuple[int, int]) -> np.ndarray:
    """OpenPose picture (H, W, 3) uint8 of several people, later ones in front; black without any. Needs OpenCV."""
    picture = np.zeros((*size, 3), np.uint8)
    for pose in people:
        drawn = draw_openpose(fitted_to(pose, size))
        picture = np.where(drawn.any(axis=-1, keepdims=True), drawn, picture)
    return picture


def one_standing(canvas: tuple[int, int]) -> list[dict]:
    """POSE_KEYPOINT of `standing`."""
    return to_pose_keypoint(standing(canvas))
