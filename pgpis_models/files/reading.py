"""Small files that people bring, text, JSON and .npy, read within bounds.

A file that is cut, nested too deep, or larger than any of its kind gives a ValueError that names it.
"""

from __future__ import annotations

import json
import tokenize
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

LARGEST = 2 ** 26   # bytes of a text or JSON file: the poses of an hour of video with faces and hands
MOST_NUMBERS = 2 ** 25   # of an .npy file
ODD = (ValueError, TypeError, ArithmeticError, EOFError, SyntaxError, RecursionError, MemoryError, tokenize.TokenError,
       zipfile.BadZipFile)   # what numpy raises for damaged files


def read_text(path: str | Path, expected: str) -> str:
    """A text file as UTF-8, a byte order mark skipped. Raises ValueError for one larger than LARGEST or that is no text.
    expected: what should have come, for the message."""
    path = Path(path)
    size = path.stat().st_size
    if size > LARGEST:
        raise ValueError(f"{path.name} has {size:,} bytes; expected {expected}, at most {LARGEST:,} bytes. Split it")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name} is not text ({error}); expected {expected}") from error


def read_json(path: str | Path, expected: str) -> Any:
    """What a JSON file holds. Raises ValueError as `read_text` does, and for what is not JSON."""
    text = read_text(path, expected)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:   # numbers too long are the former, nesting too deep the latter
        raise ValueError(f"{Path(path).name} is not JSON ({error}); expected {expected}") from error


def read_numbers(path: str | Path, expected: str) -> np.ndarray:
    """The numbers of an .npy file, of its own shape and type. Raises ValueError for anything else, whatever its header
    declares; objects are refused, since reading them could run code."""
    path = Path(path)
    try:
        with np.errstate(over="ignore"):   # of sizes that no file has
            array = np.load(path, mmap_mode="r", allow_pickle=False)   # mapped: what the file has not is found at once
    except ODD as error:
        raise ValueError(f"{path.name} cannot be read as .npy ({str(error)[:200]}); expected {expected}") from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise ValueError(f"{path.name} is an .npz archive; expected an .npy file with {expected}. Save the array alone")
    if array.dtype.kind not in "fiu" or array.size > MOST_NUMBERS:
        raise ValueError(f"{path.name} holds {array.dtype} {array.shape}; expected {expected}, at most {MOST_NUMBERS:,} "
                         "numbers")
    return np.array(array)
