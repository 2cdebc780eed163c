"""Torch's files of before 2020, not yet zip files: pickles one after the other, then the storages.

Magic number, version, the machine's sizes, the table of contents, the list of storages, and each storage as its length and
its values. The table is read twice, first for what storages it names, whose places follow from their lengths.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .torch_archive import DAMAGED, LARGEST_TABLE, damaged, values_at
from .torch_table import DTYPES, Inert, Interpreter, Named

START = b"\x80\x02\x8a\x0a" + 0x1950A86A20F9469CFC6C.to_bytes(10, "little") + b"."   # a pickle of the magic number
VERSION = 1001


def legacy_content(path: Path) -> tuple[Any, list[Named]]:
    """What the table of a file that begins with START builds, and what it names besides tensors and dicts; storages are
    mapped where they lie as their type needs it. Raises ValueError naming the file where it is not whole."""
    try:
        with open(path, "rb") as file:
            tables = io.BytesIO(file.read(LARGEST_TABLE))
        tables.seek(len(START))
        version, machine = (_plain(tables) for _ in range(2))
        if version != VERSION or not isinstance(machine, dict) or machine.get("little_endian") is not True:
            raise ValueError(f"version {version!r:.40}, written on a machine {machine!r:.200}; expected version {VERSION} "
                             "of a little-endian one")
        begins = tables.tell()
        named: dict[str, tuple[torch.dtype, int]] = {}
        Interpreter(lambda pid: named.update([_storage(pid)]) or Inert()).run(tables)
        storages = _storages(path, _plain(tables), tables.tell(), named)
        tables.seek(begins)
        return Interpreter(lambda pid: storages[_storage(pid)[0]]).run(tables)
    except DAMAGED as error:
        raise damaged(path, error) from error


def _plain(tables: io.BytesIO) -> Any:
    """What the next pickle holds, which names no storage."""
    return Interpreter(lambda _: Inert()).run(tables)[0]


def _storage(pid: Any) -> tuple[str, tuple[torch.dtype, int]]:
    """Name, type and length of a storage by its persistent id."""
    if not (isinstance(pid, tuple) and len(pid) == 6 and pid[0] == "storage" and isinstance(pid[1], Named)
            and isinstance(pid[2], str) and isinstance(pid[4], int) and pid[4] >= 0 and pid[5] is None):
        raise ValueError("a persistent id that is no torch storage")
    return pid[2], (DTYPES[pid[1]], pid[4])


def _storages(path: Path, keys: Any, at: int, named: dict[str, tuple[torch.dtype, int]]) -> dict[str, Tensor]:
    """The storages of the list `keys`, the first of which begins at byte `at`, and the last of which ends the file."""
    if not isinstance(keys, list) or sorted(keys) != sorted(named):
        raise ValueError("a list of storages that are not those of the table")
    mapped, made = np.memmap(path, dtype=np.uint8, mode="c"), {}   # "c": writable in memory, as torch wants it
    for key in keys:
        dtype, count = named[key]
        written = int.from_bytes(mapped[at:at + 8].tobytes(), "little")
        if written != count or at + 8 + count * dtype.itemsize > mapped.size:
            raise ValueError(f"storage {key[:40]} of {written} entries; expected {count}, all of them in the file")
        made[key] = values_at(mapped, at + 8, dtype, count)
        at += 8 + count * dtype.itemsize
    if at != mapped.size:
        raise ValueError(f"{mapped.size - at} bytes after the last storage")
    return made
