"""What the training tasks of all methods share: opening the base, starting weights, sample grids, and the export.

A task of a method is a `MethodTask` with its own data, model and grid.
"""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from pgpis_models.base import BaseSizes, decode_latents, load_unet, load_vae
from pgpis_models.checkpoint import difference, load_checkpoint, save_checkpoint, shapes_of, write_atomically
from pgpis_models.diffusers_binding import swap_weights
from pgpis_models.guidance import Guidance
from pgpis_models.sampling import sample_latents
from pgpis_models.schedule import NoiseSchedule, cubic_timesteps
from training.base import companion
from training.config import MethodConfig, TrainConfig, build
from training.data.pairs import Pairs

SMALL = 200           # pictures narrower than this are shown at twice their size


class MethodTask:
    """A method on its base. A subclass sets `model` (with `method`, and `unet` and `binding` where there is a base),
    `batch`, `unseen` and `loader_workers`, calls `open_base` for the rest, and draws its own `grid`."""

    encoder_parts: tuple[str, ...] = ()   # submodules that encoder_only trains and init_encoder loads
    model: nn.Module
    licence: str

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        self.config, self.device = config, device

    def open_base(self, own: NoiseSchedule | None = None) -> nn.Module:
        """The base UNet of the config; also sets `sizes`, `base_name` and `vae`. own: the method's schedule where it does
        not use the base's. Raises ValueError for missing files."""
        settings = self.config.method
        for name in ("base", "vae"):
            if not getattr(settings, name) or not Path(getattr(settings, name)).exists():
                raise ValueError(f"method.{name} is {getattr(settings, name)!r}, which is not there; expected a file that "
                                 "training/train.py made, or a diffusers folder (the configs say which, and how to get it)")
        unet, self.sizes = load_unet(settings.base, own)
        self.base_name = base_name(Path(settings.base), self.sizes)
        self.vae = load_vae(settings.vae).to(self.device)
        if self.config.checkpointing:
            unet.enable_gradient_checkpointing()
        return unet

    def store(self, trained: list[str], replaced: Mapping[str, Tensor] | set[str]) -> None:
        """Which UNet weights the checkpoint will hold: those trained here and those that an earlier one replaced."""
        self.stored = sorted({*trained, *replaced})

    def groups(self, lr: float) -> list[dict]:
        return [{"params": [p for p in self.model.parameters() if p.requires_grad], "lr": lr}]

    def sampled(self, guidance: Guidance, count: int, steps: int = 20, seed: int = 0,
                schedule: NoiseSchedule | None = None) -> Tensor:
        """`count` pictures (B, 3, h, w) in 0..1 of a chain, on the bare modules and in their own precision.

        schedule: the base's when None.
        """
        latents = sample_latents(self.model.binding.denoiser(guidance, count), schedule or self.sizes.schedule(),
                                 (count, 4, *self.model.method.config.latent_size), steps=steps, seed=seed,
                                 device=self.device)
        return decode_latents(self.vae, latents)

    def grid(self) -> np.ndarray:
        raise NotImplementedError

    def export(self, path: Path, images: int) -> None:
        """The checkpoint, or the encoder's parts alone where only they were trained."""
        method = self.model.method
        if self.config.method.encoder_only:
            prefixes = tuple(f"{part}." for part in self.encoder_parts)
            parts = {k: v.detach().cpu().contiguous() for k, v in method.state_dict().items() if k.startswith(prefixes)}
            write_atomically(path, parts, {"pgpis.format": "1", "pgpis.kind": '"encoder"'})
            return
        unet = dict(self.model.unet.named_parameters())
        save_checkpoint(path, method, {name: unet[name] for name in self.stored}, base=self.base_name, step=images,
                        data=self.config.data.name or self.config.data.kind,
                        licence=self.config.data.licence or self.licence,
                        dtype=torch.float16 if self.base_name == "demo" else None)


def configured(kind: type, presets: Mapping[str, Any], settings: MethodConfig) -> Any:
    """The method's config: its preset with the settings of method.model over it. Raises ValueError for an unknown preset,
    and for an unknown setting with the nearest known one."""
    if settings.preset not in presets:
        raise ValueError(f"method.preset is {settings.preset!r}; expected one of {sorted(presets)}")
    return build(kind, dataclasses.asdict(presets[settings.preset]) | settings.model, "method.model")


def check_demo_settings(config: TrainConfig) -> None:
    """Raises ValueError where settings that need what only mannequins' batches bring meet photos."""
    settings = config.method
    told = {"caption_loss": settings.caption_loss, "caption_metric": settings.caption_metric,
            "encoder_only": settings.encoder_only,
            "foreground": settings.foreground != 1.0, "teacher": settings.teacher, "pixels": settings.pixels}
    if config.data.kind != "mannequins" and any(told.values()):
        raise ValueError(f"{[name for name, on in told.items() if on]} need captions or person masks, or pictures beside "
                         f"their latents, which only mannequins have; data.kind is {config.data.kind!r}")
    if settings.part_colours and not settings.pixels:
        raise ValueError(f"method.part_colours is {settings.part_colours}, but method.pixels is 0: the colours of parts are "
                         "those of the decoded prediction; expected method.pixels above 0, or method.part_colours=0")


def draw_images(pairs: Pairs, per_pair: int, rng: np.random.Generator, size: int) -> dict[str, Tensor]:
    """A batch of `size` target images. per_pair: 2 where the source is reconstructed beside the target."""
    if size % per_pair:
        raise ValueError(f"a process gets {size} images per pass, but a pair is {per_pair} (method.reconstruct); choose a "
                         f"batch that leaves a multiple of {per_pair}")
    return pairs.batch(rng, size // per_pair)


def noisy_timesteps(settings: MethodConfig, rows: int, schedule: NoiseSchedule, device: torch.device) -> Tensor | None:
    """(rows,) int64 training timesteps that favour noise, where the settings ask for it; else None, for uniform ones."""
    if not settings.cubic_timesteps:
        return None
    return cubic_timesteps(torch.rand(rows, device=device), schedule.steps, settings.timestep_power)


def base_name(path: Path, sizes: BaseSizes) -> str:
    """What a checkpoint says it was trained on: demo for our own files, sd15 or sd21 by the width of the context."""
    return "demo" if path.is_file() else "sd21" if sizes.cross_attention_dim == 1024 else "sd15"


# --- starting weights ---------------------------------------------------------------------------------------

def start_from(module: nn.Module, path: str, method: str, unet: nn.Module | None = None,
               what: str = "method.init") -> dict[str, Tensor]:
    """Loads an earlier checkpoint of the method into the module, and its UNet weights into the UNet; returns the latter,
    since they belong to the next checkpoint too. what: the setting that named it. Raises ValueError when it has other
    sizes."""
    earlier = load_checkpoint(path, expect_method=method)
    wrong = difference(shapes_of(module.state_dict()), shapes_of(earlier.method.state_dict()))
    if wrong:
        raise ValueError(f"{path} ({what}) has other sizes than this run: {wrong}; use its preset")
    module.load_state_dict(earlier.method.state_dict())
    if unet is not None:
        swap_weights(unet, earlier.unet_weights)
    return earlier.unet_weights


def there(path: str, what: str) -> bool:
    """Whether an optional start is there; says so where it is asked for and missing."""
    if path and not Path(path).is_file():
        print(f"{what} is {path}, which is not there: starting without it, which takes more images to the same result")
        return False
    return bool(path)


def below(state: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    """The entries of one submodule, without its prefix."""
    return {name.removeprefix(f"{part}."): value for name, value in state.items() if name.startswith(f"{part}.")}


def adapter_of(settings: MethodConfig) -> dict[str, Tensor]:
    """Pose adapter and null caption that lie beside the base of method.init_pose; empty when not asked for or missing."""
    path = str(companion(Path(settings.init_pose))) if settings.init_pose else ""
    return load_file(path) if there(path, "the adapter of method.init_pose") else {}


def trained_weights(method: nn.Module, unet: nn.Module, settings: MethodConfig) -> list[str]:
    """Names of the UNet weights to train.

    Raises ValueError when the UNet has not the method's widths, a pattern fits nothing, or the patterns leave out weights
    that a checkpoint of the method must hold.
    """
    shapes = shapes_of(dict(unet.named_parameters()))
    wrong = difference(method.unet_weight_shapes(), shapes, extras=True)
    if wrong:
        raise ValueError(f"the base {settings.base} does not fit the method: {wrong}; set method.model.unet_widths and "
                         "prompt_width to the base's, or choose another base")
    chosen: set[str] = set()
    for pattern in settings.trainable_unet:
        fits = method.trainable_unet_weights() if pattern == "default" else fnmatch.filter(shapes, pattern)
        if not fits:
            raise ValueError(f"method.trainable_unet: {pattern!r} fits no weight of the UNet; expected names such as "
                             f"{next(iter(shapes))}, * for any part, or default")
        chosen |= set(fits)
    lacking = set(method.trainable_unet_weights()) - chosen
    if lacking:
        raise ValueError(f"method.trainable_unet leaves out {len(lacking)} weights that belong to the method; add default")
    return sorted(chosen)


# --- captions and pictures ----------------------------------------------------------------------------------

def swatches(captions: Tensor, like: Tensor) -> Tensor:
    """The main colours that captions (B, T, C) name, top to bottom, as pictures of the shape of `like`."""
    colours = (captions[:, :14, 16:19].float() / 3 + 0.5).clamp(0, 1) * 2 - 1    # (B, 14, 3), see training/data/captions.py
    return F.interpolate(colours.permute(0, 2, 1)[..., None], size=like.shape[-2:], mode="nearest")


def grid_scale(pictures: Tensor) -> int:
    """How many times their size pictures (B, 3, H, W) are shown in a grid."""
    return 2 if pictures.shape[-1] < SMALL else 1
