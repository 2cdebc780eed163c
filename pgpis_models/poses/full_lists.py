"""People of POSE_KEYPOINT with every list at full length: the host's own drawing node fails on shorter ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .formats import BODY_25_TO_COCO_18, BODY_KEYS, body_key

JOINTS_OF = {"pose_keypoints_2d": 18, "face_keypoints_2d": 70, "hand_left_keypoints_2d": 21, "hand_right_keypoints_2d": 21}


def with_full_lists(frames: Sequence[dict]) -> list[dict]:
    """POSE_KEYPOINT frames that `from_pose_keypoint` reads -> the same with flat lists of 18 body, 70 face and 2 x 21 hand
    joints for each person, x, y, confidence each. What a person lacks is zeros: confidence 0 means missing. BODY_25 becomes
    the 18 joints; values that are None become 0. Other keys stay.
    """
    return [frame | {"people": [_full(person) for person in frame.get("people") or []]} for frame in frames]


def _full(person: dict) -> dict:
    own = person | {BODY_KEYS[0]: person.get(body_key(person))}
    return own | {name: _list_of(own.get(name), count) for name, count in JOINTS_OF.items()}


def _list_of(joints: Any, count: int) -> list[float]:
    flat = [] if joints is None else \
        [value for item in joints for value in (item if hasattr(item, "__len__") else [item])]
    rows = [[0.0] * 3 if None in flat[at:at + 3] else [float(value) for value in flat[at:at + 3]]
            for at in range(0, len(flat) - 2, 3)]
    if count == JOINTS_OF["pose_keypoints_2d"] and len(rows) == len(BODY_25_TO_COCO_18) + 7:
        rows = [rows[joint] for joint in BODY_25_TO_COCO_18]
    rows = (rows + [[0.0] * 3] * count)[:count]   # controlnet_aux gives 68 joints of a face, others 70
    return [value for row in rows for value in row]
