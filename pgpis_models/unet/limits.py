"""What sizes the metadata of a file may ask for: looked at before any module is built of them.

A module is built without memory for its weights, but each block takes time, and tables of positions take memory by the area
of the pictures. So numbers are bounded by what the file holds: no more blocks than keys, no width above its largest side.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

SMALLEST_LIMIT = 4096          # a number up to this is always fine: canvases, picture sides, widths inside small networks
LARGEST_SIDE, LARGEST_AREA = 2048, 2 ** 21   # pixels of a picture that a backbone reads
COUNTS = ("depth", "layers", "blocks")       # parts of the names of numbers that count modules
FLOATS = ("F64", "F32", "F16", "BF16")       # types of tensors that weights may have in a file


def check_limits(config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], what: str) -> None:
    """Raises ValueError, beginning with `what`, for a number that is negative or not finite, larger than anything in the
    file (`shapes` by key) could need, or asks for more modules than the file has keys."""
    limit = max(SMALLEST_LIMIT, max((side for shape in shapes.values() for side in shape), default=0))
    for name, value in numbers(config):
        counted = any(part in name.rsplit(".", 1)[-1] for part in COUNTS)
        most = len(shapes) if counted else limit
        if not 0 <= value <= most:   # false for what is no number too
            raise ValueError(f"{what}: {name} is {value}; expected 0 to {most}, "
                             f"{'the number of keys' if counted else 'which the largest tensor allows'} of this file: it is "
                             "damaged or not what it says, download or convert it again")
    for name in ("image_size", "source_size"):
        size = config.get(name)
        if isinstance(size, (list, tuple)) and len(size) == 2 and all(isinstance(side, int) for side in size) and (
                max(size) > LARGEST_SIDE or size[0] * size[1] > LARGEST_AREA):
            raise ValueError(f"{what}: {name} is {list(size)}; expected sides up to {LARGEST_SIDE}, and {LARGEST_AREA} "
                             "pixels")


def numbers(tree: Any, where: str = "") -> Iterator[tuple[str, float]]:
    """Dotted names and values of all numbers in nested mappings and lists; truth values are none."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from numbers(value, f"{where}.{key}" if where else str(key))
    elif isinstance(tree, (list, tuple)):
        for value in tree:
            yield from numbers(value, where)
    elif isinstance(tree, (int, float)) and not isinstance(tree, bool):
        yield where, tree
