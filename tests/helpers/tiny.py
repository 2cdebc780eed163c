"""Tiny models for tests: a base, an autoencoder and a CFLD that fit together, with random weights that all matter."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from pgpis_models.cfld.config import CONFIGS, CFLDConfig
from pgpis_models.cfld.model import CFLD
from pgpis_models.checkpoint import save_checkpoint
from pgpis_models.settings import build
from pgpis_models.unet.autoencoder import save_vae, tiny
from pgpis_models.unet.base import BaseSizes, save_unet
from training.engine.config import TrainConfig
from training.world.autoencoder import colour_identity

SIZE = (64, 64)   # pictures and photos
RASTER = (64, 64)   # pose rasters
SIZES = BaseSizes((32, 32, 32, 32), layers_per_block=2, heads=2, cross_attention_dim=64, prediction="v_prediction",
                  caption_tokens=16)
# Overrides of CFLD's preset "demo" that fit these sizes.
MODEL = {"image_size": [64, 64], "window": [4, 4], "swin_width": 8, "swin_depths": [1, 1, 1, 1],
         "swin_heads": [1, 1, 2, 2], "appearance_widths": [8, 8, 8], "appearance_heads": [1, 1, 1], "decoder_depth": 1,
         "unet_widths": [32, 32, 32], "prompt_drop": 0.5}


class Files(NamedTuple):
    base: Path
    vae: Path
    cfld: Path


def cfld_config(**changes) -> CFLDConfig:
    return build(CFLDConfig, asdict(CONFIGS["demo"]) | MODEL | changes, "model")


@torch.no_grad()
def shaken(module: nn.Module, std: float = 0.05) -> nn.Module:
    """The module with noise on every parameter, so that nothing hides behind weights that start at zero."""
    for parameter in module.parameters():
        parameter += std * torch.randn_like(parameter)
    return module


def write_base(path: Path, sizes: BaseSizes = SIZES, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    save_unet(path, shaken(sizes.build(), 0.02), sizes, step=0, data="none")
    return path


def write_diffusers(folder: Path, sizes: BaseSizes) -> Path:
    """A base with fresh weights as a diffusers folder, unet/ and scheduler/."""
    sizes.build().save_pretrained(folder / "unet")
    (folder / "scheduler").mkdir(exist_ok=True)
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps({"prediction_type": sizes.prediction}))
    return folder


def write_vae(folder: Path) -> Path:
    """A small full autoencoder, with a posterior, as vae/ of a diffusers folder."""
    from diffusers import AutoencoderKL
    torch.manual_seed(0)
    vae = AutoencoderKL(block_out_channels=(32, 32, 32, 32), down_block_types=("DownEncoderBlock2D",) * 4,
                        up_block_types=("UpDecoderBlock2D",) * 4, layers_per_block=1, latent_channels=4)
    with torch.no_grad():
        vae.quant_conv.bias[4:] = -1.0   # log variances: a visible spread
    vae.save_pretrained(folder / "vae")
    return folder


def write_files(folder: Path, seed: int = 0) -> Files:
    """A demo in a folder, under the names that the demo's files have."""
    files = Files(*(folder / f"demo_{name}.safetensors" for name in ("base", "vae", "cfld")))
    write_base(files.base, seed=seed)
    save_vae(files.vae, shaken(colour_identity(tiny(8)), 0.02), step=0, data="none")  # colours are seen, not black
    method = shaken(CFLD(cfld_config()))
    weights = {name: 0.2 * torch.randn(shape) for name, shape in method.unet_weight_shapes().items()}
    save_checkpoint(files.cfld, method, weights, base="demo", step=0, data="none", licence="test")
    return files


def train_config(folder: Path, files: Files, **changes) -> TrainConfig:
    """A config of the tiny CFLD on tiny mannequins; changes as nested dicts."""
    tree = {
        "task": "cfld", "name": "tiny", "output": str(folder / "out"), "precision": "no", "batch": 4, "images": 8,
        "warmup_images": 0, "sample_every": 0, "save_every": 0, "lr": 1e-3, "ema": 0.0,
        "data": {"size": list(SIZE), "identities": 4, "views": 3, "cache": str(folder / "cache"), "workers": 0},
        "method": {"preset": "demo", "model": MODEL, "base": str(files.base), "vae": str(files.vae)},
    }
    for name, value in changes.items():
        tree[name] = tree.get(name, {}) | value if isinstance(value, dict) else value
    return build(TrainConfig, tree, "")
