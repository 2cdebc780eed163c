"""Task `autoencoder`: a tiny autoencoder in the TAESD layout, trained on person-centred crops."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pgpis_models.settings import build, check_ranges, within
from pgpis_models.unet.autoencoder import HOST_VAE_WIDTH, load_vae, save_vae, tiny
from training.engine.config import TrainConfig
from training.engine.picture import grid
from training.engine.shares import WHOLE, Share
from training.engine.task import as_unit
from training.world.bank import Bank, open_bank, open_watched

LATENT_GAIN = 3.0   # latents start as LATENT_GAIN * (mean RGB - LATENT_GREY): about zero mean, unit std
LATENT_GREY = 0.75
HEAD_PARTS = (23, 24)   # DensePose parts of the head
SHOWN = 16          # people of the sample grid


@dataclass(frozen=True)
class AutoencoderConfig:
    """`world` of this task. TAESD layout: 8x smaller, 4 latent channels."""

    width: int = within(32, "1 or more")              # channels while training; the file is padded to 64, the host's
    crop: int = within(64, "1 or more")               # training crop, pixels
    person: float = within(4.0, "more than 0")        # loss weight of person pixels, background 1
    face: float = within(12.0, "more than 0")         # loss weight of the head's pixels
    eyes: float = within(20.0, "more than 0")         # loss weight of discs around the eyes
    edges: float = within(0.5, "0 or more")           # weight of the differences between neighbouring pixels
    latent_noise: float = within(0.05, "0 or more")   # std of noise on latents in training: neighbours decode alike
    latent_unit: float = within(1e-3, "0 or more")    # weight of the pull towards unit mean and variance of each channel
    init: str = ""                                    # file of an earlier run to start from


class AutoencoderTask:
    """Trains encoder and decoder on the pictures of a bank.

    Raises ValueError for a width or crop that cannot be.
    """

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        settings: AutoencoderConfig = build(AutoencoderConfig, config.world, "world")
        check_ranges(settings, "world.")
        if not 4 <= settings.width <= HOST_VAE_WIDTH:
            raise ValueError(f"world.width is {settings.width}; expected 4 to {HOST_VAE_WIDTH}, the host's")
        if settings.crop % 8 or not 8 <= settings.crop <= min(config.data.size):
            raise ValueError(f"world.crop is {settings.crop}; expected a multiple of 8 up to {min(config.data.size)}")
        self.loader_workers = config.data.workers
        self.bank: Bank = open_bank(config.data)
        self.held_out: Bank = open_watched(config.data)
        self.batch, self.unseen = (partial(crops, bank, settings) for bank in (self.bank, self.held_out))
        model = load_vae(settings.init) if settings.init else colour_identity(tiny(settings.width))
        self.model = AutoencoderLoss(model, settings).to(device, memory_format=torch.channels_last)

    def groups(self, lr: float) -> list[dict]:
        return [{"params": list(self.model.parameters()), "lr": lr}]

    def grid(self) -> np.ndarray:
        """People never trained on: the truth and what is decoded of it."""
        truth = self.held_out.images(np.arange(SHOWN), np.zeros(SHOWN, int)).to(self.device)
        return grid([truth, self.model.vae(truth).sample], ["truth", "decoded"], scale=1, per_row=4)

    def export(self, path: Path, images: int) -> None:
        save_vae(path, self.model.vae, step=images, data=self.config.data.kind)


def crops(bank: Bank, settings: AutoencoderConfig, rng: np.random.Generator, size: int,
          share: Share = WHOLE) -> dict[str, Tensor]:
    """Crops around random person pixels, half of them of the head: image (B, 3, c, c) uint8, weight (B, 1, c, c) float32 of
    mean 1 over the batch of `size`, of which the share is given."""
    (height, width), crop = bank.size, settings.crop
    images, weights = np.empty((size, crop, crop, 3), np.uint8), np.empty((size, crop, crop), np.float32)
    for row, (who, view) in enumerate(zip(rng.integers(bank.people, size=size), rng.integers(bank.views, size=size),
                                          strict=True)):
        part = bank.part[who, view]
        head = np.isin(part, HEAD_PARTS)
        ys, xs = np.nonzero(head if rng.random() < 0.5 and head.any() else part)
        pick = rng.integers(len(ys))
        y = int(np.clip(ys[pick] - rng.integers(crop), 0, height - crop))
        x = int(np.clip(xs[pick] - rng.integers(crop), 0, width - crop))
        window = np.s_[y:y + crop, x:x + crop]
        weight = np.where(head, settings.face, np.where(part > 0, settings.person, 1.0))[window]
        near = eye_discs(bank, who, view, window)
        images[row], weights[row] = bank.image[who, view][window], np.where(near, settings.eyes, weight)
    weights /= weights.mean()
    images, weights = share.of(images), share.of(weights)
    return {"image": torch.from_numpy(images).permute(0, 3, 1, 2), "weight": torch.from_numpy(weights)[:, None]}


def eye_discs(bank: Bank, who: int, view: int, window: tuple[slice, slice]) -> np.ndarray:
    """Where a window of a picture lies within 4 pixels (times the zoom) of an eye that shows, bool."""
    rows, columns = (np.arange(side.start, side.stop) + 0.5 for side in window)
    near = np.zeros((len(rows), len(columns)), bool)
    for (x, y), shows in zip(bank.eyes[who, view], bank.eyes_visible[who, view], strict=True):
        if shows:
            near |= (rows[:, None] - y) ** 2 + (columns[None] - x) ** 2 < (4 * bank.zoom[who, view]) ** 2
    return near


class AutoencoderLoss(nn.Module):
    """Weighted L1 + L2 of the reconstruction and of its edges, noise on the latents, and a pull to unit latents."""

    def __init__(self, vae: nn.Module, settings: AutoencoderConfig) -> None:
        super().__init__()
        self.vae, self.settings = vae, settings

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """A batch of `crops` -> (loss, its parts)."""
        image, weight = as_unit(batch["image"]), batch["weight"]
        latents = self.vae.encode(image).latents
        decoded = self.vae.decode(latents + self.settings.latent_noise * torch.randn_like(latents)).sample.float()
        error = decoded - image
        loss = (weight * (error.abs() + error.square())).mean()
        for across in (-1, -2):   # as the difference of differences
            loss = loss + self.settings.edges * (weight.narrow(across, 1, weight.shape[across] - 1)
                                                 * error.diff(dim=across).abs()).mean()
        flat = latents.float().transpose(0, 1).flatten(1)
        spread = (flat.mean(1).square() + flat.std(1).clamp_min(1e-3).log().square()).mean()
        psnr = -10 * torch.log10(F.mse_loss(decoded.detach() / 2, image / 2))
        return loss + self.settings.latent_unit * spread, {"psnr": psnr, "spread": spread.detach()}


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
