"""Seeded random model files in the layouts that ComfyUI's stock loaders and this pack read.

`python random_models.py KIND PATH KIND PATH ...`, run apart from the tests because it imports ComfyUI: sd15, sd21 (Stable
Diffusion checkpoints of full width, without the text encoder that nobody here reads), clip (the image half of CLIP
ViT-L/14), cfld, mcld, fpdm (methods of full width that make small pictures), controlnet (of the demo's width, original
layout). Gigabytes at once: the largest matrices are zeros, which are holes in the files and cost nothing.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

PACK = Path(__file__).resolve().parents[2]
COMFY = Path(os.environ.get("COMFYUI_PATH") or Path.home() / "comfy" / "ComfyUI")
SD15 = dict(image_size=32, in_channels=4, model_channels=320, num_res_blocks=[2] * 4, channel_mult=[1, 2, 4, 4],
            transformer_depth=[1, 1, 1, 1, 1, 1, 0, 0], transformer_depth_middle=1, use_spatial_transformer=True,
            use_linear_in_transformer=False, context_dim=768, num_heads=8, legacy=False, use_checkpoint=False)
VAE = dict(double_z=True, z_channels=4, resolution=256, in_channels=3, out_ch=3, ch=128, ch_mult=[1, 2, 4, 4],
           num_res_blocks=2, attn_resolutions=[], dropout=0.0)
BASES = {"sd15": SD15, "sd21": SD15 | dict(context_dim=1024, num_heads=-1, num_head_channels=64,
                                           use_linear_in_transformer=True)}
LARGE = 2 ** 22   # numbers
# By the spread of this bias alone hosts tell Stable Diffusion 2.1's v-prediction; to 1.5 it does not matter.
VELOCITY_BIAS, VELOCITY = "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias", 0.2
# What the tests change of the authors' sizes: pictures of few pixels, since widths decide over what loads and fits; and of
# the UNet's weights those of the narrow blocks, where each kind of weight is, so that no second UNet lies in memory.
NARROW = ("conv_in.", "time_embedding.", "down_blocks.0.", "up_blocks.3.", "conv_norm_out.", "conv_out.")
METHODS = {"cfld": ("sd15", dict(image_size=(32, 32))),
           "mcld": ("sd15", dict(image_size=(64, 64), trained_unet=tuple(f"{name}*" for name in NARROW))),
           "fpdm": ("sd21", dict(image_size=(64, 48), source_size=(112, 112), unet_trained=NARROW))}


def make(**files: Path) -> None:
    """Files of these kinds, made in one process of their own."""
    words = [str(word) for kind, path in files.items() for word in (kind, path.resolve())]
    result = subprocess.run([sys.executable, str(Path(__file__).resolve()), *words], cwd=COMFY, capture_output=True,
                            text=True, timeout=900)
    if result.returncode:
        raise RuntimeError(f"random_models.py {' '.join(files)} failed\n{result.stderr[-3000:]}")


def lora(path: Path, widths: Sequence[int] = (64,) * 4, rank: int = 4, seed: int = 1) -> Path:
    """A LoRA in kohya's naming on the queries of all 16 cross-attentions of a UNet of these widths, one per level."""
    from pgpis_models.unet.sites import SITES
    source, state = torch.Generator().manual_seed(seed), {}
    for site in SITES.values():
        name = f"lora_unet_{site.diffusers}.transformer_blocks.0.attn2.to_q".replace(".", "_")
        width = widths[site.level]
        for part, shape in (("lora_up", (width, rank)), ("lora_down", (rank, width))):
            state[f"{name}.{part}.weight"] = torch.randn(shape, generator=source) / math.sqrt(rank)
        state[f"{name}.alpha"] = torch.tensor(float(rank))
    save_file(state, path)
    return path


class Pool:
    """Normal numbers drawn once and handed out in pieces, since a billion fresh ones would take a minute."""

    def __init__(self, seed: int):
        self.source = torch.Generator().manual_seed(seed)
        self.values = torch.randn(2 ** 24, generator=self.source)

    def fill(self, name: str, shape: torch.Size, gain: float = 1.0) -> Tensor:
        """float16 weights: of matrices and kernels with deviation gain / sqrt(fan in), of norms 1, biases small."""
        if len(shape) < 2:
            return torch.ones(shape, dtype=torch.float16) if name.endswith("weight") else self.take(shape, 0.02)
        return self.take(shape, gain / math.sqrt(math.prod(shape[1:])))

    def take(self, shape: torch.Size, deviation: float) -> Tensor:
        count = math.prod(shape)
        start = int(torch.randint(self.values.numel(), (1,), generator=self.source))
        pieces, left = [], count
        while left:
            piece = self.values[start:start + left]
            pieces.append(piece)
            left, start = left - piece.numel(), 0
        return (torch.cat(pieces) * deviation).half().reshape(shape)


def write(path: Path, shapes: Mapping[str, Sequence[int]], metadata: Mapping[str, str] | None = None) -> None:
    """A safetensors file of float16 with random numbers in all tensors of fewer than LARGE numbers, zeros in the others."""
    pool, end, header = Pool(15), 0, {"__metadata__": dict(metadata or {})}
    for name, shape in shapes.items():
        begin, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.truncate(8 + len(text) + end)
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape in shapes.items():
            if math.prod(shape) < LARGE:
                values = pool.take(shape, VELOCITY) if name == VELOCITY_BIAS else pool.fill(name, torch.Size(shape))
                file.seek(8 + len(text) + header[name]["data_offsets"][0])
                file.write(values.numpy().tobytes())


def checkpoint(kind: str) -> dict[str, Sequence[int]]:
    """Names and shapes of a Stable Diffusion checkpoint: UNet and autoencoder."""
    import comfy.ldm.models.autoencoder
    import comfy.ldm.modules.diffusionmodules.openaimodel as openaimodel
    import comfy.ops
    with torch.device("meta"):
        unet = openaimodel.UNetModel(**BASES[kind], out_channels=4, transformer_depth_output=[1] * 9 + [0] * 3,
                                     operations=comfy.ops.disable_weight_init)
        vae = comfy.ldm.models.autoencoder.AutoencoderKL(ddconfig=VAE, embed_dim=4)
    shapes = {f"model.diffusion_model.{name}": value.shape for name, value in unet.state_dict().items()}
    return shapes | {f"first_stage_model.{name}": value.shape for name, value in vae.state_dict().items()}


def clip() -> dict[str, Sequence[int]]:
    """Names, as transformers has them, and shapes of CLIP ViT-L/14's image encoder with its projection."""
    import comfy.clip_model
    import comfy.ops
    config = json.loads((COMFY / "comfy" / "clip_vision_config_vitl.json").read_text())
    with torch.device("meta"):
        model = comfy.clip_model.CLIPVisionModelProjection(config, torch.float16, "meta", comfy.ops.disable_weight_init)
    return {name: value.shape for name, value in model.state_dict().items()}


def controlnet() -> dict[str, Tensor]:
    """A ControlNet of the demo's width; the host finds its sizes in the shapes."""
    import comfy.cldm.cldm
    import comfy.ops
    config = BASES["sd15"] | dict(model_channels=64, channel_mult=[1, 1, 1, 1], context_dim=64)
    with torch.device("meta"):
        net = comfy.cldm.cldm.ControlNet(**config, hint_channels=3, operations=comfy.ops.disable_weight_init)
    pool = Pool(16)
    return {f"control_model.{name}": pool.fill(name, value.shape).float() for name, value in net.state_dict().items()}


def method(kind: str) -> tuple[dict[str, Sequence[int]], dict[str, str]]:
    """Names, shapes and metadata of a method of the authors' widths with the UNet weights that belong to it, as a file of
    this pack without a digest."""
    sys.path.append(str(PACK))
    from pgpis_models.checkpoint import FORMAT_VERSION
    from pgpis_models.methods import method_classes
    base, changes = METHODS[kind]
    config_class, method_class = method_classes(kind)
    config = config_class(**changes)
    with torch.device("meta"):
        module = method_class(config)
    shapes = {f"method.{name}": value.shape for name, value in module.state_dict().items()}
    shapes |= {f"unet.{name}": shape for name, shape in module.unet_weight_shapes().items()}
    values = {"format": FORMAT_VERSION, "method": kind, "config": asdict(config), "base": base, "step": 0, "data": "none",
              "licence": "none"}
    return shapes, {f"pgpis.{name}": json.dumps(value) for name, value in values.items()}


def main() -> None:
    files = list(zip(sys.argv[1::2], map(Path, sys.argv[2::2]), strict=True))
    sys.argv = ["main.py", "--cpu"]
    sys.path.insert(0, str(COMFY))
    import comfy.options
    comfy.options.enable_args_parsing()
    for kind, path in files:
        if kind in METHODS:
            write(path, *method(kind))
        elif kind == "controlnet":
            save_file(controlnet(), path)
        else:
            write(path, clip() if kind == "clip" else checkpoint(kind))


if __name__ == "__main__":
    main()
