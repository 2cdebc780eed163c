"""The denoising loss that the methods share."""

from __future__ import annotations

import torch
from torch import Tensor

from pgpis_models.noise.schedule import NoiseSchedule
from pgpis_models.unet.diffusers_binding import DiffusersBinding


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
