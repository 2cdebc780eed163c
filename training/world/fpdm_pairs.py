"""Pairs of drawn people for FPDM."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pgpis_models.fpdm.config import FPDMConfig
from training.data.fpdm_pairs import Pair
from training.engine.config import TrainConfig
from training.engine.shares import WHOLE, Share
from training.world.bank import Bank, open_bank, open_watched
from training.world.latents import bank_latents


class Pairs:
    """Pairs of views of one drawn person."""

    licence = "demo weights trained on drawn mannequins; free to use under the pack's licence"

    def __init__(self, config: TrainConfig, device: torch.device | None = None) -> None:
        """device: where latents are made, which stage 2 wants; None without them. Raises ValueError where pairs are to be
        mirrored, since latents are made once."""
        self.bank: Bank = open_bank(config.data)
        self.test: Bank = open_watched(config.data)
        self.loader_workers = config.data.workers
        self.latents = self.test_latents = None
        if device is not None:
            if config.fpdm.flip:
                raise ValueError(f"fpdm.flip is {config.fpdm.flip}, but the latents of mannequins are made once and cannot "
                                 "be mirrored; set fpdm.flip=0")
            self.latents, self.test_latents = (
                bank_latents(bank, config.method.vae, config.data, device, config.method.halved)
                for bank in (self.bank, self.test))

    def draw(self, rng: np.random.Generator, size: int, per_person: int = 1, share: Share = WHOLE) -> list[Pair | None]:
        """`size` pairs, None in place of those outside of the share; `per_person` of them show one person, with different
        targets as far as there are views."""
        views, people = self.bank.views, -(-size // per_person)
        drawn: list[tuple[int, int, int]] = []
        for who in rng.choice(self.bank.people, people, replace=people > self.bank.people):
            order = rng.permutation(views)
            drawn += [(who, order[(k + 1) % views], order[k % views]) for k in range(per_person)]
        mine = share.of(range(size))
        return [self.pair(self.bank, *drawn[row]) if row in mine else None for row in range(size)]

    def targets(self, pairs: Sequence[Pair], config: FPDMConfig) -> dict[str, Tensor]:
        """What stage 2 learns to make: latents."""
        who, view = (np.array([pair.where[n] for pair in pairs]) for n in (0, 2))
        return {"target_latents": self.latents[who, view]}

    def unseen(self) -> Pairs:
        """The same of people never trained on."""
        other = copy.copy(self)
        other.bank, other.latents = self.test, self.test_latents
        return other

    def held_out(self) -> list[Pair]:
        return [self.pair(self.test, who, 0, 1) for who in range(self.test.people)]

    @staticmethod
    def pair(bank: Bank, who: int, source: int, target: int) -> Pair:
        pose, source_pose = bank.poses([who, who], [target, source])
        return Pair(bank.image[who, source], bank.image[who, target], pose, source_pose,
                    (int(who), int(source), int(target)))
