"""Photos that cannot be read though preparation read them: a draw that meets one takes the next pair instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

Item = TypeVar("Item")
MOST = 100   # draws in a row: more of them is no damaged photo but a folder that has gone

_met: dict[str, None] = {}   # which files cannot be read and why, in the order met; of this process, until `taken`


class UnreadablePhoto(ValueError):
    """A photo of the data set that cannot be decoded; its text begins with the file."""


def readable(item: Callable[[int], Item], index: int, count: int) -> Item:
    """item(index), or of the first index after it, modulo count, whose photos can be read. What is taken instead depends on
    the index and the files alone.

    Raises the last UnreadablePhoto when MOST pairs in a row, or all, cannot be read.
    """
    for step in range(min(count, MOST)):
        try:
            return item((index + step) % count)
        except UnreadablePhoto as error:
            _met[str(error)] = None
            last = error
    raise UnreadablePhoto(f"{last} -- {min(count, MOST)} pairs in a row have such photos: are they still there?") from last


def taken() -> list[str]:
    """The photos met since the last call in this process, each with why it cannot be read. A worker process hands them on
    with its batch."""
    found = list(_met)
    _met.clear()
    return found
