"""A digest of a file's tensors and metadata: any byte that changed on a disk or on the way makes it another.

No protection against who changes a file on purpose. It costs little beside reading gigabytes, so that every load can afford
it: two sums of 64-bit words per tensor, whose little table is then hashed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

BLOCK = 4096   # words that are summed before their place counts: one pass over memory, at its speed


def tensor_sums(tensor: Tensor) -> tuple[int, int]:
    """Sum of a tensor's 64-bit words, and of the sums of blocks of them times their place, both modulo 2^64.

    The last bytes, fewer than a word, count as a word of their own. Any change of one word changes the first; words that
    change places between blocks change the second.
    """
    data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    whole = data.numel() // 8 * 8
    words = data[:whole]
    if words.storage_offset() % 8 or words.data_ptr() % 8:   # a view of 8-byte words must begin at one
        words = words.clone()
    words = words.view(torch.int64)
    tail = int.from_bytes(bytes(data[whole:].tolist()), "little")
    blocks = words.numel() // BLOCK
    sums = words[:blocks * BLOCK].view(blocks, BLOCK).sum(1)
    rest = words[blocks * BLOCK:].sum()
    places = torch.arange(1, blocks + 1)
    mask = 2 ** 64 - 1
    return (int(sums.sum() + rest) + tail) & mask, (int((sums * places).sum() + rest * (blocks + 1)) + 3 * tail) & mask


def digest(tensors: Iterable[tuple[str, Tensor]], metadata: Mapping[str, str]) -> str:
    """32 hex digits that name tensors (names, types, shapes, values) and metadata, whatever their order."""
    table = sorted((name, str(tensor.dtype), list(tensor.shape), *tensor_sums(tensor)) for name, tensor in tensors)
    return hashlib.sha256(json.dumps([table, sorted(metadata.items())]).encode()).hexdigest()[:32]
