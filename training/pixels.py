"""Demo only: the loss in pixels beside the one in latents.

A squared error of latents counts each of their numbers alike; what one sees of them is uneven. So the clean latents that a
prediction means are decoded, and the picture is compared with the true one. For a tiny autoencoder, whose decoder costs a
third of a training step; no published training of these methods has it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pgpis_models.base import decode_latents
from pgpis_models.metrics import PART_PIXELS, PART_THRESHOLD, part_differences
from pgpis_models.schedule import NoiseSchedule

TYPICAL = 0.01   # squared error of a picture of the demo in -1..1: 26 dB
FLOOR = 0.001    # 36 dB: pictures of next to nothing do not outweigh the others
PARTS = 25       # of DensePose, background with them


class PredictionRecorder:
    """Runs a UNet as the loss does and keeps `clean`, the latents that its last prediction means (B, 4, h, w)."""

    clean: Tensor

    def __init__(self, binding: Callable[..., Tensor], schedule: NoiseSchedule) -> None:
        self.binding, self.schedule = binding, schedule

    def __call__(self, noisy: Tensor, timesteps: Tensor, rows: dict[str, Tensor]) -> Tensor:
        prediction = self.binding(noisy, timesteps, rows)
        self.clean = self.schedule.to_x0(prediction.float(), noisy, timesteps)
        return prediction


class Decoder:
    """An autoencoder's decoder that stays as it is. No module, so that it is neither trained nor saved.

    psnr: whether `error` is that of each picture on a logarithmic scale, as the mean PSNR of a test counts it, where the
    plain mean is made by the worst pictures.
    """

    def __init__(self, vae: nn.Module, psnr: bool = False) -> None:
        self.psnr = psnr
        # channels last: forward twice as fast on a CPU, and it is the dearest part of a step
        self.vae = vae.requires_grad_(False).train(False).to(memory_format=torch.channels_last)

    def made(self, latents: Tensor) -> Tensor:
        """Latents (B, 4, h, w) -> pictures (B, 3, 8h, 8w) float32, in -1..1."""
        return decode_latents(self.vae, latents).float() * 2 - 1

    def error(self, made: Tensor, pictures: Tensor) -> Tensor:
        """Mean squared error of made pictures against others, both (B, 3, H, W) in -1..1; with psnr the mean of TYPICAL *
        ln(error + FLOOR), which moves as the plain one does where a picture's error is TYPICAL."""
        each = (made - pictures).square().flatten(1).mean(1)
        return TYPICAL * torch.log(each + FLOOR).mean() if self.psnr else each.mean()


def part_colour_error(made: Tensor, pictures: Tensor, parts: Tensor) -> Tensor:
    """How wrong the mean colours of body parts are, 0..1: the mean over parts of d^2 / (d^2 + PART_THRESHOLD^2), with d the
    Euclidean RGB distance (colours 0..1) of a part's mean colour from the true one. A squared error of pixels hardly sees
    small parts; this one does, and gives up on those that are far off. What counts is what `part_colour` counts.

    made, pictures: (B, 3, H, W) in -1..1. parts: (B, H, W) integers, DensePose's, of the pictures; those of fewer than
    PART_PIXELS pixels do not count. 0 where none does.
    """
    difference, pixels = part_differences((made - pictures) / 2, parts, PARTS)
    square = difference.square().sum(1)   # (B, PARTS)
    counts = pixels >= PART_PIXELS
    counts[:, 0] = False   # background
    return (square / (square + PART_THRESHOLD ** 2) * counts).sum() / counts.sum().clamp(min=1)
