"""Noise schedules, timesteps and sampler steps: the diffusion arithmetic that all methods share.

Pure functions on tensors. `abar` is the running product of 1 - beta, written alpha-bar in the papers; x_t =
sqrt(abar_t) x_0 + sqrt(1 - abar_t) noise. A `previous` timestep below 0 means the end of the chain, a clean picture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor

# What a stepper may take as noise: a tensor, or a function that draws one and is called only when the step needs it.
Noise = Tensor | Callable[[], Tensor] | None


@dataclass(frozen=True)
class NoiseSchedule:
    """The noise schedule a UNet was trained with, and what it predicts.

    kind:              "scaled_linear", betas linear in their square root (Stable Diffusion), or "linear".
    beta_start/_end:   first and last beta.
    steps:             number of training timesteps T; timesteps are 0..T-1.
    zero_terminal_snr: rescale so that timestep T-1 is pure noise (Lin et al. 2023, algorithm 1).
    prediction:        "epsilon" or "v_prediction".

    Raises ValueError on other values, and on epsilon with zero terminal SNR: pure noise says nothing about x0.
    """

    kind: str = "scaled_linear"
    beta_start: float = 0.00085
    beta_end: float = 0.012
    steps: int = 1000
    zero_terminal_snr: bool = False
    prediction: str = "epsilon"

    def __post_init__(self):
        if self.kind not in ("scaled_linear", "linear"):
            raise ValueError(f"schedule kind {self.kind!r}; expected 'scaled_linear' or 'linear'.")
        if self.prediction not in ("epsilon", "v_prediction"):
            raise ValueError(f"schedule prediction {self.prediction!r}; expected 'epsilon' or 'v_prediction'.")
        if not (self.steps > 1 and 0 < self.beta_start <= self.beta_end < 1):
            raise ValueError(f"schedule with {self.steps} steps and betas {self.beta_start} to {self.beta_end}; "
                             f"expected 2 steps or more and 0 < beta_start <= beta_end < 1.")
        if self.zero_terminal_snr and self.prediction == "epsilon":
            raise ValueError("zero terminal SNR with epsilon prediction: at the last timestep epsilon says nothing "
                             "about the picture. Use prediction='v_prediction' or zero_terminal_snr=False.")

    @cached_property
    def betas(self) -> Tensor:
        """(T,) float32 on the CPU, after the rescaling to zero terminal SNR if asked for."""
        if self.kind == "linear":
            betas = torch.linspace(self.beta_start, self.beta_end, self.steps, dtype=torch.float32)
        else:
            betas = torch.linspace(self.beta_start**0.5, self.beta_end**0.5, self.steps, dtype=torch.float32) ** 2
        if not self.zero_terminal_snr:
            return betas
        root = torch.cumprod(1.0 - betas, 0).sqrt()
        root = (root - root[-1]) * (root[0] / (root[0] - root[-1]))  # last one 0, first one kept
        abar = root**2
        return 1.0 - torch.cat([abar[:1], abar[1:] / abar[:-1]])

    @cached_property
    def alphas_cumprod(self) -> Tensor:
        """(T,) float32 on the CPU: abar of every timestep."""
        return torch.cumprod(1.0 - self.betas, 0)

    def _abar_on(self, device: torch.device) -> Tensor:
        """`alphas_cumprod` on a device, copied there once: a copy at every step would make the device wait."""
        return _on_device(self, device)

    def signal_and_noise(self, t: Tensor | int, like: Tensor) -> tuple[Tensor, Tensor]:
        """sqrt(abar_t) and sqrt(1 - abar_t), on the device and in the dtype of `like`, shaped to multiply it.

        t: one timestep for all, or (B,) timesteps, one per row of `like` (B, ...). Computed in float32.
        """
        abar = self.alphas_cumprod
        if not isinstance(t, Tensor):
            abar = abar[int(t)]
        else:
            abar = self._abar_on(t.device)[t].to(like.device)
            abar = abar.reshape(abar.shape + (1,) * (like.ndim - abar.ndim)) if abar.ndim else abar
        return abar.sqrt().to(like), (1.0 - abar).sqrt().to(like)

    def snr(self, t: Tensor) -> Tensor:
        """Signal-to-noise ratio abar / (1 - abar) of timesteps t, in t's shape; for min-SNR loss weights."""
        abar = self._abar_on(t.device)[t]
        return abar / (1.0 - abar)

    def add_noise(self, x0: Tensor, noise: Tensor, t: Tensor | int) -> Tensor:
        """x_t = sqrt(abar_t) x0 + sqrt(1 - abar_t) noise. x0, noise: (B, ...); t: int or (B,)."""
        signal, spread = self.signal_and_noise(t, x0)
        return signal * x0 + spread * noise

    def velocity(self, x0: Tensor, noise: Tensor, t: Tensor | int) -> Tensor:
        """v = sqrt(abar_t) noise - sqrt(1 - abar_t) x0 (Salimans & Ho 2022). Shapes as in `add_noise`."""
        signal, spread = self.signal_and_noise(t, x0)
        return signal * noise - spread * x0

    def target(self, x0: Tensor, noise: Tensor, t: Tensor | int) -> Tensor:
        """What the UNet is trained to predict at x_t: the noise or the velocity. Shapes as in `add_noise`."""
        return noise if self.prediction == "epsilon" else self.velocity(x0, noise, t)

    def to_x0(self, prediction: Tensor, x: Tensor, t: Tensor | int) -> Tensor:
        """The clean picture that a prediction at x = x_t means. Shapes as in `add_noise`."""
        signal, spread = self.signal_and_noise(t, x)
        if self.prediction == "epsilon":
            return (x - spread * prediction) / signal
        return signal * x - spread * prediction

    def to_epsilon(self, prediction: Tensor, x: Tensor, t: Tensor | int) -> Tensor:
        """The noise that a prediction at x = x_t means. Shapes as in `add_noise`."""
        if self.prediction == "epsilon":
            return prediction
        signal, spread = self.signal_and_noise(t, x)
        return signal * prediction + spread * x

    def abar(self, t: int, final: str = "one") -> Tensor:
        """abar of timestep t as a float32 scalar; below 0, that of the end: "one" for exactly 1, "first" for abar_0
        (set_alpha_to_one=False of the published scheduler files)."""
        if final not in ("one", "first"):
            raise ValueError(f"final is {final!r}; expected 'one' (end at alpha-bar 1) or 'first' (that of t = 0).")
        if t >= 0:
            return self.alphas_cumprod[t]
        return self.alphas_cumprod[0] if final == "first" else torch.ones(())


@lru_cache(maxsize=16)
def _on_device(schedule: NoiseSchedule, device: torch.device) -> Tensor:
    return schedule.alphas_cumprod.to(device)


def leading_timesteps(count: int, steps: int = 1000, offset: int = 1) -> Tensor:
    """`count` timesteps from high to low, (count,) int64: i * (steps // count) + offset.

    50 of 1000 with the published offset 1: 981, 961, ..., 21, 1 (CFLD's and FPDM's authors' code). Raises ValueError where
    the first lies beyond the schedule: 1000 of 1000 with an offset.
    """
    _check_count(count, steps)
    first = (count - 1) * (steps // count) + offset
    if first >= steps:
        raise ValueError(f"{count} sampling steps with leading spacing and offset {offset} ask for timestep {first}, the "
                         f"schedule's last is {steps - 1}; expected fewer steps, or trailing spacing.")
    return torch.arange(count - 1, -1, -1) * (steps // count) + offset


def trailing_timesteps(count: int, steps: int = 1000) -> Tensor:
    """`count` timesteps from high to low, (count,) int64, that start at the last one: steps - i * steps / count - 1.

    20 of 1000: 999, 949, ..., 49 (MCLD's authors' code). Zero terminal SNR needs this spacing.
    """
    _check_count(count, steps)
    return torch.round(steps - torch.arange(count, dtype=torch.float64) * (steps / count)).long() - 1


def _check_count(count: int, steps: int) -> None:
    if not 1 <= count <= steps:
        raise ValueError(f"{count} sampling steps asked for; expected 1 to {steps}, the timesteps of the schedule.")


def ddpm_std(schedule: NoiseSchedule, t: int, previous: int) -> Tensor:
    """Standard deviation of the noise that `ddpm_step` adds, a float32 scalar: the posterior's variance, floored at
    1e-20 ("fixed_small")."""
    abar, abar_previous = schedule.abar(t), schedule.abar(previous)
    beta = 1.0 - abar / abar_previous
    return ((1.0 - abar_previous) / (1.0 - abar) * beta).clamp(min=1e-20).sqrt()


def ddpm_step(
    schedule: NoiseSchedule, prediction: Tensor, x: Tensor, t: int, previous: int, noise: Noise = None
) -> Tensor:
    """Ancestral step from x = x_t to timestep `previous` (Ho et al. 2020, eq. 6 and 7; CFLD's authors' code).

    prediction: guided prediction of the schedule's kind, x's shape. previous: next timestep of the chain, -1 at its
    end, where abar is 1 whatever the scheduler file says. noise: standard normal of x's shape, added at every step; at
    the last one its standard deviation is 1e-10, so None is allowed there.
    """
    abar, abar_previous = schedule.abar(t), schedule.abar(previous)
    alpha = abar / abar_previous
    x0 = schedule.to_x0(prediction, x, t)
    of_x0 = abar_previous.sqrt() * (1.0 - alpha) / (1.0 - abar)
    of_x = alpha.sqrt() * (1.0 - abar_previous) / (1.0 - abar)
    mean = of_x0.to(x) * x0 + of_x.to(x) * x
    noise = noise() if callable(noise) else noise
    if noise is None:
        if previous >= 0:
            raise ValueError(f"ddpm_step from {t} to {previous} got no noise; expected a tensor like x "
                             f"{tuple(x.shape)}, or a function that draws one.")
        return mean
    return mean + ddpm_std(schedule, t, previous).to(x) * noise


def ddim_step(
    schedule: NoiseSchedule,
    prediction: Tensor,
    x: Tensor,
    t: int,
    previous: int,
    noise: Noise = None,
    eta: float = 0.0,  # 0 deterministic .. 1 as much noise as the DDPM
    final: str = "one",  # abar at the end of the chain: "one", or "first" for that of timestep 0
) -> Tensor:
    """DDIM step from x = x_t to timestep `previous` (Song et al. 2021, eq. 12 and 16).

    Arguments as in `ddpm_step`; noise is used with eta > 0 only. MCLD ends at "one"; CFLD's optional DDIM, whose
    scheduler file says set_alpha_to_one=False, at "first".
    """
    abar, abar_previous = schedule.abar(t), schedule.abar(previous, final)
    x0 = schedule.to_x0(prediction, x, t)
    epsilon = schedule.to_epsilon(prediction, x, t)
    variance = (1.0 - abar_previous) / (1.0 - abar) * (1.0 - abar / abar_previous)
    sigma = eta * variance.sqrt()
    result = abar_previous.sqrt().to(x) * x0 + (1.0 - abar_previous - sigma**2).sqrt().to(x) * epsilon
    if eta == 0:
        return result
    noise = noise() if callable(noise) else noise
    if noise is None:
        raise ValueError(f"ddim_step with eta {eta} got no noise; expected a tensor like x {tuple(x.shape)}, or a "
                         f"function that draws one.")
    return result + sigma.to(x) * noise


def lcm_step(
    schedule: NoiseSchedule, prediction: Tensor, x: Tensor, t: int, previous: int, noise: Noise = None
) -> Tensor:
    """Step of multistep consistency sampling (Song et al. 2023, algorithm 1; Luo et al. 2023, LCM): to the clean picture,
    then noised to timestep `previous`. Arguments as in `ddpm_step`; noise is used at all steps but the last.

    The boundary terms of LCM's consistency function, which are 1 and 0 to seven digits wherever sampling goes, are left out,
    as hosts do.
    """
    x0 = schedule.to_x0(prediction, x, t)
    if previous < 0:
        return x0
    noise = noise() if callable(noise) else noise
    if noise is None:
        raise ValueError(f"lcm_step from {t} to {previous} got no noise; expected a tensor like x {tuple(x.shape)}, or a "
                         "function that draws one.")
    return schedule.add_noise(x0, noise, previous)


@torch.no_grad()
def sample(
    denoise: Callable[[Tensor, int], Tensor],
    latents: Tensor,
    schedule: NoiseSchedule,
    timesteps: Sequence[int] | Tensor,
    stepper: Callable[..., Tensor] = ddpm_step,
    noise: Sequence[Tensor] | Tensor | None = None,
    generator: torch.Generator | None = None,
    callback: Callable[[int, int, Tensor], None] | None = None,
) -> Tensor:
    """Runs the chain from `latents` (B, ...), unit normal, down `timesteps`; returns the last x, in latents' shape.

    denoise:   f(x, t) -> guided prediction of the schedule's kind.
    timesteps: from high to low, as `leading_timesteps` and `trailing_timesteps` give them.
    stepper:   `ddpm_step` or `ddim_step`; functools.partial sets their options.
    noise:     (len(timesteps), B, ...) the noise of each step; None draws it, where the stepper asks for it, from
               `generator` on the generator's own device (torch's default generator without one).
    callback:  called after each step with its index, its timestep and x.
    """
    timesteps = [int(t) for t in timesteps]
    if noise is not None and len(noise) != len(timesteps):
        raise ValueError(f"noise for {len(noise)} steps came with {len(timesteps)} timesteps; expected one per step.")

    def draw() -> Tensor:
        device = generator.device if generator is not None else latents.device
        return torch.randn(latents.shape, generator=generator, device=device, dtype=latents.dtype).to(latents.device)

    x = latents
    for index, (t, previous) in enumerate(zip(timesteps, [*timesteps[1:], -1], strict=True)):
        x = stepper(schedule, denoise(x, t), x, t, previous, noise=draw if noise is None else noise[index].to(x))
        if callback is not None:
            callback(index, t, x)
    return x
