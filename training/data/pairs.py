"""Source-target pairs for training a method: mannequins from a bank, or photos in the DeepFashion layout.

Both give the same named tensors, so a task does not know which it trains on.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from pgpis_models.pose import cfld_rasters
from training.config import TrainConfig
from training.data.bank import Bank, open_bank
from training.latents import bank_latents

HELD_OUT_GRID = 18   # people of the sample grids


class Pairs(Protocol):
    """batch: source (B, 3, H, W) in -1..1, source_pose and target_pose (B, 21, H, W) in 0..1, source_latents and
    target_latents (B, 4, h, w); mannequins also give caption (B, T, C)."""

    licence: str
    loader_workers: int

    def batch(self, rng: np.random.Generator, size: int) -> dict[str, Tensor]: ...
    def held_out(self) -> dict[str, Tensor]: ...


def open_pairs(config: TrainConfig, device: torch.device) -> Pairs:
    """The pairs that a config asks for."""
    if config.data.kind == "mannequins":
        return MannequinPairs(config, device)
    raise ValueError(f"data.kind is {config.data.kind!r}; expected mannequins or deepfashion")


class MannequinPairs:
    """Two views of one drawn person."""

    licence = "demo weights trained on drawn mannequins; free to use under the pack's licence"
    loader_workers = 0

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        self.bank: Bank = open_bank(config.data)
        self.test: Bank = open_bank(config.data, held_out=32)
        self.latents = None if config.method.encoder_only else bank_latents(self.bank, config.method.vae, config.data, device)
        self.flip, self.reconstruct = config.data.flip, config.method.reconstruct

    def batch(self, rng: np.random.Generator, size: int) -> dict[str, Tensor]:
        who = rng.integers(self.bank.people, size=size)
        source = rng.integers(self.bank.views, size=size)
        target = (source + rng.integers(1, self.bank.views, size=size)) % self.bank.views
        result = {"source": self.bank.images(who, source), "caption": torch.from_numpy(self.bank.caption[who])}
        if self.latents is not None:
            result |= {"source_latents": self.latents[who, source], "target_latents": self.latents[who, target],
                       "source_pose": cfld_rasters(self.bank.poses(who, source), self.bank.size),
                       "target_pose": cfld_rasters(self.bank.poses(who, target), self.bank.size)}
            person = [self.bank.person(who, view) for view in (source, target)]
            result["person"] = torch.cat(person) if self.reconstruct else person[1]
        if self.flip:
            flipped = torch.from_numpy(rng.random(size) < 0.5)[:, None, None, None]
            result["source"] = torch.where(flipped, result["source"].flip(-1), result["source"])
        return result

    def held_out(self) -> dict[str, Tensor]:
        who, source = np.arange(HELD_OUT_GRID), np.zeros(HELD_OUT_GRID, int)
        return {"source": self.test.images(who, source), "target": self.test.images(who, source + 1),
                "target_pose": cfld_rasters(self.test.poses(who, source + 1), self.test.size),
                "caption": torch.from_numpy(self.test.caption[who])}
