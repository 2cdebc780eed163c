"""The running average of the weights that a run trains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Ema:
    """Averages with a decay that rises to `decay` as min(decay, (1 + n) / (10 + n)) after n steps, so that the random start
    is soon forgotten (as `EMAModel` of diffusers does). Held and updated on the device of the weights, in few kernels.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float) -> None:
        self.parameters, self.decay, self.steps = list(parameters), decay, 0
        self.averages = [p.detach().clone() for p in self.parameters]
        self.gain = torch.zeros((), device=self.parameters[0].device)   # 1 - decay of the next step
        self.stored: list[Tensor] = []

    def prepare(self) -> None:
        """Counts a step and sets its gain; apart from `update`, which a CUDA graph replays."""
        self.steps += 1
        before = max(0, self.steps - 1)
        self.gain.fill_(1 - (min(self.decay, (1 + before) / (10 + before)) if before else 0.0))

    @torch.no_grad()
    def update(self) -> None:
        """average += gain (weight - average)."""
        change = torch._foreach_sub(self.parameters, self.averages)
        torch._foreach_mul_(change, self.gain)
        torch._foreach_add_(self.averages, change)

    def __enter__(self) -> None:
        """Within the block the weights hold their average."""
        self.stored = [p.detach().clone() for p in self.parameters]
        self._set(self.averages)

    def __exit__(self, *_error: object) -> None:
        self._set(self.stored)
        self.stored = []

    @torch.no_grad()
    def _set(self, values: Sequence[Tensor]) -> None:
        torch._foreach_copy_(self.parameters, list(values))

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "averages": self.averages}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]
        with torch.no_grad():
            torch._foreach_copy_(self.averages, [value.to(self.gain.device) for value in state["averages"]])
