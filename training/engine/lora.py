"""A trainable LoRA on layers of a network that stays as it is: by hooks, so that the network's names do too."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pgpis_models.unet.lora import layers_of, read_lora

STUDENT, TARGET, OFF = "student", "target", "off"


class Lora(nn.Module):
    """Low-rank changes of the layers that fit `patterns` (Hu et al. 2021); up starts from zero, so that nothing changes.

    Which of three networks runs is told by `running`: with what is trained, with its running average, or without any.
    Otherwise, and so whenever gradient checkpointing runs a block again, it is what is trained. average: whether one is
    kept; it is part of the state. The network is no submodule. Raises ValueError for a pattern that fits no layer.
    """

    def __init__(self, network: nn.Module, patterns: Sequence[str], rank: int, average: bool) -> None:
        super().__init__()
        known = layers_of(network)
        idle = [pattern for pattern in patterns if not fnmatch.filter(known, pattern)]
        if idle or not patterns:
            raise ValueError(f"distill.layers: {idle or 'nothing'} fits no layer of the UNet; expected names such as "
                             f"{known[1]}, * for any part")
        self.layers = [name for name in known if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]
        self.down, self.up = nn.ParameterList(), nn.ParameterList()
        for index, layer in enumerate(network.get_submodule(name) for name in self.layers):
            shape, kernel = layer.weight.shape, layer.weight.shape[2:]
            own = min(rank, shape[0], shape[1:].numel())
            down = nn.Parameter(torch.empty(own, *shape[1:]))
            nn.init.kaiming_uniform_(down.flatten(1), a=5 ** 0.5)
            self.down.append(down)
            self.up.append(nn.Parameter(torch.zeros(shape[0], own, *(1 for _ in kernel))))
            layer.register_forward_hook(self._added(index))
        self.average = average
        if average:
            for index, value in enumerate(self._trained()):
                self.register_buffer(f"average_{index}", value.detach().clone())
        self.now = STUDENT

    def _trained(self) -> list[Tensor]:
        return [*self.down, *self.up]

    def _averages(self) -> list[Tensor]:
        return [self.get_buffer(f"average_{index}") for index in range(2 * len(self.layers))]

    def _added(self, index: int) -> Callable:
        def hook(layer: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor | None:
            if self.now == OFF:
                return None
            down, up = self.down[index], self.up[index]
            if self.now == TARGET and self.average:
                down, up = (self.get_buffer(f"average_{index + offset}") for offset in (0, len(self.layers)))
            if isinstance(layer, nn.Linear):
                return out + F.linear(F.linear(args[0], down), up)
            return out + F.conv2d(F.conv2d(args[0], down, None, layer.stride, layer.padding, layer.dilation), up)
        return hook

    @contextmanager
    def running(self, which: str) -> Iterator[None]:
        """STUDENT, TARGET or OFF, for passes without gradient."""
        before, self.now = self.now, which
        try:
            yield
        finally:
            self.now = before

    @torch.no_grad()
    def follow(self, decay: float) -> None:
        """average <- decay average + (1 - decay) trained."""
        if self.average:
            torch._foreach_lerp_(self._averages(), self._trained(), 1 - decay)

    def changes(self) -> dict[str, tuple[Tensor, Tensor]]:
        """(down, up) of what is trained, by the diffusers names of the layers."""
        return {name: (down.detach(), up.detach()) for name, down, up in zip(self.layers, self.down, self.up, strict=True)}

    @torch.no_grad()
    def load(self, path: str | Path) -> None:
        """Starts from a file of the same layers and ranks. Raises ValueError for others."""
        found = read_lora(path, self.layers)
        for name, down, up in zip(self.layers, self.down, self.up, strict=True):
            if name not in found or found[name][0].shape != down.shape or found[name][1].shape != up.shape:
                raise ValueError(f"{path} (distill.lora) does not hold the change of {name} at rank {len(down)}; give the "
                                 "rank and layers that it was trained with")
            down.copy_(found[name][0] * found[name][2])
            up.copy_(found[name][1])
        self.follow(0.0)
