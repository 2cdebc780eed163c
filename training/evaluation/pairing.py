"""Which generated picture is measured against which target, and which source it was made from."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pgpis_models.files.pictures import ENDINGS

BETWEEN = ("_to_", "_2_")   # source and target in a generated picture's name: CFLD's, MCLD's and ours; FPDM's
COLUMNS = ("generated", "target")   # of a CSV; `source` may stand beside


@dataclass(frozen=True)
class Pair:
    """Files; source is None where it is not known."""
    made: Path
    target: Path
    source: Path | None = None


def pictures_below(folder: Path, deep: bool) -> list[Path]:
    """The pictures of a folder, sorted; deep: of those in it too. Raises ValueError when it is none."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder; expected one with pictures ({', '.join(ENDINGS)})")
    return sorted(p for p in (folder.rglob("*") if deep else folder.iterdir()) if p.suffix.lower() in ENDINGS)


def by_stem(folder: Path) -> dict[str, Path]:
    """The pictures of a folder by name without suffix. Raises ValueError when two differ in their suffix only."""
    files: dict[str, Path] = {}
    for path in pictures_below(folder, deep=False):
        if path.stem in files:
            raise ValueError(f"{folder} has {files[path.stem].name} and {path.name}; expected one picture of each name")
        files[path.stem] = path
    return files


def by_part(folder: Path) -> dict[str, set[Path]]:
    """What a picture may be called inside another's name -> its files: its path below the folder without slashes, with and
    without suffix, and its own name."""
    found: dict[str, set[Path]] = {}
    for path in pictures_below(folder, deep=True):
        whole = "".join(path.relative_to(folder).parts)
        for name in (whole, whole.removesuffix(path.suffix), path.stem):
            found.setdefault(name, set()).add(path)
    return found


def cuts(stem: str) -> Iterable[tuple[str, str]]:
    """All ways to cut a name into source and target."""
    for between in BETWEEN:
        start = stem.find(between)
        while start >= 0:
            yield stem[:start], stem[start + len(between):]
            start = stem.find(between, start + 1)


def named(stem: str, targets: dict[str, set[Path]],
          sources: dict[str, set[Path]] | None) -> tuple[Path, Path | None] | None:
    """Target and source that a name says, or None where none fits. Raises ValueError where several do."""
    fits = {(target, source) for before, after in cuts(stem) for target in targets.get(after, ())
            for source in ((None,) if sources is None else sources.get(before, ()))}
    if len(fits) > 1:
        raise ValueError(f"the name {stem} fits {len(fits)} pairs: {sorted((str(one), str(two)) for one, two in fits)[:4]}; "
                         "expected one. Say the pairs with --pairs FILE.csv")
    return next(iter(fits), None)


def pairs(generated: Path, targets: Path, sources: Path | None = None) -> list[Pair]:
    """The pairs of two or three folders, by the pictures' names.

    Either all folders have the same names (`training/generate_split.py`, MCLD's evaluation), or a generated picture is
    called SOURCE_to_TARGET or, as FPDM's, SOURCE_2_TARGET, names being paths without slashes. Raises ValueError listing what
    has no partner.
    """
    made = by_stem(generated)
    flat = {path.stem for path in pictures_below(targets, deep=False)}
    if made.keys() & flat or not any(named(stem, by_part(targets), None) for stem in list(made)[:1]):
        folders = {"target": by_stem(targets)} | ({"source": by_stem(sources)} if sources else {})
        for kind, files in folders.items():
            lonely = sorted(set(made) ^ set(files))
            if lonely or not made:
                raise ValueError(f"{len(made)} pictures in {generated}, {len(files)} {kind} pictures, {len(lonely)} without "
                                 f"a partner of the same name {lonely[:10]}; expected the same names in both, or generated "
                                 f"ones called SOURCE{BETWEEN[0]}TARGET or SOURCE{BETWEEN[1]}TARGET")
        return [Pair(path, *(files[stem] for files in folders.values())) for stem, path in made.items()]
    known, origins = by_part(targets), by_part(sources) if sources else None
    found = {stem: named(stem, known, origins) for stem in made}
    lonely = sorted(stem for stem, partner in found.items() if partner is None)
    if lonely:
        raise ValueError(f"{len(made)} pictures in {generated}; {len(lonely)} name no target in {targets}"
                         f"{f' or no source in {sources}' if sources else ''}: {lonely[:10]}")
    return [Pair(made[stem], *partner) for stem, partner in found.items()]


def listed_pairs(file: Path, generated: Path, targets: Path, sources: Path | None = None) -> list[Pair]:
    """The pairs of a CSV with the columns generated, target and, if --sources is given, source: paths below the folders.
    Raises ValueError for other columns, OSError where a picture is missing."""
    columns = (*COLUMNS, "source") if sources else COLUMNS
    with file.open(encoding="utf-8-sig", newline="") as text:
        rows = list(csv.DictReader(text))
    if not rows or set(columns) - set(rows[0]):
        raise ValueError(f"{file} has {len(rows)} rows with columns {sorted(rows[0]) if rows else []}; expected "
                         f"{', '.join(columns)} with a row for each pair")
    folders = dict(zip(columns, (generated, targets, sources)[:len(columns)], strict=True))
    found = [Pair(*(folders[name] / row[name] for name in columns)) for row in rows]
    missing = sorted({str(path) for pair in found for path in (pair.made, pair.target, pair.source)
                      if path is not None and not path.is_file()})
    if missing:
        raise FileNotFoundError(f"{file} names {len(missing)} pictures that are not there: {missing[:10]}")
    return found
