"""Checkpoints: one .safetensors file per trained method, which describes itself.

Keys are `method.<module path>` and, for weights that replace those of the base UNet, `unet.<diffusers parameter
name>`. Metadata are JSON strings under `pgpis.*`: format, method, config, base, step, data, licence.
"""

from __future__ import annotations

import difflib
import json
import os
import secrets
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from .methods import method_classes, method_name

FORMAT_VERSION = 1
LISTED = 10  # at most so many keys of each kind are named in an error
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Metadata:
    """What a checkpoint says of itself.

    method: name in methods.METHODS. config: fields of the method's config dataclass as JSON gave them. base: the base
    model that it was trained on (`sd15`, `sd21`, `demo`). step: training steps, or images where training counts
    images. data: name of the training data. licence: of the weights. format_version: of this layout.
    """

    method: str
    config: dict[str, Any]
    base: str
    step: int
    data: str
    licence: str
    format_version: int = FORMAT_VERSION


@dataclass(frozen=True)
class Checkpoint:
    """method: the module in evaluation mode; unet_weights: diffusers parameter name -> tensor; meta: Metadata."""

    method: nn.Module
    unet_weights: dict[str, Tensor]
    meta: Metadata


# --- writing ------------------------------------------------------------------------------------------------

def save_checkpoint(path: str | Path, method_module: nn.Module, unet_weights: Mapping[str, Tensor], *, base: str,
                    step: int, data: str, licence: str, dtype: torch.dtype | None = None) -> None:
    """Writes a method with the UNet weights that belong to it; `path` is whole at any moment, old or new.

    dtype: of the floating point tensors in the file; as they are when None. Raises ValueError when the module is not
    a method of this pack or UNet weights of the method are missing or of another shape.
    """
    name = method_name(method_module)
    lacking = difference(method_module.unet_weight_shapes(), shapes_of(unet_weights), extras=True)
    if lacking:
        raise ValueError(f"the UNet weights of {name} do not fit: {lacking}; give them by diffusers parameter name")
    write_checkpoint(path, method_module.state_dict(), unet_weights, dtype=dtype, meta=Metadata(
        name, asdict(method_module.config), base, step, data, licence))


def write_checkpoint(path: str | Path, method_state: Mapping[str, Tensor], unet_weights: Mapping[str, Tensor], *,
                     meta: Metadata, dtype: torch.dtype | None = None) -> None:
    """`save_checkpoint` from a state dict, for converters, which never build the module."""
    tensors = {f"method.{key}": value for key, value in method_state.items()}
    tensors |= {f"unet.{key}": value for key, value in unet_weights.items()}
    tensors = {key: value.detach().to("cpu", dtype if value.is_floating_point() else None).contiguous()
               for key, value in tensors.items()}
    values = {"format": meta.format_version} | {item.name: getattr(meta, item.name) for item in fields(meta)
                                                if item.name != "format_version"}
    write_atomically(Path(path), tensors, {f"pgpis.{key}": json.dumps(value) for key, value in values.items()})


def write_atomically(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Writes a safetensors file so that `path` is either the whole new file or what it was before.

    The folder is made if need be. The temporary file lies in the same folder, since renaming is atomic only within
    one file system; it goes away when anything fails.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        save_file(dict(tensors), part, dict(metadata))
        part.chmod(0o644)  # safetensors makes files that only their owner can read
        _sync(part, os.O_RDWR)
        os.replace(part, path)
        if os.name == "posix":  # the renaming itself is on disk only when the folder is
            _sync(path.parent, os.O_RDONLY)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _sync(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# --- reading ------------------------------------------------------------------------------------------------

def read_metadata(path: str | Path) -> Metadata:
    """The metadata of a checkpoint; reads the file's header only.

    Raises FileNotFoundError, and ValueError when the file is not a checkpoint of this pack, is damaged, or is of a
    newer format.
    """
    with open_safetensors(path) as file:
        return _metadata(path, file)


def load_checkpoint(path: str | Path, device: str | torch.device = "cpu", dtype: torch.dtype | None = None,
                    expect_method: str | None = None) -> Checkpoint:
    """Rebuilds the method of a checkpoint on `device`, in evaluation mode.

    dtype: of all floating point tensors; float32 when None, whatever the file holds. On the CPU tensors that need no
    cast stay mapped to the file, so that loading takes neither time nor memory until they are used. Raises as
    `read_metadata` does, and ValueError when the method is not `expect_method`, or keys are missing, unexpected or of
    another shape.
    """
    with open_safetensors(path) as file:
        meta = _metadata(path, file)
        if expect_method is not None and meta.method != expect_method:
            raise ValueError(f"{path} holds {meta.method!r}, expected {expect_method!r}; choose another file, or the "
                             f"nodes of {meta.method}")
        config_class, module_class = method_classes(meta.method)
        with torch.device("meta"):  # no memory and no random numbers for weights that the file brings
            module = module_class(config_from_json(config_class, meta.config, f"{path}: config of {meta.method}"))
        found = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}
        required = {f"unet.{name}": shape for name, shape in module.unet_weight_shapes().items()}
        more_unet = {key: shape for key, shape in found.items() if key.startswith("unet.") and key not in required}
        expected = {f"method.{key}": tuple(value.shape) for key, value in module.state_dict().items()}
        wrong = difference(expected | required | more_unet, found)
        if wrong:
            raise ValueError(f"{path} does not fit its own config of {meta.method}: {wrong}; the file is damaged or "
                             "of another version: download or convert it again")

        def read(key: str) -> Tensor:
            tensor = file.get_tensor(key)
            return tensor.to(device, dtype or torch.float32) if tensor.is_floating_point() else tensor.to(device)

        module.load_state_dict({key: read(f"method.{key}") for key in module.state_dict()}, assign=True)
        unet_weights = {key.removeprefix("unet."): read(key) for key in required | more_unet}
    unfilled = [name for name, value in (*module.named_parameters(), *module.named_buffers()) if value.is_meta]
    if unfilled:
        raise RuntimeError(f"{module_class.__name__} has buffers without values: {unfilled[:LISTED]}; make buffers "
                           "that are not saved on the CPU by name")
    return Checkpoint(module.to(device).train(False), unet_weights, meta)  # .to: for the buffers


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


def _metadata(path: str | Path, file: Any) -> Metadata:
    texts = {key.removeprefix("pgpis."): value for key, value in (file.metadata() or {}).items()
             if key.startswith("pgpis.")}
    if "format" not in texts or "method" not in texts:
        what = f"it is a {texts['kind']} file" if "kind" in texts else f"its keys start with {sorted(file.keys())[:3]}"
        raise ValueError(f"{path} is not a checkpoint of a method of this pack: no pgpis.format and pgpis.method in "
                         f"its metadata ({what}); convert published weights with `python -m pgpis_models.convert`")
    try:
        values = {key: json.loads(text) for key, text in texts.items()}
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: metadata under pgpis.* are not JSON ({error}); download it again") from error
    version = values.pop("format")
    if not isinstance(version, int) or version > FORMAT_VERSION or version < 1:
        raise ValueError(f"{path} has checkpoint format {version!r}, this version of the pack reads up to "
                         f"{FORMAT_VERSION}; update the pack")
    known = {item.name for item in fields(Metadata)} - {"format_version"}
    lacking = sorted(known - values.keys())
    if lacking or not isinstance(values["config"], dict):
        raise ValueError(f"{path}: metadata lack {['pgpis.' + key for key in lacking] or 'a usable pgpis.config'}; "
                         "download or convert the file again")
    return Metadata(**{key: values[key] for key in known}, format_version=version)


def config_from_json(cls: type, values: Mapping[str, Any], what: str) -> Any:
    """A config dataclass from parsed JSON. Fields that are not given take their defaults.

    Raises ValueError, beginning with `what`, for an unknown key (naming the nearest known one), a value of the wrong
    type, or a missing field without default.
    """
    hints = typing.get_type_hints(cls)
    names = [item.name for item in fields(cls)]
    for key in values:
        if key not in names:
            near = difflib.get_close_matches(key, names, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {names}"
            raise ValueError(f"{what}: unknown key {key!r}; {hint} (A file of a newer version needs a newer pack.)")
    lacking = [item.name for item in fields(cls)
               if item.name not in values and item.default is MISSING and item.default_factory is MISSING]
    if lacking:
        raise ValueError(f"{what}: {lacking} missing")
    return cls(**{key: _typed(hints[key], value, f"{what}: {key}") for key, value in values.items()})


def _typed(hint: Any, value: Any, what: str) -> Any:
    """The JSON value as the type that a field wants: tuples for lists, dataclasses for objects."""
    if is_dataclass(hint) and isinstance(value, Mapping):
        return config_from_json(hint, value, what)
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    for option in options:
        if is_dataclass(option) and isinstance(value, Mapping):
            return config_from_json(option, value, what)
        origin = typing.get_origin(option) or option
        if origin is tuple and isinstance(value, (list, tuple)):
            entries = typing.get_args(option)
            if len(entries) == 2 and entries[1] is Ellipsis:
                entries = entries[:1] * len(value)
            if not entries or len(entries) == len(value):
                return tuple(_typed(entry, item, what) for entry, item in zip(entries, value)) if entries \
                    else tuple(value)
        elif origin is float and isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        elif isinstance(origin, type) and isinstance(value, origin) and (origin is bool or not isinstance(value, bool)):
            return value
    raise ValueError(f"{what} is {value!r}; expected {getattr(hint, '__name__', None) or hint}")


# --- comparing ----------------------------------------------------------------------------------------------

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
