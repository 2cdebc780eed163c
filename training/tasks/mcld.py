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
import torch.nn.functional as F
from torch import Tensor, nn

from pgpis_models.mcld.config import CONFIGS, MCLDConfig
from pgpis_models.mcld.inputs import Clip, ClipEncoder, as_pixels, encode_faces, image_tokens
from pgpis_models.mcld.model import MCLD, Encoded
from pgpis_models.mcld.reference import ReferenceWriter
from pgpis_models.mcld.schedule import training_schedule
from pgpis_models.noise.schedule import NoiseSchedule
from pgpis_models.parts.pixels import CLIP_MEAN
from pgpis_models.unet.base import BaseSizes
from pgpis_models.unet.injections import harmonise
from training.data.kinds import pairs_class
from training.engine.config import MCLDTrainConfig, MethodConfig, TrainConfig
from training.engine.loss import draw, min_snr_weights, noisy_timesteps, offset_noise, posterior
from training.engine.picture import grid
from training.engine.task import (
    MethodTask,
    MethodTraining,
    as_unit,
    configured,
    grid_scale,
    load_backbone,
    start_from,
    trained_weights,
)

FACE_PARTS = (23, 24)     # DensePose parts of the head, right and left


class MCLDTask(MethodTask):
    """Trains MCLD's modules and the UNet weights that belong to it.

    Raises ValueError when config, data, base and earlier checkpoint do not fit together, before the first step.
    """

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        super().__init__(config, device)
        sizes = configured(MCLDConfig, CONFIGS, config.method)
        method = MCLD(sizes)
        self.pairs = pairs_class(config.data.kind, "focal")(config, sizes, device)
        self.batch, self.unseen = self.pairs.batch, self.pairs.unseen().batch
        self.loader_workers, self.licence = self.pairs.loader_workers, self.pairs.licence
        unet = self.open_base(method.noise_schedule())
        trained = trained_weights(method, unet, config.method)
        replaced = start(method, unet, config.method, config.mcld)
        self.store(trained, replaced)
        clip = None if sizes.own_vision else ClipEncoder(_folder(config.mcld.image_encoder), device)
        std = embedding_std(self.pairs.batch, clip, config.mcld.std_photos) if config.mcld.embedding_noise and clip else None
        self.model = MCLDTraining(method, unet, self.sizes, trained, config, partial(posterior, self.vae), clip, std)
        self.model.to(device)
        if config.checkpointing:
            self.model.reference.unet.enable_gradient_checkpointing()
            self.model.reference.unet.train()

    def grid(self) -> np.ndarray:
        """Held-out people: source, texture map, pose, made, target."""
        held = {name: as_unit(value) if name in ("source", "texture", "target") else value
                for name, value in self.pairs.held_out().items()}
        pose, made = as_share(held["pose"]), self.sample(held) * 2 - 1
        return grid([held["source"], held["texture"], pose * 2 - 1, made, held["target"]],
                    ["source", "texture", "pose", "MCLD", "target"], scale=grid_scale(held["source"]), per_row=2)

    @torch.no_grad()
    def sample(self, held: dict[str, Tensor], steps: int = 20, seed: int = 0) -> Tensor:
        """A batch of the data -> pictures (B, 3, H, W) in 0..1, on the bare modules and in their own precision."""
        batch = {name: value.to(self.device) for name, value in held.items()}
        guidance = self.guidance(self.model.encode_batch(batch))
        return self.sampled(guidance, len(held["source"]), steps, seed, self.model.method.noise_schedule())


class MCLDTraining(MethodTraining):
    """The loss of MCLD. clip: None where the method brings its encoders. std: (X,) of CLIP's embeddings, for the noise on
    the photo's."""

    def __init__(self, method: MCLD, unet: nn.Module, sizes: BaseSizes, trained: list[str], config: TrainConfig,
                 encode: Callable[[Tensor], Tensor], clip: Clip | None = None, std: Tensor | None = None) -> None:
        schedule = training_schedule() if method.noise_schedule() else sizes.schedule()
        super().__init__(method, unet, schedule, trained, encode, config.method)
        self.focal, self.clip, self.std = config.mcld, clip, std
        self.reference = ReferenceWriter(method.reference())
        # after the reference network is made of the method's weights, which makes all of them trainable
        freeze_unused(method, config.mcld.train_reference)
        self.register_buffer("mean_colour", torch.tensor(CLIP_MEAN).view(1, 3, 1, 1) * 2 - 1, persistent=False)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """A batch of the focal pairs, source, texture and pose (B, 3, H, W) each -> (the loss of section 3.4, a scalar; no
        parts)."""
        focal = self.focal
        z = self.latents(batch)
        rows, device = len(z), z.device

        def kept(drop: float) -> Tensor:   # (B,) bool: authors' code, item by item
            return torch.rand(rows, device=device) >= drop
        keep = kept(focal.uncond_drop)
        seen = keep & kept(focal.reference_drop)
        encoded = self.encode_batch(batch, keep, keep & kept(focal.image_drop))   # I, A, F and the pose (section 3.2)
        injected = harmonise([self.method.injections(encoded)], rows).stacked()          # table 1 and eq. 8
        if "self_reference_on" in injected:
            injected["self_reference_on"] = seen.long()
        t = noisy_timesteps(self.settings, rows, self.schedule, device)
        noise = offset_noise(torch.randn_like(z), strength=focal.noise_offset)           # authors' code
        prediction = self.binding(self.schedule.add_noise(z, noise, t), t, injected)
        face = face_mask(parts_of_pose(as_share(batch["pose"])), tuple(z.shape[-2:])) if focal.face_loss else None
        loss = mcld_loss(prediction, self.schedule.target(z, noise, t), t, self.schedule, face, focal.snr_gamma,
                         weighted_face=focal.face_term == "weighted")
        if device.type == "cpu" and not bool(seen.any()):   # distributed training waits for a gradient of every weight
            loss = loss + 0 * sum(features.float().sum() for features in encoded.reference.values())
        return loss, {}

    def latents(self, batch: dict[str, Tensor]) -> Tensor:
        """What is to be denoised, (B, 4, h, w): as the batch brings it, or made of its pictures."""
        return batch["target_latents"] if "target_latents" in batch else self._encode(batch["target_image"], halved=True)

    def encode_batch(self, batch: dict[str, Tensor], keep: Tensor | None = None,
                     keep_image: Tensor | None = None) -> Encoded:
        """What the method knows of a batch. keep, keep_image: (B,) bool, rows that have their conditions, and their source
        photo's tokens; all when None."""
        method, focal = self.method, self.focal
        everything = torch.ones(len(batch["source"]), dtype=torch.bool, device=batch["source"].device)
        keep, keep_image = (everything if value is None else value for value in (keep, keep_image))
        blank = focal.drop == "pixels"
        image, texture = (self.tokens(batch, name, rows if blank else everything)
                          for name, rows in (("source", keep_image), ("texture", keep)))
        if self.std is not None and self.training:
            image = image + focal.embedding_noise * self.std.to(image) * torch.randn_like(image)
        if not blank:
            image, texture = image * keep_image[:, None, None], texture * keep[:, None, None]
        face = encode_faces(method, batch["crops"], batch["found"]) if "crops" in batch else batch["face"]
        encoded = method.encode(image, as_share(batch["pose"]), texture, self._reference_latents(batch), face,
                                self._features)
        if not blank:   # as in the sampling's null row
            encoded = dataclasses.replace(encoded, face=encoded.face * keep[:, None, None])
        return encoded

    def tokens(self, batch: dict[str, Tensor], name: str, rows: Tensor) -> Tensor:
        """(B, N, X) of source or texture; rows (B,) bool that are not kept see a picture of CLIP's mean colour."""
        pictures = torch.where(rows[:, None, None, None], as_unit(batch[name]), self.mean_colour)
        tokens = image_tokens(self.method, pictures, self.clip)
        return tokens if tokens.ndim == 3 else tokens[:, None]

    def _reference_latents(self, batch: dict[str, Tensor]) -> Tensor:
        name = "source" if self.method.config.aggregation == "image" else "texture"
        return batch[f"{name}_latents"] if f"{name}_latents" in batch else self._encode(batch[name])

    def _features(self, latent: Tensor, context: Tensor) -> dict[str, Tensor]:
        """The reference network on all rows, those that see nothing of it too: to pick them would wait for the device."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.focal.train_reference):
            return self.reference(latent, context)

    def _encode(self, pictures: Tensor, halved: bool = False) -> Tensor:
        """Latents drawn from the posteriors; their means outside training, as in sampling. halved: of what is to be made,
        which the settings may want at half the size."""
        pictures = as_unit(pictures)
        posteriors = self.encode(F.avg_pool2d(pictures, 2) if halved and self.settings.halved else pictures)
        return draw(posteriors, torch.randn_like(posteriors[:, 0])) if self.training else posteriors[:, 0]


def as_share(pose: Tensor) -> Tensor:
    """DensePose pictures, uint8 or in 0..1 -> float32 in 0..1."""
    return pose.float() / 255 if pose.dtype == torch.uint8 else pose


def mcld_loss(prediction: Tensor, target: Tensor, t: Tensor, schedule: NoiseSchedule, face: Tensor | None = None,
              gamma: float = 5.0, weighted_face: bool = True) -> Tensor:
    """The training loss, a scalar: mean over the batch of min-SNR weight * (mean(e) + mean(e * face)).

    prediction, target (B, C, h, w): velocities, e their squared difference; t (B,); face (B, 1, h, w) bool or None.
    The face term is a mean over ALL elements, not over those of the mask, so it counts for more in close-ups. As in
    the authors' code gamma 0 means plain mean squared error WITHOUT the face term. weighted_face: False adds
    mean(e * face) without a weight whatever gamma is, so that gamma 0 gives eq. 6 of the paper. Raises ValueError on
    shapes that do not fit.
    """
    if prediction.shape != target.shape:
        raise ValueError(f"prediction has shape {tuple(prediction.shape)}, target {tuple(target.shape)}; expected the same")
    error = (prediction.float() - target.float()).square()
    if face is not None:
        expected = (error.shape[0], 1, *error.shape[2:])
        if tuple(face.shape) != expected:
            raise ValueError(f"face mask has shape {tuple(face.shape)}; expected {expected}, one value per latent pixel: "
                             "give `face_mask` the size of the latents")
    on_face = 0.0 if face is None else (error * face.to(error.dtype)).flatten(1).mean(1)   # (B,)
    rows, plain = error.flatten(1).mean(1), 0.0 if weighted_face else on_face
    if gamma == 0:
        return (rows + plain).mean()
    weights = min_snr_weights(schedule, t, gamma).to(error.device)
    return ((rows + on_face) * weights if weighted_face else rows * weights + plain).mean()


def face_mask(parts: Tensor, size: tuple[int, int]) -> Tensor:
    """Which latent pixels show the head: (B, 1, h, w) bool.

    parts (B, H, W) or (B, 1, H, W): DensePose part per pixel, integers 0..24, as the pose picture at the generated size
    holds them (`parts_of_pose`). size: (h, w) of the latents. Nearest-neighbour, so a head smaller than a latent pixel
    can be missed. Raises ValueError for floating point maps and other shapes.
    """
    if parts.is_floating_point() or parts.ndim not in (3, 4) or (parts.ndim == 4 and parts.shape[1] != 1):
        raise ValueError(f"parts came as {parts.dtype} {tuple(parts.shape)}; expected integers (B, H, W) or (B, 1, H, W), "
                         "as `parts_of_pose` gives them")
    parts = parts if parts.ndim == 4 else parts[:, None]
    mask = torch.zeros_like(parts, dtype=torch.bool)
    for part in FACE_PARTS:
        mask |= parts == part
    return F.interpolate(mask.float(), size=size, mode="nearest") > 0.5


def parts_of_pose(pose: Tensor) -> Tensor:
    """pose (B, 3, H, W) in [0, 1], channels V, U, part / 255 -> (B, H, W) int64.

    The picture was resized with a bicubic filter, so along borders there are numbers between those of two parts, above
    24 too; the authors' mask reads them as they are.
    """
    return (pose[:, 2].float() * 255).round().long()


# --- starting weights ---------------------------------------------------------------------------------------

def start(method: MCLD, unet: nn.Module, settings: MethodConfig, more: MCLDTrainConfig) -> set[str]:
    """Initial weights: an earlier checkpoint, else the base in the reference network, a backbone for the checkpoint's own
    encoder, and a ControlNet for the pose guider.

    Returns the names of the UNet weights that the earlier checkpoint replaced: they belong to the next one too.
    """
    if settings.init:
        return set(start_from(method, settings.init, "mcld", unet))
    method.start_reference(unet.state_dict())
    if more.controlnet:
        from diffusers import ControlNetModel
        method.pose_guider.load_controlnet(ControlNetModel.from_pretrained(more.controlnet).state_dict())
    if method.config.own_vision:
        # Part numbers reach 24 / 255 where U and V reach 1; without this it takes long until parts are told apart.
        with torch.no_grad():
            method.pose_guider.conv_in.weight[:, 2] *= 255 / 24
        if settings.backbone:
            load_backbone(method.vision.tower.backbone, settings.backbone)
    return set()


def _folder(path: str) -> str:
    if not path or not Path(path).is_dir():
        raise ValueError(f"mcld.image_encoder is {path!r}, which is not a folder; expected CLIP ViT-L/14 with projection "
                         "(image_encoder of lambdalabs/sd-image-variations) in transformers' layout")
    return path


def embedding_std(batch: Callable, clip: Clip, photos: int) -> Tensor:
    """(X,) standard deviation of CLIP's embeddings over so many training photos, drawn with a fixed seed."""
    some = [clip(as_pixels(batch(np.random.default_rng(number), 16)["source"])).cpu() for number in range(-(-photos // 16))]
    return torch.cat(some).std(0)


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
    for name, parameter in method.named_parameters():
        parameter.requires_grad_(name not in frozen and not name.startswith(tuple(unused)))
