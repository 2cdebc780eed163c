"""A digest of a file's tensors and metadata: any byte that changed on a disk or on the way makes it another.

No protection against who changes a file on purpose. It costs little beside reading gigabytes, so that every load can afford
it: two sums of 64-bit words per tensor, whose little table is then hashed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor

BLOCK = 4096   # words that are summed before their place counts: one pass over memory, at its speed
MODULUS = 2 ** 64

Row = tuple[str, str, list[int], int, int]


def tensor_sums(tensor: Tensor) -> tuple[int, int]:
    """Sum of the 64-bit words of a tensor of any shape, and of the sums of blocks of them times their place, both modulo
    2^64.

    The last bytes, fewer than a word, count as a word of their own. Any change of one word changes the first; words that
    change places between blocks change the second.
    """
    # numpy, and few calls: a full-size file has more than a thousand tensors, most of them small
    flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    data = flat.numpy()
    whole = data.size // 8 * 8
    tail = int.from_bytes(data[whole:].tobytes(), "little") if whole < data.size else 0
    words = (data[:whole] if flat.data_ptr() % 8 == 0 else data[:whole].copy()).view(np.int64)   # words begin at one
    blocks = words.size // BLOCK
    rest = int(words[blocks * BLOCK:].sum()) if blocks * BLOCK < words.size else 0
    sums = np.add.reduce(words[:blocks * BLOCK].reshape(blocks, BLOCK), 1)
    placed = int(sums.dot(np.arange(1, blocks + 1)))   # wraps round as the sums do
    return (int(sums.sum()) + rest + tail) % MODULUS, (placed + rest * (blocks + 1) + 3 * tail) % MODULUS


def row(name: str, tensor: Tensor) -> Row:
    """What the digest keeps of a tensor."""
    return name, str(tensor.dtype), list(tensor.shape), *tensor_sums(tensor)


def digest(rows: Iterable[Row], metadata: Mapping[str, str]) -> str:
    """32 hex digits that name tensors (names, types, shapes, values) and metadata, whatever their order."""
    return hashlib.sha256(json.dumps([sorted(rows), sorted(metadata.items())]).encode()).hexdigest()[:32]
