"""Safetensors files: opened with reasons when they are something else, written whole or not at all, compared by shape."""

from __future__ import annotations

import errno
import json
import logging
import os
import secrets
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .digest import Row, digest, row
from .limits import FLOATS

LISTED = 10  # at most so many keys of each kind are named in an error
DIGEST = "pgpis.digest"   # metadata key
LARGEST = torch.finfo(torch.float32).max   # what all weights become
Shapes = Mapping[str, tuple[int, ...]]
Ends = dict[str, tuple[Tensor, Tensor]]

log = logging.getLogger(__name__)


def write_atomically(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Writes a safetensors file so that `path` is either the whole new file or what it was before.

    The folder is made if need be. The temporary file lies in the same folder, since renaming is atomic only within
    one file system; it goes away when anything fails. A digest of all goes into the metadata (`Verified`).
    """
    metadata = {**metadata, DIGEST: json.dumps(digest((row(*item) for item in tensors.items()), metadata))}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        save_file(dict(tensors), part, dict(metadata))
        _sort_metadata(part)
        part.chmod(0o644)  # safetensors makes files that only their owner can read
        _sync(part, os.O_RDWR)
        os.replace(part, path)
        if os.name == "posix":  # the renaming itself is on disk only when the folder is
            _sync(path.parent, os.O_RDONLY)
    except (OSError, SafetensorError) as error:
        part.unlink(missing_ok=True)
        raise _full_disk(path, tensors, error) or error from error
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _full_disk(path: Path, tensors: Mapping[str, Tensor], error: Exception) -> OSError | None:
    """The error for a file that did not fit on its disk, in words; None for another fault. safetensors says it in a text."""
    if getattr(error, "errno", None) != errno.ENOSPC and f"os error {errno.ENOSPC}" not in str(error):
        return None
    needed, free = sum(value.nbytes for value in tensors.values()), shutil.disk_usage(path.parent).free
    return OSError(errno.ENOSPC, f"the disk of {path.parent} is full: {path.name} needs {needed:,} bytes, {free:,} are "
                   "free. Make room; what was there before is whole")


def _sort_metadata(path: Path) -> None:
    """Brings the metadata in a safetensors header, which come in a random order, into that of their names, so that the same
    weights are the same bytes."""
    with open(path, "r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header.get("__metadata__", {}).items()))
        ordered = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode().ljust(length)
        if len(ordered) == length:   # the same text in another order
            file.seek(8)
            file.write(ordered)


def _sync(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def open_safetensors(path: str | Path) -> Any:
    """safe_open on the CPU; ValueError that says what the file is when it is not a whole safetensors file."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    try:
        return safe_open(str(path), "pt")
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} ({path.stat().st_size} bytes) is not a whole safetensors file: "
                         f"{what_is(path)} ({error})") from error


class Verified:
    """Looks at each tensor of an open safetensors file as it is read, while it is at hand: `check`, after all of them, says
    whether they are those that were written, and numbers."""

    def __init__(self, path: str | Path, file: Any) -> None:
        self.path, self.file = path, file
        self.rows: list[Row] = []
        self.ends: Ends = {}

    def read(self, key: str) -> Tensor:
        """One tensor of the file, on the CPU."""
        tensor = self.file.get_tensor(key)
        self.rows.append(row(key, tensor))
        self.ends |= _ends(key, tensor)
        return tensor

    def check(self) -> None:
        """Raises ValueError when tensors or metadata are not those that were written, and where values are not finite.

        A file without a digest, of an older version of the pack, gives one line of warning.
        """
        metadata = dict(self.file.metadata() or {})
        wanted = metadata.pop(DIGEST, None)
        if wanted is None:
            log.warning("%s has no digest: whether it is whole cannot be told. Save or convert it again to give it one.",
                        self.path)
        elif wanted != json.dumps(digest(self.rows, metadata)):
            raise ValueError(f"{self.path} is damaged: its tensors or metadata are not those that were written (their "
                             "digest is another); download or convert it again")
        _refuse_odd(self.ends, self.path)


def check_finite(tensors: Iterable[tuple[str, Tensor]], what: str | Path) -> None:
    """Raises ValueError, beginning with `what`, that names tensors with values that are not finite: one such weight makes
    black pictures, without an error anywhere."""
    ends: Ends = {}
    for item in tensors:
        ends |= _ends(*item)
    _refuse_odd(ends, what)


def _ends(name: str, tensor: Tensor) -> Ends:
    """The smallest and the largest value of a tensor, NaN where any value is: the fastest look at them all."""
    return {name: tuple(tensor.aminmax())} if tensor.is_floating_point() and tensor.numel() else {}


def _refuse_odd(ends: Ends, what: str | Path) -> None:
    odd = []
    for kind in {low.dtype for low, _ in ends.values()}:   # at once: thousands of tensors are mostly small
        names = [name for name, (low, _) in ends.items() if low.dtype == kind]
        values = torch.stack([end for name in names for end in ends[name]]).double().abs().view(-1, 2)
        fine = (values <= LARGEST).all(1).tolist()   # false for NaN
        odd += [name for name, good in zip(names, fine, strict=True) if not good]
    if odd:
        raise ValueError(f"{what}: {len(odd)} weights hold values that are not finite (NaN or infinity): "
                         f"{', '.join(odd[:LISTED])}{', ...' if len(odd) > LISTED else ''}; such a model makes "
                         "black pictures. Download it again, or take an earlier state of its training")


def read_floats(path: str | Path) -> dict[str, Tensor]:
    """All weights of a file of ours as float32, held against its digest. Raises ValueError that names the file when it is
    damaged, or holds weights that are no floating point numbers or not finite."""
    with open_safetensors(path) as file:
        kinds = {key: file.get_slice(key).get_dtype() for key in file.keys()}
        odd = [f"{key} ({kind})" for key, kind in kinds.items() if kind not in FLOATS]
        if odd:
            raise ValueError(f"{path}: {len(odd)} weights are no floating point numbers: {', '.join(odd[:LISTED])}; "
                             f"expected {', '.join(FLOATS)}")
        verified = Verified(path, file)
        state = {key: verified.read(key).float() for key in kinds}
        verified.check()
    return state


def what_is(path: Path) -> str:
    """What a file that is not what was expected looks like, from its first bytes, and what to do about it."""
    with open(path, "rb") as file:
        head = file.read(64)
    if head.startswith((b"PK\x03\x04", b"\x80")):
        return "it is a torch file; turn it into ours with `python -m pgpis_models.convert`"
    if head.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer; fetch the file itself with `git lfs pull`"
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"{\"error")):
        return "it is a web page that was saved in place of the file; download it again"
    return "it is truncated or of another kind; download or convert it again"


def shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Name -> shape."""
    return {key: tuple(value.shape) for key, value in tensors.items()}


def difference(expected: Shapes, found: Shapes, extras: bool = False) -> str:
    """What differs between two name -> shape tables, for an error message; empty when nothing does.

    Names at most LISTED keys of each kind, with counts. extras: names that are not expected are fine.
    """
    kinds = {
        "missing": [key for key in expected if key not in found],
        "unexpected": [] if extras else [key for key in found if key not in expected],
        "of another shape": [f"{key} {tuple(found[key])} instead of {tuple(expected[key])}" for key in expected
                             if key in found and tuple(found[key]) != tuple(expected[key])],
    }
    return "; ".join(f"{len(keys)} keys {kind}: {', '.join(keys[:LISTED])}{', ...' if len(keys) > LISTED else ''}"
                     for kind, keys in kinds.items() if keys)
