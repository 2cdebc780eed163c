"""Several processes, one batch: each makes its rows of what one process alone would draw, photos and noise alike.

So a run does not depend on the number of its processes, but for rounding and for what only looks at a process's own rows,
such as a contrastive loss without `fpdm.gather`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

Rows = TypeVar("Rows", bound=Sequence)

LIKE = (torch.randn_like, torch.rand_like, torch.randint_like, torch.bernoulli)
SIZED = (torch.randn, torch.rand, torch.randint)
IN_PLACE = (Tensor.bernoulli_, Tensor.normal_, Tensor.uniform_, Tensor.random_, Tensor.exponential_)


@dataclass(frozen=True)
class Share:
    """Part `index` of `count` equal ones of a batch."""

    index: int = 0
    count: int = 1

    def of(self, values: Rows) -> Rows:
        """Its rows of an array, tensor or list of all, whose length `count` divides."""
        each = len(values) // self.count
        return values[self.index * each:(self.index + 1) * each]


WHOLE = Share()


def rows_of(batch: dict[str, Any]) -> int:
    """How many rows a process's batch has."""
    return next(len(value) for value in batch.values() if value.ndim)


class GlobalDraws(TorchFunctionMode):
    """Random numbers drawn within have the rows of the whole batch, of which a process keeps its share.

    rows: of the process's batch. What is drawn with a multiple of these as its first size has them as (k, rows), as where
    sources stand before targets; other sizes, and draws of a generator that is given, are the same in all processes. So
    all must have the same seed. Backward passes that compute forward again belong inside too.
    """

    def __init__(self, share: Share, rows: int) -> None:
        super().__init__()
        self.share, self.rows = share, rows

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if kwargs.get("generator") is None:
            if func in LIKE and self.divided(args[0].shape):
                return self.own(func(self.whole(args[0]), *args[1:], **kwargs))
            if func in IN_PLACE and self.divided(args[0].shape):
                drawn = func(args[0].new_empty(self.size(args[0].shape)), *args[1:], **kwargs)
                return args[0].copy_(self.own(drawn))
            if func in SIZED:
                before, shape = _sizes(func, args, kwargs)
                if self.divided(shape):
                    more = {name: value for name, value in kwargs.items() if name != "size"}
                    return self.own(func(*before, size=self.size(shape), **more))
            if func is F.dropout:
                return self.dropout(*args, **kwargs)
        return func(*args, **kwargs)

    def dropout(self, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        """The mask that torch draws on a CPU, of all rows."""
        if not training or p == 0 or not self.divided(input.shape):
            return F.dropout(input, p, training, inplace)
        mask = self.own(input.new_empty(self.size(input.shape)).bernoulli_(1 - p).div_(1 - p))
        return input.mul_(mask) if inplace else input * mask

    def divided(self, shape: Sequence[int]) -> bool:
        return bool(shape) and shape[0] > 0 and shape[0] % self.rows == 0

    def size(self, shape: Sequence[int]) -> tuple[int, ...]:
        return shape[0] * self.share.count, *shape[1:]

    def whole(self, values: Tensor) -> Tensor:
        """What has the type and, for probabilities, the values of the own rows, and the size of all."""
        parts = values.unflatten(0, (-1, self.rows))
        return parts.repeat_interleave(self.share.count, 0).flatten(0, 1) if values.shape[0] else values

    def own(self, drawn: Tensor) -> Tensor:
        """The own rows of all."""
        parts = drawn.unflatten(0, (-1, self.share.count, self.rows))
        return parts[:, self.share.index].flatten(0, 1)


def _sizes(func: Callable, args: tuple, kwargs: dict) -> tuple[tuple, tuple[int, ...]]:
    """(arguments before the size, the size) of a call of SIZED."""
    if "size" in kwargs:
        return args, tuple(kwargs["size"])
    if func is torch.randint:
        return args[:-1], tuple(args[-1])
    return (), tuple(args[0]) if args and isinstance(args[0], (tuple, list)) else args
