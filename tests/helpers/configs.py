"""Configs of the tiny MCLD and QEN on tiny mannequins, and those of all four methods by name."""

from __future__ import annotations

from pathlib import Path

from tests.helpers import fpdm_tiny
from tests.helpers.tiny import Files, train_config
from training.engine.config import TrainConfig

MCLD_SIZE = (128, 64)   # with 8 x 8 latents the middle of the UNet would be one pixel, whose norms hide their weights
# Overrides of the presets "demo" that fit the tiny base.
MCLD_MODEL = {"image_size": [128, 64], "unet_widths": [32, 32, 32, 32], "unet_heads": 2, "pose_widths": [4, 6, 8, 10],
              "face_dim": 16, "face_depth": 1, "face_heads": 1, "face_head_width": 16, "face_width": 8, "face_pixels": 16,
              "face_widths": [4, 4, 4], "vision": {"image": [128, 64], "window": [4, 2], "width": 8, "depths": [1, 1, 1, 1],
                                                   "heads": [1, 1, 2, 2], "decoder_depth": 1}}
QEN_MODEL = {"image_size": [64, 64], "window": [4, 4], "swin_width": 8, "swin_depths": [1, 1, 1, 1],
             "swin_heads": [1, 1, 2, 2], "fusion_depth": 1, "unet_widths": [32, 32, 32, 32], "unet_heads": 2,
             "prompt_drop": 0.5, "pose_drop": 0.0}
METHODS = ("cfld", "mcld", "fpdm", "qen")


def mcld_config(folder: Path, files: Files, method: dict | None = None, mcld: dict | None = None, **changes) -> TrainConfig:
    return train_config(folder, files, task="mcld", data={"size": list(MCLD_SIZE), "views": 2},
                        method={"model": MCLD_MODEL} | (method or {}), **{"mcld": {"drop": "tokens"} | (mcld or {})},
                        **changes)


def qen_config(folder: Path, files: Files, method: dict | None = None, model: dict | None = None, **changes) -> TrainConfig:
    return train_config(folder, files, task="qen", method={"model": QEN_MODEL | (model or {}), **(method or {})}, **changes)


def config_of(name: str, folder: Path, files: Files, fusion: str, **changes) -> TrainConfig:
    """Of a method by its name. fusion: a checkpoint of FPDM's stage 1, which its stage 2 holds; the source tower learns."""
    if name == "fpdm":
        own = {"fusion": fusion, "freeze_source": False} | changes.pop("fpdm", {})
        return fpdm_tiny.train_config(folder, files, "fpdm", fpdm=own, **changes)
    return {"cfld": train_config, "mcld": mcld_config, "qen": qen_config}[name](folder, files, **changes)
