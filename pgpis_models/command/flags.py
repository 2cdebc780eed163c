"""What the command line's flags have in common: values read from text, and flags that go with some uses only."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable
from typing import Any


def given(options: Any, names: Iterable[str]) -> str:
    """Those of the flags, attributes of `options`, that were given, as they are typed: "--start, --end", or ""."""
    return ", ".join(f"--{name.replace('_', '-')}" for name in names if getattr(options, name) not in (None, ""))


def refuse(options: Any, names: Iterable[str], why: str) -> None:
    """Raises ValueError that begins with those of the flags that were given, if any was, and goes on with `why`."""
    if flags := given(options, names):
        raise ValueError(f"{flags} {why}")


def check_counts(options: argparse.Namespace, names: Iterable[str]) -> None:
    """Raises ValueError for a flag that was given as a number below 1."""
    for name in names:
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name} is {value}; expected 1 or more")


def check_there(options: argparse.Namespace, names: Iterable[str]) -> None:
    """Raises ValueError for a flag whose file or folder is not there."""
    for name in names:
        path = getattr(options, name)
        if not path.exists():
            raise ValueError(f"--{name} {path} is not there; expected a file or a folder. Give the path from the folder "
                             "that the command runs in, or a whole one")


def read_weight(text: str) -> tuple[str, float]:
    """`TERM=W` of the command line. Raises ValueError for anything else."""
    name, _, value = text.partition("=")
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"--weight {text!r}; expected TERM=NUMBER, such as appearance=1.5")
    return name, number
