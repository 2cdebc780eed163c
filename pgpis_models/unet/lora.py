"""LoRA files on a base UNet: low-rank changes of its weights, under the names that hosts and trainers give them.

A layer `down_blocks.0...to_q` has `lora_unet_down_blocks_0...to_q.lora_down.weight` (r, in[, kh, kw]), `.lora_up.weight`
(out, r[, 1, 1]) and `.alpha`; its weight changes by alpha / r up down (Hu et al. 2021, section 4.1).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..noise.few_steps import Sampling, read_sampling
from .limits import FLOATS
from .weights import LISTED, Verified, check_finite, open_safetensors, write_atomically

PREFIX = "lora_unet_"
DOWN, UP, ALPHA = ".lora_down.weight", ".lora_up.weight", ".alpha"
WHOLE = ("I64", "I32", "I16", "I8", "U8")   # types of tensors that alpha may have besides
# metadata keys, as in a checkpoint: how a picture is sampled with it, and the method that it was distilled from
SAMPLING, METHOD = "pgpis.sampling", "pgpis.method"


def lora_name(layer: str) -> str:
    """The name in a file of a layer by its diffusers name."""
    return PREFIX + layer.replace(".", "_")


def change(down: Tensor, up: Tensor, scale: float = 1.0) -> Tensor:
    """down (r, in) with up (out, r), or down (r, in, kh, kw) with up (out, r, 1, 1) -> the change of the weight (out, in) or
    (out, in, kh, kw)."""
    return scale * (up.flatten(1) @ down.flatten(1)).reshape(len(up), *down.shape[1:])


def write_lora(path: str | Path, layers: Mapping[str, tuple[Tensor, Tensor]], about: Mapping[str, Any],
               dtype: torch.dtype = torch.float16) -> None:
    """Writes down and up of layers by their diffusers names, of scale 1; `path` is whole at any moment, old or new.

    about: what goes into the metadata under `pgpis.*`, as JSON.
    """
    tensors = {}
    for layer, (down, up) in layers.items():
        name = lora_name(layer)
        tensors |= {name + DOWN: down, name + UP: up, name + ALPHA: torch.tensor(float(len(down)))}
    tensors = {name: value.detach().to("cpu", dtype).contiguous() for name, value in tensors.items()}
    write_atomically(Path(path), tensors, {f"pgpis.{name}": json.dumps(value)
                                           for name, value in {"kind": "lora", **about}.items()})


def read_lora(path: str | Path, layers: Iterable[str]) -> dict[str, tuple[Tensor, Tensor, float]]:
    """Diffusers name -> (down, up, scale) in float32. layers: names of the layers that a LoRA may change.

    Raises FileNotFoundError, and ValueError for a file that is none, that is damaged, or that changes other layers.
    """
    known = {lora_name(layer): layer for layer in layers}
    found: dict[str, tuple[Tensor, Tensor, float]] = {}
    with open_safetensors(path) as file:
        keys = set(file.keys())
        downs = sorted(key for key in keys if key.endswith(DOWN))
        odd = sorted(key for key in keys if key.split(".")[0] not in known or not key.endswith((DOWN, UP, ALPHA)))
        odd += [key for key in downs if key.removesuffix(DOWN) + UP not in keys]
        if odd or not downs:
            raise ValueError(f"{path} is no LoRA of this UNet: {len(odd)} of its {len(keys)} keys are not known, such as "
                             f"{', '.join(odd[:LISTED])}; expected {PREFIX}<layer>{DOWN}, {UP} and {ALPHA}")
        kinds = {key: file.get_slice(key).get_dtype() for key in sorted(keys)}
        odd = [f"{key} ({kind})" for key, kind in kinds.items()
               if kind not in FLOATS and not (key.endswith(ALPHA) and kind in WHOLE)]
        if odd:
            raise ValueError(f"{path}: {len(odd)} weights are no floating point numbers: {', '.join(odd[:LISTED])}; "
                             f"expected {', '.join(FLOATS)}")
        verified = Verified(path, file)
        read = {key: verified.read(key) for key in sorted(keys)}
        if (file.metadata() or {}).get("pgpis.kind"):   # those of others have no digest
            verified.check()
    for key in downs:
        name = key.removesuffix(DOWN)
        down, up = read[key].float(), read[name + UP].float()
        alpha = read.get(name + ALPHA, torch.tensor(float(down.shape[0] if down.ndim else 0)))
        _check_shapes(name, down, up, alpha, path)
        found[known[name]] = down, up, float(alpha) / len(down)
    check_finite(((key, value) for key, value in read.items()), path)
    return found


def _check_shapes(name: str, down: Tensor, up: Tensor, alpha: Tensor, path: str | Path) -> None:
    """Raises ValueError where they make no change of a weight, whatever its size."""
    fits = down.ndim in (2, 4) and up.ndim in (2, 4) and down.numel() and up.numel() \
        and up.shape[1:] == (len(down), *(1,) * (up.ndim - 2)) and alpha.numel() == 1
    if not fits:
        raise ValueError(f"{path}: {name} has down {tuple(down.shape)}, up {tuple(up.shape)} and alpha {tuple(alpha.shape)};"
                         " expected (r, in) or (r, in, kh, kw), (out, r) or (out, r, 1, 1), and one number. Download it "
                         "again")


def lora_metadata(path: str | Path) -> dict[str, str]:
    """The metadata of a LoRA file."""
    with open_safetensors(path) as file:
        return file.metadata() or {}


def lora_sampling(metadata: Mapping[str, str], path: str | Path, method: str) -> Sampling | None:
    """How a picture is sampled with a LoRA of ours, by its metadata; None where they do not say. method: whose checkpoint it
    is added to. Raises ValueError for what is not to be read, and for a LoRA that was distilled from another method: all fit
    one base, and none makes pictures with the weights of another."""
    own = _said(metadata, METHOD, path) if METHOD in metadata else method
    if own != method:
        raise ValueError(f"{path} was distilled from {own}, the checkpoint is of {method}; expected a LoRA that was made "
                         "for this checkpoint")
    return read_sampling(_said(metadata, SAMPLING, path), path) if SAMPLING in metadata else None


def _said(metadata: Mapping[str, str], name: str, path: str | Path) -> Any:
    try:
        return json.loads(metadata[name])
    except (ValueError, RecursionError) as error:   # numbers too long are the former, nesting too deep the latter
        raise ValueError(f"{path}: {name} is not JSON that can be read ({error}); download it again") from error


def layers_of(unet: nn.Module) -> list[str]:
    """Names of the layers that a LoRA may change."""
    return [name for name, module in unet.named_modules() if isinstance(module, (nn.Linear, nn.Conv2d))]


@torch.no_grad()
def merge_lora(unet: nn.Module, path: str | Path) -> None:
    """Adds a LoRA to the weights of a UNet. Raises as `read_lora` does, and ValueError where the widths are others."""
    found, own = read_lora(path, layers_of(unet)), dict(unet.named_parameters())
    for layer, value in found.items():
        weight, shape = own[f"{layer}.weight"], (len(value[1]), *value[0].shape[1:])
        if shape != weight.shape:   # before it is made: its size is the product of two
            raise ValueError(f"{path} changes {layer} as {shape}, the UNet has {tuple(weight.shape)}; expected a LoRA that "
                             "was trained on this base")
        made = change(*value)
        check_finite([(lora_name(layer), made)], path)
        weight += made.to(weight)
