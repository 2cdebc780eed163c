"""CFLD's published files (`pytorch_model.bin`, the conditioning model, and `pytorch_model_1.bin`, the UNet) to ours."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..checkpoint import Metadata, write_checkpoint
from ..files.torch_states import read_weights, strip_prefix
from ..unet.shapes import unet_shapes
from ..unet.weights import difference, open_safetensors, shapes_of
from .config import CFLDConfig
from .model import CFLD

HELP = "CFLD: the two files of the authors' release, or of their training (model.safetensors, model_1.safetensors)"
LICENCE = ("converted from the release of CFLD (github.com/YanzuoLu/CFLD, MIT licence); trained on DeepFashion, whose "
           "images are for non-commercial research")


@dataclass(frozen=True)
class PublishedLayout:
    """Names and shapes in the published files: parameters and buffers of the conditioning model, and the UNet.

    The UNet's names are without their `model.` prefix. Buffers can be computed, so they are known and left out.
    """

    parameters: Mapping[str, tuple[int, ...]]
    buffers: Mapping[str, tuple[int, ...]]
    unet: Mapping[str, tuple[int, ...]]
    trained_unet: tuple[str, ...]


def published_layout(config: CFLDConfig = CFLDConfig(),
                     unet: Mapping[str, tuple[int, ...]] | None = None) -> PublishedLayout:
    """The layout for a configuration, derived from the modules; `unet` is that of SD1.5 when None."""
    with torch.device("meta"):
        module = CFLD(config)
    return PublishedLayout(shapes_of(dict(module.named_parameters())), shapes_of(dict(module.named_buffers())),
                           unet_shapes() if unet is None else unet, module.trainable_unet_weights())


def convert(inputs: Sequence[str | Path], output: str | Path, *, all_unet: bool = False, base: str | Path | None = None,
            dtype: torch.dtype | None = None, step: int = 0, config: CFLDConfig = CFLDConfig(),
            unet: Mapping[str, tuple[int, ...]] | None = None) -> str:
    """Writes one checkpoint of ours from the two published files, and returns a sentence about it.

    all_unet: store every UNet weight, not only the 18 trained ones. base: a UNet file (.safetensors, diffusers
    layout) to which the other weights must be equal. dtype: of the stored tensors, as published when None. config,
    unet: for files of other sizes than the authors'. Raises ValueError when the files are not what they should be.
    """
    (first, conditioning), (second, weights) = _sort_out(inputs)
    layout = published_layout(config, unet)
    wrong = difference(layout.parameters | {key: shape for key, shape in layout.buffers.items() if key in conditioning},
                       shapes_of(conditioning))
    if wrong:
        raise ValueError(f"{first}: the conditioning model does not fit CFLD: {wrong}")
    wrong = difference(layout.unet, shapes_of(weights))
    if wrong:
        raise ValueError(f"{second}: the UNet does not fit Stable Diffusion 1.5: {wrong}")
    for path, state in ((first, conditioning), (second, weights)):
        integer = [key for key, value in state.items() if key not in layout.buffers and not value.is_floating_point()]
        if integer:
            raise ValueError(f"{path}: {len(integer)} weights are not floating point numbers: {', '.join(integer[:10])}")
    if base is not None:
        _compare_with_base(weights, Path(base), layout.trained_unet)
    stored = weights if all_unet else {key: weights[key] for key in layout.trained_unet}
    meta = Metadata("cfld", asdict(config), base="sd15", step=step, data="deepfashion", licence=LICENCE)
    write_checkpoint(output, {key: conditioning[key] for key in layout.parameters}, stored, meta=meta, dtype=dtype)
    return (f"{output}: {len(layout.parameters)} parameters of CFLD and {len(stored)} of {len(weights)} UNet weights, "
            f"{Path(output).stat().st_size / 2 ** 20:.0f} MiB")


def _sort_out(inputs: Sequence[str | Path]) -> tuple[tuple[Path, dict[str, Tensor]], tuple[Path, dict[str, Tensor]]]:
    """File and weights of the conditioning model, and of the UNet without `model.`, told apart by their keys."""
    if len(inputs) != 2:
        raise ValueError(f"{len(inputs)} input files; expected two, pytorch_model.bin and pytorch_model_1.bin")
    found: dict[str, tuple[Path, dict[str, Tensor]]] = {}
    for path in map(Path, inputs):
        state = read_weights(path)
        if any(key.startswith(("backbone.", "decoder.", "appearance_encoder.")) for key in state):
            kind = "conditioning model"
        elif state and all(key.startswith("model.") for key in state):
            kind, state = "UNet", strip_prefix(state, "model.")
        else:
            raise ValueError(f"{path} is neither CFLD's conditioning model (keys backbone., decoder., ...) nor its "
                             f"UNet (keys model.): its {len(state)} keys start with {list(state)[:3]}")
        if kind in found:
            raise ValueError(f"{found[kind][0]} and {path} both are a {kind}; expected one conditioning model "
                             "(pytorch_model.bin) and one UNet (pytorch_model_1.bin)")
        found[kind] = (path, state)
    return found["conditioning model"], found["UNet"]


def _compare_with_base(weights: Mapping[str, Tensor], base: Path, trained: Sequence[str]) -> None:
    """Raises ValueError unless all weights but the trained ones equal those of the base, in the base's precision."""
    frozen = [key for key in weights if key not in trained]
    with open_safetensors(base) as file:
        lacking = sorted(set(frozen) - set(file.keys()))
        if lacking:
            raise ValueError(f"{base} is not a UNet in diffusers' layout: {len(lacking)} keys missing: {lacking[:10]}")
        changed = [key for key in frozen if not _equal(weights[key], file.get_tensor(key))]
    if changed:
        raise ValueError(f"{len(changed)} of {len(frozen)} frozen UNet weights differ from {base}: {changed[:10]}; "
                         "this is another base than the checkpoint was trained on: give the right one, or store the "
                         "whole UNet with --all-unet")


def _equal(weight: Tensor, base: Tensor) -> bool:
    return weight.shape == base.shape and torch.equal(weight.to(base.dtype), base)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `python -m pgpis_models.convert cfld`."""
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="pytorch_model.bin and pytorch_model_1.bin")
    parser.add_argument("output", help="the .safetensors file to write, for ComfyUI's models/pgpis")
    parser.add_argument("--all-unet", action="store_true", help="store all UNet weights, not only the 18 trained ones")
    parser.add_argument("--base", metavar="FILE", help="check that the other UNet weights equal this base UNet")
    parser.add_argument("--half", action="store_true", help="store in float16: half the size")
    parser.add_argument("--step", type=int, default=0, help="training step to note in the file (default 0, unknown)")


def run(arguments: argparse.Namespace) -> str:
    """`convert` with the command line's arguments."""
    return convert(arguments.inputs, arguments.output, all_unet=arguments.all_unet, base=arguments.base,
                   dtype=torch.float16 if arguments.half else None, step=arguments.step)
