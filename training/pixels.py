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
from pgpis_models.schedule import NoiseSchedule

TYPICAL = 0.01   # squared error of a picture of the demo in -1..1: 26 dB
FLOOR = 0.001    # 36 dB: pictures of next to nothing do not outweigh the others


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

    def error(self, latents: Tensor, pictures: Tensor) -> Tensor:
        """Mean squared error of decoded latents (B, 4, h, w) against pictures (B, 3, 8h, 8w) in -1..1; with psnr the mean of
        TYPICAL * ln(error + FLOOR), which moves as the plain one does where a picture's error is TYPICAL."""
        each = (decode_latents(self.vae, latents).float() * 2 - 1 - pictures).square().flatten(1).mean(1)
        return TYPICAL * torch.log(each + FLOOR).mean() if self.psnr else each.mean()
