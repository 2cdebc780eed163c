"""Seeded random model files in the layouts that ComfyUI's stock loaders and this pack read.

`python random_models.py KIND PATH`, run apart from the tests because it imports ComfyUI: sd15, sd21 (Stable Diffusion
checkpoints of full width, without the text encoder that nobody here reads), clip (the image half of CLIP ViT-L/14), cfld,
mcld, fpdm (methods of full width that make small pictures), controlnet (of the demo's width, original layout).
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

PACK = Path(__file__).resolve().parents[2]
COMFY = Path(os.environ.get("COMFYUI_PATH") or Path.home() / "comfy" / "ComfyUI")
FULL = dict(image_size=32, in_channels=4, model_channels=320, num_res_blocks=[2] * 4, channel_mult=[1, 2, 4, 4],
            transformer_depth=[1, 1, 1, 1, 1, 1, 0, 0], transformer_depth_middle=1, use_spatial_transformer=True,
            use_linear_in_transformer=False, context_dim=768, num_heads=8, legacy=False, use_checkpoint=False)
VAE = dict(double_z=True, z_channels=4, resolution=256, in_channels=3, out_ch=3, ch=128, ch_mult=[1, 2, 4, 4],
           num_res_blocks=2, attn_resolutions=[], dropout=0.0)
# Stable Diffusion 2.1; hosts tell its v-prediction by this bias alone.
SD21 = FULL | dict(context_dim=1024, num_heads=-1, num_head_channels=64, use_linear_in_transformer=True)
VELOCITY_BIAS, VELOCITY = "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias", 0.2
# What the tests change of the authors' sizes: pictures of few pixels, since widths decide over what loads and fits; and of
# the UNet's weights those of the narrow blocks, where each kind of weight is, so that no second UNet lies in memory.
NARROW = ("conv_in.", "time_embedding.", "down_blocks.0.", "up_blocks.3.", "conv_norm_out.", "conv_out.")
METHODS = {"cfld": ("sd15", dict(image_size=(64, 64))),
           "mcld": ("sd15", dict(image_size=(64, 64), trained_unet=tuple(f"{name}*" for name in NARROW))),
           "fpdm": ("sd21", dict(image_size=(64, 48), source_size=(112, 112), unet_trained=NARROW))}


def make(kind: str, path: Path) -> Path:
    """The file, made in a process of its own if it is not there."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        result = subprocess.run([sys.executable, str(Path(__file__).resolve()), kind, str(path.resolve())], cwd=COMFY,
                                capture_output=True, text=True, timeout=900)
        if result.returncode:
            raise RuntimeError(f"random_models.py {kind} failed\n{result.stderr[-3000:]}")
    return path


def lora(path: Path, width: int = 64, rank: int = 4, seed: int = 1) -> Path:
    """A LoRA in kohya's naming on the queries of all 16 cross-attentions of a UNet that is `width` wide everywhere."""
    from pgpis_models.unet.sites import SITES
    source, state = torch.Generator().manual_seed(seed), {}
    for site in SITES.values():
        name = f"lora_unet_{site.diffusers}.transformer_blocks.0.attn2.to_q".replace(".", "_")
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


def checkpoint(kind: str) -> dict[str, Tensor]:
    """UNet and autoencoder in the layout of a Stable Diffusion checkpoint."""
    import comfy.ldm.models.autoencoder
    import comfy.ldm.modules.diffusionmodules.openaimodel as openaimodel
    import comfy.ops
    config = {"sd15": FULL, "sd21": SD21}[kind]
    with torch.device("meta"):
        unet = openaimodel.UNetModel(**config, out_channels=4, transformer_depth_output=[1] * 9 + [0] * 3,
                                     operations=comfy.ops.disable_weight_init)
        vae = comfy.ldm.models.autoencoder.AutoencoderKL(ddconfig=VAE, embed_dim=4)
    shapes = {f"model.diffusion_model.{name}": value.shape for name, value in unet.state_dict().items()}
    shapes |= {f"first_stage_model.{name}": value.shape for name, value in vae.state_dict().items()}
    pool = Pool(15)
    made = {name: pool.fill(name, shape) for name, shape in shapes.items()}
    if kind == "sd21":
        made[VELOCITY_BIAS] = pool.take(made[VELOCITY_BIAS].shape, VELOCITY)
    return made


def clip() -> dict[str, Tensor]:
    """The image encoder of CLIP ViT-L/14 with its projection, by the names of transformers."""
    import comfy.clip_model
    import comfy.ops
    config = json.loads((COMFY / "comfy" / "clip_vision_config_vitl.json").read_text())
    with torch.device("meta"):
        model = comfy.clip_model.CLIPVisionModelProjection(config, torch.float16, "meta", comfy.ops.disable_weight_init)
    pool = Pool(18)
    return {name: pool.fill(name, value.shape) for name, value in model.state_dict().items()}


def controlnet() -> dict[str, Tensor]:
    """A ControlNet of the demo's width; the host finds its sizes in the shapes."""
    import comfy.cldm.cldm
    import comfy.ops
    config = FULL | dict(model_channels=64, channel_mult=[1, 1, 1, 1], context_dim=64)
    with torch.device("meta"):
        net = comfy.cldm.cldm.ControlNet(**config, hint_channels=3, operations=comfy.ops.disable_weight_init)
    pool = Pool(16)
    return {f"control_model.{name}": pool.fill(name, value.shape).float() for name, value in net.state_dict().items()}


def method(kind: str, path: Path) -> None:
    """A method of the authors' widths with the UNet weights that belong to it, as a file of this pack."""
    sys.path.append(str(PACK))
    from pgpis_models.checkpoint import save_checkpoint
    from pgpis_models.methods import method_classes
    base, changes = METHODS[kind]
    config_class, method_class = method_classes(kind)
    with torch.device("meta"):
        module = method_class(config_class(**changes))
    pool = Pool(17)
    for name, value in list(module.named_parameters()):
        owner, _, last = name.rpartition(".")
        setattr(module.get_submodule(owner), last, torch.nn.Parameter(pool.fill(name, value.shape)))
    weights = {name: pool.fill(name, torch.Size(shape)) for name, shape in module.unet_weight_shapes().items()}
    save_checkpoint(path, module, weights, base=base, step=0, data="none", licence="none", dtype=torch.float16)


def main() -> None:
    kind, path = sys.argv[1], Path(sys.argv[2])
    sys.argv = ["main.py", "--cpu"]
    part = path.with_name(f"{path.stem}.{os.getpid()}.part.safetensors")
    try:
        if kind in METHODS:
            method(kind, part)
        else:
            sys.path.insert(0, str(COMFY))
            import comfy.options
            comfy.options.enable_args_parsing()
            save_file({"clip": clip, "controlnet": controlnet}[kind]() if kind in ("clip", "controlnet") else
                      checkpoint(kind), part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
