"""Task `base`: a tiny Stable Diffusion for the demo world.

What text is to Stable Diffusion, a description of fixed tokens is here: a list of what the person looks like, part by part,
without pose or picture. The methods on top then learn to say the same from a photo, and to pose it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pgpis_models.noise.samplers import sample_latents
from pgpis_models.settings import build, check_ranges, one_of, within
from pgpis_models.unet.autoencoder import decode_latents, load_vae
from pgpis_models.unet.base import BaseSizes, load_unet, save_unet
from pgpis_models.unet.diffusers_binding import DiffusersBinding
from pgpis_models.unet.guidance import Guidance, Term
from pgpis_models.unet.injections import Injections, everywhere, harmonise
from training.engine.config import TrainConfig
from training.engine.loss import cubic_timesteps
from training.engine.picture import grid
from training.engine.shares import WHOLE, Share
from training.world.bank import Bank, open_bank, open_watched
from training.world.captions import TOKENS, WIDTH
from training.world.latents import bank_latents

SHOWN = 12   # people of the sample grid


@dataclass(frozen=True)
class BaseConfig:
    """`world` of this task: a UNet of the SD1.5 topology."""

    block_out_channels: tuple[int, ...] = within((64, 64, 64, 64), "1 or more")   # multiples of 32: the host's GroupNorm
                                                                                  # has 32 groups
    layers_per_block: int = within(2, "1 or more")
    heads: int = within(1, "1 or more")               # attention heads at every site
    prediction: str = one_of("v_prediction", "v_prediction", "epsilon")
    caption_drop: float = within(0.1, "0 to 1")       # share of rows that see the null description
    init: str = ""                                    # file of an earlier run to start from


class BaseTask:
    """Trains UNet and null description on (description) -> picture."""

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        settings: BaseConfig = build(BaseConfig, config.world, "world")
        check_ranges(settings, "world.")
        self.loader_workers, vae, halved = config.data.workers, config.method.vae, config.method.halved
        self.bank, self.held_out = open_bank(config.data), open_watched(config.data)
        self.batch, self.unseen = (partial(told_pictures, bank, bank_latents(bank, vae, config.data, device, halved))
                                   for bank in (self.bank, self.held_out))
        self.vae = load_vae(vae).to(device)
        self.sizes = BaseSizes(settings.block_out_channels, settings.layers_per_block, settings.heads, WIDTH,
                               settings.prediction, caption_tokens=TOKENS)
        unet = load_unet(settings.init)[0] if settings.init else self.sizes.build()
        self.model = ToldUNet(unet, self.sizes, settings.caption_drop).to(device)
        if config.checkpointing:
            unet.enable_gradient_checkpointing()

    def groups(self, lr: float) -> list[dict]:
        return [{"params": list(self.model.parameters()), "lr": lr}]

    def grid(self) -> np.ndarray:
        """Held-out people: the truth, and a picture from the description alone, in a pose of its own choice."""
        who, view = np.arange(SHOWN), np.arange(SHOWN) % self.held_out.views
        truth = self.held_out.images(who, view)
        guidance = self.model.guidance(torch.from_numpy(self.held_out.caption[who]).to(self.device))
        cell = 16 if self.config.method.halved else 8
        made = sample_latents(self.model.binding.denoiser(guidance, SHOWN), self.sizes.schedule(),
                              (SHOWN, 4, truth.shape[2] // cell, truth.shape[3] // cell), steps=20, seed=0,
                              device=self.device)
        made = torch.nn.functional.interpolate(decode_latents(self.vae, made), truth.shape[2:]) * 2 - 1
        return grid([truth, made], ["truth", "described"], scale=1, per_row=6)

    def export(self, path: Path, images: int) -> None:
        save_unet(path, self.model.unet, self.sizes, step=images, data=self.config.data.kind)


def told_pictures(bank: Bank, latents: Tensor, rng: np.random.Generator, size: int,
                  share: Share = WHOLE) -> dict[str, Tensor]:
    """Random pictures of a bank with what is told of them: latents (B, 4, h, w), caption (B, T, C); the share of `size`."""
    who, view = (share.of(rng.integers(count, size=size)) for count in (bank.people, bank.views))
    return {"latents": latents[who, view], "caption": torch.from_numpy(bank.caption[who])}


class ToldUNet(nn.Module):
    """UNet + null description; forward is the training loss of a latent diffusion model (Rombach et al. 2022, eq. 3)."""

    def __init__(self, unet: nn.Module, sizes: BaseSizes, caption_drop: float) -> None:
        super().__init__()
        self.unet, self.schedule, self.caption_drop = unet, sizes.schedule(), caption_drop
        self.null_caption = nn.Parameter(torch.zeros(1, sizes.caption_tokens, sizes.cross_attention_dim))
        self.binding = DiffusersBinding(unet)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """A batch of `told_pictures` -> (loss, nothing beside)."""
        z = batch["latents"]
        keep = (torch.rand(len(z), device=z.device) >= self.caption_drop).view(-1, 1, 1)
        told = torch.where(keep, batch["caption"], self.null_caption)
        t = cubic_timesteps(torch.rand(len(z), device=z.device), self.schedule.steps)   # layout is decided at high noise
        noise = torch.randn_like(z)
        rows = harmonise([Injections(context=everywhere(told))], len(z)).stacked()
        prediction = self.binding(self.schedule.add_noise(z, noise, t), t, rows)
        return (prediction.float() - self.schedule.target(z, noise, t)).square().mean(), {}

    def guidance(self, caption: Tensor, weight: float = 2.0) -> Guidance:
        """Null against description."""
        return Guidance((Term("null", Injections(context=everywhere(self.null_caption))),
                         Term("caption", Injections(context=everywhere(caption)), weight)))
