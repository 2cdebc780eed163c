"""The denoising loss that methods may share: its target, its weights and its offset."""

import torch

from tests.helpers.tiny import SIZES
from training.engine.diffusion import diffusion_loss


def silent(noisy, timesteps, rows):
    """In place of a UNet."""
    return torch.zeros_like(noisy)


def test_latent_pixels_are_weighed():
    weight = torch.tensor([[[[2.0, 2 / 3], [2 / 3, 2 / 3]]]])
    latents = torch.zeros(1, 4, 2, 2)
    torch.manual_seed(0)
    loss = diffusion_loss(silent, SIZES.schedule(), latents, {}, torch.tensor([0]), weight)
    torch.manual_seed(0)
    target = torch.randn_like(latents) * SIZES.schedule().alphas_cumprod[0].sqrt()   # the velocity of nothing but noise
    assert torch.allclose(loss, (target.square() * weight).mean())


def test_the_offset_is_one_number_per_channel_and_belongs_to_the_target():
    latents, seen = torch.randn(3, 4, 8, 8), []

    def watched(noisy, timesteps, rows):
        seen.append((noisy, timesteps))
        return silent(noisy, timesteps, rows)
    torch.manual_seed(0)
    loss = diffusion_loss(watched, SIZES.schedule(), latents, {}, offset=0.5)
    (noisy, t), = seen
    torch.manual_seed(0)
    noise = torch.randn_like(latents) + 0.5 * torch.randn(3, 4, 1, 1)
    abar = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2, 0)[t].view(-1, 1, 1, 1)
    assert torch.allclose(noisy, abar.sqrt() * latents + (1 - abar).sqrt() * noise, atol=1e-5)
    assert torch.allclose(loss, (abar.sqrt() * noise - (1 - abar).sqrt() * latents).square().mean(), rtol=1e-4)
