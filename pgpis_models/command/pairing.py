"""Which photo of a folder comes in which pose: drawn for each photo, or listed in a file."""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..files.reading import read_text
from .output import STILL, check_ending
from .poses import picture_files, pose_files

COLUMNS = ("source", "pose")
EXPECTED = "source, pose and perhaps out, with a row for each picture"
NAMED, LONGEST = 10, 300   # files that an error lists, and letters of each


@dataclass(frozen=True)
class Pair:
    """A picture that is to be made. photo, pose: the files that it is made of; out: its own. number: of its noise, so that
    it is the same whatever else is made."""

    photo: Path
    pose: Path
    out: Path
    number: int


def drawn_pairs(photos: Path, poses: Path, out: Path, each: int | None, seed: int) -> list[Pair]:
    """Every photo of a folder in `each` of the poses, drawn by the seed and the photo's name, or in all of them when None;
    as PHOTO_POSE.png. poses: a folder, or one file. Raises ValueError for more poses asked for than there are."""
    files = pose_files(poses) if poses.is_dir() else [poses]
    count = len(files) if each is None else each
    if count > len(files):
        raise ValueError(f"--each is {count}, but --pose has {len(files)} pose(s); expected as many at most")
    pairs = []
    for row, photo in enumerate(picture_files(photos)):
        drawn = random.Random(f"{seed} {photo.name}").sample(range(len(files)), count)
        pairs += [Pair(photo, files[one], named(out, photo, files[one]), row * len(files) + one) for one in sorted(drawn)]
    return pairs


def listed_pairs(file: Path, photos: Path, poses: Path, out: Path) -> list[Pair]:
    """A CSV with the columns source and pose, paths below the two folders, and perhaps out, the picture's path below that
    one, else PHOTO_POSE.png. Noise is by row; rows of a photo come together, so that batches show few.

    Raises ValueError for other columns, for paths that leave `out` or come twice, and OSError where a file is missing.
    """
    try:
        rows = list(csv.DictReader(io.StringIO(read_text(file, EXPECTED), newline="")))
    except csv.Error as error:
        raise ValueError(f"{file} is no CSV ({error}); expected {EXPECTED}") from error
    if not rows or set(COLUMNS) - set(rows[0]):
        raise ValueError(f"{file} has {len(rows)} rows with columns {sorted(map(str, rows[0])) if rows else []}; expected "
                         f"{EXPECTED}")
    pairs = []
    for number, row in enumerate(rows):
        if not (row["source"] and row["pose"]):
            raise ValueError(f"row {number + 1} of {file} names no {'source' if row['pose'] else 'pose'}; expected both")
        photo, pose = photos / row["source"], poses / row["pose"]
        path = out / row["out"] if row.get("out") else named(out, photo, pose)
        if row.get("out"):
            check_ending(path, STILL)
            if not path.resolve().is_relative_to(out.resolve()):
                raise ValueError(f"row {number + 1} of {file}: out is {row['out']}; expected a path below --out")
        pairs.append(Pair(photo, pose, path, number))
    missing = sorted({str(path)[:LONGEST] for pair in pairs for path in (pair.photo, pair.pose) if not _there(path)})
    if missing:
        raise FileNotFoundError(f"{file} names {len(missing)} files that are not there: {missing[:NAMED]}")
    _check_apart(file, pairs)
    place = {photo: number for number, photo in enumerate(dict.fromkeys(pair.photo for pair in pairs))}
    return sorted(pairs, key=lambda pair: place[pair.photo])


def _there(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:   # a name that no file can have
        return False


def named(out: Path, photo: Path, pose: Path) -> Path:
    return out / f"{photo.stem}_{pose.stem}.png"


def _check_apart(file: Path, pairs: Sequence[Pair]) -> None:
    seen: dict[Path, int] = {}
    for pair in pairs:
        if pair.out in seen:
            raise ValueError(f"rows {seen[pair.out] + 1} and {pair.number + 1} of {file} both make {pair.out.name}; "
                             "expected a picture for each. Give them names in a column out")
        seen[pair.out] = pair.number
