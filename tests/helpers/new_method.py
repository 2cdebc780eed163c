"""The pack with the method of docs/new_method.md in it: files and additions as they stand on the page."""

from __future__ import annotations

import ast
import contextlib
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import torch

import pgpis_models
import training
import training.tasks
from pgpis_models.unet.autoencoder import save_vae, tiny
from pgpis_models.unet.base import BaseSizes, save_unet
from training.engine.config import TrainConfig, load_config

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "new_method.md"
CONFIG = "training/configs/demo/tint.yaml"
HERE = {"pgpis_models": pgpis_models, "training": training, "training/tasks": training.tasks}
SIZE = (64, 48)   # of the pictures of `small`: the page's own would cost a CPU minutes
BLOCK = re.compile(r"^`(?P<path>[\w/.]+)`(?:, in `(?P<name>\w+)`)?\n\n```\w+\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks() -> tuple[dict[str, str], dict[tuple[str, str], str]]:
    """(path -> text of a new file, (path, name of a list) -> what is added to it), as the page has them."""
    found = [match.groupdict() for match in BLOCK.finditer(PAGE.read_text(encoding="utf-8"))]
    return ({one["path"]: one["text"] for one in found if not one["name"]},
            {(one["path"], one["name"]): one["text"] for one in found if one["name"]})


def write(folder: Path) -> Path:
    """Writes the new files below a folder as they would lie in the repository; returns it."""
    for path, text in blocks()[0].items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    return folder


@contextlib.contextmanager
def added(folder: Path, packages: dict[str, ModuleType]) -> Iterator[None]:
    """Within it the packages also look for modules among the files of `write`, and their lists have what the page adds.

    packages: path of a package in the repository ("pgpis_models") -> the package itself, whatever its name here is.
    """
    with pytest.MonkeyPatch.context() as patch:
        for path, package in packages.items():
            patch.setattr(package, "__path__", [*package.__path__, str(folder / path)])
        for (path, name), text in blocks()[1].items():
            place, file = path.rsplit("/", 1)
            if place not in packages:
                continue
            module = packages[place].__name__ + ("" if file == "__init__.py" else f".{file.removesuffix('.py')}")
            table = getattr(import_module(module), name)
            if isinstance(table, dict):
                for key, value in ast.literal_eval(f"{{{text}}}").items():
                    patch.setitem(table, key, value)
            else:
                patch.setattr(sys.modules[module], name, [*table, *ast.literal_eval(f"[{text}]")])
        known = set(sys.modules)
        try:
            yield
        finally:
            names = {f"{package.__name__}.tint" for package in packages.values()}
            for name in set(sys.modules) - known:
                if any(name == one or name.startswith(f"{one}.") for one in names):
                    del sys.modules[name]


def small(folder: Path, sizes: BaseSizes, unet: torch.nn.Module) -> list[str]:
    """Writes a base and an autoencoder into the folder; returns what overrides the page's config to train on them."""
    save_unet(folder / "base.safetensors", unet, sizes, step=0, data="none")
    save_vae(folder / "vae.safetensors", tiny(8), step=0, data="none")
    model = {"image_size": list(SIZE), "prompt_width": sizes.cross_attention_dim,
             "unet_widths": list(sizes.block_out_channels)}
    return [f"data.size={list(SIZE)}", "data.identities=4", "data.workers=1", f"data.cache={folder / 'cache'}",
            f"method.base={folder / 'base.safetensors'}", f"method.vae={folder / 'vae.safetensors'}",
            f"method.model={model}", f"output={folder / 'out'}", "images=16", "batch=4", "warmup_images=0",
            "precision='no'", "sample_every=0"]


def config(folder: Path, overrides: list[str]) -> TrainConfig:
    """The page's config with overrides."""
    return load_config(folder / CONFIG, overrides)
