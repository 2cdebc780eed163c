"""Files that preparation writes: each is whole or not there, and what a killed run left half written goes."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

PART = re.compile(r".\.[0-9a-f]{8}\.part")   # end of the names that `whole` writes under


def is_placed(source: Path, target: Path) -> bool:
    """Whether the target is there, of the source's size."""
    return target.is_file() and target.stat().st_size == source.stat().st_size


def place(source: Path, target: Path) -> bool:
    """Hard-links a file, or copies it where that cannot be. False when the target is there, of the same size."""
    if is_placed(source, target):
        return False

    def link_or_copy(part: Path) -> None:
        try:
            os.link(source, part)
        except OSError:   # another file system, or one without links
            shutil.copyfile(source, part)
    whole(target, link_or_copy)
    return True


def whole(target: Path, write: Callable[[Path], object]) -> None:
    """Lets `write` make a file beside the target, which then takes its name: it is never seen half written."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.{secrets.token_hex(4)}.part")
    try:
        write(part)
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def write_lines(path: Path, lines: list[str]) -> None:
    """A text file of these lines, whole at any moment."""
    whole(path, lambda part: part.write_text("\n".join(lines) + "\n", encoding="utf-8"))


def write_array(path: Path, values: np.ndarray) -> None:
    """An .npy file, whole at any moment."""
    def write(part: Path) -> None:
        with part.open("wb") as file:   # numpy would give the name an ending of its own
            np.save(file, values)
    whole(path, write)


def write_png(path: Path, picture: np.ndarray) -> None:
    """A picture (H, W, 3) uint8 as PNG, whole at any moment."""
    whole(path, lambda part: Image.fromarray(picture).save(part, format="PNG"))


def clean(*folders: Path) -> None:
    """Deletes what a killed run of `whole` left in these folders, themselves and not below."""
    for folder in folders:
        for path in folder.glob("*.part"):
            if PART.search(path.name):
                path.unlink(missing_ok=True)
