"""FPDM's published files, Lightning `.ckpt` of stage 1 or 2, to ours.

A Lightning file holds more than tensors: hyper-parameters as OmegaConf objects, optimizer states. These are passed over, and
nothing of them is run (../files/torch_table.py).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ..checkpoint import Metadata, write_checkpoint
from ..files.torch_states import is_safetensors, plain_names, read_torch_file, read_weights
from ..parts.vision_tower import DINOV2_UNUSED, published_tower_name, published_tower_shape
from ..poses.keypoints import checked_size, read_size
from ..settings import as_written
from ..unet.weights import difference, shapes_of
from .config import CONFIGS, FUSION_CONFIGS, FPDMConfig, FusionConfig
from .drawing import CANVAS, PHOTO_CANVAS
from .fusion import FusionModel
from .model import FPDM

HELP = "FPDM: a Lightning .ckpt of stage 1 (fusion model) or stage 2 (diffusion model)"
LICENCE = ("converted from the release of FPDM (github.com/dhlee-work/FPDM, MIT licence); trained on DeepFashion, whose "
           "images are for non-commercial research")
# Known keys that are not needed: the same tensors under a second name, the base's autoencoder, and parts that only files
# of older commits of the authors' code have.
ALIASES: Mapping[str, str] = {"pose_encoder.": "img_encoder.", "fusion_model.pose_encoder.": "fusion_model.img_encoder.",
                              "sd_model.unet.": "unet."}
IGNORED = ("vae.", "fusion_model.attention.", "attention.", "sd_model.fusionpatch_proj_model.",
           *(f"src_image_encoder.{name}" for name in DINOV2_UNUSED))


# --- names --------------------------------------------------------------------------------------------------

def published_fusion_names(config: FusionConfig = FUSION_CONFIGS["full"]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Our parameter of the FusionModel -> (published key in a stage 1 file, published shape)."""
    with torch.device("meta"):
        module = FusionModel(config)
    return _names(module.state_dict(), "clip", {"tower.": "img_encoder.vision_model.", "projection.":
                                                "img_encoder.visual_projection.", "combiner.": "combiner."})


def published_names(config: FPDMConfig = CONFIGS["full"]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Our parameter of FPDM -> (published key in a stage 2 file, published shape)."""
    with torch.device("meta"):
        module = FPDM(config)
    names = {f"fusion.{name}": (f"fusion_model.{key}", shape)
             for name, (key, shape) in published_fusion_names(config.fusion).items()}
    rest = {name: value for name, value in module.state_dict().items() if name not in names}
    return names | _names(rest, "dinov2", {
        "source_tower.": "src_image_encoder.", "source_mlp.": "sd_model.srcimage_proj_model.",
        "pose_guider.": "sd_model.pose_t_proj.", "class_mlp.": "unet.class_embedding."})


def _names(state: Mapping[str, Tensor], kind: str,
           prefixes: Mapping[str, str]) -> dict[str, tuple[str, tuple[int, ...]]]:
    names = {}
    for name, value in state.items():
        prefix = next(prefix for prefix in prefixes if name.startswith(prefix))
        rest, shape = name.removeprefix(prefix), tuple(value.shape)
        if prefix.endswith("tower."):
            rest, shape = published_tower_name(rest, kind), published_tower_shape(rest, shape, kind)
        names[name] = (prefixes[prefix] + rest, shape)
    return names


def required_keys(config: FPDMConfig | FusionConfig) -> dict[str, tuple[int, ...]]:
    """Published key -> shape of all that a file of this configuration must hold, without aliases."""
    if isinstance(config, FusionConfig):
        return dict(published_fusion_names(config).values())
    with torch.device("meta"):
        unet = FPDM(config).unet_weight_shapes()
    return dict(published_names(config).values()) | {f"unet.{name}": shape for name, shape in unet.items()}


# --- converting ---------------------------------------------------------------------------------------------

def convert(inputs: Sequence[str | Path], output: str | Path, *, dtype: torch.dtype | None = None, step: int = 0,
            config: FPDMConfig = CONFIGS["full"], pose_canvas: tuple[int, int] | None = None) -> str:
    """Writes one checkpoint of ours from one published file of either stage, and returns a sentence about it.

    A stage 2 file holds everything (stage 1 and DINOv2 too); its autoencoder is that of the base and stays out. dtype:
    of the stored tensors, as published when None. config: for files of other sizes than the authors'. pose_canvas: (height,
    width) in pixels that the checkpoint will draw poses on, when not the config's. Raises ValueError when the file is not
    what it should be, and for a canvas with stage 1, which draws nothing by itself.
    """
    if len(inputs) != 1:
        raise ValueError(f"{len(inputs)} input files; expected one .ckpt, of stage 1 or of stage 2")
    path = Path(inputs[0])
    read = read_weights(path) if is_safetensors(path) else plain_names(read_torch_file(path, "state_dict"), path)
    try:
        state = without_aliases(read)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if any(key.startswith("unet.") for key in state):
        config = config if pose_canvas is None else replace(config, pose_canvas=checked_size(pose_canvas, "pose_canvas"))
        method, sizes, names = "fpdm", config, published_names(config)
    elif any(key.startswith("combiner.") for key in state):
        if pose_canvas is not None:
            raise ValueError(f"{path} is of stage 1, whose checkpoint has no canvas of poses; expected a file of stage 2. "
                             "Leave --pose-canvas out")
        method, sizes, names = "fpdm_fusion", config.fusion, published_fusion_names(config.fusion)
    else:
        raise ValueError(f"{path} is of neither stage of FPDM: its {len(state)} keys start with {list(state)[:3]}; "
                         "expected combiner. (stage 1) or unet. (stage 2)")
    required = required_keys(sizes)
    left = sorted(set(state) - set(required))   # of another commit of the authors' code; what is needed is insisted on
    wrong = difference(required, shapes_of(state), extras=True)
    if wrong:
        raise ValueError(f"{path} does not fit {method}: {wrong}")
    integer = [key for key in required if not state[key].is_floating_point()]
    if integer:
        raise ValueError(f"{path}: {len(integer)} weights are not floating point numbers: {', '.join(integer[:10])}")
    with torch.device("meta"):
        shapes = shapes_of((FPDM if method == "fpdm" else FusionModel)(sizes).state_dict())
    ours = {name: state[key].reshape(shapes[name]) for name, (key, _) in names.items()}
    unet = {} if method == "fpdm_fusion" else {key.removeprefix("unet."): state[key] for key in required
                                               if key.startswith("unet.") and "class_embedding" not in key}
    meta = Metadata(method, as_written(sizes), base="sd21", step=step, data="deepfashion", licence=LICENCE)
    write_checkpoint(output, ours, unet, meta=meta, dtype=dtype)
    more = f"; left out {len(left)} keys that the released code does not have: {', '.join(left[:10])}" if left else ""
    return (f"{output}: {len(ours)} parameters of {method} and {len(unet)} UNet weights, "
            f"{Path(output).stat().st_size / 2 ** 20:.0f} MiB{more}")


def without_aliases(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict without second names and parts that are not needed. Raises ValueError when two names that should
    mean one tensor hold different ones: then the file is not what this converter knows."""
    kept, differing = {}, []
    for key, value in state.items():
        alias = next((prefix for prefix in ALIASES if key.startswith(prefix)), None)
        if alias is not None:
            twin = state.get(ALIASES[alias] + key.removeprefix(alias))
            if twin is None or twin.data_ptr() != value.data_ptr() and not torch.equal(twin, value):
                differing.append(key)
        elif not key.startswith(IGNORED):
            kept[key] = value
    if differing:
        raise ValueError(f"{len(differing)} keys should equal others and do not ({', '.join(differing[:10])}); expected "
                         f"{ALIASES}: this file is of another version of FPDM")
    return kept


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `python -m pgpis_models.convert fpdm`."""
    parser.add_argument("inputs", nargs=1, metavar="INPUT", help="the .ckpt of stage 1 or stage 2")
    parser.add_argument("output", help="the .safetensors file to write, for ComfyUI's models/pgpis")
    parser.add_argument("--half", action="store_true", help="store in float16: half the size")
    parser.add_argument("--step", type=int, default=0, help="training step to note in the file (default 0, unknown)")
    parser.add_argument("--pose-canvas", default="", metavar="HxW", help="stage 2: height x width in pixels that poses are "
                        f"drawn on, which makes lines bold or fine; default {_text(CANVAS)}, as in the authors' training of "
                        f"stage 2; {_text(PHOTO_CANVAS)}, as in their test script")


def run(arguments: argparse.Namespace) -> str:
    """`convert` with the command line's arguments."""
    return convert(arguments.inputs, arguments.output, dtype=torch.float16 if arguments.half else None,
                   step=arguments.step,
                   pose_canvas=read_size(arguments.pose_canvas, "--pose-canvas") if arguments.pose_canvas else None)


def _text(size: tuple[int, int]) -> str:
    """(height, width) as the command line writes it."""
    return f"{size[0]}x{size[1]}"
