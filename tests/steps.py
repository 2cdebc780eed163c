"""Single training steps for tests, without the loop."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def weights(module: nn.Module) -> dict[str, Tensor]:
    """Copies of a module's parameters."""
    return {name: value.detach().clone() for name, value in module.named_parameters()}


def changed(module: nn.Module, before: dict[str, Tensor]) -> set[str]:
    """Names of the parameters that differ from copies made before."""
    return {name for name, value in module.named_parameters() if not torch.equal(value, before[name])}


def adam(task, lr: float = 1e-3) -> torch.optim.Optimizer:
    return torch.optim.Adam(task.groups(lr))


def step(task, batch: dict[str, Tensor], optimiser: torch.optim.Optimizer, seed: int = 0) -> tuple[float, dict]:
    """One step with its own noise; returns the loss and its parts."""
    torch.manual_seed(seed)
    loss, logs = task.model(batch)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return loss.item(), logs
