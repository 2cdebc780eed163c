"""What the training tasks of all methods share: opening the base, starting weights, sample grids, and the export.

A task of a method is a `MethodTask` with its own data, model and grid.
"""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pgpis_models.checkpoint import load_checkpoint, save_checkpoint
from pgpis_models.files.torch_states import read_torch_file
from pgpis_models.noise.samplers import sample_latents
from pgpis_models.noise.schedule import NoiseSchedule
from pgpis_models.parts.swin import SwinBackbone
from pgpis_models.pipeline import defaults_of
from pgpis_models.settings import build
from pgpis_models.unet.autoencoder import decode_latents, load_vae
from pgpis_models.unet.base import BaseSizes, load_unet
from pgpis_models.unet.diffusers_binding import DiffusersBinding, swap_weights
from pgpis_models.unet.guidance import Guidance
from pgpis_models.unet.weights import difference, open_safetensors, shapes_of
from training.engine.config import MethodConfig, TrainConfig
from training.engine.loss import draw

SMALL = 200           # pictures narrower than this are shown at twice their size


class MethodTraining(nn.Module):
    """A method on its UNet; a subclass has the loss as its `forward`.

    trained: names of the UNet weights to train. encode: pictures -> posteriors of their latents, for batches that bring
    pictures (`loss.posterior`); it is no submodule, so the autoencoder is neither trained nor saved.
    """

    def __init__(self, method: nn.Module, unet: nn.Module, schedule: NoiseSchedule, trained: list[str],
                 encode: Callable[[Tensor], Tensor], settings: MethodConfig) -> None:
        super().__init__()
        self.method, self.unet, self.schedule, self.settings = method, unet, schedule, settings
        self.encode = encode
        names = set(trained)
        for name, parameter in unet.named_parameters():
            parameter.requires_grad_(name in names)
        self.binding = DiffusersBinding(unet)

    def drawn(self, pictures: Tensor) -> Tensor:
        """Latents (B, 4, h, w) from the posteriors of pictures (B, 3, H, W) in -1..1; of half the size where the settings
        want that."""
        posteriors = self.encode(F.avg_pool2d(pictures, 2) if self.settings.halved else pictures)
        return draw(posteriors, torch.randn_like(posteriors[:, 0]))


class MethodTask:
    """A method on its base. A subclass sets `model` (with `method`, and `unet` and `binding` where there is a base),
    `batch`, `unseen` and `loader_workers`, calls `open_base` for the rest, and draws its own `grid`."""

    model: nn.Module
    licence: str

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        self.check_files()   # before data is read and encoded, which may take hours

    def check_files(self) -> None:
        """Raises ValueError when base or autoencoder are not there, or a checkpoint to start from is named and is not."""
        settings = self.config.method
        for name in ("base", "vae"):
            if not getattr(settings, name) or not Path(getattr(settings, name)).exists():
                raise ValueError(f"method.{name} is {getattr(settings, name)!r}, which is not there; expected a file that "
                                 "training/train.py made, or a diffusers folder (the configs say which, and how to get it)")
        if settings.init and not Path(settings.init).is_file():
            raise ValueError(f"method.init is {settings.init!r}, which is not there; expected a checkpoint of the "
                             "method, or nothing (method.init=) to start from the base")

    def open_base(self, own: NoiseSchedule | None = None) -> nn.Module:
        """The base UNet of the config; also sets `sizes`, `base_name` and `vae`. own: the method's schedule where it does
        not use the base's."""
        settings = self.config.method
        unet, self.sizes = load_unet(settings.base, own)
        self.base_name = base_name(Path(settings.base), self.sizes)
        self.vae = load_vae(settings.vae).to(self.device)
        if self.config.checkpointing:
            unet.enable_gradient_checkpointing()
        return unet

    def store(self, trained: list[str], replaced: Iterable[str]) -> None:
        """Which UNet weights the checkpoint will hold: those trained here and those that an earlier one replaced."""
        self.stored = sorted({*trained, *replaced})

    def groups(self, lr: float) -> list[dict]:
        return [{"params": [p for p in self.model.parameters() if p.requires_grad], "lr": lr}]

    def guidance(self, encoded: Any) -> Guidance:
        """The method's own chain of what it encoded, with the weights that it is used with on this base."""
        method = self.model.method
        mode, usual = method.guidance_modes[0], defaults_of(self.config.task, self.base_name)["weights"]
        scales = {name: usual[name] for name in method.guidance_scales(mode) if name in usual}
        return method.guidance(encoded, mode, **scales)

    def sampled(self, guidance: Guidance, count: int, steps: int = 20, seed: int = 0,
                schedule: NoiseSchedule | None = None, sampler: str = "ddim") -> Tensor:
        """`count` pictures (B, 3, h, w) in 0..1 of a chain, on the bare modules and in their own precision.

        schedule: the base's when None. sampler: one of `noise.samplers`.
        """
        height, width = self.model.method.config.latent_size
        size = (height // 2, width // 2) if self.config.method.halved else (height, width)
        latents = sample_latents(self.model.binding.denoiser(guidance, count), schedule or self.sizes.schedule(),
                                 (count, 4, *size), steps=steps, seed=seed, sampler=sampler, device=self.device)
        made = decode_latents(self.vae, latents)
        return F.interpolate(made, scale_factor=2) if self.config.method.halved else made

    def grid(self) -> np.ndarray:
        raise NotImplementedError

    def export(self, path: Path, images: int) -> None:
        """The checkpoint."""
        unet = dict(self.model.unet.named_parameters())
        save_checkpoint(path, self.model.method, {name: unet[name] for name in self.stored}, base=self.base_name,
                        step=images, data=self.config.data.name or self.config.data.kind,
                        licence=self.config.data.licence or self.licence,
                        dtype=torch.float16 if self.base_name == "demo" else None)


def configured(kind: type, presets: Mapping[str, Any], settings: MethodConfig) -> Any:
    """The method's config: its preset with the settings of method.model over it, at any depth. Raises ValueError for an
    unknown preset, and for an unknown setting with the nearest known one."""
    if settings.preset not in presets:
        raise ValueError(f"method.preset is {settings.preset!r}; expected one of {sorted(presets)}")

    def over(below: Any, above: Any) -> Any:
        both = isinstance(below, dict) and isinstance(above, dict)
        return below | {name: over(below.get(name), value) for name, value in above.items()} if both else above
    return build(kind, over(dataclasses.asdict(presets[settings.preset]), settings.model), "method.model")


def as_unit(pictures: Tensor) -> Tensor:
    """Pictures as batches bring them, uint8 or in -1..1 -> float32 in -1..1. Bytes travel to a device four times faster."""
    return pictures.float() / 127.5 - 1 if pictures.dtype == torch.uint8 else pictures


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


def load_backbone(backbone: SwinBackbone, path: str, what: str = "method.backbone") -> None:
    """Trained weights for a Swin backbone: `backbone.*` of a safetensors file, or a torch file of the published ImageNet
    layout. what: the setting that named it. Raises ValueError when there is no file, or it holds another backbone."""
    if not Path(path).is_file():
        raise ValueError(f"{what} is {path}, which is not there; expected a torch file with ImageNet weights, or a "
                         "safetensors file with backbone.*")
    if not path.endswith(".safetensors"):
        try:
            state = read_torch_file(path, "model")
        except ValueError as error:
            raise ValueError(f"{what}: {error}. Expected the published ImageNet weights: get them anew") from error
        backbone.load_imagenet(state)
        return
    with open_safetensors(path) as file:
        read = {name: file.get_tensor(name) for name in file.keys()}
    state = {name.split("backbone.", 1)[1]: value.float() for name, value in read.items()
             if name.startswith(("backbone.", "method.backbone."))}
    wrong = difference(shapes_of(backbone.state_dict()), shapes_of(state))
    if wrong:
        raise ValueError(f"{path} ({what}) does not hold this backbone: {wrong}; expected one of the same sizes")
    backbone.load_state_dict(state)


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


def grid_scale(pictures: Tensor) -> int:
    """How many times their size pictures (B, 3, H, W) are shown in a grid."""
    return 2 if pictures.shape[-1] < SMALL else 1
