"""A tiny FPDM that fits the base of tests/tiny.py, and configs of its training on tiny mannequins."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from pgpis_models.checkpoint import save_checkpoint
from pgpis_models.fpdm.config import CONFIGS, FPDMConfig
from pgpis_models.fpdm.model import FPDM
from pgpis_models.parts.swin_tower import SwinTower
from pgpis_models.settings import build
from tests.helpers.tiny import SIZE, Files, shaken
from training.engine.config import TrainConfig
from training.engine.task import configured

SWIN = {"image": [64, 64], "window": [4, 4], "width": 8, "depths": [1, 1, 1, 1], "heads": [1, 1, 2, 2]}
# Overrides of FPDM's preset "demo" that fit the tiny sizes.
FUSION = {"swin": SWIN, "embed": 24, "projection": 16, "hidden": 16}
MODEL = {"fusion": FUSION, "source_swin": SWIN | {"decoder_depth": 1, "tokens": 16, "reads": "deepest"},
         "source_size": [64, 64], "source_hidden": 32, "image_size": [64, 64], "pose_canvas": [128, 128],
         "pose_widths": [4, 4, 8, 8], "class_hidden": 16, "unet_widths": [32, 32, 32, 32]}


def tree(folder: Path, files: Files, task: str, **changes) -> dict:
    """A training config as nested dicts; changes as nested dicts."""
    result = {
        "task": task, "name": f"tiny_{task}", "output": str(folder / "out"), "precision": "no", "batch": 4, "images": 8,
        "warmup_images": 0, "sample_every": 0, "save_every": 0, "lr": 1e-3, "ema": 0.0,
        "data": {"size": list(SIZE), "identities": 6, "views": 4, "cache": str(folder / "cache"), "workers": 0},
        "method": {"preset": "demo", "model": FUSION if task == "fpdm_fusion" else MODEL},
        "fpdm": {"pose_canvas": [128, 128]},
    }
    if task == "fpdm":
        result["method"] |= {"base": str(files.base), "vae": str(files.vae)}
        result["fpdm"] |= {"flip": 0.0, "low_share": 0.0}
    for name, value in changes.items():
        result[name] = result[name] | value if isinstance(value, dict) else value
    return result


def train_config(folder: Path, files: Files, task: str, **changes) -> TrainConfig:
    return build(TrainConfig, tree(folder, files, task, **changes), "")


def tower_file(folder: Path) -> str:
    """A file that starts the source tower: one that is frozen needs a start."""
    path = folder / "tower.safetensors"
    if not path.is_file():
        torch.manual_seed(2)
        save_file(SwinTower(fpdm_config().source_swin).state_dict(), path)
    return str(path)


def fpdm_config(folder: Path = Path()) -> FPDMConfig:
    return configured(FPDMConfig, CONFIGS, train_config(folder, Files(*(Path(),) * 3), "fpdm").method)


def write_fpdm(folder: Path, seed: int = 3, base: str = "demo") -> Path:
    """demo_fpdm.safetensors beside the files of `tiny.write_files`. base: what it says that it was trained on."""
    torch.manual_seed(seed)
    method = shaken(FPDM(fpdm_config()), 0.1)
    for value in method.pose_guider.parameters():   # poses are to be seen in the pictures
        torch.nn.init.normal_(value, std=3 * value[0].numel() ** -0.5 if value.ndim > 1 else 0.0)
    weights = {name: 0.1 * torch.randn(shape) for name, shape in method.unet_weight_shapes().items()}
    path = folder / "demo_fpdm.safetensors"
    save_checkpoint(path, method, weights, base=base, step=0, data="none", licence="test")
    return path
