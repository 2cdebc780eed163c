"""Array files that are too large to hold in memory while they are made."""

from __future__ import annotations

import contextlib
import secrets
import time
from pathlib import Path
from typing import Any

import numpy as np


class ArrayFile:
    """`with ArrayFile(path, shape, dtype) as file: file[index] = values` makes a .npy file, zeros where nothing is written.

    The map of the file is kept in here and given to nobody, so that it ends with the block: Windows neither renames nor
    deletes a file that is mapped.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: type) -> None:
        self.path, self.shape, self.dtype = path, shape, dtype
        self._map: np.memmap | None = None

    def __enter__(self) -> ArrayFile:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._map = np.lib.format.open_memmap(self.path, "w+", self.dtype, self.shape)
        return self

    def __setitem__(self, index: Any, values: np.ndarray) -> None:
        """As for an array. Raises ValueError outside the block."""
        if self._map is None:
            raise ValueError(f"{self.path} is closed; expected to be written within its block")
        self._map[index] = values

    def __exit__(self, kind: type | None, *error: object) -> None:
        array, self._map = self._map, None
        array.flush()


ABANDONED = 3600   # seconds without a write after which a file under a passing name is one of a run that was killed


class NewArray(ArrayFile):
    """An `ArrayFile` that has its name only after the block ended well. What killed runs left of it goes."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: type) -> None:
        super().__init__(path.with_name(f"{path.name}.{secrets.token_hex(4)}.part"), shape, dtype)
        self.whole = path

    def __enter__(self) -> NewArray:
        for left in self.whole.parent.glob(f"{self.whole.name}.*.part"):
            with contextlib.suppress(OSError):   # another run may delete it too
                if time.time() - left.stat().st_mtime > ABANDONED:
                    left.unlink()
        super().__enter__()
        return self

    def __exit__(self, kind: type | None, *error: object) -> None:
        super().__exit__(kind, *error)
        if kind is None:
            self.path.replace(self.whole)
        else:
            self.path.unlink(missing_ok=True)
