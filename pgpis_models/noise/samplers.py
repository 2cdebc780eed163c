"""From noise to latents: seeded start noise and named samplers for training grids, evaluation and the command line.

ComfyUI users sample with the host's own samplers; this exists so that results can be had, and compared, without it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .schedule import NoiseSchedule, ddim_step, ddpm_step, leading_timesteps, sample, trailing_timesteps

SAMPLERS = {"ddim": ddim_step, "ddpm": ddpm_step}  # ddim: eta 0; ddpm: ancestral, the authors' choice for CFLD
SPACINGS = {"trailing": trailing_timesteps, "leading": leading_timesteps}  # leading with offset 1, as published

STEP_NOISE = 500_009   # row number from which on seeds make the noise of the steps, not of the start


def start_noise(shape: tuple[int, ...], seed: int, first: int = 0) -> Tensor:
    """Unit normal noise (B, ...) on the CPU. Row i depends on (seed, first + i) alone, not on its batch."""
    rows = [torch.Generator().manual_seed(seed * 1_000_003 + first + row) for row in range(shape[0])]
    return torch.stack([torch.randn(shape[1:], generator=generator) for generator in rows])


def sample_latents(denoise: Callable[[Tensor, int], Tensor], schedule: NoiseSchedule, shape: tuple[int, ...], *,
                   steps: int = 20, seed: int = 0, first: int = 0, sampler: str = "ddim", spacing: str = "trailing",
                   device: torch.device | str = "cpu", same_noise: bool = False,
                   callback: Callable[[int, int, Tensor], None] | None = None) -> Tensor:
    """Samples latents of `shape` (B, 4, h, w).

    denoise: f(x, t) -> guided prediction of the schedule's kind. first: number of the first row, for pictures made in
    several batches: noise of start and steps depends on (seed, first + row) alone, not on the batch. same_noise: every row
    gets the noise of row 0, whatever `first` is, as for the frames of a sequence. Raises ValueError for unknown samplers or
    spacings, and for latents that are not finite at the end.
    """
    if sampler not in SAMPLERS or spacing not in SPACINGS:
        raise ValueError(f"sampler {sampler!r} with spacing {spacing!r}; expected one of {sorted(SAMPLERS)} with one of "
                         f"{sorted(SPACINGS)}")
    shape = tuple(shape)
    drawn, first = ((1, *shape[1:]), 0) if same_noise else (shape, first)
    start = start_noise(drawn, seed, first).expand(shape).to(device)
    step_noise = None
    if sampler == "ddpm":
        rows = start_noise((drawn[0], steps, *shape[1:]), seed, first + STEP_NOISE)
        step_noise = rows.expand(shape[0], steps, *shape[1:]).transpose(0, 1)  # (steps, B, 4, h, w)
    latents = sample(denoise, start, schedule, SPACINGS[spacing](steps, schedule.steps), SAMPLERS[sampler],
                     noise=step_noise, callback=callback)
    odd = [row for row, fine in enumerate(latents.isfinite().flatten(1).all(1).tolist(), start=first) if not fine]
    if odd:
        raise ValueError(f"{len(odd)} of {shape[0]} latents (the first is number {odd[0]}) are not finite after {steps} "
                         "steps: the UNet, or what it was given, overflowed. Use float32 weights, or smaller "
                         "guidance weights")
    return latents
