"""Which generated picture is measured against which target."""

from __future__ import annotations

from pathlib import Path

from pgpis_models.pictures import readable_endings


def by_stem(folder: Path) -> dict[str, Path]:
    """The pictures of a folder. Raises ValueError when it is none, or two pictures differ in their suffix only."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder; expected one with pictures ({', '.join(readable_endings())})")
    files: dict[str, Path] = {}
    endings = readable_endings()
    for path in sorted(p for p in folder.iterdir() if p.suffix.lower() in endings):
        if path.stem in files:
            raise ValueError(f"{folder} has {files[path.stem].name} and {path.name}; expected one picture of each name")
        files[path.stem] = path
    return files
