"""Task `base`: a tiny text-free Stable Diffusion for the demo world.

What text is to SD1.5, a caption of fixed tokens is here: a list of what the person looks like, part by part, without
pose or picture. It is trained together with a pose adapter of CFLD's make, so that the UNet knows how to listen to
both; the methods on top then learn to say the same from a photo. The adapter is exported beside the base.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pgpis_models.base import VAE_STRIDE, BaseSizes, decode_latents, load_unet, load_vae, save_unet
from pgpis_models.cfld import PoseAdapter
from pgpis_models.checkpoint import write_atomically
from pgpis_models.diffusers_binding import DiffusersBinding
from pgpis_models.guidance import Guidance, Term
from pgpis_models.injections import Injections, everywhere, harmonise
from pgpis_models.pose import cfld_factored, cfld_rasters
from pgpis_models.sampling import sample_latents
from pgpis_models.schedule import NoiseSchedule, cubic_timesteps
from training.config import TrainConfig
from training.data.bank import WATCHED, Bank, open_bank
from training.latents import bank_latents
from training.picture import grid

POSE_UNSHUFFLE = 16   # the raster has twice the size of the picture: joints are cut to whole raster pixels


class BaseTask:
    """Trains UNet, null caption and pose adapter on (caption, pose) -> picture."""

    loader_workers = 0

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        self.config, self.device, settings = config, device, config.base
        self.bank: Bank = open_bank(config.data)
        self.held_out: Bank = open_bank(config.data, held_out=32, start=WATCHED)
        self.batch, self.unseen = (partial(told_pictures, bank, bank_latents(bank, config.method.vae, config.data, device))
                                   for bank in (self.bank, self.held_out))
        self.vae = load_vae(config.method.vae).to(device)
        tokens, width = self.bank.caption.shape[1:]
        if width != settings.cross_attention_dim:
            raise ValueError(f"captions are {width} wide, base.cross_attention_dim is {settings.cross_attention_dim}")
        self.sizes = BaseSizes(settings.block_out_channels, settings.layers_per_block, settings.heads,
                               settings.cross_attention_dim, settings.prediction, caption_tokens=tokens)
        unet = load_unet(settings.init)[0] if settings.init else self.sizes.build()
        self.model = CaptionedUNet(unet, self.sizes, settings.caption_drop, settings.pose_drop,
                                   settings.foreground).to(device)
        if settings.init:
            self.model.load_companion(companion(Path(settings.init)))
        if config.checkpointing:
            unet.enable_gradient_checkpointing()

    def groups(self, lr: float) -> list[dict]:
        return [{"params": list(self.model.parameters()), "lr": lr}]

    def grid(self) -> np.ndarray:
        """Held-out people: truth, and the picture from caption and pose."""
        who, view = np.arange(24), np.arange(24) % self.held_out.views
        truth = self.held_out.images(who, view)
        caption = torch.from_numpy(self.held_out.caption[who]).to(self.device)
        pose = cfld_rasters(self.held_out.poses(who, view), raster_size(self.held_out.size)).to(self.device)
        guidance = self.model.guidance(caption, pose)
        made = sample_latents(self.model.binding.denoiser(guidance, len(who)), self.sizes.schedule(),
                              (len(who), 4, truth.shape[2] // 8, truth.shape[3] // 8), steps=20, seed=0,
                              device=self.device)
        made = decode_latents(self.vae, made) * 2 - 1
        return grid([truth, made], ["truth", "caption+pose"], per_row=6)

    def export(self, path: Path, images: int) -> None:
        save_unet(path, self.model.unet, self.sizes, step=images, data=self.config.data.kind)
        self.model.save_companion(companion(path))


def told_pictures(bank: Bank, latents: Tensor, rng: np.random.Generator, size: int) -> dict[str, Tensor]:
    """Random pictures of a bank with what the base is told of them: latents (B, 4, h, w), caption (B, T, C), pose
    (B, 21, ...), person (B, 1, h, w)."""
    who, view = rng.integers(bank.people, size=size), rng.integers(bank.views, size=size)
    return {"latents": latents[who, view], "caption": torch.from_numpy(bank.caption[who]),
            "pose": cfld_factored(bank.poses(who, view), raster_size(bank.size)), "person": bank.person(who, view)}


def raster_size(size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of the pose raster for pictures of `size`."""
    return size[0] // VAE_STRIDE * POSE_UNSHUFFLE, size[1] // VAE_STRIDE * POSE_UNSHUFFLE


def companion(path: Path) -> Path:
    """Where the base's pose adapter and null caption lie: beside it, not needed to use it."""
    return path.with_name(f"{path.stem}_adapter.safetensors")


class CaptionedUNet(nn.Module):
    """UNet + pose adapter + null caption; forward is the training loss."""

    def __init__(self, unet: nn.Module, sizes: BaseSizes, caption_drop: float, pose_drop: float,
                 foreground: float) -> None:
        super().__init__()
        self.unet, self.schedule = unet, sizes.schedule()
        self.pose_encoder = PoseAdapter(21, POSE_UNSHUFFLE, tuple(sizes.block_out_channels[:3]), 32)
        self.null_caption = nn.Parameter(torch.zeros(1, sizes.caption_tokens, sizes.cross_attention_dim))
        self.caption_drop, self.pose_drop, self.foreground = caption_drop, pose_drop, foreground
        self.binding = DiffusersBinding(unet)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        latents = batch["latents"]
        rows = latents.shape[0]
        keep = lambda drop: (torch.rand(rows, device=latents.device) >= drop).view(-1, 1, 1, 1)  # noqa: E731
        caption = torch.where(keep(self.caption_drop)[..., 0], batch["caption"], self.null_caption)
        pose_kept = keep(self.pose_drop)
        maps = tuple(m * pose_kept for m in self.pose_encoder(batch["pose"]))
        injected = harmonise([Injections(context=everywhere(caption), down_residuals=maps)], rows).stacked()
        weight = person_weight(batch["person"], self.foreground)
        # favouring noise: here the conditions decide nearly everything, and they do so at high noise
        timesteps = cubic_timesteps(torch.rand(rows, device=latents.device), self.schedule.steps)
        loss = diffusion_loss(self.binding, self.schedule, latents, injected, timesteps, weight)
        return loss, {}

    def guidance(self, caption: Tensor, pose: Tensor, weight: float = 1.5) -> Guidance:
        """Null caption against caption, both with the pose."""
        maps = self.pose_encoder(pose)
        return Guidance((
            Term("null", Injections(context=everywhere(self.null_caption), down_residuals=maps)),
            Term("caption", Injections(context=everywhere(caption), down_residuals=maps), weight)))

    def _companion(self) -> dict[str, Tensor]:
        return {k: v for k, v in self.state_dict().items() if not k.startswith("unet.")}

    def save_companion(self, path: Path) -> None:
        write_atomically(path, {k: v.detach().cpu().contiguous() for k, v in self._companion().items()},
                         {"pgpis.format": "1", "pgpis.kind": '"base adapter"'})

    def load_companion(self, path: Path) -> None:
        from safetensors.torch import load_file
        state = load_file(path)
        self.pose_encoder.load_state_dict({k.removeprefix("pose_encoder."): v for k, v in state.items()
                                           if k.startswith("pose_encoder.")})
        with torch.no_grad():
            self.null_caption.copy_(state["null_caption"])


def diffusion_loss(binding: DiffusersBinding, schedule: NoiseSchedule, latents: Tensor, rows: dict[str, Tensor],
                   timesteps: Tensor | None = None, weight: Tensor | None = None, offset: float = 0.0) -> Tensor:
    """Mean squared error of the predicted noise or velocity at random timesteps (uniform unless given).

    weight (B, 1, h, w): importance of each latent pixel, of mean 1. offset: of the noise, one random number for each
    channel of a picture times this; it belongs to the target.
    """
    noise = torch.randn_like(latents)
    if offset:
        noise = noise + offset * torch.randn(*latents.shape[:2], 1, 1, device=latents.device)
    if timesteps is None:
        timesteps = torch.randint(schedule.steps, (latents.shape[0],), device=latents.device)
    noisy = schedule.add_noise(latents, noise, timesteps)
    target = schedule.target(latents, noise, timesteps)
    error = (binding(noisy, timesteps, rows).float() - target).square()
    return (error if weight is None else error * weight).mean()


def person_weight(person: Tensor, foreground: float) -> Tensor | None:
    """Latent weights of mean 1 that count a person's pixels `foreground` times; None when that is 1."""
    if foreground == 1.0:
        return None
    weight = 1 + (foreground - 1) * person
    return weight / weight.mean()
