"""How poses come in and go out: ComfyUI's POSE_KEYPOINT type, OpenPose JSON files, and the annotation rows of CFLD's
DeepFashion split, from and to the one representation, `Keypoints`. Drawing and rasters are in `pose.py`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..files.reading import read_json
from .keypoints import Keypoints, checked_size
from .wholebody import WholeBody, whole_body

# BODY_25 has a middle hip at 8 and six foot joints at 19..24; the other 18 are ours in another order.
BODY_25_TO_COCO_18 = (0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18)

# Frame (H, W) of CFLD's annotation files (CFLD's authors' code).
CFLD_FRAME = (256, 176)

# Names of a person's body joints: OpenPose 1.1 and later, ComfyUI, and OpenPose 1.0.
BODY_KEYS = ("pose_keypoints_2d", "pose_keypoints")
# Of what else a person may have: one with a face or a hand alone has no body, one with other names a body not read here.
OTHER_KEYS = ("person_id", "face_keypoints", "hand_left_keypoints", "hand_right_keypoints", "foot_keypoints")

MIN_CONFIDENCE = 0.3   # joints below count as missing; the threshold of SDPose's own drawing node
LARGEST_SIDE = 2**14   # pixels of a canvas; what is larger cannot be drawn: OpenCV's coordinates end there
MOST_PEOPLE = 1000     # of a frame; what holds more is no list of people

EMPTY = ("error", "hold")   # what to do with a frame without the person
NOBODY = "nobody"           # the same, for methods and pictures that can do without one

# Farther out than one whole canvas no detector puts a joint, and no person is two pixels tall: this parts 0..1
# coordinates from pixels even where some joints lie off the canvas.
NORMALISED_LIMIT = 2.0


class EmptyFrame(ValueError):
    """A frame of a POSE_KEYPOINT that is well formed but has not the person asked for."""


def from_pose_keypoint(frames, person: int | str = "largest", min_confidence: float = MIN_CONFIDENCE,
                       empty: str = "error", names: Sequence[str] | None = None, whole: bool = False) -> list[Keypoints]:
    """ComfyUI's POSE_KEYPOINT -> one Keypoints per frame.

    frames:         list of dicts with canvas_width, canvas_height and people; each person has pose_keypoints_2d, a list
                    of x, y, confidence per joint, flat or as triples, 18 joints (OpenPose-COCO) or 25 (BODY_25). Both
                    controlnet_aux (0..1 or pixels) and ComfyUI's own SDPose nodes (pixels) write this.
    person:         index of the person to take in every frame, or "largest": the one with the largest box.
    min_confidence: joints below are missing. SDPose reports all 18 joints always, unseen ones with a low score;
                    controlnet_aux writes 1 or 0 only.
    empty:          what a frame without the person is: "error" raises EmptyFrame, "hold" gives it the pose of the frame
                    before it, and those before the first pose that first one; "nobody" gives it a pose without joints,
                    where at least one frame has the person or the largest was asked for. Frames of another form are
                    errors always.
    names:          what errors call each frame, such as the file that it came from; "frame 3 of 5" when None.
    whole:          people are `WholeBody`, with hands and face where the frame has them.

    Missing: confidence 0, below min_confidence or None; a coordinate that is None or not finite; x = y = -1.
    Units: a frame is in 0..1 when all its present coordinates are within +-2 (off-canvas joints are allowed to exceed
    1), and in pixels otherwise. All people of a frame share one unit.

    Raises ValueError when the input has another form, and when a frame has no (such) person: which frame of how many,
    and what to do.
    """
    if isinstance(frames, dict):
        frames = [frames]
    if not isinstance(frames, (list, tuple)):
        raise ValueError(
            f"A pose came as {type(frames).__name__}; expected POSE_KEYPOINT: a list of frames, each a dict with "
            f"canvas_width, canvas_height and people. Give the pose itself, as pose nodes put it out, not its picture."
        )
    if not frames:
        raise ValueError("A POSE_KEYPOINT without frames came; expected one frame per pose. "
                         "Check that the pose node before this one received a picture.")
    if isinstance(person, bool) or not (person == "largest" or (isinstance(person, int) and person >= 0)):
        raise ValueError(f"person is {person!r}; expected 'largest' or an index from 0.")
    if empty not in (*EMPTY, NOBODY):
        raise ValueError(f"empty is {empty!r}; expected one of {(*EMPTY, NOBODY)}.")
    poses: list[Keypoints | None] = []
    missed, seen = None, False
    names = [f"frame {number} of {len(frames)}" for number in range(1, len(frames) + 1)] if names is None else names
    for name, frame in zip(names, frames, strict=True):
        try:
            poses.append(_read_frame(frame, name, person, min_confidence, whole))
            seen = True
        except EmptyFrame as error:
            if empty == "error":
                raise
            missed = missed or error
            poses.append(_nobody(frame) if empty == NOBODY else None)
    if not seen and (empty != NOBODY or person != "largest"):
        raise missed  # nothing to hold, or nobody of that number in any frame
    return held(poses)


def held(poses: Sequence[Keypoints | None]) -> list[Keypoints]:
    """Each None in place of a pose becomes the pose before it, and those before the first pose that first one. One at
    least must be a pose."""
    before = next(pose for pose in poses if pose is not None)
    return [before := before if pose is None else pose for pose in poses]


def _nobody(frame: dict) -> Keypoints:
    """A pose without joints on the canvas of a frame that was read."""
    canvas = int(frame["canvas_height"]), int(frame["canvas_width"])
    return Keypoints(np.zeros((18, 2)), np.zeros(18, dtype=bool), canvas)


def listed_people(frame, where: str = "the frame", min_confidence: float = MIN_CONFIDENCE,
                  whole: bool = False) -> list[Keypoints]:
    """All people of one POSE_KEYPOINT frame, in its order, some perhaps without a joint; whole, units and errors as of
    `from_pose_keypoint`."""
    if not isinstance(frame, dict):
        raise ValueError(f"POSE_KEYPOINT: {where} is {type(frame).__name__}; expected a dict with canvas_width, "
                         f"canvas_height and people.")
    missing = [key for key in ("canvas_width", "canvas_height") if not _is_side(frame.get(key))]
    if missing:
        raise ValueError(
            f"POSE_KEYPOINT: {where} has {', '.join(f'{key} = {repr(frame.get(key))[:40]}' for key in missing)}; expected "
            f"pixels, 1 to {LARGEST_SIDE}. OpenPose's own JSON files lack the canvas: give it when loading the file."
        )
    height, width = int(frame["canvas_height"]), int(frame["canvas_width"])
    people = frame.get("people") or []
    if not isinstance(people, (list, tuple)):
        raise ValueError(f"POSE_KEYPOINT: people of {where} is {type(people).__name__}; expected a list of dicts.")

    if len(people) > MOST_PEOPLE:
        raise ValueError(f"POSE_KEYPOINT: {where} lists {len(people)} people; expected {MOST_PEOPLE} or fewer. Give one "
                         "frame per picture, not all people in one.")

    bodies = [_read_body(one, f"person {i} of {where}", min_confidence) for i, one in enumerate(people)]
    coordinates = np.concatenate([xy[present] for xy, present in bodies] or [np.empty((0, 2))])
    unit = (width, height) if len(coordinates) and np.abs(coordinates).max() <= NORMALISED_LIMIT else (1.0, 1.0)
    found = [Keypoints(xy * unit, present, (height, width)) for xy, present in bodies]
    if not whole:
        return found
    return [whole_body(body, one, unit, min_confidence) for body, one in zip(found, people, strict=True)]


def people_seen(frame: dict, min_confidence: float = MIN_CONFIDENCE) -> list[Keypoints]:
    """Those of `listed_people` who have a joint; none of a frame that lists nobody, whatever else it lacks."""
    listed = listed_people(frame, min_confidence=min_confidence) if frame.get("people") else []
    return [pose for pose in listed if pose.present.any()]


def _read_frame(frame, where: str, person: int | str, min_confidence: float, whole: bool) -> Keypoints:
    found = listed_people(frame, where, min_confidence, whole)
    if person == "largest":
        found = [keypoints for keypoints in found if keypoints.present.any()]
        if not found:
            raise EmptyFrame(
                f"No person in {where} (people listed: {len(frame.get('people') or [])}); expected one with joints of "
                f"confidence {min_confidence} or more. Use a picture that shows a person, leave this frame out, or lower "
                f"min_confidence."
            )
        return max(found, key=_box_area)
    if person >= len(found) or not found[person].present.any():
        raise EmptyFrame(
            f"Person {person} asked for, but {where} has {len(found)} with a body"
            f"{' and this one has no joint' if person < len(found) else ''}. Choose a smaller index or 'largest', or "
            f"leave this frame out."
        )
    return found[person]


def _read_body(person, where: str, min_confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """One person's dict -> xy (18, 2) in the frame's own unit, present (18,)."""
    if not isinstance(person, dict):
        raise ValueError(f"POSE_KEYPOINT: {where} is {type(person).__name__}; expected a dict with pose_keypoints_2d.")
    key = body_key(person)
    flat = person.get(key)
    if flat is None and person and not any(str(name).startswith((*BODY_KEYS, *OTHER_KEYS)) for name in person):
        raise ValueError(f"POSE_KEYPOINT: {where} has {', '.join(sorted(map(repr, person))[:10])[:200]}, which "
                         f"are not known; expected {BODY_KEYS[0]}: x, y, confidence per joint.")
    if flat is None or (isinstance(flat, (list, tuple)) and not flat):
        return np.zeros((18, 2)), np.zeros(18, dtype=bool)  # a detected face or hand without a body
    if not isinstance(flat, (list, tuple, np.ndarray)):
        raise ValueError(f"POSE_KEYPOINT: {key} of {where} is {type(flat).__name__}; expected a list of "
                         f"x, y, confidence per joint.")
    values = _flat(flat)
    if len(values) not in (18 * 3, 25 * 3):
        raise ValueError(
            f"POSE_KEYPOINT: {key} of {where} has {len(values)} numbers; expected 54 (18 OpenPose-COCO "
            f"joints x 3) or 75 (25 BODY_25 joints x 3). Use a body pose node with OpenPose output."
        )
    try:
        numbers = np.array([math.nan if value is None else float(value) for value in values]).reshape(-1, 3)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"POSE_KEYPOINT: {key} of {where} holds something that is not a number "
                         f"({error}); expected x, y, confidence per joint.") from error
    if len(numbers) == 25:
        numbers = numbers[list(BODY_25_TO_COCO_18)]
    xy, confidence = numbers[:, :2], numbers[:, 2]
    # Comparisons with nan are False, so a confidence of None drops out here as well.
    present = np.isfinite(xy).all(1) & (confidence > 0) & (confidence >= min_confidence) & ~(xy == -1).all(1)
    return np.where(present[:, None], xy, 0.0), present


def body_key(person: dict) -> str:
    """Which of BODY_KEYS a person's body joints stand under; the first where there are none."""
    return next((key for key in BODY_KEYS if person.get(key) is not None), BODY_KEYS[0])


def _flat(joints: Sequence) -> list:
    """Numbers, or triples of them, as one list of numbers."""
    return [value for item in joints for value in (item if isinstance(item, (list, tuple, np.ndarray)) else [item])]


def _box_area(keypoints: Keypoints) -> tuple[float, int]:
    x0, y0, x1, y1 = keypoints.bounds
    return ((x1 - x0) * (y1 - y0), int(keypoints.present.sum()))


def _is_side(value) -> bool:
    """Whether this is a canvas's height or width in pixels: nan and infinity, which Python's JSON knows, are not."""
    return (isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
            and bool(1 <= value <= LARGEST_SIDE))


def to_pose_keypoint(poses: Keypoints | Sequence[Keypoints]) -> list[dict]:
    """Keypoints -> ComfyUI's POSE_KEYPOINT, one frame with one person per pose, in pixels of its canvas.

    Confidence is 1 for present and 0 for missing joints. Face (70) and hands (21 each) of what is no `WholeBody` are written
    with confidence 0: ComfyUI's drawing node needs the lists at full length, controlnet_aux skips joints of confidence 0.
    """
    frames = []
    for pose in [poses] if isinstance(poses, Keypoints) else poses:
        rows = np.concatenate([pose.xy, pose.present[:, None]], axis=1)
        person = {
            "pose_keypoints_2d": [float(value) for value in rows.reshape(-1)],
            "face_keypoints_2d": [0.0] * (70 * 3),
            "hand_left_keypoints_2d": [0.0] * (21 * 3),
            "hand_right_keypoints_2d": [0.0] * (21 * 3),
        }
        if isinstance(pose, WholeBody):
            person |= pose.lists()
        frames.append({"people": [person], "canvas_height": pose.canvas[0], "canvas_width": pose.canvas[1]})
    return frames


def load_openpose_json(path: str | Path, canvas: tuple[int, int] | None = None) -> list[dict]:
    """A JSON file -> POSE_KEYPOINT frames: a saved POSE_KEYPOINT, one frame of it, or a file of OpenPose itself.

    canvas: (H, W), used for frames that do not say their own; OpenPose's files do not. A byte order mark is skipped.

    Raises ValueError when the file is not JSON of that form; from_pose_keypoint checks the people in it.
    """
    path = Path(path)
    content = read_json(path, "POSE_KEYPOINT or OpenPose JSON")
    frames = content if isinstance(content, list) else [content]
    if not frames or not all(isinstance(frame, dict) and "people" in frame for frame in frames):
        keys = sorted(str(key) for frame in frames if isinstance(frame, dict) for key in frame)[:5]
        raise ValueError(f"{path.name} holds no pose frames{f' but {keys}' if keys else ''}; expected one dict or a list of "
                         f"dicts with 'people'. Save the pose with a node that writes POSE_KEYPOINT as JSON.")
    return frames if canvas is None else [with_canvas(frame, canvas) for frame in frames]


def with_canvas(frame: dict, canvas: tuple[int, int]) -> dict:
    """A frame of POSE_KEYPOINT with `canvas` (H, W) in pixels where it does not say its own or says null."""
    height, width = checked_size(canvas, "canvas")
    own = {key: value for key, value in frame.items() if value is not None}
    return frame | {"canvas_height": height, "canvas_width": width} | own


def confident(frames: list[dict], least: float) -> list[dict]:
    """POSE_KEYPOINT frames whose body joints of confidence `least` or more say 1 and others 0, for those that read them with
    another threshold later; as they are where `least` is `MIN_CONFIDENCE`, which all that read them here take. Hands and
    faces stay. The frames are ones that `from_pose_keypoint` reads."""
    if least == MIN_CONFIDENCE:
        return frames

    def settled(person: dict) -> dict:
        flat = person.get(body_key(person))
        if not flat:
            return person
        rows = np.array([math.nan if value is None else float(value) for value in _flat(flat)]).reshape(-1, 3)
        rows[:, 2] = (rows[:, 2] > 0) & (rows[:, 2] >= least)
        values = [None if math.isnan(value) else value for value in rows.ravel().tolist()]
        return person | {BODY_KEYS[0]: values}
    return [frame | {"people": [settled(person) for person in frame.get("people") or []]} for frame in frames]


def parse_cfld_annotation(annotation, xs=None, frame: tuple[int, int] = CFLD_FRAME) -> Keypoints:
    """A keypoint annotation of CFLD's DeepFashion split -> Keypoints (CFLD's authors' code).

    annotation: a row of the file, "name: [y, ...]: [x, ...]" (the name may be left out), with xs None; or the 18 y
                values, with the 18 x values in xs.
    frame:      (H, W) that the numbers refer to. A joint is missing where y or x is -1.

    Raises ValueError when a row has another form or a list has not 18 numbers.
    """
    if xs is None:
        if not isinstance(annotation, str) or annotation.count(":") < 1:
            raise ValueError(f"A CFLD annotation came as {str(annotation)[:80]!r}; expected 'name: [18 y]: [18 x]', or "
                             f"the y and the x list as two arguments.")
        fields = annotation.rsplit(":", 2)[-2:]
        try:
            ys, xs = (json.loads(field) for field in fields)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"CFLD annotation {annotation[:80]!r}: a keypoint list is not JSON ({error}); expected "
                             f"'name: [18 y]: [18 x]'.") from error
    else:
        ys = annotation
    try:
        ys, xs = np.asarray(ys, dtype=np.float64), np.asarray(xs, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"CFLD annotation with something that is not a number ({error}); expected 18 y and 18 x, -1 for a "
                         "missing joint") from error
    if ys.shape != (18,) or xs.shape != (18,):
        raise ValueError(f"CFLD annotation with y of shape {ys.shape} and x of shape {xs.shape}; expected 18 numbers "
                         f"each, in OpenPose-COCO order.")
    return Keypoints(np.stack([xs, ys], axis=1), (ys != -1) & (xs != -1), frame)
