"""The poses of the command line: which files of a folder they are, and which frame and person of a file."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..files.pictures import ENDINGS, open_rgb
from ..poses.files import POSE_SUFFIXES, load_poses, on_canvas
from ..poses.formats import MIN_CONFIDENCE, NOBODY, from_pose_keypoint
from ..poses.keypoints import Keypoints, read_size
from ..poses.tracking import followed
from .flags import given, refuse

PHOTO_FILES = ENDINGS
POSE_FILES = (".json", *PHOTO_FILES)                     # what a folder of poses is made of
OTHER_POSE_FILES = tuple(kind for kind in POSE_SUFFIXES if kind not in POSE_FILES)   # or else of these
FLAGS = ("canvas", "frame", "person", "min_confidence")
OF_FRAMES = FLAGS[1:]   # those that mean nothing for a photo
NAMED = 10   # files that an error lists


@dataclass(frozen=True)
class Choice:
    """What is taken from a pose file; None is what was not asked for.

    canvas: (height, width) in pixels that a file refers to when it does not say. frame: number from 1, for a file of
    several. person: index from 0, else the largest. min_confidence: joints below are missing, else `MIN_CONFIDENCE`.
    whole: with hands and face, for methods that draw them.
    """

    canvas: tuple[int, int] | None = None
    frame: int | None = None
    person: int | None = None
    min_confidence: float | None = None
    whole: bool = False

    @property
    def reading(self) -> dict[str, Any]:
        """Arguments of `from_pose_keypoint`."""
        return {"person": "largest" if self.person is None else self.person,
                "min_confidence": MIN_CONFIDENCE if self.min_confidence is None else self.min_confidence,
                "whole": self.whole}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """--canvas, --frame, --person and --min-confidence."""
    parser.add_argument("--canvas", default="", metavar="HxW",
                        help="height x width in pixels that pose files refer to; for OpenPose's own, which do not say")
    parser.add_argument("--frame", type=int, default=None, metavar="N", help="the one frame to take of a pose file of "
                        "several, counted from 1")
    parser.add_argument("--person", type=int, default=None, metavar="N", help="the person to take of a pose file, counted "
                        "from 0, with --sequence followed from the first frame that has it; default: the largest")
    parser.add_argument("--min-confidence", type=float, default=None, metavar="C", help="joints of a pose file with less "
                        f"confidence count as missing; default {MIN_CONFIDENCE}")


def choice_of(options: argparse.Namespace, method: str, whole: bool = False) -> Choice:
    """The flags that were given. whole: the checkpoint draws hands and face. Raises ValueError for numbers out of range, and
    for flags without a use: a frame of a sequence, and all with MCLD."""
    if method == "mcld":
        refuse(options, FLAGS, "came with a checkpoint of mcld, whose poses are IUV pictures, which have one frame and one "
               "person. Leave them out")
    if options.sequence:
        refuse(options, ["frame"], "came with --sequence, which makes all frames. Leave one of them out")
    for name, lowest, highest in (("frame", 1, math.inf), ("person", 0, math.inf), ("min_confidence", 0, 1)):
        value = getattr(options, name)
        if value is not None and not lowest <= value <= highest:
            expected = f"{lowest} or more" if highest == math.inf else f"{lowest} to {highest}"
            raise ValueError(f"{given(options, [name])} is {value}; expected {expected}")
    return Choice(read_size(options.canvas, "--canvas") if options.canvas else None, options.frame, options.person,
                  options.min_confidence, whole)


# --- files --------------------------------------------------------------------------------------------------

def read_pose(path: Path, choice: Choice = Choice(), nobody: bool = False) -> Keypoints:
    """One pose from a file that `load_poses` reads, or from a photo where controlnet-aux is installed.

    Only the frame that is taken needs a person, and none with `nobody`, for methods that can do without one. Raises
    ValueError for other files, for a file of several frames when none is chosen, for a frame or person that is not there,
    and for a pose off its canvas.
    """
    if path.suffix.lower() in POSE_SUFFIXES:
        frames, names = _frames(path, choice.canvas)
        if len(frames) > 1 and choice.frame is None:
            raise ValueError(f"{path.name} has {len(frames)} frames; expected one pose. Add --sequence to make all of them, "
                             f"or --frame N, 1 to {len(frames)}, for one")
        index = (choice.frame or 1) - 1
        if index >= len(frames):
            raise ValueError(f"--frame is {choice.frame}, but {path.name} has {len(frames)} frame(s); expected 1 to "
                             f"{len(frames)}")
        [pose] = from_pose_keypoint(frames[index:index + 1], **choice.reading, names=names[index:index + 1],
                                    empty=NOBODY if nobody else "error")
        return pose if nobody else on_canvas([pose], names=names[index:index + 1])[0]
    if path.suffix.lower() not in POSE_FILES:
        raise ValueError(f"pose {path} is a {path.suffix or 'nameless'} file; expected one of "
                         f"{', '.join((*POSE_FILES, *OTHER_POSE_FILES))}")
    refuse(choice, OF_FRAMES, f"came with {path.name}, a photo, of which the largest person is detected; expected a pose "
           "file. Leave them out")
    from ..poses.detection import detect_pose  # only photos need the detector
    pose = detect_pose(np.asarray(open_rgb(path)))
    return on_canvas([pose], names=[path.name])[0]


def sequence_poses(path: Path, choice: Choice = Choice(), empty: str = "error") -> list[Keypoints]:
    """All frames of a pose file, or of the pose files of a folder in natural order: of one person, followed through them
    where some show several, which is then printed.

    empty: a frame without the person, or with the person off its canvas, is an "error" that names it, or takes the pose
    before it, "hold". Raises ValueError for photos, too.
    """
    read = [_frames(file, choice.canvas) for file in (sequence_files(path) if path.is_dir() else [path])]
    frames, names = ([item for part in parts for item in part] for parts in zip(*read, strict=True))
    reading = choice.reading
    from_pose_keypoint(frames, empty=NOBODY, names=names)   # the form
    frames, track = followed(frames, reading["person"], reading["min_confidence"])
    if track is not None:
        print(track.report())
        reading |= {"person": "largest"}   # the one who is left
    return on_canvas(from_pose_keypoint(frames, **reading, empty=empty, names=names), empty, names)


def _frames(path: Path, canvas: tuple[int, int] | None) -> tuple[list[dict], list[str]]:
    """POSE_KEYPOINT frames of a file, one at least, and what errors call each."""
    frames = load_poses(path, canvas)
    if not frames:
        raise ValueError(f"{path.name} has no frames; expected one at least")
    return frames, [path.name] if len(frames) == 1 else [f"frame {number} of {len(frames)} of {path.name}"
                                                         for number in range(1, len(frames) + 1)]


# --- folders ------------------------------------------------------------------------------------------------

def pose_files(folder: Path) -> list[Path]:
    """The poses of a folder in natural order, one per stem: where a photo has a JSON file beside it, that is its pose.

    Photos and JSON files, or text and .npy files. Raises ValueError when there is none, when there are both, of which
    some would be left out, or when two share a stem.
    """
    found, others = _listed(folder, POSE_FILES), _listed(folder, OTHER_POSE_FILES)
    if found and others:
        names = ", ".join(path.name for path in others[:NAMED])
        more = f" and {len(others) - NAMED} more" if len(others) > NAMED else ""
        raise ValueError(f"{folder} holds photos or JSON files beside {names}{more}, which would be left out; expected one "
                         "or the other. Move one kind to a folder of its own (--sequence takes pose files of all kinds)")
    found = found or others
    described = {path.stem for path in found if path.suffix.lower() == ".json"}
    found = [path for path in found if path.stem not in described or path.suffix.lower() == ".json"]
    return _one_per_stem(folder, found, (*POSE_FILES, *OTHER_POSE_FILES))


def picture_files(folder: Path) -> list[Path]:
    """The pictures of a folder in natural order, for methods whose poses are pictures. Raises ValueError when there is
    none, or when two share a stem."""
    return _one_per_stem(folder, _listed(folder, PHOTO_FILES), PHOTO_FILES)


def sequence_files(folder: Path) -> list[Path]:
    """The pose files of a folder, of all kinds, in natural order; photos, from which they may have been made, are not
    looked at. Raises ValueError when there is none, or when two share a stem."""
    return _one_per_stem(folder, _listed(folder, POSE_SUFFIXES), POSE_SUFFIXES)


def _one_per_stem(folder: Path, files: list[Path], kinds: tuple[str, ...]) -> list[Path]:
    if not files:
        raise ValueError(f"no poses in {folder}; expected files ending in {', '.join(kinds)}")
    seen: dict[str, Path] = {}
    for path in files:
        if path.stem in seen:
            raise ValueError(f"{seen[path.stem]} and {path.name} differ in their endings alone; expected one file for each "
                             "picture or frame. Rename one, or take it away")
        seen[path.stem] = path
    return files


def _listed(folder: Path, kinds: Iterable[str]) -> list[Path]:
    """Files of a folder whose names end so, in natural order."""
    return sorted((path for path in folder.iterdir() if path.suffix.lower() in kinds), key=natural)


def natural(path: Path) -> tuple[list[str | int], str]:
    """Sorts names as people count: 2 before 10. Text and numbers alternate, so that like is compared with like."""
    parts = re.split("([0-9]+)", path.stem)
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], path.name
