"""From noise to latents: seeded start noise and named samplers for training grids, evaluation and the command line.

ComfyUI users sample with the host's own samplers; this exists so that results can be had, and compared, without it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .carried import Carried
from .masked import Kept
from .schedule import NoiseSchedule, ddim_step, ddpm_step, lcm_step, leading_timesteps, sample, trailing_timesteps

# ddim: eta 0; ddpm: ancestral, the authors' choice for CFLD; lcm: for weights distilled to few steps
SAMPLERS = {"ddim": ddim_step, "ddpm": ddpm_step, "lcm": lcm_step}
SPACINGS = {"trailing": trailing_timesteps, "leading": leading_timesteps}  # leading with offset 1, as published

STEP_NOISE = 500_009   # row number from which on seeds make the noise of the steps, not of the start
BESIDE = 250_007       # and from which on that of the draws beside a plain picture's, where noise is carried


def start_noise(shape: tuple[int, ...], seed: int, first: int = 0) -> Tensor:
    """Unit normal noise (B, ...) on the CPU. Row i depends on (seed, first + i) alone, not on its batch."""
    return numbered_noise(shape[1:], seed, range(first, first + shape[0]))


def numbered_noise(shape: tuple[int, ...], seed: int, numbers: Sequence[int]) -> Tensor:
    """Unit normal noise (len(numbers), *shape) on the CPU. Each row depends on (seed, its number) alone."""
    rows = [torch.Generator().manual_seed(seed * 1_000_003 + number) for number in numbers]
    return torch.stack([torch.randn(shape, generator=generator) for generator in rows])


def sample_latents(denoise: Callable[[Tensor, int], Tensor], schedule: NoiseSchedule, shape: tuple[int, ...], *,
                   steps: int = 20, seed: int = 0, first: int = 0, sampler: str = "ddim", spacing: str = "trailing",
                   device: torch.device | str = "cpu", numbers: Sequence[int] | None = None, carried: Carried | None = None,
                   kept: Kept | None = None,
                   callback: Callable[[int, int, Tensor], None] | None = None) -> Tensor:
    """Samples latents of `shape` (B, 4, h, w).

    denoise: f(x, t) -> guided prediction of the schedule's kind. first: number of the first row, for pictures made in
    several batches: noise of start and steps depends on (seed, number) alone, not on the batch. numbers: (B,) those of the
    rows where they do not follow each other; equal ones have equal noise. carried: of these B rows, whose noise is then that
    of row 0 as it is carried along, and numbers are not used. kept: what masked sampling leaves as it is. Raises ValueError
    for unknown samplers or spacings, and for latents that are not finite at the end.
    """
    if sampler not in SAMPLERS or spacing not in SPACINGS:
        raise ValueError(f"sampler {sampler!r} with spacing {spacing!r}; expected one of {sorted(SAMPLERS)} with one of "
                         f"{sorted(SPACINGS)}")
    numbers = list(range(first, first + shape[0]) if numbers is None else numbers)

    def drawn(lead: tuple[int, ...], offset: int) -> Tensor:
        if carried is None:
            return numbered_noise((*lead, *shape[1:]), seed, [offset + number for number in numbers])
        [plain] = numbered_noise((*lead, *shape[1:]), seed, [offset])
        [beside] = numbered_noise((*lead, shape[1], carried.more), seed, [offset + BESIDE])
        return carried.spread(plain, beside)
    start = drawn((), 0).to(device)
    step_noise = drawn((steps,), STEP_NOISE).transpose(0, 1) if sampler != "ddim" else None   # (steps, B, 4, h, w)
    timesteps = SPACINGS[spacing](steps, schedule.steps)
    if kept is not None:
        denoise, start = kept.around(denoise, schedule, start), kept.start(start, schedule, int(timesteps[0]))
    latents = sample(denoise, start, schedule, timesteps, SAMPLERS[sampler],
                     noise=step_noise, callback=callback)
    odd = [row for row, fine in zip(numbers, latents.isfinite().flatten(1).all(1).tolist(), strict=True) if not fine]
    if odd:
        raise ValueError(f"{len(odd)} of {shape[0]} latents (the first is number {odd[0]}) are not finite after {steps} "
                         "steps: the UNet, or what it was given, overflowed. Use float32 weights, or smaller "
                         "guidance weights")
    return latents
