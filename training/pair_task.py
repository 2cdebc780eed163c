"""What the tasks of CFLD and QEN share: a photo and two poses per pair, the loss over both halves, encoder runs and grids.

Per pair the source is encoded once; the UNet learns to reconstruct the source from (source, source pose) and to make the
target from (source, target pose).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pgpis_models.base import BaseSizes
from pgpis_models.diffusers_binding import DiffusersBinding
from pgpis_models.injections import harmonise
from pgpis_models.pose_factored import FactoredRasters, join
from training.base import diffusion_loss, person_weight
from training.caption_loss import CaptionError, open_caption_error
from training.config import MethodConfig, TrainConfig
from training.data.pairs import Pairs, open_pairs
from training.demo_losses import DemoLosses
from training.latents import draw, posterior
from training.method import (
    MethodTask,
    check_demo_settings,
    configured,
    draw_images,
    grid_scale,
    noisy_timesteps,
    swatches,
    trained_weights,
)
from training.picture import grid

TEACHER_CHANNELS = 21   # of CFLD's pose rasters, which the base's adapter was trained with


class PairTask(MethodTask):
    """Trains a method's modules and the chosen UNet weights on source-target pairs.

    A subclass names the method and gives `start`, its initial weights. Raises ValueError when config, data, base and
    earlier checkpoint do not fit together, before the first step.
    """

    label: str                              # in sample grids
    kind: type[nn.Module]                   # of the method, and of its config with the presets by name
    config_kind: type
    presets: Mapping[str, Any]
    grid_weights: Mapping[str, Mapping[str, float]]   # guidance of the grids by base; others: the method's own
    halves_summed = False                   # the two halves' means are added (True) or averaged

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        super().__init__(config, device)
        settings = config.method
        sizes = configured(self.config_kind, self.presets, settings)
        check_demo_settings(config)
        self.check(sizes)
        method = self.kind(sizes)
        self.pairs = open_pairs(config, sizes, device)
        self.batch, self.unseen = (partial(draw_pairs, pairs, 2 if settings.reconstruct else 1, sizes.pose_channels)
                                   for pairs in (self.pairs, self.pairs.unseen()))
        self.loader_workers, self.licence = self.pairs.loader_workers, self.pairs.licence
        error = open_caption_error(settings, config.data, device)
        if settings.encoder_only:
            self.start(method, None)
            self.model = CaptionTraining(method, self.encoder_parts, self.read, error).to(device)
            return
        unet = self.open_base()
        replaced = self.start(method, unet)
        trained = trained_weights(method, unet, settings)
        self.store(trained, replaced)
        self.model = PairTraining(method, unet, self.sizes, trained, partial(posterior, self.vae), settings, self.told,
                                  self.halves_summed, error).to(device)
        if settings.teacher and sizes.pose_channels != TEACHER_CHANNELS:
            raise ValueError(f"method.teacher reads poses in {TEACHER_CHANNELS} channels, the method in "
                             f"{sizes.pose_channels}; set method.model.pose_channels={TEACHER_CHANNELS}, or "
                             "method.teacher=0")
        self.model.demo_losses = DemoLosses(settings, self.vae, device)

    def start(self, method: nn.Module, unet: nn.Module | None) -> set[str]:
        """Loads initial weights; returns the names of UNet weights that an earlier checkpoint replaced: they belong to
        the next one too. unet: None in encoder runs."""
        raise NotImplementedError

    @staticmethod
    def told(appearance: Any) -> Tensor:
        """(B, T, C): the part of an encoded appearance that caption_loss pulls to the caption."""
        raise NotImplementedError

    @classmethod
    def read(cls, method: nn.Module, source: Tensor) -> Tensor:
        """The same from photos (B, 3, H, W), for encoder runs; a subclass may leave out what these do not train."""
        return cls.told(method.encode_appearance(source))

    def check(self, sizes: Any) -> None:
        """Raises ValueError where the method's sizes and the run's settings do not fit."""

    def grid(self) -> np.ndarray:
        """Held-out people: source, pose, made, target; or how the encoder names their colours."""
        held = self.pairs.held_out()
        if self.config.method.encoder_only:
            named = self.read(self.model.method, held["source"].to(self.device))
            return grid([held["source"], swatches(named, held["source"]), swatches(held["caption"], held["source"])],
                        ["source", "named", "truth"], per_row=6)
        made = self.sample(held["source"], held["target_pose"]) * 2 - 1
        return grid([held["source"], held["target_pose"][:, :3] * 2 - 1, made, held["target"]],
                    ["source", "pose", self.label, "target"], scale=grid_scale(held["source"]), per_row=3)

    def sample(self, source: Tensor, pose: Tensor, steps: int = 20, seed: int = 0) -> Tensor:
        """source (B, 3, H, W) in -1..1, pose (B, 21, h, w) in 0..1 -> pictures (B, 3, 8h', 8w') in 0..1."""
        method = self.model.method
        encoded = method.encode(source.to(self.device), pose[:, :method.config.pose_channels].to(self.device))
        guidance = method.guidance(encoded, "uc_down_full", **self.grid_weights.get(self.base_name, {}))
        return self.sampled(guidance, len(source), steps, seed)


def draw_pairs(pairs: Pairs, per_pair: int, channels: int, rng: np.random.Generator, size: int) -> dict[str, Tensor]:
    """`draw_images` with the pose rasters cut to the channels that the method reads (3: the drawing alone)."""
    batch = draw_images(pairs, per_pair, rng, size)
    return {name: cut(value, channels) if name.endswith("_pose") else value for name, value in batch.items()}


def cut(raster: Tensor | FactoredRasters, channels: int) -> Tensor | FactoredRasters:
    """The first channels of rasters; factored ones are written out for it, but for their drawing (3 channels) alone."""
    if raster.shape[1] == channels:
        return raster
    if isinstance(raster, FactoredRasters):
        return raster.picture / 255 if channels == 3 else raster.full()[:, :channels].contiguous()
    return raster[:, :channels].contiguous()


class PairTraining(nn.Module):
    """The training loss: mean squared error of the UNet's prediction over both halves, and of the caption if asked for.

    trained: names of the UNet weights to train. encode: pictures -> posteriors of their latents, for batches that bring
    pictures (training/latents.py); it is no submodule, so the autoencoder is neither trained nor saved. told and
    halves_summed: see PairTask.
    """

    def __init__(self, method: nn.Module, unet: nn.Module, sizes: BaseSizes, trained: list[str],
                 encode: Callable[[Tensor], Tensor], settings: MethodConfig, told: Callable[[Any], Tensor],
                 halves_summed: bool, caption_error: CaptionError) -> None:
        super().__init__()
        self.caption_error = caption_error
        self.method, self.unet, self.schedule, self.settings = method, unet, sizes.schedule(), settings
        self.encode, self.told, self.halves_summed = encode, told, halves_summed
        self.demo_losses: DemoLosses | None = None
        for name, parameter in unet.named_parameters():
            parameter.requires_grad_(name in trained)
        self.binding = DiffusersBinding(unet)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """A batch of `Pairs` -> (loss, its parts). Items: B reconstructions of the source, then B transfers."""
        settings, logs = self.settings, {}
        kinds = ("source", "target") if settings.reconstruct else ("target",)
        latents = self.latents(batch, kinds)
        appearance = self.method.encode_appearance(batch["source"])
        loss = torch.zeros((), device=latents.device)
        if settings.caption_loss:
            caption = self.caption_error(self.told(appearance), batch["caption"])
            loss, logs["caption"] = loss + settings.caption_loss * caption, caption.detach()
        injected = self.method.training_injections(
            batch["source"], batch["source_pose"] if settings.reconstruct else None, batch["target_pose"],
            appearance=appearance)
        count = latents.shape[0]
        timesteps = noisy_timesteps(settings, count, self.schedule, latents.device)
        weight = person_weight(batch["person"], settings.foreground) if "person" in batch else None
        rows = harmonise([injected], count)
        binding = self.demo_losses.watch(
            partial(self.binding, control=rows.control), self.unet, self.schedule, batch,
            lambda: (torch.cat([batch["caption"]] * len(kinds)), join([batch[f"{kind}_pose"] for kind in kinds])))
        denoising = diffusion_loss(binding, self.schedule, latents, rows.stacked(), timesteps, weight)
        loss = loss + binding.added(logs)
        logs["denoising"] = denoising.detach()
        return loss + (len(kinds) if self.halves_summed else 1) * denoising, logs

    def latents(self, batch: dict[str, Tensor], kinds: tuple[str, ...]) -> Tensor:
        """What is to be denoised, (2B or B, 4, h, w): as the batch brings them, or drawn from its pictures' posteriors."""
        if "target_latents" in batch:
            return torch.cat([batch[f"{kind}_latents"] for kind in kinds])
        posteriors = self.encode(torch.cat([batch[f"{kind}_image"] for kind in kinds]))
        return draw(posteriors, torch.randn_like(posteriors[:, 0]))


class CaptionTraining(nn.Module):
    """Demo only: the encoder's parts learn to say the caption of the person that they see. read: see PairTask."""

    def __init__(self, method: nn.Module, parts: tuple[str, ...], read: Callable[[nn.Module, Tensor], Tensor],
                 caption_error: CaptionError) -> None:
        super().__init__()
        self.method, self.read, self.caption_error = method, read, caption_error
        method.requires_grad_(False)
        for part in parts:
            method.get_submodule(part).requires_grad_(True)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        return self.caption_error(self.read(self.method, batch["source"]), batch["caption"]), {}
