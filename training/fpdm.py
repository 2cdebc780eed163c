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

import numpy as np
import torch
from torch import Tensor, nn

from pgpis_models.base import BaseSizes, check_prediction
from pgpis_models.diffusers_binding import DiffusersBinding, swap_weights
from pgpis_models.fpdm import CONFIGS, FPDM, FPDMConfig
from pgpis_models.injections import harmonise
from pgpis_models.pose import cfld_factored
from training.base import diffusion_loss, person_weight, raster_size
from training.caption_kinds import kinds_error
from training.caption_loss import CaptionError, open_caption_error
from training.config import FPDMSettings, MethodConfig, TrainConfig
from training.data.fpdm_pairs import (
    MannequinPictures,
    Pair,
    Photos,
    diffusion_tensors,
    latent_targets,
    open_pictures,
    source_tensors,
    varied,
)
from training.demo_losses import DemoLosses
from training.fpdm_fusion import load_published, sized, start_tower
from training.latents import bank_latents, draw, posterior
from training.method import (
    MethodTask,
    below,
    check_demo_settings,
    grid_scale,
    noisy_timesteps,
    start_from,
    swatches,
    trained_weights,
)
from training.picture import grid

SHOWN = 18         # pairs of the sample grid
DEMO_SCALE = 1.2   # guidance of the sample grids on the demo's base; others: as published


class FPDMTask(MethodTask):
    """Trains stage 2.

    Raises ValueError when config, data, base and starting weights do not fit together, before the first step.
    """

    encoder_parts = ("source_tower", "source_mlp")

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        super().__init__(config, device)
        settings, own = config.method, config.fpdm
        sizes: FPDMConfig = sized(FPDMConfig, CONFIGS, config)
        if own.pose_canvas:   # the checkpoint says it, so that poses are drawn the same in use
            sizes = dataclasses.replace(sizes, pose_canvas=tuple(own.pose_canvas))
        self.check(sizes)
        self.pictures = open_pictures(config)
        self.loader_workers, self.licence = self.pictures.loader_workers, self.pictures.licence
        self.canvas = sizes.pose_canvas

        def batches(pictures: MannequinPictures | Photos) -> DiffusionBatches:
            latents = bank_latents(pictures.bank, settings.vae, config.data, device) \
                if isinstance(pictures, MannequinPictures) and not settings.encoder_only else None
            return DiffusionBatches(pictures, sizes, own, self.canvas, latents, bool(settings.teacher),
                                    bool(settings.pixels), settings.encoder_only)
        self.batch, self.unseen = batches(self.pictures), batches(self.pictures.unseen())
        method, unet_weights = FPDM(sizes), {}
        if settings.init:   # it holds all the others, trained further
            unet_weights = start_from(method, settings.init, "fpdm")
        else:
            self.start(method)
        error = open_caption_error(settings, config.data, device)
        if settings.encoder_only:
            self.model = SourceTraining(method, error, own.kinds).to(device)
            return
        unet = self.open_base()
        check_prediction("fpdm", self.base_name, self.sizes, settings.base)
        trained = trained_weights(method, unet, settings)
        swap_weights(unet, unet_weights)
        self.store(trained, unet_weights)
        self.model = FPDMTraining(method, unet, self.sizes, trained, partial(posterior, self.vae), config,
                                  error).to(device)
        self.model.demo_losses = DemoLosses(settings, self.vae, device)

    def start(self, method: FPDM) -> None:
        """Starting weights where there is no earlier checkpoint of this stage."""
        settings, own = self.config.method, self.config.fpdm
        if own.dinov2:
            load_published(method.source_tower, None, own.dinov2)
        if own.init_tower:
            start_tower(method.source_tower, own.init_tower)
        if settings.init_encoder:
            load_encoder(method, settings.init_encoder)
        if own.fusion:
            start_from(method.fusion, own.fusion, "fpdm_fusion", what="fpdm.fusion")

    def check(self, sizes: FPDMConfig) -> None:
        """Whether data and method agree. Raises ValueError."""
        data, settings, own = self.config.data, self.config.method, self.config.fpdm
        if data.size != sizes.image_size:
            raise ValueError(f"data.size is {data.size}, the method makes pictures of {sizes.image_size} (height, width); "
                             "set data.size to that, or method.model.image_size to fit")
        check_demo_settings(self.config)
        if data.kind == "mannequins" and own.flip and not settings.encoder_only:
            raise ValueError(f"fpdm.flip is {own.flip}, but the latents of mannequins are made once and cannot be mirrored; "
                             "set fpdm.flip=0")
        if not own.fusion and not settings.init and not settings.encoder_only:
            raise ValueError("fpdm.fusion is empty; expected a checkpoint of stage 1, which task fpdm_fusion makes, or an "
                             "earlier checkpoint of this stage in method.init")
        if own.told and settings.encoder_only:
            raise ValueError("fpdm.told is of stage 2's UNet, but method.encoder_only trains none; set one of them to false")
        if own.told and (data.kind != "mannequins" or settings.caption_loss or not own.freeze_source):
            raise ValueError("fpdm.told tells captions in place of what the source tower reads, but data.kind is "
                             f"{data.kind!r}, method.caption_loss {settings.caption_loss} and fpdm.freeze_source "
                             f"{own.freeze_source}; expected mannequins, 0 and true")
        if own.kinds and not (settings.caption_loss or settings.encoder_only):
            raise ValueError(f"fpdm.kinds is {own.kinds}, but it counts within the caption loss, and method.caption_loss "
                             "is 0; expected method.caption_loss above 0, method.encoder_only, or fpdm.kinds=0")
        if own.lettered and data.kind != "mannequins":
            raise ValueError(f"fpdm.lettered is {own.lettered}, but data.kind is {data.kind!r}: only of mannequins it is "
                             "known who wears a letter; set fpdm.lettered=0")
        starts = {"method.init": settings.init, "method.init_encoder": settings.init_encoder,
                  "fpdm.init_tower": own.init_tower, "fpdm.dinov2": own.dinov2}
        if own.freeze_source and not settings.encoder_only and not any(starts.values()):
            raise ValueError(f"fpdm.freeze_source is true, but {', '.join(starts)} are all empty: the source tower would "
                             "stay as random as it starts; expected one of them, or fpdm.freeze_source=false")

    def grid(self) -> np.ndarray:
        """Pairs never trained on: source, pose, made, target; or how the source tokens name their colours."""
        pairs = self.pictures.held_out()[:SHOWN]
        method, sizes = self.model.method, self.model.method.config
        tensors = {name: value.to(self.device) for name, value in diffusion_tensors(pairs, sizes, self.canvas).items()}
        target = latent_targets(pairs, sizes)
        source = latent_targets([replace(pair, target=pair.source) for pair in pairs], sizes)
        read = method.encode_source(tensors["source"], tensors["clip_source"])
        if self.config.method.encoder_only:
            captions = torch.from_numpy(self.pictures.test.caption[:SHOWN])
            return grid([source, swatches(read.tokens, source), swatches(captions, source)], ["source", "named", "truth"],
                        per_row=6)
        encoded = method.encode(read, tensors["pose"], tensors["clip_pose"])
        scales = {"source": DEMO_SCALE, "fusion": DEMO_SCALE} if self.base_name == "demo" else {}
        made = self.sampled(method.guidance(encoded, **scales), len(pairs)) * 2 - 1
        return grid([source, tensors["pose"] * 2 - 1, made, target], ["source", "pose", "FPDM", "target"],
                    scale=grid_scale(target), per_row=3)


@dataclass(frozen=True)
class DiffusionBatches:
    """Training batches of stage 2. canvas: (height, width) that poses are drawn on. latents: of a bank of mannequins,
    (N, V, 4, h, w); None where a batch brings the target's pictures, or nothing of them. teacher: whether a
    batch brings the target's pose as the base's adapter reads it. target: whether it brings the target's picture and
    parts. source_only: batches of source and caption, for encoder_only."""

    pictures: MannequinPictures | Photos
    sizes: FPDMConfig
    own: FPDMSettings
    canvas: tuple[int, ...]
    latents: Tensor | None
    teacher: bool = False
    target: bool = False
    source_only: bool = False

    def __call__(self, rng: np.random.Generator, size: int) -> dict[str, Tensor]:
        own = self.own
        pairs = [identical(pair, rng) if rng.random() < own.identity else pair for pair in self.pictures.draw(rng, size)]
        pairs = [varied(pair, own, rng, self.canvas) for pair in pairs]
        low = rng.random(size) < own.low_share
        if self.source_only:
            return {"source": source_tensors(pairs, self.sizes, low, own.low_size)[0],
                    "caption": torch.from_numpy(self.pictures.bank.caption[[pair.where[0] for pair in pairs]])}
        result = diffusion_tensors(pairs, self.sizes, self.canvas, low, own.low_size)
        if not isinstance(self.pictures, MannequinPictures):
            return result | {"target_image": latent_targets(pairs, self.sizes)}
        who, view = (np.array([pair.where[n] for pair in pairs]) for n in (0, 2))
        result |= {"caption": torch.from_numpy(self.pictures.bank.caption[who]),
                   "person": self.pictures.bank.person(who, view)}
        if self.target:
            result |= {"picture": self.pictures.bank.images(who, view), "part": self.pictures.bank.parts(who, view)}
        if self.teacher:
            result["raster"] = cfld_factored(self.pictures.bank.poses(who, view), raster_size(self.pictures.bank.size))
        return result if self.latents is None else result | {"target_latents": self.latents[who, view]}


def load_encoder(method: FPDM, path: str) -> None:
    """Source tower and source MLP from a run with encoder_only. Raises ValueError when it is not there."""
    from safetensors.torch import load_file
    if not Path(path).is_file():
        raise ValueError(f"method.init_encoder is {path}, which is not there; run the config with encoder_only first, or "
                         "leave it empty, which takes more images to the same result")
    state = load_file(path)
    for part in FPDMTask.encoder_parts:
        getattr(method, part).load_state_dict(below(state, part))


def identical(pair: Pair, rng: np.random.Generator) -> Pair:
    """A pair of one photo and its own pose: the source's or the target's, each half of the time."""
    if rng.random() < 0.5:
        where = pair.where and (pair.where[0], pair.where[1], pair.where[1])
        return replace(pair, target=pair.source, pose=pair.source_pose, where=where)
    where = pair.where and (pair.where[0], pair.where[2], pair.where[2])
    return replace(pair, source=pair.target, source_pose=pair.pose, where=where)


class FPDMTraining(nn.Module):
    """The training loss of stage 2.

    trained: names of the UNet weights to train. encode: pictures -> posteriors of their latents, for batches that bring
    pictures; it is no submodule, so the autoencoder is neither trained nor saved.
    """

    def __init__(self, method: FPDM, unet: nn.Module, sizes: BaseSizes, trained: list[str],
                 encode: Callable[[Tensor], Tensor], config: TrainConfig, caption_error: CaptionError) -> None:
        super().__init__()
        self.caption_error = caption_error
        self.method, self.unet, self.schedule = method, unet, sizes.schedule()
        self.settings: MethodConfig = config.method
        self.own, self.encode = config.fpdm, encode
        self.demo_losses: DemoLosses | None = None
        names = set(trained)
        for name, parameter in unet.named_parameters():
            parameter.requires_grad_(name in names)
        method.fusion.requires_grad_(False)
        method.source_tower.requires_grad_(not self.own.freeze_source)
        method.source_mlp.requires_grad_(not self.own.told)
        self.binding = DiffusersBinding(unet)

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
        """A batch of `FPDMTask` -> (loss, its parts)."""
        method, logs = self.method, {}
        latents = batch.get("target_latents")
        if latents is None:
            posteriors = self.encode(batch["target_image"])
            latents = draw(posteriors, torch.randn_like(posteriors[:, 0]))
        rows = len(latents)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.own.freeze_source):
            tokens = batch["caption"] if self.own.told else method.source_tower(batch["source"])
        with torch.no_grad():
            fusion = method.fusion(batch["clip_source"], batch["clip_pose"])
        loss = torch.zeros((), device=latents.device)
        if self.settings.caption_loss:
            caption = context_error(method, tokens, batch["caption"], self.caption_error, self.own.kinds, logs)
            loss, logs["caption"] = loss + self.settings.caption_loss * caption, caption.detach()
        injected = method.training_injections(tokens, batch["pose"], fusion, per_sample=self.own.per_sample_drops,
                                              told=self.own.told)
        timesteps = noisy_timesteps(self.settings, rows, self.schedule, latents.device)   # authors' code: uniform
        weight = person_weight(batch["person"], self.settings.foreground) if "person" in batch else None
        binding = self.demo_losses.watch(self.binding, self.unet, self.schedule, batch,
                                         lambda: (batch["caption"], batch["raster"]))
        denoising = diffusion_loss(binding, self.schedule, latents, harmonise([injected], rows).stacked(), timesteps,
                                   weight, self.own.noise_offset)
        logs["denoising"] = denoising.detach()
        return loss + binding.added(logs) + denoising, logs


class SourceTraining(nn.Module):
    """Demo only: source tower and source MLP learn to say the caption of the person that they see."""

    def __init__(self, method: FPDM, caption_error: CaptionError, kinds: float = 0.0) -> None:
        super().__init__()
        self.method, self.caption_error, self.kinds = method, caption_error, kinds
        method.requires_grad_(False)
        method.source_tower.requires_grad_(True)
        method.source_mlp.requires_grad_(True)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        tokens, logs = self.method.source_tower(batch["source"]), {}
        return context_error(self.method, tokens, batch["caption"], self.caption_error, self.kinds, logs), logs


def context_error(method: FPDM, tokens: Tensor, caption: Tensor, caption_error: CaptionError, kinds: float,
                  logs: dict[str, Tensor]) -> Tensor:
    """How far the first context tokens are from the caption (B, T, C): the base was told captions, so it listens at once.
    kinds: weight of `kinds_error` in it, which then goes into logs.

    Raises ValueError when there are fewer tokens than the caption has.
    """
    if tokens.shape[1] < caption.shape[1]:
        raise ValueError(f"the source tower gives {tokens.shape[1]} tokens, a caption has {caption.shape[1]}; expected as "
                         "many or more: set method.model.source_swin.tokens, or caption_loss to 0")
    said = method.source_mlp(tokens)[:, :caption.shape[1]]
    error = caption_error(said, caption)
    if kinds:
        named = kinds_error(said, caption)
        error, logs["kinds"] = error + kinds * named, named.detach()
    return error
