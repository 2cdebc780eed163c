"""The table of contents of a torch file, a pickle, read by an interpreter of our own.

It builds dicts, lists, numbers, texts and tensors. What else a pickle would import or call becomes `Inert`: nothing is
imported, and nothing but the functions below is called. Sizes that a table declares allocate nothing.
"""

from __future__ import annotations

import math
import pickletools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor

MOST_OPERATIONS = 1_000_000    # a model of 3,000 weights with its optimizer has 420,000
MOST_REPEATED = 2 ** 20        # entries of a tensor that shows those of its storage more than once


class Named(NamedTuple):
    """A class or function that a pickle names; never imported."""

    module: str
    name: str


class Inert:
    """Stands for whatever would have to be built by something outside of this module."""


DTYPES: Mapping[Named, torch.dtype] = {Named("torch", f"{name}Storage"): dtype for name, dtype in (
    ("Float", torch.float32), ("Half", torch.float16), ("BFloat16", torch.bfloat16), ("Double", torch.float64),
    ("Long", torch.int64), ("Int", torch.int32), ("Short", torch.int16), ("Char", torch.int8), ("Byte", torch.uint8),
    ("Bool", torch.bool), ("ComplexFloat", torch.complex64), ("ComplexDouble", torch.complex128))}
TENSOR, PARAMETER = Named("torch._utils", "_rebuild_tensor_v2"), Named("torch._utils", "_rebuild_parameter")
ORDERED = Named("collections", "OrderedDict")
KNOWN = {*DTYPES, TENSOR, PARAMETER, ORDERED}

CONSTANTS = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
             "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE",
             "BINUNICODE8"}
MADE = {"NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False, "EMPTY_DICT": dict, "EMPTY_LIST": list,
        "EMPTY_TUPLE": tuple, "EMPTY_SET": Inert}


class Interpreter:
    """Runs the operations of a pickle, once. Raises errors of many kinds for what is damaged.

    storages: gives the tensor of a persistent id, or Inert.
    """

    def __init__(self, storages: Callable[[Any], Tensor | Inert]) -> None:
        self.storages = storages
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.foreign: list[Named] = []

    def run(self, table: bytes | BinaryIO) -> tuple[Any, list[Named]]:
        """What the table builds, and what it names besides tensors, dicts and types of storages. A file is read to the
        table's end and no further."""
        for count, (operation, value, _place) in enumerate(pickletools.genops(table)):
            if count >= MOST_OPERATIONS:
                raise ValueError(f"a table of more than {MOST_OPERATIONS} operations")
            name = operation.name
            if name == "STOP":
                return self.stack.pop(), self.foreign
            if name in CONSTANTS:
                self.stack.append(value)
            elif name in MADE:
                self.stack.append(MADE[name]())
            elif name.endswith("PUT"):
                self.memo[value] = self.stack[-1]
            elif name.endswith("GET"):
                self.stack.append(self.memo[value])
            else:
                handler = getattr(self, f"do_{name.lower()}", None)
                if handler is None:
                    raise ValueError(f"the operation {name}, which torch does not write")
                handler(value)
        raise ValueError("a table that does not end")

    def popped(self, count: int) -> tuple[Any, ...]:
        """The last `count` values, which must lie above the last mark."""
        if len(self.stack) - count < (self.marks[-1] if self.marks else 0):
            raise ValueError("an operation without its values")
        values = tuple(self.stack[len(self.stack) - count:])
        del self.stack[len(self.stack) - count:]
        return values

    def marked(self) -> tuple[Any, ...]:
        """The values above the last mark, which goes."""
        values = self.popped(len(self.stack) - self.marks[-1])
        self.marks.pop()
        return values

    def do_proto(self, _: Any) -> None:
        """Protocols differ in nothing that matters here."""

    do_frame = do_proto

    def do_mark(self, _: Any) -> None:
        self.marks.append(len(self.stack))

    def do_memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def do_pop(self, _: Any) -> None:
        self.popped(1)

    def do_pop_mark(self, _: Any) -> None:
        self.marked()

    def do_dup(self, _: Any) -> None:
        self.stack.append(self.stack[-1])

    def do_tuple(self, _: Any) -> None:
        self.stack.append(self.marked())

    def do_tuple1(self, _: Any) -> None:
        self.stack.append(self.popped(1))

    def do_tuple2(self, _: Any) -> None:
        self.stack.append(self.popped(2))

    def do_tuple3(self, _: Any) -> None:
        self.stack.append(self.popped(3))

    def do_list(self, _: Any) -> None:
        self.stack.append(list(self.marked()))

    def do_frozenset(self, _: Any) -> None:
        self.marked()
        self.stack.append(Inert())

    def do_dict(self, _: Any) -> None:
        values = self.marked()
        self.stack.append({})
        self.set_items(values)

    def do_append(self, _: Any) -> None:
        self.extend(self.popped(1))

    def do_appends(self, _: Any) -> None:
        self.extend(self.marked())

    do_additems = do_appends

    def extend(self, values: tuple[Any, ...]) -> None:
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(values)

    def do_setitem(self, _: Any) -> None:
        self.set_items(self.popped(2))

    def do_setitems(self, _: Any) -> None:
        self.set_items(self.marked())

    def set_items(self, values: tuple[Any, ...]) -> None:
        if isinstance(self.stack[-1], dict):
            for key, value in zip(values[::2], values[1::2], strict=True):
                # only plain keys are hashed: a tuple of tuples of tuples takes for ever
                self.stack[-1][key if isinstance(key, (str, int, float, bytes, type(None))) else Inert()] = value

    def do_global(self, value: str) -> None:
        self.name(*value.split(" ", 1))

    def do_stack_global(self, _: Any) -> None:
        self.name(*self.popped(2))

    def name(self, module: str, name: str) -> None:
        named = Named(str(module), str(name))
        if named not in KNOWN:
            self.foreign.append(named)
        self.stack.append(named)

    def do_binpersid(self, _: Any) -> None:
        self.stack.append(self.storages(*self.popped(1)))

    def do_build(self, _: Any) -> None:
        self.popped(1)   # attributes of a dict: torch's versions of modules

    def do_reduce(self, _: Any) -> None:
        what, values = self.popped(2)
        self.stack.append(_built(what, values))

    def do_newobj(self, _: Any) -> None:
        self.popped(2)
        self.stack.append(Inert())

    def do_newobj_ex(self, _: Any) -> None:
        self.popped(3)
        self.stack.append(Inert())

    def do_obj(self, _: Any) -> None:
        self.marked()
        self.stack.append(Inert())

    def do_inst(self, value: str) -> None:
        self.marked()
        self.name(*value.split(" ", 1))
        self.stack[-1] = Inert()


def _built(what: Any, values: tuple[Any, ...]) -> Any:
    """What a call of `what` gives: a tensor, an ordered dict, a parameter's tensor, or Inert."""
    known = isinstance(what, Named) and isinstance(values, tuple)
    if known and what == TENSOR:
        return _tensor(*values)
    if known and what == PARAMETER:
        return values[0]
    return {} if known and what == ORDERED and not values else Inert()


def _tensor(storage: Any, offset: int, size: Sequence[int], stride: Sequence[int], *_rest: Any) -> Tensor | Inert:
    """What torch._utils._rebuild_tensor_v2 does, within the bounds of the storage."""
    if not isinstance(storage, Tensor):
        return Inert()
    numbers = (offset, *size, *stride)
    if any(not isinstance(n, int) or n < 0 for n in numbers) or len(size) != len(stride):
        raise ValueError("a tensor of sizes, strides or an offset that are none")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if all(size) else -1
    if last >= storage.numel():
        raise ValueError(f"a tensor that reaches to entry {last} of a storage of {storage.numel()}")
    if math.prod(size) > max(storage.numel(), MOST_REPEATED):
        raise ValueError(f"a tensor of {math.prod(size)} entries that repeats a storage of {storage.numel()}")
    return storage.as_strided(tuple(size), tuple(stride), offset)
