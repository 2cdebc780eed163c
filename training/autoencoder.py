"""Task `autoencoder`: a tiny autoencoder in the TAESD layout, trained on person-centred crops."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pgpis_models.base import HOST_VAE_WIDTH, load_vae, save_vae, tiny
from training.config import TrainConfig
from training.data.bank import WATCHED, Bank, open_bank
from training.picture import grid

LATENT_GAIN = 3.0   # latents start as LATENT_GAIN * (mean RGB - LATENT_GREY): about zero mean, unit std
LATENT_GREY = 0.75


class AutoencoderTask:
    """Trains encoder and decoder (or the decoder alone) on the pictures of a bank.

    Raises ValueError for a width or crop that cannot be.
    """

    loader_workers = 0

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        self.config, settings = config, config.autoencoder
        if not 4 <= settings.width <= HOST_VAE_WIDTH:
            raise ValueError(f"autoencoder.width is {settings.width}; expected 4 to {HOST_VAE_WIDTH}, the host's")
        if settings.crop % 8 or not 8 <= settings.crop <= min(config.data.size):
            raise ValueError(f"autoencoder.crop is {settings.crop}; expected a multiple of 8 up to {min(config.data.size)}")
        self.bank: Bank = open_bank(config.data)
        self.held_out: Bank = open_bank(config.data, held_out=32, start=WATCHED)
        self.batch, self.unseen = (partial(crops, bank, settings.crop) for bank in (self.bank, self.held_out))
        if settings.init:
            model = load_vae(settings.init)
        else:
            model = colour_identity(tiny(settings.width))
        if settings.freeze_encoder:
            model.encoder.requires_grad_(False)
        self.model = AutoencoderLoss(model, settings.foreground, settings.latent_noise, settings.latent_unit)
        self.model.to(device, memory_format=torch.channels_last)
        self.device = device

    def groups(self, lr: float) -> list[dict]:
        return [{"params": [p for p in self.model.parameters() if p.requires_grad], "lr": lr}]

    def grid(self) -> np.ndarray:
        truth = self.held_out.images(np.arange(16), np.zeros(16, int)).to(self.device)
        return grid([truth, self.model.vae(truth).sample], ["truth", "decoded"])

    def export(self, path: Path, images: int) -> None:
        save_vae(path, self.model.vae, step=images, data=self.config.data.kind)


def crops(bank: Bank, crop: int, rng: np.random.Generator, size: int) -> dict[str, Tensor]:
    """Crops around random person pixels: image (B, 3, c, c) in -1..1, person (B, 1, c, c) in 0/1."""
    height, width = bank.size
    images = np.empty((size, crop, crop, 3), np.uint8)
    person = np.empty((size, crop, crop), bool)
    for row, (who, view) in enumerate(zip(rng.integers(bank.people, size=size), rng.integers(bank.views, size=size),
                                          strict=True)):
        ys, xs = np.nonzero(bank.part[who, view])
        pick = rng.integers(len(ys))
        y = int(np.clip(ys[pick] - rng.integers(crop), 0, height - crop))
        x = int(np.clip(xs[pick] - rng.integers(crop), 0, width - crop))
        window = np.s_[who, view, y:y + crop, x:x + crop]
        images[row], person[row] = bank.image[window], bank.part[window] > 0
    return {"image": torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1,
            "person": torch.from_numpy(person)[:, None].float()}


class AutoencoderLoss(nn.Module):
    """Weighted L1 + L2 of the reconstruction, noise on the latents, and a pull to unit latents."""

    def __init__(self, vae: nn.Module, foreground: float, noise: float, unit: float) -> None:
        super().__init__()
        self.vae, self.foreground, self.noise, self.unit = vae, foreground, noise, unit

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        image, person = batch["image"], batch["person"]
        latents = self.vae.encode(image).latents
        decoded = self.vae.decode(latents + self.noise * torch.randn_like(latents)).sample.float()
        weight = 1 + (self.foreground - 1) * person
        weight = weight / weight.mean()
        error = decoded - image
        loss = (weight * (error.abs() + error.square())).mean()
        flat = latents.float().transpose(0, 1).flatten(1)
        spread = (flat.mean(1).square() + flat.std(1).clamp_min(1e-3).log().square()).mean()
        psnr = -10 * torch.log10(F.mse_loss(decoded.detach() / 2, image / 2))
        return loss + self.unit * spread, {"psnr": psnr, "spread": spread.detach()}


@torch.no_grad()
def colour_identity(vae: nn.Module) -> nn.Module:
    """Makes a fresh AutoencoderTiny start as a correct low-resolution colour picture.

    Channels 0..2 carry the mean RGB through every layer: a default start learns brightness first and stays grey for a
    long time, because colour has little weight in a squared error.
    """
    for part in (vae.encoder.layers, vae.decoder.layers):
        for layer in part:
            if isinstance(layer, nn.Conv2d):
                weight = layer.weight
                rows = min(3, weight.shape[0])
                weight[:rows] = 0
                if layer.bias is not None:
                    layer.bias[:rows] = 0
                for c in range(rows):
                    if layer.stride == (2, 2):
                        weight[c, c, 1:, 1:] = 0.25  # mean of the 2x2 pixels that this output covers
                    else:
                        weight[c, c, 1, 1] = 1.0
            elif hasattr(layer, "conv"):
                last = layer.conv[-1]
                last.weight[:3] = 0
                last.bias[:3] = 0
    to_latent, from_latent = vae.encoder.layers[-1], vae.decoder.layers[0]
    to_latent.weight[:3] *= LATENT_GAIN
    to_latent.bias[:3] = -LATENT_GAIN * LATENT_GREY
    from_latent.weight[:3] /= LATENT_GAIN
    from_latent.bias[:3] = LATENT_GREY
    return vae
