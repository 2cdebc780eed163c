"""What a method knows of several source people, as the rows of a batch that shows some of them more than once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor


def picked(known: Any, which: Sequence[int], sources: int) -> Any:
    """A dataclass of tensors (N, ...) of N sources -> the same of (B, ...), row i that of source which[i].

    Tensors of batch 1, which are the same for everybody, stay as they are; of one source everything does, since each row
    may be joined with any number of poses.
    """
    if sources == 1:
        return known
    if isinstance(known, Tensor):
        return known.index_select(0, torch.tensor(which, device=known.device)) if known.shape[0] == sources else known
    if isinstance(known, Mapping):
        return {name: picked(value, which, sources) for name, value in known.items()}
    if is_dataclass(known):
        return replace(known, **{item.name: picked(getattr(known, item.name), which, sources) for item in fields(known)})
    return known
