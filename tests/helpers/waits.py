"""Finds what in a training step would make a GPU wait for the host, or the host for it, without a GPU."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Iterator, Sequence
from functools import cache

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

# ops whose result the host must know, or that are made of what only the host knows
WAITING = {"aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::is_nonzero", "aten::equal",
           "aten::lift_fresh", "aten::_unique2", "aten::bincount", "aten::repeat_interleave.Tensor"}
CONSTANTS = {torch.tensor, torch.as_tensor, torch.asarray, torch.from_numpy, Tensor.new_tensor}   # of what is no tensor
INDEXING = ("aten::index", "aten::_index_put_impl_")


def _tensors(values: Iterable) -> Iterator[Tensor]:
    """Those among the arguments of an op, and in its lists of them."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)


@cache
def _names(function: OpOverload) -> tuple[str, bool, bool]:
    """An op's name, whether it is one of WAITING, and whether of INDEXING."""
    plain, overload = function._schema.name, function._schema.overload_name
    name = f"{plain}.{overload}" if overload else plain
    return name, bool({name, plain} & WAITING), plain.startswith(INDEXING)


class _Constants(TorchFunctionMode):
    """Tells of tensors made of numbers: on the device "meta" no op does."""

    def __init__(self, tell) -> None:
        super().__init__()
        self.tell = tell

    def __torch_function__(self, function, types, args=(), kwargs=None):
        given = args[1 if function is Tensor.new_tensor else 0] if function in CONSTANTS else None
        if given is not None and not isinstance(given, Tensor):
            self.tell(function.__name__)
        return function(*args, **(kwargs or {}))


class Waits(TorchDispatchMode):
    """Within it `found` gathers a line for every such op: constants that are made on the host, numbers that it reads,
    selections by a mask, copies between devices. device: of the step, "meta" for one that computes nothing.

    outside: parts of paths of files whose ops do not count.
    """

    def __init__(self, device: str, outside: Sequence[str] = ()) -> None:
        super().__init__()
        self.device, self.outside, self.found = device, tuple(outside), []
        self.constants = _Constants(self.tell)

    def __enter__(self) -> Waits:
        self.constants.__enter__()
        return super().__enter__()

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self.constants.__exit__(*error)

    def tell(self, what: str) -> None:
        stack = [frame for frame in traceback.extract_stack()
                 if "/torch/" not in frame.filename and frame.filename != __file__]
        if not any(part in frame.filename for frame in stack for part in self.outside):
            self.found.append(f"{what} in {stack[-1].filename}:{stack[-1].lineno}: {stack[-1].line}")

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name, waiting, indexing = _names(function)
        kwargs = kwargs or {}
        inputs = [*_tensors(args), *_tensors(kwargs.values())]
        result = function(*args, **kwargs)
        masks = indexing and any(value.dtype in (torch.bool, torch.uint8) for value in _tensors(args[1:2]))
        crosses = {value.device.type for value in (*inputs, *_tensors((result,)))} > {self.device} and any(
            value.ndim for value in inputs if value.device.type != self.device)
        if waiting or masks or crosses:
            self.tell(name)
        return result
