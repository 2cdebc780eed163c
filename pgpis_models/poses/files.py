"""Poses from files and text of any kind that this pack knows, as POSE_KEYPOINT frames.

OpenPose's JSON and saved POSE_KEYPOINT; FPDM's text of 18 lines "x y"; rows of CFLD's annotation files; 133 whole-body
points, as sign-language data sets such as PHOENIX are labelled with, in .npy, JSON or text.
"""

from __future__ import annotations

import json
import math
from codecs import BOM_UTF8
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..files.reading import read_text
from .formats import (
    MIN_CONFIDENCE,
    from_pose_keypoint,
    held,
    load_openpose_json,
    parse_cfld_annotation,
    to_pose_keypoint,
    with_canvas,
)
from .keypoints import Keypoints
from .padded_rows import parse_fpdm_txt
from .wholebody import load_wholebody, point_rows, wholebody_to_pose_keypoint

POSE_SUFFIXES = (".json", ".txt", ".npy", ".csv")
KINDS = "OpenPose or POSE_KEYPOINT JSON, 18 lines 'x y', 133 lines 'x y', or rows 'name: [18 y]: [18 x]'"
CSV_HEADER = "name:keypoints_y:keypoints_x"
MANY_LINES = 60   # text with more lines than this was meant to be 133 points, with fewer 18


def load_poses(path: str | Path, canvas: tuple[int, int] | None = None) -> list[dict]:
    """A pose file -> POSE_KEYPOINT frames, in order. Frames may lack people.

    canvas: (H, W) in pixels that coordinates refer to, for files that do not say; 133 points need it. FPDM's text and CFLD's
    rows have a frame of their own. A byte order mark is skipped. Raises ValueError that names the file for anything else.
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind not in POSE_SUFFIXES:
        raise ValueError(f"pose {path.name} is a {kind or 'nameless'} file; expected one of {', '.join(POSE_SUFFIXES)}")
    if kind == ".json" and not _is_numbers(path):
        return load_openpose_json(path, canvas)
    if kind in (".json", ".npy"):
        return load_wholebody(path, _needed(canvas, path.name))
    return parse_poses(read_text(path, KINDS), canvas, path.name)


def parse_poses(text: str, canvas: tuple[int, int] | None = None, what: str = "the pose text") -> list[dict]:
    """Pose text -> POSE_KEYPOINT frames; see `load_poses`. Raises ValueError, beginning with `what`."""
    text = text.removeprefix("\ufeff")   # as some editors put before text that is copied whole
    numbered = [(number, line) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    lines = [line for _, line in numbered]
    if not lines:
        raise ValueError(f"{what} is empty; expected {KINDS}")
    if text.lstrip().startswith("{") or '"people"' in text:
        return _frames(_json(text, what), canvas, what)
    if text.lstrip().startswith("[") and ":" not in text:
        return _named(what, wholebody_to_pose_keypoint, _json(text, what), _needed(canvas, what))
    if ":" in lines[0]:
        return _named(what, _annotations, numbered[lines[0].replace(" ", "") == CSV_HEADER:])
    if not _begins_with_number(lines[0]):
        raise ValueError(f"{what} begins with {lines[0][:60]!r}; expected {KINDS}")
    if len(lines) > MANY_LINES:
        return _named(what, lambda: wholebody_to_pose_keypoint(point_rows(lines), _needed(canvas, what)))
    return to_pose_keypoint(parse_fpdm_txt(text, what))


def checked(frames: list[dict], min_confidence: float = MIN_CONFIDENCE) -> list[dict]:
    """The frames, if one at least shows somebody: what is wrong with a pose is said here rather than nodes later, but a
    sequence may have empty frames, which the nodes for sequences can hold. Raises ValueError when no joint of any frame lies
    on its canvas."""
    poses = from_pose_keypoint(frames, min_confidence=min_confidence, empty="hold")
    if not any(pose.on_canvas.any() for pose in poses):
        raise off_canvas(poses[0], "the first frame")
    return frames


def on_canvas(poses: Sequence[Keypoints], empty: str = "error", names: Sequence[str] | None = None) -> list[Keypoints]:
    """The poses of a method that shows a person in every picture: one whose joints all lie off its canvas is an "error" that
    names it, or takes the pose before it, "hold", as frames without the person do. names: as of `from_pose_keypoint`."""
    shown = [pose if pose.on_canvas.any() else None for pose in poses]
    if None in shown and (empty == "error" or not any(shown)):
        first = shown.index(None)
        raise off_canvas(poses[first], names[first] if names else f"frame {first + 1} of {len(poses)}")
    return held(shown)


def off_canvas(pose: Keypoints, what: str) -> ValueError:
    """The error for a pose without a joint on its canvas, of which a method makes a person at random. what: its name."""
    (height, width), (x0, y0, x1, y1) = pose.canvas, pose.bounds
    return ValueError(f"no joint lies on the canvas of {width}x{height} (width x height): those of {what} are at x "
                      f"{x0:.0f} to {x1:.0f}, y {y0:.0f} to {y1:.0f}; expected coordinates in pixels of the canvas. Set "
                      "canvas_width and canvas_height (--canvas on the command line) to the size of the picture that the "
                      "pose was found in")


def _named(what: str, function: Any, *arguments: Any) -> list[dict]:
    try:
        return function(*arguments)
    except ValueError as error:
        raise error if str(error).startswith(what) else ValueError(f"{what}: {error}") from error


def _annotations(rows: list[tuple[int, str]]) -> list[dict]:
    """Rows of CFLD with their line numbers -> frames. Raises ValueError that names line and picture."""
    poses = []
    for number, row in rows:
        try:
            poses.append(parse_cfld_annotation(row))
        except ValueError as error:
            picture = f" ({row.rsplit(':', 2)[0].strip()[:80]})" if row.count(":") > 1 else ""
            raise ValueError(f"line {number}{picture}: {error}") from error
    return to_pose_keypoint(poses)


def _json(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:   # the latter where lists are nested too deep
        raise ValueError(f"{what} is not JSON ({error}); expected {KINDS}") from error


def _frames(content: Any, canvas: tuple[int, int] | None, what: str) -> list[dict]:
    frames = content if isinstance(content, list) else [content]
    other = next((frame for frame in frames if isinstance(frame, dict) and "people" not in frame), None)
    if other is not None:
        keys = ", ".join(map(repr, list(other)[:4])) or "nothing"
        raise ValueError(f"{what} is JSON of something else, with {keys} and no 'people'; expected {KINDS}")
    return frames if canvas is None else [with_canvas(frame, canvas) if isinstance(frame, dict) else frame
                                          for frame in frames]


def _begins_with_number(line: str) -> bool:
    """Whether the first word is a number in any spelling: numpy writes 1.28e+02."""
    words = line.replace(",", " ").split()
    try:
        return bool(words) and math.isfinite(float(words[0]))
    except ValueError:
        return False


def _is_numbers(path: Path) -> bool:
    """Whether a JSON file holds lists of numbers rather than people."""
    with open(path, "rb") as file:
        return b"".join(file.read(64).removeprefix(BOM_UTF8).split())[:2] == b"[["


def _needed(canvas: tuple[int, int] | None, what: str) -> tuple[int, int]:
    if canvas is None:
        raise ValueError(f"{what} holds points without the size of their picture; expected it beside them: give the canvas, "
                         "height and width in pixels")
    return canvas
