"""MCLD's noise schedules. The released code trains on a scaled linear one and samples on a linear one, both with zero
terminal SNR and velocity prediction; published weights go with that, so it is kept."""

from __future__ import annotations

from ..noise.schedule import NoiseSchedule


def training_schedule() -> NoiseSchedule:
    """Scaled linear betas, zero terminal SNR, velocity prediction."""
    return NoiseSchedule("scaled_linear", zero_terminal_snr=True, prediction="v_prediction")


def sampling_schedule() -> NoiseSchedule:
    """Linear betas, zero terminal SNR, velocity prediction; to be sampled on trailing timesteps."""
    return NoiseSchedule("linear", zero_terminal_snr=True, prediction="v_prediction")
