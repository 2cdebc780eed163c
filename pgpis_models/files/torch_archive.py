"""Torch's zip files, opened within bounds.

Such a file has a pickle, the table of contents, and a member for each storage, which is mapped and not copied.
"""

from __future__ import annotations

import lzma
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .torch_table import DTYPES, Inert, Interpreter, Named

LARGEST_TABLE = 2 ** 24        # bytes of a table of contents; a model of 3,000 weights with its optimizer has 2 MB
LARGEST_DIRECTORY = 2 ** 24    # bytes of a zip's list of members
DAMAGED = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, LookupError, AttributeError, TypeError,
           ValueError, ArithmeticError, RuntimeError, MemoryError, OSError)   # what reading a damaged file brings about


def damaged(path: Path, error: BaseException) -> ValueError:
    """The error for a file whose reading ended in `error`."""
    return ValueError(f"{path} ({path.stat().st_size} bytes) is not a whole torch file and cannot be read "
                      f"({type(error).__name__}: {str(error)[:200]}); it is cut off or damaged: download it again")


def values_at(mapped: np.ndarray, start: int, dtype: torch.dtype, count: int) -> Tensor:
    """`count` values that begin at a byte of a mapped file; copied where they do not lie as their type needs it."""
    if count == 0:
        return torch.empty(0, dtype=dtype)
    bytes_ = mapped[start:start + count * dtype.itemsize]
    return torch.from_numpy(bytes_ if start % dtype.itemsize == 0 else np.array(bytes_)).view(dtype)


class TorchArchive:
    """A torch file that is open. Raises ValueError naming it where it is no whole torch file; use as a context."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            _check_directory(path)
            self.archive = zipfile.ZipFile(path)
        except DAMAGED as error:
            raise damaged(path, error) from error
        names = [name for name in self.archive.namelist() if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(names) != 1:
            self.archive.close()
            raise ValueError(f"{path} is a zip file without one data.pkl: not written by torch.save; choose the file of the "
                             "weights")
        self.root = names[0].removesuffix("data.pkl")

    def __enter__(self) -> TorchArchive:
        return self

    def __exit__(self, *_: Any) -> None:
        self.archive.close()

    def table(self) -> bytes:
        """The pickle. Raises ValueError where it is damaged or larger than LARGEST_TABLE, whatever the zip declares."""
        try:
            found = self._member("data.pkl", LARGEST_TABLE)
            order = self._member("byteorder", 16) if f"{self.root}byteorder" in self.archive.NameToInfo else b"little"
        except DAMAGED as error:
            raise damaged(self.path, error) from error
        if order != b"little":
            raise ValueError(f"{self.path} was written on a big-endian machine; save it anew on a common one")
        return found

    def _member(self, name: str, most: int) -> bytes:
        with self.archive.open(self.root + name) as file:
            found = file.read(most + 1)
        if len(found) > most:
            raise ValueError(f"{name} has more than {most} bytes")
        return found

    def content(self) -> tuple[Any, list[Named]]:
        """What the table builds, and what it names besides tensors and dicts. Raises ValueError where it is damaged."""
        table = self.table()
        try:
            return Interpreter(_Storages(self.path, self.archive, self.root)).run(table)
        except DAMAGED as error:
            raise damaged(self.path, error) from error


def _check_directory(path: Path) -> None:
    """Raises ValueError for a zip with more members than can be listed at once: its end says how long their list is."""
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - 2 ** 16 - 100))
        end = file.read()
    at = end.rfind(b"PK\x05\x06")
    size, = struct.unpack_from("<12xL", end, at) if at >= 0 else (0,)
    if size == 0xFFFFFFFF and end[at - 76:at - 72] == b"PK\x06\x06":
        size, = struct.unpack_from("<40xQ", end, at - 76)
    if size > LARGEST_DIRECTORY:
        raise ValueError(f"a list of members of {size} bytes; expected at most {LARGEST_DIRECTORY}")


class _Storages:
    """The members `<root>data/<key>` of the zip, mapped and not read: optimizer states cost nothing."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, root: str) -> None:
        self.path, self.archive, self.root = path, archive, root
        self.made: dict[str, Tensor] = {}
        # One map for all: each would keep a file open, and optimizer states have thousands of storages. Mode "c": writable
        # in memory, as torch wants it, and never written to the file.
        self.mapped = np.memmap(path, dtype=np.uint8, mode="c")

    def __call__(self, pid: Any) -> Tensor | Inert:
        if not (isinstance(pid, tuple) and len(pid) == 5 and pid[0] == "storage" and isinstance(pid[2], str)
                and isinstance(pid[4], int) and pid[4] >= 0):
            raise ValueError("a persistent id that is no torch storage")
        dtype, key, count = DTYPES.get(pid[1]) if isinstance(pid[1], Named) else None, pid[2], pid[4]
        if dtype is None:
            return Inert()
        if key not in self.made:
            self.made[key] = self._mapped(key, dtype, count)
        if self.made[key].dtype != dtype:
            raise ValueError(f"storage {key} is named as {dtype} and as {self.made[key].dtype}")
        return self.made[key]

    def _mapped(self, key: str, dtype: torch.dtype, count: int) -> Tensor:
        info = self.archive.getinfo(f"{self.root}data/{key}")
        size = count * dtype.itemsize
        if info.compress_type != zipfile.ZIP_STORED or info.file_size < size:
            raise ValueError(f"storage {key} of {info.file_size} bytes, compression {info.compress_type}; expected {size} "
                             "bytes or more, not compressed")
        with open(self.path, "rb") as file:   # the local header's lengths may differ from the directory's
            file.seek(info.header_offset)
            name, extra = struct.unpack("<26xHH", file.read(30))
        return values_at(self.mapped, info.header_offset + 30 + name + extra, dtype, count)
