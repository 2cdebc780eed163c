"""Noise of the frames of a sequence, drawn as the host draws it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial

import comfy.sample
import comfy.samplers
import torch
from comfy.k_diffusion.sampling import BrownianTreeNoiseSampler, default_noise_sampler
from torch import Tensor

from ...pgpis_models.noise.carried import Carried

FRAME_STRIDE = 1_000_003   # between the seeds of two frames' noise of the steps
BESIDE = 500_009           # from the seed of a picture to that of the draws beside, where noise is carried
SEEDS = 2 ** 64 - 1


def start_noise(seed: int, numbers: Sequence[int], shape: tuple[int, ...], carried: Carried | None = None) -> Tensor:
    """What frames of these numbers, each (4, h, w), start from: equal numbers have equal noise, number 0 has that of a
    single picture of this seed. carried: of these frames, whose noise is number 0's as it is carried along."""
    if carried is not None:
        beside = comfy.sample.prepare_noise(torch.zeros(1, shape[0], 1, carried.more), (seed + BESIDE) % SEEDS)
        return carried.spread(comfy.sample.prepare_noise(torch.zeros(1, *shape), seed)[0], beside[0, :, 0])
    drawn = comfy.sample.prepare_noise(torch.zeros(max(numbers) + 1, *shape), seed)
    return drawn[list(numbers)]


class StepNoise:
    """Noise of the sampling steps of some frames, each (4, h, w); called as the host's samplers call theirs. Frame 0, and
    all of its number, get what KSampler draws for one picture of this seed. carried: as of `start_noise`."""

    def __init__(self, seed: int, numbers: Sequence[int], shape: tuple[int, ...], carried: Carried | None = None) -> None:
        self.seed, self.numbers, self.shape, self.carried = seed, list(numbers), tuple(shape), carried
        self.frames: dict[int, Callable] = {}
        self.source: Callable = default_noise_sampler   # the host's own, whose seeding differs between versions

    def brownian(self, sigmas: Tensor, cpu: bool) -> None:
        """Takes the noise from Brownian paths between the levels of a run, as the host's SDE samplers do. cpu: whether they
        are drawn there."""
        above = sigmas[sigmas > 0]
        self.source = partial(BrownianTreeNoiseSampler, sigma_min=above.min(), sigma_max=above.max(), cpu=cpu)

    def __call__(self, sigma: Tensor, sigma_next: Tensor) -> Tensor:
        if not self.frames:   # the device is known now
            def source(shape: tuple[int, ...], offset: int) -> Callable:
                return self.source(torch.zeros(1, *shape, device=sigma.device), seed=(self.seed + offset) % SEEDS)
            if self.carried is None:
                self.frames = {number: source(self.shape, number * FRAME_STRIDE) for number in set(self.numbers)}
            else:
                self.frames = {0: source(self.shape, 0), 1: source((self.shape[0], 1, self.carried.more), BESIDE)}
        drawn = {number: draw(sigma, sigma_next)[0] for number, draw in self.frames.items()}
        if self.carried is not None:
            return self.carried.spread(drawn[0], drawn[1][:, 0])
        return torch.stack([drawn[number] for number in self.numbers])


def with_step_noise(name: str, noise: StepNoise, sigmas: Tensor):
    """The host's sampler; one that adds noise at its steps draws it frame by frame, so that it depends on the frame's number
    and not on the chunk that it is made in. sigmas: of the run."""
    sampler = comfy.samplers.sampler_object(name)
    function = getattr(sampler, "sampler_function", None)   # other packs may bring samplers of other kinds
    if function and "noise_sampler" in inspect.signature(function).parameters:
        if name.startswith("dpmpp") and "_sde" in name:   # those ask for noise between two levels, a path rather than draws
            noise.brownian(sigmas, cpu=not name.endswith("_gpu"))
        sampler.extra_options = {**sampler.extra_options, "noise_sampler": noise}
    return sampler
