"""Timesteps to train at, noise, and the learning rates of a run."""

import pytest
import torch

from training.engine.loss import cubic_timesteps, offset_noise
from training.engine.rates import cfld_lr


def test_cubic_timesteps_cover_the_range_and_favour_late_ones():
    t = cubic_timesteps(torch.rand(20_000, generator=torch.Generator().manual_seed(0)))
    assert t.dtype == torch.int64 and t.min() >= 0 and t.max() <= 999
    assert cubic_timesteps(torch.tensor([0.0])).item() == 999  # 1000 is clamped
    for power in (1, 6.0):   # P(t >= 900) = P(u^power <= 0.1)
        late = cubic_timesteps(torch.rand(20_000, generator=torch.Generator().manual_seed(0)), power=power)
        assert abs((late >= 900).double().mean() - 0.1 ** (1 / power)) < 0.01
    # P(t >= 500) = P(u^3 <= 1/2) = 0.794
    assert (t >= 500).float().mean().item() == pytest.approx(0.5 ** (1 / 3), abs=0.01)


def test_learning_rate_warms_up_and_decays():
    assert cfld_lr(0) == pytest.approx(1e-4 * (0.1 + 0.9 / 1000))
    assert cfld_lr(999) == cfld_lr(1000) == cfld_lr(22749) == pytest.approx(1e-4)
    assert cfld_lr(22750) == pytest.approx(1e-5)
    assert cfld_lr(5000, base=1.0, decay_at=[2000, 3000, 6000]) == pytest.approx(0.01)


def test_offset_noise_shifts_whole_channels():
    noise = torch.zeros(2, 4, 3, 3)
    shift = torch.arange(8.0).reshape(2, 4, 1, 1)
    assert torch.allclose(offset_noise(noise, shift), 0.05 * shift.expand_as(noise))
    drawn = offset_noise(noise)
    assert torch.equal(drawn, drawn[:, :, :1, :1].expand_as(drawn)) and len(drawn.unique()) == 8
