"""Who is on which photo: a folder per person, a CSV, or what the files' names say, as in Market-1501."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path

from pgpis_models.files.pictures import ENDINGS

NEEDED = ("person", "picture")   # columns of a CSV; `pose` and `split` may stand beside
SPLITS = ("train", "test")


@dataclass(frozen=True)
class Entry:
    """pose: its file; None: a JSON file beside the picture. split: "train", "test", or "" where the list does not say."""

    person: str
    picture: Path
    pose: Path | None = None
    split: str = ""


def folder_entries(root: Path) -> list[Entry]:
    """A folder per person. Raises ValueError when root is none."""
    _checked(root, "one with a folder per person")
    return [Entry(folder.name, path) for folder in sorted(root.iterdir())
            if folder.is_dir() and not folder.name.startswith(".")
            for path in sorted(folder.iterdir()) if path.suffix.lower() in ENDINGS]


def csv_entries(root: Path, path: Path) -> list[Entry]:
    """A CSV with the columns person, picture and perhaps pose, split; files below root. Raises ValueError for other columns,
    FileNotFoundError listing files that are not there."""
    _checked(root, "the one that the CSV's paths begin in")
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows or set(NEEDED) - set(rows[0]) or not all(row[name] for row in rows for name in NEEDED):
        raise ValueError(f"{path} has {len(rows)} rows with the columns {list(rows[0]) if rows else []}; expected person "
                         "and picture, and perhaps pose and split, with a person and a picture in every row")
    entries = [Entry(row["person"], root / row["picture"], root / row["pose"] if row.get("pose") else None,
                     row.get("split") or "") for row in rows]
    missing = sorted({str(file) for entry in entries for file in (entry.picture, entry.pose) if file and not file.is_file()})
    if missing:
        raise FileNotFoundError(f"{path} names {len(missing)} files that are not there: {'; '.join(missing[:10])}")
    return _with_splits(entries, path)


def named_entries(root: Path, pattern: str) -> list[Entry]:
    """All pictures below root whose path there, with slashes, fits a regular expression with the group `person` and perhaps
    `split`. Raises ValueError for an expression without it, or that fits nothing."""
    _checked(root, "the one that the pattern's paths begin in")
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"--pattern {pattern!r} is not a regular expression ({error})") from error
    if "person" not in expression.groupindex:
        raise ValueError(f"--pattern {pattern!r} has no group `person`; expected (?P<person>...) in it, such as "
                         r"(?P<split>train|test)/(?P<person>\d{4})_c\d.*")
    files = sorted(path for path in root.rglob("*") if path.suffix.lower() in ENDINGS)
    fits = [(path, expression.fullmatch(path.relative_to(root).as_posix())) for path in files]
    entries = [Entry(fit["person"], path, None, fit.groupdict().get("split") or "") for path, fit in fits if fit]
    if not entries:
        raise ValueError(f"--pattern {pattern!r} fits none of {len(files)} pictures below {root}, such as "
                         f"{[path.relative_to(root).as_posix() for path in files[:3]]}; it must fit the whole path")
    print(f"{len(entries)} of {len(files)} pictures fit the pattern")
    return _with_splits(entries, pattern)


def _with_splits(entries: list[Entry], what: object) -> list[Entry]:
    """The entries, of which all or none say a split, and each person is in one. Raises ValueError."""
    said: dict[str, set[str]] = {}
    for entry in entries:
        said.setdefault(entry.person, set()).add(entry.split)
    both = sorted(person for person, splits in said.items() if len(splits) > 1)
    others = sorted({entry.split for entry in entries} - {*SPLITS, ""})
    if both or others or len({bool(entry.split) for entry in entries}) > 1:
        came = f"people in both splits {both[:10]}" if both else f"splits {others}"
        raise ValueError(f"{what}: {came}; expected train or test for every person, or for none")
    return entries


def _checked(root: Path, what: str) -> None:
    if not root.is_dir():
        raise ValueError(f"{root} is not a folder; expected {what}")
