"""Checkpoints: one .safetensors file per trained method, which describes itself.

Keys are `method.<module path>` and, for weights that replace those of the base UNet, `unet.<diffusers parameter
name>`. Metadata are JSON strings under `pgpis.*`: format, method, config, base, step, data, licence, and in files that want
to be sampled in a way of their own sampling.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .methods import method_classes, method_name
from .noise.few_steps import Sampling, read_sampling
from .settings import as_written, build
from .unet.limits import FLOATS, check_limits
from .unet.weights import LISTED, Verified, difference, open_safetensors, shapes_of, write_atomically

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Metadata:
    """What a checkpoint says of itself.

    method: name in methods.METHODS. config: fields of the method's config dataclass as JSON gave them. base: the base
    model that it was trained on (`sd15`, `sd21`, `demo`). step: training steps, or images where training counts
    images. data: name of the training data. licence: of the weights. format_version: of this layout. sampling: how a
    picture is sampled, of weights that were distilled to few steps; None for what suits method and base.
    """

    method: str
    config: dict[str, Any]
    base: str
    step: int
    data: str
    licence: str
    format_version: int = FORMAT_VERSION
    sampling: Sampling | None = None


@dataclass(frozen=True)
class Checkpoint:
    """method: the module in evaluation mode; unet_weights: diffusers parameter name -> tensor; meta: Metadata."""

    method: nn.Module
    unet_weights: dict[str, Tensor]
    meta: Metadata


def save_checkpoint(path: str | Path, method_module: nn.Module, unet_weights: Mapping[str, Tensor], *, base: str,
                    step: int, data: str, licence: str, dtype: torch.dtype | None = None,
                    sampling: Sampling | None = None) -> None:
    """Writes a method with the UNet weights that belong to it; `path` is whole at any moment, old or new.

    dtype: of the floating point tensors in the file; as they are when None. Raises ValueError when the module is not
    a method of this pack or UNet weights of the method are missing or of another shape.
    """
    name = method_name(method_module)
    lacking = difference(method_module.unet_weight_shapes(), shapes_of(unet_weights), extras=True)
    if lacking:
        raise ValueError(f"the UNet weights of {name} do not fit: {lacking}; give them by diffusers parameter name")
    write_checkpoint(path, method_module.state_dict(), unet_weights, dtype=dtype, meta=Metadata(
        name, as_written(method_module.config), base, step, data, licence, sampling=sampling))


def write_checkpoint(path: str | Path, method_state: Mapping[str, Tensor], unet_weights: Mapping[str, Tensor], *,
                     meta: Metadata, dtype: torch.dtype | None = None) -> None:
    """`save_checkpoint` from a state dict, for converters, which never build the module."""
    tensors = {f"method.{key}": value for key, value in method_state.items()}
    tensors |= {f"unet.{key}": value for key, value in unet_weights.items()}
    tensors = {key: value.detach().to("cpu", dtype if value.is_floating_point() else None).contiguous()
               for key, value in tensors.items()}
    values = {"format": meta.format_version} | {item.name: getattr(meta, item.name) for item in fields(meta)
                                                if item.name not in ("format_version", "sampling")}
    if meta.sampling:
        values["sampling"] = asdict(meta.sampling)
    write_atomically(Path(path), tensors, {f"pgpis.{key}": json.dumps(value) for key, value in values.items()})


def read_metadata(path: str | Path) -> Metadata:
    """The metadata of a checkpoint; reads the file's header only.

    Raises FileNotFoundError, and ValueError when the file is not a checkpoint of this pack, is damaged, or is of a
    newer format.
    """
    with open_safetensors(path) as file:
        return _metadata(path, file)


def load_checkpoint(path: str | Path, device: str | torch.device = "cpu", dtype: torch.dtype | None = None,
                    expect_method: str | None = None, verify: bool = True) -> Checkpoint:
    """Rebuilds the method of a checkpoint on `device`, in evaluation mode.

    dtype: of all floating point tensors; float32 when None, whatever the file holds. On the CPU tensors that need no
    cast stay mapped to the file. verify: whether all of it is read once and held against its digest. Raises as
    `read_metadata` does, and ValueError when the method is not `expect_method`, keys are missing, unexpected, of another
    shape, no floating point numbers or not finite, the config asks for more than the file holds, or the digest is another.
    """
    with open_safetensors(path) as file:
        meta = _metadata(path, file)
        if expect_method is not None and meta.method != expect_method:
            raise ValueError(f"{path} holds {meta.method!r}, expected {expect_method!r}; choose another file, or the "
                             f"nodes of {meta.method}")
        try:
            config_class, module_class = method_classes(meta.method)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        what = f"{path}: config of {meta.method}"
        found = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}
        check_limits(meta.config, found, what)
        with torch.device("meta"):  # no memory and no random numbers for weights that the file brings
            module = _built(module_class, _config(config_class, meta.config, what), what)
        required = {f"unet.{name}": shape for name, shape in module.unet_weight_shapes().items()}
        more_unet = {key: shape for key, shape in found.items() if key.startswith("unet.") and key not in required}
        expected = {f"method.{key}": tuple(value.shape) for key, value in module.state_dict().items()}
        wrong = difference(expected | required | more_unet, found)
        if wrong:
            raise ValueError(f"{path} does not fit its own config of {meta.method}: {wrong}; the file is damaged or "
                             "of another version: download or convert it again")

        kinds = {key: file.get_slice(key).get_dtype() for key in found}
        floating = {f"method.{name}" for name, value in module.state_dict().items() if value.is_floating_point()}
        odd = [f"{key} ({kind})" for key, kind in kinds.items()
               if (key in floating or key.startswith("unet.")) and kind not in FLOATS]
        if odd:
            raise ValueError(f"{path}: {len(odd)} weights are no floating point numbers: {', '.join(odd[:LISTED])}; "
                             f"expected {', '.join(FLOATS)}")

        verified = Verified(path, file) if verify else None

        def read(key: str) -> Tensor:
            tensor = verified.read(key) if verified else file.get_tensor(key)
            return tensor.to(device, dtype or torch.float32) if tensor.is_floating_point() else tensor.to(device)

        module.load_state_dict({key: read(f"method.{key}") for key in module.state_dict()}, assign=True)
        unet_weights = {key.removeprefix("unet."): read(key) for key in required | more_unet}
        if verified:
            verified.check()
    unfilled = [name for name, value in (*module.named_parameters(), *module.named_buffers()) if value.is_meta]
    if unfilled:
        raise RuntimeError(f"{module_class.__name__} has buffers without values: {unfilled[:LISTED]}; make buffers "
                           "that are not saved on the CPU by name")
    return Checkpoint(module.to(device).train(False), unet_weights, meta)  # .to: for the buffers


def _built(kind: type[nn.Module], config: Any, what: str) -> nn.Module:
    """A module of a config whose numbers are within limits but may still make no network. Raises ValueError."""
    try:
        return kind(config)
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{what} makes no network: {error}; the file is damaged or of another version") from error


def _config(kind: type, values: Mapping[str, Any], what: str) -> Any:
    """The config of a method from a file's metadata. Raises ValueError, beginning with `what`."""
    try:
        return build(kind, values)
    except ValueError as error:
        raise ValueError(f"{what}: {error} (A file of a newer version needs a newer pack.)") from error


def _metadata(path: str | Path, file: Any) -> Metadata:
    texts = {key.removeprefix("pgpis."): value for key, value in (file.metadata() or {}).items()
             if key.startswith("pgpis.")}
    if "format" not in texts or "method" not in texts:
        if texts.get("kind") == '"lora"':
            raise ValueError(f"{path} is a LoRA, no checkpoint of a method; put it into models/loras and load it with a "
                             "LoRA loader (on the command line: --lora), beside the checkpoint that it was distilled from")
        what = f"it is a {texts['kind']} file" if "kind" in texts else f"its keys start with {sorted(file.keys())[:3]}"
        raise ValueError(f"{path} is not a checkpoint of a method of this pack: no pgpis.format and pgpis.method in "
                         f"its metadata ({what}); convert published weights with `python -m pgpis_models.convert`")
    try:
        values = {key: json.loads(text) for key, text in texts.items()}
    except (ValueError, RecursionError) as error:   # numbers of thousands of digits are the former, deep nesting the latter
        raise ValueError(f"{path}: metadata under pgpis.* are not JSON that can be read ({error}); download it again") \
            from error
    version = values.pop("format")
    if not isinstance(version, int) or version > FORMAT_VERSION or version < 1:
        raise ValueError(f"{path} has checkpoint format {version!r}, this version of the pack reads up to "
                         f"{FORMAT_VERSION}; update the pack")
    known = {item.name for item in fields(Metadata)} - {"format_version", "sampling"}
    lacking = sorted(known - values.keys())
    kinds = {"method": str, "base": str, "data": str, "licence": str, "step": int, "config": dict}
    odd = [f"pgpis.{name} {values[name]!r:.60}" for name, kind in kinds.items()
           if name in values and (not isinstance(values[name], kind) or isinstance(values[name], bool))]
    if odd and not lacking:
        raise ValueError(f"{path}: metadata of other types than expected: {', '.join(odd)}; download or convert it again")
    if lacking:
        raise ValueError(f"{path}: metadata lack {['pgpis.' + key for key in lacking]}; "
                         "download or convert the file again")
    sampling = read_sampling(values["sampling"], path) if "sampling" in values else None
    return Metadata(**{key: values[key] for key in known}, format_version=version, sampling=sampling)
