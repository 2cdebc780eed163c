"""What the losses of the methods are made of: latents of pictures, timesteps to train at, noise, and how much a
timestep counts."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pgpis_models.noise.schedule import NoiseSchedule
from pgpis_models.unet.autoencoder import LATENT_SCALE
from training.engine.config import MethodConfig

CHUNK = 8   # pictures that an autoencoder encodes at once: its activations are large


@torch.no_grad()
def posterior(vae: nn.Module, images: Tensor) -> Tensor:
    """Images (B, 3, H, W) in -1..1 -> (B, 2, 4, H/8, W/8): mean and standard deviation of their UNet latents.

    An autoencoder without a posterior (TAESD layout) gives standard deviation 0.
    """
    parts = []
    for chunk in images.split(CHUNK):
        encoded = vae.encode(chunk)
        if hasattr(encoded, "latents"):
            parts.append(torch.stack([encoded.latents, torch.zeros_like(encoded.latents)], 1))
        else:
            spread = encoded.latent_dist
            parts.append(torch.stack([spread.mean, spread.std], 1) * LATENT_SCALE)
    return torch.cat(parts).float()


def draw(posteriors: Tensor, noise: Tensor) -> Tensor:
    """Random latents (B, 4, h, w) of posteriors (B, 2, 4, h, w); noise (B, 4, h, w): standard normal.

    The authors train on such samples, not on the mean (CFLD's authors' code).
    """
    return posteriors[:, 0] + posteriors[:, 1] * noise


def noisy_timesteps(settings: MethodConfig, rows: int, schedule: NoiseSchedule, device: torch.device) -> Tensor:
    """(rows,) int64 training timesteps: uniform, or favouring noise where the settings ask for it."""
    if not settings.cubic_timesteps:
        return torch.randint(schedule.steps, (rows,), device=device)
    return cubic_timesteps(torch.rand(rows, device=device), schedule.steps, settings.timestep_power)


def cubic_timesteps(u: Tensor, steps: int = 1000, power: float = 3) -> Tensor:
    """Uniform draws u in [0, 1) -> training timesteps, int64 of u's shape: t = clamp(trunc((1 - u^3) T), 0, T - 1).

    Favours large t, where pose and layout are decided (CFLD's authors' code). Pass float32, as the authors do.
    power: in place of 3; the larger, the more noise is favoured.
    """
    return ((1.0 - u**power) * steps).long().clamp(0, steps - 1)


def offset_noise(noise: Tensor, shift: Tensor | None = None, strength: float = 0.05) -> Tensor:
    """Training noise with one constant per picture and channel added, so that overall brightness is learnt too.

    noise (B, C, H, W), standard normal; shift (B, C, 1, 1), standard normal, drawn here when None; strength: its standard
    deviation. Returns noise + strength * shift, whose variance is a little above 1, as in the authors' code.
    """
    if shift is None:
        shift = torch.randn(*noise.shape[:2], *(1,) * (noise.ndim - 2), device=noise.device, dtype=noise.dtype)
    return noise + strength * shift


def min_snr_weights(schedule: NoiseSchedule, t: Tensor, gamma: float = 5.0) -> Tensor:
    """Loss weight per timestep (Hang et al. 2023, in the form for velocity): min(snr + 1, gamma) / (snr + 1).

    t (B,) int64 -> (B,) float32 in (0, 1]; 1 at zero SNR. Raises ValueError for gamma not above 0.
    """
    if gamma <= 0:
        raise ValueError(f"min-SNR gamma is {gamma}; expected above 0 (0 means no weighting: leave them out)")
    snr = schedule.snr(t) + 1
    return snr.clamp(max=gamma) / snr
