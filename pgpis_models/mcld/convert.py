"""MCLD's published files (denoising UNet, reference UNet, pose guider, face projector) to ours."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from ..checkpoint import Metadata, write_checkpoint
from ..files.torch_states import read_weights
from ..unet.weights import difference, shapes_of
from .config import CONFIGS, MCLDConfig
from .model import MCLD

HELP = "MCLD: the four files of the authors' release, in any order, or the folder that holds them"
LICENCE = ("converted from the release of MCLD (github.com/jqliu09/MCLD; weights under the MIT licence at "
           "huggingface.co/Lotior/mcld); trained on DeepFashion, whose images are for non-commercial research")
FULL = CONFIGS["full"]
# Names in the release. The last file is called one way by its description and another by its code.
PUBLISHED = (("denoising_unet.pth",), ("reference_unet.pth",), ("pose_guider.pth",),
             ("image_projector.pth", "image_proj_model.pth"))
KINDS = tuple(names[0] for names in PUBLISHED)
DENOISING, REFERENCE, GUIDER, PROJECTOR = KINDS
# Kind -> the part of our module that holds its tensors, under the same names.
PARTS = {REFERENCE: "reference_unet", GUIDER: "pose_guider", PROJECTOR: "face_projector"}
FACE_KEYS = (".to_k_ip.weight", ".to_v_ip.weight")  # in the denoising UNet's file, but not of a plain UNet


def published_layout(config: MCLDConfig = FULL) -> dict[str, dict[str, tuple[int, ...]]]:
    """Kind of file (its published name) -> key -> shape, derived from the module."""
    with torch.device("meta"):
        module = MCLD(config)
    layout = {kind: shapes_of(module.get_submodule(part).state_dict()) for kind, part in PARTS.items()}
    return {DENOISING: module.unet_weight_shapes() | shapes_of(module.face_attention.state_dict())} | layout


def convert(inputs: Sequence[str | Path], output: str | Path, *, dtype: torch.dtype | None = None, step: int = 0,
            config: MCLDConfig = FULL) -> str:
    """Writes one checkpoint of ours from the four published files, and returns a sentence about it.

    inputs: four files in any order and under any names, or one folder with the published names. dtype: of the stored
    tensors, as published when None. step: training step to note. config: for files of other sizes than the authors'.
    Raises FileNotFoundError, and ValueError when the files are not what they should be.
    """
    found, layout = _sort_out(_files(inputs)), published_layout(config)
    states = {kind: state for kind, (_, state) in found.items()}
    for kind in KINDS:
        wrong = difference(layout[kind], shapes_of(states[kind]))
        if wrong:
            raise ValueError(f"{found[kind][0]}, taken for {kind}, does not fit MCLD: {wrong}")
        integer = [key for key, value in states[kind].items() if not value.is_floating_point()]
        if integer:
            raise ValueError(f"{found[kind][0]}, taken for {kind}: {len(integer)} weights are not floating point numbers: "
                             f"{', '.join(integer[:10])}")
    method = {f"{part}.{key}": value for kind, part in PARTS.items() for key, value in states[kind].items()}
    unet = {}
    for key, value in states[DENOISING].items():
        if key.endswith(FACE_KEYS):
            method[f"face_attention.{key}"] = value
        else:
            unet[key] = value
    meta = Metadata("mcld", asdict(config), base="sd15", step=step, data="deepfashion", licence=LICENCE)
    write_checkpoint(output, method, unet, meta=meta, dtype=dtype)
    return (f"{output}: {len(method)} parameters of MCLD and {len(unet)} UNet weights, "
            f"{Path(output).stat().st_size / 2 ** 20:.0f} MiB")


def _files(inputs: Sequence[str | Path]) -> list[Path]:
    """The four files, from four names or from a folder."""
    if len(inputs) == 1 and Path(inputs[0]).is_dir():
        folder = Path(inputs[0])
        found = [next((folder / name for name in names if (folder / name).is_file()), None) for names in PUBLISHED]
        lacking = [" or ".join(names) for names, path in zip(PUBLISHED, found, strict=True) if path is None]
        if lacking:
            raise FileNotFoundError(f"{folder} has no {', no '.join(lacking)}; expected the four files of the release")
        return [path for path in found if path is not None]
    if len(inputs) != len(KINDS):
        raise ValueError(f"{len(inputs)} input files; expected the folder of the release, or its four: {', '.join(KINDS)}")
    return [Path(path) for path in inputs]


def _sort_out(paths: Sequence[Path]) -> dict[str, tuple[Path, dict[str, Tensor]]]:
    """Kind -> file and state dict, told apart by their keys."""
    found: dict[str, tuple[Path, dict[str, Tensor]]] = {}
    for path in paths:
        state = read_weights(path)
        kind = _kind(state)
        if kind is None:
            raise ValueError(f"{path} is none of MCLD's files ({', '.join(KINDS)}): its {len(state)} keys start with "
                             f"{list(state)[:3]}")
        if kind in found:
            raise ValueError(f"{found[kind][0]} and {path} both look like {kind}; expected one file of each: "
                             f"{', '.join(KINDS)}")
        found[kind] = (path, state)
    return {kind: found[kind] for kind in KINDS}


def _kind(state: Mapping[str, Tensor]) -> str | None:
    if any(key.endswith(FACE_KEYS) for key in state):
        return DENOISING
    if any(key.startswith("down_blocks.") for key in state):
        # A denoising UNet without face projections is another method's; its extra keys are named by the strict check.
        return REFERENCE
    if "latents" in state and "proj_in.weight" in state:
        return PROJECTOR
    return GUIDER if "conv_in.weight" in state and "blocks.0.weight" in state else None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `python -m pgpis_models.convert mcld`."""
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help=f"{', '.join(KINDS)}, or their folder")
    parser.add_argument("output", help="the .safetensors file to write, for ComfyUI's models/pgpis")
    parser.add_argument("--half", action="store_true", help="store in float16: half the size")
    parser.add_argument("--step", type=int, default=0, help="training step to note in the file (default 0, unknown)")


def run(arguments: argparse.Namespace) -> str:
    """`convert` with the command line's arguments."""
    return convert(arguments.inputs, arguments.output, dtype=torch.float16 if arguments.half else None,
                   step=arguments.step)
