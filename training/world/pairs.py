"""Pairs of drawn people for CFLD and QEN."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor

from pgpis_models.poses.drawing import cfld_factored, cfld_rasters
from training.data.kinds import PairSizes
from training.engine.config import TrainConfig
from training.engine.shares import WHOLE, Share
from training.world.bank import Bank, open_bank, open_watched
from training.world.latents import bank_latents

HELD_OUT_GRID = 6   # people of the sample grids
FLIP = 0.5           # probability that the encoder's input is mirrored, where data.flip asks for it


class Pairs:
    """Two views of one drawn person: sources as bytes, poses as factored rasters, latents made once."""

    licence = "demo weights trained on drawn mannequins; free to use under the pack's licence"

    def __init__(self, config: TrainConfig, method: PairSizes, device: torch.device) -> None:
        if config.data.size != method.image_size:
            raise ValueError(f"mannequins are drawn once, at data.size {config.data.size}, but the method reads sources "
                             f"of {method.image_size}; set image_size and patch so that they agree")
        self.bank: Bank = open_bank(config.data)
        self.test: Bank = open_watched(config.data)
        self.latents, self.test_latents = (bank_latents(bank, config.method.vae, config.data, device, config.method.halved)
                                           for bank in (self.bank, self.test))
        self.raster, self.loader_workers = method.pose_size, config.data.workers
        self.flip, self.reconstruct = config.data.flip, config.method.reconstruct

    def batch(self, rng: np.random.Generator, size: int, share: Share = WHOLE) -> dict[str, Tensor]:
        """The share of `size` pairs: source (B, 3, H, W) uint8, latents (B, 4, h, w) and rasters (B, 21, h, w) of the target
        and, where it is reconstructed, of the source."""
        who = rng.integers(self.bank.people, size=size)
        source = rng.integers(self.bank.views, size=size)
        target = (source + rng.integers(1, self.bank.views, size=size)) % self.bank.views
        who, source, target = map(share.of, (who, source, target))
        result = {"source": self.bank.bytes(who, source), "target_latents": self.latents[who, target],
                  "target_pose": cfld_factored(self.bank.poses(who, target), self.raster)}
        if self.reconstruct:
            result |= {"source_latents": self.latents[who, source],
                       "source_pose": cfld_factored(self.bank.poses(who, source), self.raster)}
        if self.flip:
            flipped = torch.from_numpy(share.of(rng.random(size) < FLIP))[:, None, None, None]
            result["source"] = torch.where(flipped, result["source"].flip(-1), result["source"])
        return result

    def unseen(self) -> Pairs:
        """The same of people never trained on."""
        other = copy.copy(self)
        other.bank, other.latents = self.test, self.test_latents
        return other

    def held_out(self) -> dict[str, Tensor]:
        """Some of these, with the target's picture: source and target (B, 3, H, W) in -1..1, target_pose full."""
        who, source = np.arange(HELD_OUT_GRID), np.zeros(HELD_OUT_GRID, int)
        return {"source": self.test.images(who, source), "target": self.test.images(who, source + 1),
                "target_pose": cfld_rasters(self.test.poses(who, source + 1), self.raster)}
