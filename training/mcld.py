"""Task `mcld`: MCLD on a base UNet, on mannequins or on photos.

The whole denoising UNet, the reference network (all but its last up block), pose guider, face projector and face attention
are trained (MCLD section 3 and the released code); where the checkpoint brings its own image encoders, these too. Unlike in
the authors' loop, dropped conditions are drawn for each item, and so is the dropout of reference features, which theirs had
by accident.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pgpis_models.base import BaseSizes
from pgpis_models.diffusers_binding import DiffusersBinding
from pgpis_models.injections import harmonise
from pgpis_models.mcld import CONFIGS, MCLD, Encoded, MCLDConfig
from pgpis_models.mcld_inputs import Clip, ClipEncoder, encode_faces, image_tokens
from pgpis_models.mcld_loss import face_mask, mcld_loss, offset_noise, parts_of_pose, training_schedule
from pgpis_models.mcld_parts import CLIP_MEAN, ReferenceWriter
from training.base import person_weight
from training.caption_loss import CaptionError, open_caption_error
from training.config import MCLDTrainConfig, MethodConfig, TrainConfig
from training.data.focal import open_focal_pairs
from training.latents import draw, posterior
from training.method import (
    MethodTask,
    below,
    check_demo_settings,
    configured,
    draw_images,
    grid_scale,
    noisy_timesteps,
    start_from,
    swatches,
    there,
    trained_weights,
)
from training.picture import grid

GRID_WEIGHTS = {"demo": {"appearance": 1.5}}         # guidance of the sample grids; other bases: as published


class MCLDTask(MethodTask):
    """Trains MCLD's modules and the UNet weights that belong to it.

    Raises ValueError when config, data, base and earlier checkpoint do not fit together, before the first step.
    """

    encoder_parts = ("vision.image", "vision.texture")

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        super().__init__(config, device)
        settings = config.method
        sizes = configured(MCLDConfig, CONFIGS, settings)
        check_demo_settings(config)
        if config.method.teacher or config.method.pixels:
            raise ValueError(f"method.teacher is {config.method.teacher} and method.pixels {config.method.pixels}; expected "
                             "0 of both: MCLD's pairs bring neither the pose that the base's adapter reads nor pictures")
        if (settings.caption_loss or settings.encoder_only) and not sizes.own_vision:
            raise ValueError("caption_loss and encoder_only train the checkpoint's own encoders, which this preset has not")
        method = MCLD(sizes)
        self.pairs = open_focal_pairs(config, sizes, device)
        self.batch, self.unseen = (partial(draw_images, pairs, 1) for pairs in (self.pairs, self.pairs.unseen()))
        self.loader_workers, self.licence = self.pairs.loader_workers, self.pairs.licence
        error = open_caption_error(settings, config.data, device)
        if settings.encoder_only:
            start(method, None, settings, config.mcld)
            self.model = CaptionTraining(method, error).to(device)
            return
        unet = self.open_base(method.noise_schedule())
        trained = trained_weights(method, unet, settings)
        replaced = start(method, unet, settings, config.mcld)
        self.store(trained, replaced)
        clip = None if sizes.own_vision else ClipEncoder(_folder(config.mcld.image_encoder), device)
        if config.mcld.embedding_noise and clip:
            std = embedding_std(self.pairs.batch, clip, config.mcld.std_photos)
        else:
            std = None
        self.model = MCLDTraining(method, unet, self.sizes, trained, config, partial(posterior, self.vae), clip, std,
                                  error)
        self.model.to(device)
        if config.checkpointing:
            self.model.reference.unet.enable_gradient_checkpointing()
            self.model.reference.unet.train()

    def grid(self) -> np.ndarray:
        """Held-out people: source, texture map, pose, made, target; or how the encoders name their colours."""
        held = self.pairs.held_out()
        if self.config.method.encoder_only:
            named = [getattr(self.model.method.vision, part)(held[name].to(self.device))
                     for part, name in (("image", "source"), ("texture", "texture"))]
            return grid([held["source"], held["texture"], *(swatches(one, held["source"]) for one in named),
                         swatches(held["caption"], held["source"])],
                        ["source", "texture", "from photo", "from texture", "truth"], per_row=3)
        made = self.sample(held) * 2 - 1
        return grid([held["source"], held["texture"], held["pose"] * 2 - 1, made, held["target"]],
                    ["source", "texture", "pose", "MCLD", "target"], scale=grid_scale(held["source"]), per_row=2)

    @torch.no_grad()
    def sample(self, held: dict[str, Tensor], steps: int = 20, seed: int = 0) -> Tensor:
        """A batch of the data -> pictures (B, 3, H, W) in 0..1, on the bare modules and in their own precision."""
        batch = {name: value.to(self.device) for name, value in held.items()}
        encoded = self.model.encode_batch(batch)
        method = self.model.method
        guidance = method.guidance(encoded, **GRID_WEIGHTS.get(self.base_name, {}))
        return self.sampled(guidance, len(held["source"]), steps, seed, method.noise_schedule())


def start(method: MCLD, unet: nn.Module | None, settings: MethodConfig, more: MCLDTrainConfig) -> set[str]:
    """Initial weights: an earlier checkpoint, else the base in the reference network, an encoder run and a ControlNet.

    Returns the names of the UNet weights that the earlier checkpoint replaced: they belong to the next one too.
    """
    if settings.init:
        return set(start_from(method, settings.init, "mcld", unet))
    if unet is not None:
        method.start_reference(unet.state_dict())
    if more.controlnet:
        from diffusers import ControlNetModel
        method.pose_guider.load_controlnet(ControlNetModel.from_pretrained(more.controlnet).state_dict())
    elif method.config.own_vision:
        # Part numbers reach 24 / 255 where U and V reach 1; without this it takes long until parts are told apart.
        with torch.no_grad():
            method.pose_guider.conv_in.weight[:, 2] *= 255 / 24
    if there(settings.init_encoder, "method.init_encoder"):
        state = load_file(settings.init_encoder)
        for part in MCLDTask.encoder_parts:
            method.get_submodule(part).load_state_dict(below(state, part))
    return set()


def _folder(path: str) -> str:
    if not path or not Path(path).is_dir():
        raise ValueError(f"mcld.image_encoder is {path!r}, which is not a folder; expected CLIP ViT-L/14 with projection "
                         "(image_encoder of lambdalabs/sd-image-variations) in transformers' layout")
    return path


def embedding_std(batch: Callable, clip: Clip, photos: int) -> Tensor:
    """(X,) standard deviation of CLIP's embeddings over so many training photos, drawn with a fixed seed."""
    from pgpis_models.mcld_inputs import as_pixels
    some = [clip(as_pixels(batch(np.random.default_rng(number), 16)["source"])).cpu() for number in range(-(-photos // 16))]
    return torch.cat(some).std(0)


class MCLDTraining(nn.Module):
    """The training loss of MCLD.

    trained: names of the UNet weights to train. encode: pictures -> posteriors of their latents, for batches that bring
    pictures. clip: the frozen encoder, where the checkpoint brings none; std: (X,) of its embeddings. Neither these nor the
    reference network (whose weights the method holds) are submodules.
    """

    def __init__(self, method: MCLD, unet: nn.Module, sizes: BaseSizes, trained: list[str], config: TrainConfig,
                 encode: Callable[[Tensor], Tensor], clip: Clip | None, std: Tensor | None,
                 caption_error: CaptionError) -> None:
        super().__init__()
        self.caption_error = caption_error
        self.method, self.unet, self.settings, self.focal = method, unet, config.method, config.mcld
        self.encode, self.clip, self.std = encode, clip, std
        self.schedule = training_schedule() if method.config.schedule == "authors" else sizes.schedule()
        for name, parameter in unet.named_parameters():
            parameter.requires_grad_(name in trained)
        self.binding = DiffusersBinding(unet)
        self.reference = ReferenceWriter(method.reference())
        # after the reference network is made of the method's weights, which makes all of them trainable
        freeze_unused(method, config.mcld.train_reference)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """A batch of `FocalPairs` -> (loss, its parts)."""
        settings, focal, logs = self.settings, self.focal, {}
        latents = batch["target_latents"] if "target_latents" in batch else self._encode(batch["target_image"])
        rows, device = len(latents), latents.device

        def kept(drop: float) -> Tensor:
            return torch.rand(rows, device=device) >= drop
        keep = kept(focal.uncond_drop)
        seen = keep & kept(focal.reference_drop)
        encoded = self.encode_batch(batch, keep, keep & kept(focal.image_drop), seen)
        loss = torch.zeros((), device=device)
        if settings.caption_loss:
            used = ("source",) if self.method.config.aggregation == "image" else ("source", "texture")
            caption = sum(self.caption_error(self.tokens(batch, name), batch["caption"]) for name in used) / len(used)
            loss, logs["caption"] = loss + settings.caption_loss * caption, caption.detach()
        injected = harmonise([self.method.injections(encoded)], rows).stacked()
        if "self_reference_on" in injected:
            injected["self_reference_on"] = seen.long()
            if not bool(seen.any()):   # distributed training waits for a gradient of every weight
                loss = loss + 0 * sum(features.float().sum() for features in encoded.reference.values())
        t = noisy_timesteps(settings, rows, self.schedule, device)
        t = torch.randint(self.schedule.steps, (rows,), device=device) if t is None else t
        noise = offset_noise(torch.randn_like(latents), strength=focal.noise_offset)
        prediction = self.binding(self.schedule.add_noise(latents, noise, t), t, injected)
        face = face_mask(parts_of_pose(batch["pose"]), tuple(latents.shape[-2:])) if focal.face_loss else None
        weight = person_weight(batch["person"], settings.foreground) if "person" in batch else None
        denoising = mcld_loss(prediction, self.schedule.target(latents, noise, t), t, self.schedule, face, focal.snr_gamma,
                              weight)
        logs["denoising"] = denoising.detach()
        return loss + denoising, logs

    def encode_batch(self, batch: dict[str, Tensor], keep: Tensor | None = None, keep_image: Tensor | None = None,
                     seen: Tensor | None = None) -> Encoded:
        """What the method knows of a batch. keep, keep_image, seen: (B,) bool, rows that have their conditions, their
        source photo's tokens, and reference features; all when None."""
        method, focal = self.method, self.focal
        everything = torch.ones(len(batch["source"]), dtype=torch.bool, device=batch["source"].device)
        keep, keep_image, seen = (everything if value is None else value for value in (keep, keep_image, seen))
        blank = focal.drop == "pixels"
        image, texture = (self.tokens(batch, name, rows if blank else everything)
                          for name, rows in (("source", keep_image), ("texture", keep)))
        if self.std is not None and self.training:
            image = image + focal.embedding_noise * self.std.to(image) * torch.randn_like(image)
        if not blank:
            image, texture = image * keep_image[:, None, None], texture * keep[:, None, None]
        face = encode_faces(method, batch["crops"], batch["found"]) if "crops" in batch else batch["face"]
        encoded = method.encode(image, batch["pose"], texture, self._reference_latents(batch), face,
                                partial(self._features, seen))
        if not blank:   # as in the sampling's null row
            encoded = dataclasses.replace(encoded, face=encoded.face * keep[:, None, None])
        return encoded

    def tokens(self, batch: dict[str, Tensor], name: str, rows: Tensor | None = None) -> Tensor:
        """(B, N, X) of source or texture; rows that are not kept see a picture of CLIP's mean colour."""
        pictures = batch[name]
        if rows is not None and not bool(rows.all()):
            mean = torch.tensor(CLIP_MEAN, device=pictures.device).view(1, 3, 1, 1) * 2 - 1
            pictures = torch.where(rows[:, None, None, None], pictures, mean)
        tokens = image_tokens(self.method, pictures, "image" if name == "source" else "texture", self.clip)
        return tokens if tokens.ndim == 3 else tokens[:, None]

    def _reference_latents(self, batch: dict[str, Tensor]) -> Tensor:
        name = "source" if self.method.config.aggregation == "image" else "texture"
        return batch[f"{name}_latents"] if f"{name}_latents" in batch else self._encode(batch[name])

    def _features(self, seen: Tensor, latent: Tensor, context: Tensor) -> dict[str, Tensor]:
        """The reference network on the rows that see its features; the others' are zeros, which nothing reads."""
        rows = seen.nonzero().flatten()
        rows = rows if len(rows) else rows.new_zeros(1)   # they need shapes
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.focal.train_reference):
            found = self.reference(latent[rows], context[rows])
        return {site: x.new_zeros(len(seen), *x.shape[1:]).index_copy(0, rows, x) for site, x in found.items()}

    def _encode(self, pictures: Tensor) -> Tensor:
        """Latents drawn from the posteriors; their means outside training, as in sampling."""
        posteriors = self.encode(pictures)
        if not self.training:
            return posteriors[:, 0]
        return draw(posteriors, torch.randn_like(posteriors[:, 0]))


def freeze_unused(method: MCLD, train_reference: bool = True) -> None:
    """No gradient for the reference network's last up block (authors' code), nor for what an ablation leaves out.

    train_reference: without it none for the whole reference network.
    """
    config = method.config
    frozen = {f"reference_unet.{name}" for name in method.frozen_reference_weights()}
    unused = [] if train_reference else ["reference_unet."]
    if not config.use_face or config.aggregation == "image":
        unused += ["face_projector.", "face_attention.", "vision.face."]
    elif config.aggregation == "concat":
        unused += ["face_attention."]
    if config.aggregation == "image":
        unused += ["vision.texture."]
    for name, parameter in method.named_parameters():
        parameter.requires_grad_(name not in frozen and not name.startswith(tuple(unused)))


class CaptionTraining(nn.Module):
    """Demo only: the encoders of photo and texture map learn to say the caption of the person that they see."""

    def __init__(self, method: MCLD, caption_error: CaptionError) -> None:
        super().__init__()
        self.method, self.caption_error = method, caption_error
        for name, parameter in method.named_parameters():
            parameter.requires_grad_(name.startswith(tuple(f"{part}." for part in MCLDTask.encoder_parts)))

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        vision = self.method.vision
        photo, texture = (self.caption_error(encoder(batch[name]), batch["caption"])
                          for encoder, name in ((vision.image, "source"), (vision.texture, "texture")))
        return photo + texture, {"photo": photo.detach(), "texture": texture.detach()}
