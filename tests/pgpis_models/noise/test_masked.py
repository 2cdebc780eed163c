"""Masked sampling against its definition in float64: the reference noised at every step, and kept at the end."""

from __future__ import annotations

import pytest
import torch

from pgpis_models.noise.masked import Kept
from pgpis_models.noise.samplers import sample_latents, start_noise
from pgpis_models.noise.schedule import NoiseSchedule, trailing_timesteps

SHAPE, STEPS = (2, 4, 8, 6), 5


def predictor(x: torch.Tensor, t: int) -> torch.Tensor:
    """Something that depends on x, on its neighbours and on t."""
    return (0.8 * x + 0.3 * x.roll(1, -1)).tanh() * (1 + t / 1000)


@pytest.fixture(params=["epsilon", "v_prediction"])
def schedule(request) -> NoiseSchedule:
    return NoiseSchedule(prediction=request.param)


def test_masked_sampling_is_its_definition(schedule):
    reference, mask = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1)), torch.zeros(2, 1, 8, 6)
    mask[0, :, 2:6, 1:4], mask[1, :, :, 3:] = 1, 0.5
    made = sample_latents(predictor, schedule, SHAPE, steps=STEPS, seed=7, kept=Kept(reference, mask))
    noise, m, z = start_noise(SHAPE, 7).double(), mask.double(), reference.double()
    times = trailing_timesteps(STEPS).tolist()
    x = noise + schedule.alphas_cumprod[times[0]].double().sqrt() * z
    for t, after in zip(times, [*times[1:], -1], strict=True):
        abar = schedule.alphas_cumprod[t].double()
        nxt = schedule.alphas_cumprod[after].double() if after >= 0 else torch.ones((), dtype=torch.float64)
        seen = m * x + (1 - m) * (abar.sqrt() * z + (1 - abar).sqrt() * noise)
        out = predictor(seen, t)
        clean = (seen - (1 - abar).sqrt() * out) / abar.sqrt() if schedule.prediction == "epsilon" else \
            abar.sqrt() * seen - (1 - abar).sqrt() * out
        clean = m * clean + (1 - m) * z
        x = nxt.sqrt() * clean + (1 - nxt).sqrt() * (x - abar.sqrt() * clean) / (1 - abar).sqrt()
    assert torch.allclose(made.double(), x, atol=2e-3 * float(x.abs().max()))
    assert torch.allclose(made[0][:, mask[0, 0] == 0], reference[0][:, mask[0, 0] == 0], atol=1e-4)


def test_a_white_mask_is_plain_sampling_whatever_the_reference(schedule):
    plain = sample_latents(predictor, schedule, SHAPE, steps=STEPS, seed=7)
    white = Kept(torch.full(SHAPE, 3.0), torch.ones(2, 1, 8, 6))
    assert torch.equal(sample_latents(predictor, schedule, SHAPE, steps=STEPS, seed=7, kept=white), plain)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_rows_of_one_pose_share_their_noise(schedule, sampler):
    shape = (6, *SHAPE[1:])
    shared = sample_latents(predictor, schedule, shape, steps=2, seed=7, numbers=[4, 4, 4, 5, 5, 5], sampler=sampler)
    alone = sample_latents(predictor, schedule, (2, *SHAPE[1:]), steps=2, seed=7, first=4, sampler=sampler)
    assert torch.allclose(shared, alone.repeat_interleave(3, dim=0), atol=1e-5)
