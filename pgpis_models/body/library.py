"""Poses by name: those that the pack brings, each a body in 3D, and a user's own files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from ..poses.formats import from_pose_keypoint
from .state import State, from_dict

SUFFIX = ".json"
MOST_FILES = 5000   # of own poses that are listed; the folder may be somebody's whole disk
LONGEST = 120      # letters of a file or folder name
FORBIDDEN = set('<>:"|?*\0')   # in file names, of any system


@dataclass(frozen=True)
class LibraryPose:
    """name: unique; group: what kind it is; words: what else it is found by; state: the body and its camera."""

    name: str
    group: str
    words: str
    state: State

    def answers(self, search: str) -> bool:
        """Whether every word of a search begins a word of name, group or words."""
        own = f"{self.name} {self.group} {self.words}".lower().replace(",", " ").split()
        return all(any(word.startswith(part) for word in own) for part in search.lower().replace(",", " ").split())


@lru_cache(maxsize=2)
def library(path: str | Path) -> dict[str, LibraryPose]:
    """The pack's poses by name, in order. path: its data, {"poses": [{name, group, words, state}, ...]}."""
    entries = json.loads(Path(path).read_text(encoding="utf-8"))["poses"]
    return {one["name"]: LibraryPose(one["name"], one["group"], one["words"], from_dict(one["state"], one["name"]))
            for one in entries}


def own_files(folder: str | Path, suffixes: Iterable[str] = (SUFFIX,)) -> list[str]:
    """Pose files in a folder and the folders in it, by their paths from there with /, sorted; none where it is missing."""
    found: list[str] = []
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(place, name).relative_to(folder).as_posix() for name in names
                  if Path(name).suffix.lower() in suffixes and not name.startswith(".")]
        if len(found) > MOST_FILES:
            break
    return sorted(found)[:MOST_FILES]


def save_poses(frames: Sequence[dict], folder: str | Path, name: str, replace: bool = False) -> Path:
    """POSE_KEYPOINT frames as a file that Load Pose and Pose Library read; what a frame remembers of its body stays.

    name: of the file, with folders before it if wanted ("dance/leap"). replace: whether a file of that name is written over;
    otherwise a number is put behind the name. Raises ValueError for frames that are no poses, and for a name that leaves the
    folder.
    """
    from_pose_keypoint(list(frames), empty="nobody")
    target = Path(folder) / _checked_name(name)
    number, plain = 2, target
    while target.exists() and not replace:
        target = plain.with_name(f"{plain.stem}_{number}{SUFFIX}")
        number += 1
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(list(frames), default=lambda value: value.tolist()), encoding="utf-8")   # of numpy
    return target


def _checked_name(name: str) -> PurePosixPath:
    """`name` with its suffix. Raises ValueError for what is no name below a folder."""
    path = PurePosixPath(name.strip().replace("\\", "/"))
    parts = [part for part in path.parts if part != "."]
    if not parts or path.is_absolute() or ".." in parts or FORBIDDEN & set(str(path)) \
            or any(len(part) > LONGEST for part in parts):
        raise ValueError(f"the pose's file name is {name[:80]!r}; expected a name such as leap or dance/leap, without .. "
                         f"and without any of {''.join(sorted(FORBIDDEN - {chr(0)}))}")
    path = PurePosixPath(*parts)
    return path if path.suffix.lower() == SUFFIX else path.with_name(path.name + SUFFIX)
