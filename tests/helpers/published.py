"""Weights as the authors' training writes them, in their layout and names but of tiny sizes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from pgpis_models.cfld.config import CONFIGS as CFLD_CONFIGS
from pgpis_models.cfld.model import CFLD
from pgpis_models.fpdm.config import CONFIGS as FPDM_CONFIGS
from pgpis_models.fpdm.convert import required_keys
from pgpis_models.mcld.config import CONFIGS as MCLD_CONFIGS
from pgpis_models.mcld.convert import published_layout as mcld_layout
from pgpis_models.unet.shapes import unet_shapes

ROOT = Path(__file__).resolve().parents[2]
UNET = unet_shapes((32, 64, 32, 32), context=24)   # of CFLD's tiny preset


def manifest(method: str) -> dict:
    """Names and shapes of the files as they were published. Skips the test where the golden cases are not there."""
    folder = Path(os.environ.get("PGPIS_GOLDEN", ROOT.parent / "shared" / "golden"))
    path = folder / method / "manifest_full.json"
    if not path.is_file():
        pytest.skip(f"golden cases not found in {folder}: set PGPIS_GOLDEN to their folder")
    return json.loads(path.read_text())


def filled(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, Tensor]:
    """Random tensors of these names and shapes."""
    generator = torch.Generator().manual_seed(seed)
    return {key: 0.1 * torch.randn(shape, generator=generator) for key, shape in shapes.items()}


def cfld_states(seed: int = 0) -> dict[str, dict[str, Tensor]]:
    """File name without ending -> state dict: the conditioning model with its buffers, and the UNet."""
    torch.manual_seed(seed)
    module = CFLD(CFLD_CONFIGS["tiny"])
    conditioning = dict(module.state_dict()) | {key: value.clone() for key, value in module.named_buffers()}
    return {"model": conditioning, "model_1": {f"model.{key}": value for key, value in filled(UNET, seed).items()}}


def mcld_states(seed: int = 0) -> dict[str, dict[str, Tensor]]:
    """File name without ending -> state dict, four of them."""
    return {name.removesuffix(".pth"): filled(shapes, seed)
            for name, shapes in mcld_layout(MCLD_CONFIGS["tiny"]).items()}


def fpdm_state(seed: int = 0) -> dict[str, Tensor]:
    """Of stage 2, without second names."""
    return filled(required_keys(FPDM_CONFIGS["tiny"]), seed)


def as_torch(folder: Path, states: Mapping[str, Mapping[str, Tensor]], ending: str = ".bin", prefix: str = "") -> list[Path]:
    """The files of the release: torch's own."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, state in states.items():
        torch.save({prefix + key: value for key, value in state.items()}, folder / f"{name}{ending}")
    return [folder / f"{name}{ending}" for name in states]


def as_safetensors(folder: Path, states: Mapping[str, Mapping[str, Tensor]], compiled: bool = False) -> list[Path]:
    """The files of a run of newer accelerate. compiled: with the names that torch.compile gives."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, state in states.items():
        save_file({f"_orig_mod.{key}" if compiled else key: value for key, value in state.items()},
                  folder / f"{name}.safetensors", {"format": "pt"})
    return [folder / f"{name}.safetensors" for name in states]


def tiny_converters(pack: Callable[[str], object], monkeypatch) -> None:
    """Makes the converters expect the tiny sizes. pack: imports a module of the pack by its dotted name."""
    for method, more in (("cfld", {"unet": UNET}), ("mcld", {}), ("fpdm", {})):
        module = pack(f"pgpis_models.{method}.convert")
        sizes = pack(f"pgpis_models.{method}.config").CONFIGS["tiny"]
        monkeypatch.setattr(module, "convert", partial(module.convert, config=sizes, **more))
