"""Single training steps for tests, without the loop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pgpis_models.checkpoint import load_checkpoint
from tests.helpers.tiny import shaken
from training.engine.step import attention_for


def weights(module: nn.Module) -> dict[str, Tensor]:
    """Copies of a module's parameters."""
    return {name: value.detach().clone() for name, value in module.named_parameters()}


def changed(module: nn.Module, before: dict[str, Tensor]) -> set[str]:
    """Names of the parameters that differ from copies made before."""
    return {name for name, value in module.named_parameters() if not torch.equal(value, before[name])}


def adam(task, lr: float = 1e-3) -> torch.optim.Optimizer:
    return torch.optim.Adam(task.groups(lr), fused=True)


def step(task, batch: dict[str, Tensor], optimiser: torch.optim.Optimizer, seed: int = 0) -> tuple[float, dict]:
    """One step with its own noise, in the attention of training on a CPU; returns the loss and its parts."""
    torch.manual_seed(seed)
    with attention_for(task.device):
        loss, logs = task.model(batch)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return loss.item(), logs


def trained(task, count: int, rate: float = 1e-3, seed: int | None = None) -> list[float]:
    """The losses of `count` steps on one batch of four; each with its own noise, or all with that of `seed`."""
    task.model.train()
    optimiser, batch = adam(task, rate), task.batch(np.random.default_rng(0), 4)
    return [step(task, batch, optimiser, number if seed is None else seed)[0] for number in range(count)]


def gradients(task, every: bool = True) -> dict[str, Tensor]:
    """Of one batch of four, by the names of the parameters that have one; all that are trained must, with `every`."""
    task.model.train()
    torch.manual_seed(1)
    task.model(task.batch(np.random.default_rng(0), 4))[0].backward()
    lacking = [name for name, value in task.model.named_parameters() if value.requires_grad and value.grad is None]
    assert not (every and lacking), lacking
    return {name: value.grad for name, value in task.model.named_parameters() if value.grad is not None}


def exported(task, path: Path, std: float):
    """The checkpoint of a task whose weights were all moved, and to values that the demo's half precision holds."""
    with torch.no_grad():
        shaken(task.model.method, std)
        for value in task.model.parameters():
            if value.requires_grad:
                value.copy_((value + 0.05 * torch.randn_like(value)).half().float())
    task.model.eval()
    task.export(path, 1234)
    return load_checkpoint(path)


def shown_pairs(task, count: int = 2):
    """Held-out sources, the target's keypoints, and what the task itself shows of them in four steps."""
    held = task.pairs.held_out()
    with torch.no_grad():
        shown = task.sample(held["source"][:count], held["target_pose"][:count], steps=4)
    return held["source"], task.pairs.test.poses(np.arange(count), np.ones(count, int)), shown
