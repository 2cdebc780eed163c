"""Settings as dataclasses: built from trees of JSON or YAML, strict about names, types and ranges.

A field says its range beside its default, `lr: float = within(1e-3, "more than 0")`, and `check_ranges` holds it to it.
"""

from __future__ import annotations

import difflib
import math
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, field, fields, is_dataclass
from typing import Any

# what is expected -> its test; of tuples every item counts, and nothing that is not finite is within any
RANGES: dict[str, Callable[[float], bool]] = {
    "1 or more": lambda value: value >= 1,
    "0 or more": lambda value: value >= 0,
    "more than 0": lambda value: value > 0,
    "0 or more, and less than 1": lambda value: 0 <= value < 1,
    "0 to 1": lambda value: 0 <= value <= 1,
}


def within(default: Any, expected: str) -> Any:
    """A dataclass field with a default and a range, one of RANGES."""
    return field(default=default, metadata={"expected": expected, "fits": RANGES[expected]})


def one_of(default: str, *options: str) -> Any:
    """A dataclass field with a default and the values that it may have."""
    return field(default=default, metadata={"options": options})


def later(default: Any) -> Any:
    """A dataclass field that came when files of its class were about: `as_written` leaves its default out of them, so that
    older versions of the pack read what they can use."""
    return field(default=default, metadata={"later": True})


def as_written(settings: Any) -> dict[str, Any]:
    """`dataclasses.asdict` without what is `later` and at its default."""
    values = asdict(settings)

    def prune(one: Any, tree: dict[str, Any]) -> None:
        for item in fields(one):
            value = getattr(one, item.name)
            if is_dataclass(value):
                prune(value, tree[item.name])
            elif item.metadata.get("later") and value == item.default:
                del tree[item.name]
    prune(settings, values)
    return values


def check_ranges(settings: Any, where: str = "") -> None:
    """Raises ValueError naming the first field of a dataclass, at any depth, that is outside its range."""
    for item in fields(settings):
        name, value = f"{where}{item.name}", getattr(settings, item.name)
        if is_dataclass(value):
            check_ranges(value, f"{name}.")
        elif "options" in item.metadata and value not in item.metadata["options"]:
            raise ValueError(f"{name} is {value!r}; expected one of {', '.join(item.metadata['options'])}")
        elif "fits" in item.metadata:
            items = value if isinstance(value, tuple) else (value,)
            if not all(-math.inf < number < math.inf and item.metadata["fits"](number) for number in items):
                said = list(value) if isinstance(value, tuple) else value
                raise ValueError(f"{name} is {said}; expected {item.metadata['expected']}"
                                 f"{' of every value' if value is items else ''}")


def build(kind: type, tree: Any, where: str = "") -> Any:
    """The dataclass `kind` from nested mappings. Fields that are not given take their defaults; lists become tuples, and
    numbers written as text, as YAML reads 1e-4, become numbers.

    where: dotted name of the tree, for messages. Raises ValueError for an unknown name (naming the nearest known one), a
    value of another type, a list of another length, and a field without default that is missing.
    """
    if not isinstance(tree, Mapping):
        raise ValueError(f"{where or 'the config'} is {tree!r}; expected settings by name")
    hints, known = typing.get_type_hints(kind), {item.name: item for item in fields(kind)}
    values = {}
    for key, value in tree.items():
        name = f"{where}.{key}" if where else str(key)
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.0)
            raise ValueError(f"unknown setting {name!r}; did you mean {'.'.join(filter(None, [where, near[0]]))!r}?")
        if value is False and "no" in known[key].metadata.get("options", ()):
            value = "no"   # what was written before YAML read it
        values[key] = typed(hints[key], value, name)
    lacking = [name for name, item in known.items()
               if name not in values and item.default is MISSING and item.default_factory is MISSING]
    if lacking:
        raise ValueError(f"{where or 'the config'} lacks {lacking}")
    return kind(**values)


def typed(hint: Any, value: Any, name: str) -> Any:
    """A value of a tree as the type that a field wants. Raises ValueError, beginning with `name`."""
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    errors = []
    for option in options:
        try:
            return _one_type(option, value, name)
        except ValueError as error:
            errors.append(error)
    # of several types the error of the one that has anything in common with the value says most
    raise next((error for option, error in zip(options, errors, strict=True)
                if isinstance(value, Mapping) and is_dataclass(option)), errors[0])


def _one_type(kind: Any, value: Any, name: str) -> Any:
    origin = typing.get_origin(kind) or kind
    if is_dataclass(kind):
        return build(kind, value, name)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{name} is {value!r}; expected a list")
        entries = typing.get_args(kind)
        if not entries:
            return tuple(value)
        if entries[-1] is Ellipsis:
            entries = entries[:1] * len(value)
        if len(entries) != len(value):
            raise ValueError(f"{name} has {len(value)} values {list(value)}; expected {len(entries)}")
        return tuple(typed(entry, item, name) for entry, item in zip(entries, value, strict=True))
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ValueError(f"{name} is {value!r}; expected settings by name")
        return dict(value)
    if origin is float and isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            raise ValueError(f"{name} is {value!r}; expected a number") from None
    if origin is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:   # JSON's whole numbers have no end
            raise ValueError(f"{name} is {str(value)[:20]}... ({len(str(value))} digits); expected a number") from None
    if not isinstance(value, origin) or (origin is int and isinstance(value, bool)):
        raise ValueError(f"{name} is {value!r} ({type(value).__name__}); expected {origin.__name__}")
    return value
