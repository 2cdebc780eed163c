"""Published weights, torch files or safetensors, read without running code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from ..unet.weights import open_safetensors, what_is
from .torch_archive import TorchArchive
from .torch_legacy import START, legacy_content

COMPILED, PARALLEL = "_orig_mod", "module."   # what torch.compile and runs on several processes add to names


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The state dict of a file as training wrote it: a torch file, or the safetensors of newer accelerate, under the names
    of the plain modules. Raises as `read_torch_file` does."""
    path = Path(path)
    if not is_safetensors(path):
        return plain_names(read_torch_file(path), path)
    with open_safetensors(path) as file:
        return plain_names({key: file.get_tensor(key) for key in file.keys()}, path)


def is_safetensors(path: Path) -> bool:
    """Whether a file begins as a safetensors file does: the length of a JSON header, and the header."""
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    with open(path, "rb") as file:
        head = file.read(9)
    return head[4:] == b"\0\0\0\0{"   # headers of 4 GB and more are none


def plain_names(state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The same tensors under the names of the plain modules: without what torch.compile puts in between and what runs on
    several processes put in front. Raises ValueError when two names become one."""
    plain = {".".join(part for part in key.split(".") if part != COMPILED): value for key, value in state.items()}
    plain = strip_prefix(plain, PARALLEL)
    if len(plain) != len(state):
        raise ValueError(f"{path}: {len(state) - len(plain)} of {len(state)} names are there twice, with {COMPILED} and "
                         "without; expected the weights of one model")
    return plain


def read_torch_file(path: str | Path, inside: str = "") -> dict[str, Tensor]:
    """A flat state dict from a torch file, mapped and not copied into memory; nothing in it is run.

    inside: a name under which the state dict may stand beside other things, which are passed over: `state_dict` in
    Lightning's checkpoints, `model` in Swin's. Raises FileNotFoundError, and ValueError for files that hold anything but
    tensors by name, that are cut off, damaged or larger in their tables than any model's, or that are of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    with open(path, "rb") as file:
        head = file.read(len(START))
    if head.startswith(b"PK\x03\x04"):
        with TorchArchive(path) as archive:
            state, foreign = archive.content()
    elif head == START:
        state, foreign = legacy_content(path)
    elif head.startswith(b"\x80"):
        raise ValueError(f"{path} is a bare pickle, not a file that torch writes: refused, since a pickle can run code; "
                         "expected a state dict as torch.save writes it")
    else:
        raise ValueError(f"{path} ({path.stat().st_size} bytes) is not a torch file: {what_is(path)}")
    if foreign and not inside:
        raise ValueError(f"{path} refused: it holds objects other than tensors, and loading those can run code "
                         f"({len(foreign)}, the first is {'.'.join(foreign[0])[:200]}); expected a state dict as torch.save "
                         "writes it")
    if inside and isinstance(state, dict):
        state = state.get(inside, state)
    if not isinstance(state, dict) or inside and not state:
        raise ValueError(f"{path} holds {f'no {inside}' if inside else f'a {type(state).__name__}'}; expected a dict of "
                         "tensors by name")
    other = [f"{key if isinstance(key, str) else type(key)} ({type(value).__name__})"[:120] for key, value in state.items()
             if not (isinstance(key, str) and isinstance(value, Tensor))]
    if other:
        raise ValueError(f"{path}: {len(other)} of {len(state)} entries are not tensors by name: {', '.join(other[:10])}; "
                         "expected a flat state dict")
    return state


def strip_prefix(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The same tensors without `prefix`, if all names start with it."""
    if not all(key.startswith(prefix) for key in state):
        return dict(state)
    return {key.removeprefix(prefix): value for key, value in state.items()}
