"""Much work in batches: the next one is read and the last one written beside the one that is made; and what of it is whose
where several processes were launched together."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

AHEAD = 2   # batches that are read before they are needed, and that may wait to be written

Item = TypeVar("Item")


def in_batches(items: Sequence[Item], size: int, read: Callable[[Sequence[Item]], Any], make: Callable[[Any], Any],
               write: Callable[[Sequence[Item], Any, Any], None]) -> None:
    """`write(batch, inputs, make(inputs))` with `inputs = read(batch)` for each `size` of the items, in order.

    Reading and writing run on a thread of their own each, making on the caller's. What one of them raises is raised here;
    what was made before is written then, and nothing after it is made.
    """
    batches = [items[start:start + size] for start in range(0, len(items), size)]
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        ahead = deque(reader.submit(read, batch) for batch in batches[:AHEAD])
        behind: deque[Future] = deque()
        try:
            for number, batch in enumerate(batches):
                inputs = ahead.popleft().result()
                if number + AHEAD < len(batches):
                    ahead.append(reader.submit(read, batches[number + AHEAD]))
                behind.append(writer.submit(write, batch, inputs, make(inputs)))
                if len(behind) > AHEAD:
                    behind.popleft().result()
            while behind:
                behind.popleft().result()
        finally:
            for waiting in ahead:
                waiting.cancel()


@dataclass(frozen=True)
class Process:
    """One of `count` processes that share a folder's pictures; local: its number on its machine."""

    index: int = 0
    count: int = 1
    local: int = 0

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """Its part of the items: those that stand together stay so."""
        return items[len(items) * self.index // self.count:len(items) * (self.index + 1) // self.count]

    def device(self, device: str) -> str:
        """A device of its own where "cuda" means several."""
        return f"cuda:{self.local % torch.cuda.device_count()}" if device == "cuda" and self.count > 1 else device


def launched() -> Process:
    """Which of the processes of `accelerate launch` or torchrun this is. Raises ValueError where that is not said, and
    ImportError where it cannot be read."""
    try:
        from accelerate.utils import get_int_from_env
    except ImportError:
        if torch.distributed.is_available() and torch.distributed.is_torchelastic_launched():
            raise ImportError("several processes share their work by the package accelerate: pip install "
                              "accelerate") from None
        return Process()
    count, index = get_int_from_env(["WORLD_SIZE"], 1), get_int_from_env(["RANK"], -1)
    if count > 1 and not 0 <= index < count:
        raise ValueError(f"{count} processes were launched, but this one is not told which of them it is (RANK); expected "
                         "accelerate launch or torchrun")
    return Process(max(index, 0), count, get_int_from_env(["LOCAL_RANK"], 0))
