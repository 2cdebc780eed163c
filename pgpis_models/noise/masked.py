"""Masked sampling: inside a mask a picture is made anew, outside a reference stays (CFLD section 4.6, QEN section 4.6)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .schedule import NoiseSchedule


@dataclass(frozen=True, eq=False)
class Kept:
    """A reference that stays while sampling: its latents (B, C, h, w) of unit scale, and mask (B, 1, h, w) in 0..1, 1 where
    the picture is made anew."""

    reference: Tensor
    mask: Tensor

    def start(self, noise: Tensor, schedule: NoiseSchedule, t: int) -> Tensor:
        """The first x (B, C, h, w), as the host begins: noise of that shape, to which the reference adds what the schedule
        lets through at t. Under a mask of ones it adds nothing: that is plain sampling."""
        whole = (self.mask >= 1).flatten(1).all(1).view(-1, 1, 1, 1)
        return torch.where(whole, noise, noise + schedule.abar(t).sqrt().to(noise) * self.reference)

    def around(self, denoise: Callable[[Tensor, int], Tensor], schedule: NoiseSchedule,
               noise: Tensor) -> Callable[[Tensor, int], Tensor]:
        """The same predictor, which sees outside of the mask the reference at the step's noise level, and there predicts it.

        denoise: f(x, t) -> prediction of the schedule's kind. noise: what x started from.
        """
        mask, rest = self.mask, 1 - self.mask

        def masked(x: Tensor, t: int) -> Tensor:
            seen = mask * x + rest * schedule.add_noise(self.reference, noise, t)
            prediction = denoise(seen, t)
            x0 = mask * schedule.to_x0(prediction, seen, t) + rest * self.reference
            signal, spread = schedule.signal_and_noise(t, x)
            mixed = (x - signal * x0) / spread if schedule.prediction == "epsilon" else (signal * x - x0) / spread
            return torch.where(mask >= 1, prediction, mixed)   # where all is new, seen is x
        return masked
