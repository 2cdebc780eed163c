"""Task `fpdm`: stage 2 of FPDM on a base UNet (FPDM's authors' code), on mannequins or on DeepFashion.

Trained are the UNet weights that the method's config names, the source MLP, the pose guider and the class MLP; the fusion
model of stage 1 stays frozen, and so does the source tower where it is DINOv2.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pgpis_models.checkpoint import read_metadata
from pgpis_models.fpdm.config import CONFIGS, JOINTS, FPDMConfig
from pgpis_models.fpdm.model import FPDM
from pgpis_models.parts.swin_tower import SwinTower
from pgpis_models.unet.base import BaseSizes, check_prediction
from pgpis_models.unet.diffusers_binding import swap_weights
from pgpis_models.unet.injections import harmonise
from training.data.fpdm_pairs import (
    Normalised,
    Pair,
    diffusion_bytes,
    diffusion_tensors,
    latent_targets,
    set_points,
    varied,
)
from training.data.kinds import pairs_class
from training.engine.config import FPDMSettings, TrainConfig
from training.engine.loss import noisy_timesteps, offset_noise, posterior
from training.engine.picture import grid
from training.engine.shares import WHOLE, Share
from training.engine.task import (
    MethodTask,
    MethodTraining,
    configured,
    grid_scale,
    load_backbone,
    start_from,
    trained_weights,
)
from training.tasks.fpdm_fusion import load_published

SHOWN = 6   # pairs of the sample grid


class FPDMTask(MethodTask):
    """Trains stage 2.

    Raises ValueError when config, data, base and starting weights do not fit together, before the first step.
    """

    def check_files(self) -> None:
        super().check_files()
        fusion = self.config.fpdm.fusion
        if fusion and not self.config.method.init and not Path(fusion).is_file():
            raise ValueError(f"fpdm.fusion is {fusion!r}, which is not there; expected the checkpoint of stage 1, which "
                             "python training/train.py --config training/configs/KIND/fpdm_fusion.yaml makes (KIND: demo, "
                             "deepfashion, ...)")

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        super().__init__(config, device)
        settings, own = config.method, config.fpdm
        sizes: FPDMConfig = configured(FPDMConfig, CONFIGS, settings)
        if own.pose_canvas:   # the checkpoint says it, so that poses are drawn the same in use
            sizes = dataclasses.replace(sizes, pose_canvas=tuple(own.pose_canvas))
        self.check(sizes)
        self.pictures = pairs_class(config.data.kind, "fpdm_pairs")(config, device)
        set_points(self.pictures, sizes.whole, config)
        self.loader_workers, self.licence = self.pictures.loader_workers, self.pictures.licence
        self.batch, self.unseen = (DiffusionBatches(pictures, sizes, own)
                                   for pictures in (self.pictures, self.pictures.unseen()))
        method, unet_weights = FPDM(sizes), {}
        if settings.init:   # it holds all the others, trained further
            unet_weights = start_from(method, settings.init, "fpdm")
        else:
            self.start(method)
        unet = self.open_base()
        check_prediction("fpdm", self.base_name, self.sizes, settings.base)
        trained = trained_weights(method, unet, settings)
        swap_weights(unet, unet_weights)
        self.store(trained, unet_weights)
        self.model = FPDMTraining(method, unet, self.sizes, trained, partial(posterior, self.vae), config).to(device)

    def start(self, method: FPDM) -> None:
        """Starting weights where there is no earlier checkpoint of this stage."""
        settings, own = self.config.method, self.config.fpdm
        if own.dinov2:
            load_published(method.source_tower, None, own.dinov2)
        if settings.backbone:
            if not isinstance(method.source_tower, SwinTower):
                raise ValueError(f"method.backbone is {settings.backbone}, but the source tower is a vision transformer; "
                                 "expected fpdm.dinov2, or a preset with method.model.source_swin")
            load_backbone(method.source_tower.backbone, settings.backbone)
        if own.fusion:
            start_from(method.fusion, own.fusion, "fpdm_fusion", what="fpdm.fusion")
            drawn = read_metadata(own.fusion).config.get("points", JOINTS)
            if drawn != method.config.fusion.points:
                raise ValueError(f"{own.fusion} (fpdm.fusion) was trained on poses of {drawn} points, this run draws "
                                 f"{method.config.fusion.points}; set method.model.fusion.points to {drawn}")

    def check(self, sizes: FPDMConfig) -> None:
        """Whether data and method agree. Raises ValueError."""
        data, settings, own = self.config.data, self.config.method, self.config.fpdm
        if data.size != sizes.image_size:
            raise ValueError(f"data.size is {data.size}, the method makes pictures of {sizes.image_size} (height, width); "
                             "set data.size to that, or method.model.image_size to fit")
        if not own.fusion and not settings.init:
            raise ValueError("fpdm.fusion is empty; expected a checkpoint of stage 1, which task fpdm_fusion makes, or an "
                             "earlier checkpoint of this stage in method.init")
        starts = {"method.init": settings.init, "method.backbone": settings.backbone, "fpdm.dinov2": own.dinov2}
        if own.freeze_source and not any(starts.values()):
            raise ValueError(f"fpdm.freeze_source is true, but {', '.join(starts)} are all empty: the source tower would "
                             "stay as random as it starts; expected one of them, or fpdm.freeze_source=false")

    def grid(self) -> np.ndarray:
        """Pairs never trained on: source, pose, made, target."""
        pairs = self.pictures.held_out()[:SHOWN]
        method, sizes = self.model.method, self.model.method.config
        tensors = {name: value.to(self.device) for name, value in diffusion_tensors(pairs, sizes).items()}
        target = latent_targets(pairs, sizes)
        source = latent_targets([replace(pair, target=pair.source) for pair in pairs], sizes)
        read = method.encode_source(tensors["source"], tensors["clip_source"])
        encoded = method.encode(read, tensors["pose"], tensors["clip_pose"])
        made = self.sampled(self.guidance(encoded), len(pairs)) * 2 - 1
        return grid([source, tensors["pose"] * 2 - 1, made, target], ["source", "pose", "FPDM", "target"],
                    scale=grid_scale(target), per_row=3)


class FPDMTraining(MethodTraining):
    """The loss of stage 2."""

    def __init__(self, method: FPDM, unet: nn.Module, sizes: BaseSizes, trained: list[str],
                 encode: Callable[[Tensor], Tensor], config: TrainConfig) -> None:
        super().__init__(method, unet, sizes.schedule(), trained, encode, config.method)
        self.own, self.normalised = config.fpdm, Normalised()
        method.fusion.requires_grad_(False)
        method.source_tower.requires_grad_(not self.own.freeze_source)

    def train(self, mode: bool = True) -> FPDMTraining:
        """Evaluation mode for the UNet and for what is frozen, but for the dropout of the frozen combiner, which the
        authors' training keeps (FPDM's authors' code)."""
        super().train(mode)
        self.unet.train(False)
        self.method.fusion.train(False)
        self.method.fusion.combiner.train(mode and self.own.fusion_dropout)
        if self.own.freeze_source:
            self.method.source_tower.train(False)
        return self

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """A batch of `DiffusionBatches`, pictures (B, 3, h, w) uint8, and latents or pictures of the targets -> (the loss
        of stage 2, a scalar; no parts)."""
        method = self.method
        z = self.latents(batch)                                                        # (B, 4, h, w)
        seen = self.normalised(batch)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.own.freeze_source):
            tokens = method.source_tower(seen["source"])
        with torch.no_grad():                                                          # stage 1 stays as it is
            fusion = method.fusion(seen["clip_source"], seen["clip_pose"])
        # tokens for the cross-attention, the pose for the stem, the fusion embedding beside the time; each dropped
        injections = method.training_injections(tokens, seen["pose"], fusion, per_sample=self.own.per_sample_drops)
        t = noisy_timesteps(self.settings, len(z), self.schedule, z.device)            # authors' code: uniform
        noise = offset_noise(torch.randn_like(z), strength=self.own.noise_offset)
        prediction = self.binding(self.schedule.add_noise(z, noise, t), t, harmonise([injections], len(z)).stacked())
        return (prediction.float() - self.schedule.target(z, noise, t)).square().mean(), {}

    def encode_batch(self, batch: dict[str, Tensor]) -> Any:
        """What the method knows of a batch, as its `guidance` takes it."""
        seen = self.normalised(batch)
        read = self.method.encode_source(seen["source"], seen["clip_source"])
        return self.method.encode(read, seen["pose"], seen["clip_pose"])

    def latents(self, batch: dict[str, Tensor]) -> Tensor:
        """What is to be denoised, (B, 4, h, w): as the batch brings it, or drawn from its pictures' posteriors."""
        return batch["target_latents"] if "target_latents" in batch else self.drawn(batch["target_image"])


@dataclass(frozen=True)
class DiffusionBatches:
    """Training batches of stage 2."""

    pictures: Any
    sizes: FPDMConfig
    own: FPDMSettings

    def __call__(self, rng: np.random.Generator, size: int, share: Share = WHOLE) -> dict[str, Tensor]:
        """The share of `size` pairs, as `diffusion_bytes` and `targets` of the data give them."""
        own = self.own
        drawn = self.pictures.draw(rng, size, share=share)
        pairs = [identical(pair, rng) if rng.random() < own.identity else pair for pair in drawn]
        pairs = [varied(pair, own, rng, self.sizes.pose_canvas, self.sizes.fusion.points) for pair in pairs]
        pairs, low = share.of(pairs), share.of(rng.random(size) < own.low_share)
        return diffusion_bytes(pairs, self.sizes, low, own.low_size) | self.pictures.targets(pairs, self.sizes)


def identical(pair: Pair | None, rng: np.random.Generator) -> Pair | None:
    """A pair of one photo and its own pose: the source's or the target's, each half of the time. None stays None."""
    first = rng.random() < 0.5
    if pair is None:
        return None
    if first:
        where = pair.where and (pair.where[0], pair.where[1], pair.where[1])
        return replace(pair, target=pair.source, pose=pair.source_pose, where=where)
    where = pair.where and (pair.where[0], pair.where[2], pair.where[2])
    return replace(pair, source=pair.target, source_pose=pair.pose, where=where)
