"""RWTH-PHOENIX-Weather 2014T (Camgoz et al. 2018), videos of sign language, as its release lays them out. Research use only;
none of it is shipped.

    PHOENIX-2014-T/                                           below PHOENIX-2014-T-release-v3, at any of these depths
      features/fullFrame-210x260px/{train,dev,test}/NAME/images0001.png, images0002.png, ...
      annotations/manual/PHOENIX-2014-T.{train,dev,test}.corpus.csv      name|video|start|end|speaker|orth|translation
"""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.data.deepfashion import PICTURE_SUFFIXES

FRAMES = "features/fullFrame-210x260px"
TABLE = "annotations/manual/PHOENIX-2014-T.{}.corpus.csv"
COLUMNS = ("name", "speaker")   # of the table, those that are needed
BETWEEN = "__"                  # sequence and frame in the flat name of a photo


@dataclass(frozen=True)
class Sequence:
    """A video: its frames in order."""

    name: str
    speaker: str
    frames: tuple[Path, ...]

    def flat_name(self, number: int) -> str:
        """What frame `number`, from 0, is called in the flat folders."""
        return f"{self.name}{BETWEEN}{self.frames[number].name}"


def find_release(root: Path) -> Path:
    """The folder that holds features and annotations. Raises FileNotFoundError."""
    for folder in (root, root / "PHOENIX-2014-T", root / "PHOENIX-2014-T-release-v3" / "PHOENIX-2014-T"):
        if (folder / FRAMES).is_dir():
            return folder
    raise FileNotFoundError(f"{root} has no {FRAMES}; expected the unpacked release of RWTH-PHOENIX-Weather 2014T "
                            "(phoenix-2014-T.v3.tar.gz)")


def read_sequences(root: Path, split: str) -> list[Sequence]:
    """The sequences of a split that its table names. Raises FileNotFoundError listing those without frames, ValueError for a
    table of another form."""
    release = find_release(root)
    path = release / TABLE.format(split)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there; expected the table of the release")
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="|", quoting=csv.QUOTE_NONE))
    if not rows or set(COLUMNS) - set(rows[0]):
        raise ValueError(f"{path} has {len(rows)} rows with the columns {list(rows[0]) if rows else []}; expected "
                         f"name|video|start|end|speaker|orth|translation")
    found = [Sequence(row["name"], row["speaker"], _frames(release / FRAMES / split / row["name"])) for row in rows]
    empty = [sequence.name for sequence in found if not sequence.frames]
    if empty:
        raise FileNotFoundError(f"{len(empty)} of {len(found)} sequences of {path.name} have no frames in "
                                f"{release / FRAMES / split}: {'; '.join(empty[:10])}{'; ...' if len(empty) > 10 else ''}")
    return found


def _frames(folder: Path) -> tuple[Path, ...]:
    return tuple(sorted(path for path in folder.glob("*") if path.suffix.lower() in PICTURE_SUFFIXES))


def drawn_pairs(sequence: Sequence, count: int) -> list[tuple[int, int]]:
    """`count` pairs of different frames (source, target), fewer where there are not so many; the same at every run."""
    frames = len(sequence.frames)
    rng = np.random.default_rng(int(hashlib.sha256(sequence.name.encode()).hexdigest()[:8], 16))
    codes = rng.choice(frames * (frames - 1), min(count, frames * (frames - 1)), replace=False)
    return [(int(code // (frames - 1)), int((code // (frames - 1) + 1 + code % (frames - 1)) % frames)) for code in codes]


def first_to_rest(sequence: Sequence, most: int) -> list[tuple[int, int]]:
    """The first frame to the others in order, evenly spread where there are more than `most` (0: all)."""
    targets = range(1, len(sequence.frames))
    if most and len(targets) > most:
        return [(0, int(at)) for at in np.linspace(1, len(sequence.frames) - 1, most).round()]
    return [(0, target) for target in targets]
