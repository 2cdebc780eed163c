"""Fewer people, batches and steps for what a run measures and shows of itself: most of what short runs cost."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from pgpis_models.noise import samplers

FEWER = {"world.bank.WATCHED_PEOPLE": 8, "engine.measures.BATCHES": 1, "world.autoencoder.SHOWN": 4, "world.reader.SHOWN": 4,
         "world.base.SHOWN": 4}
STEPS = 4   # of sample grids, at most


def shrink(patch: pytest.MonkeyPatch, more: Mapping[str, int] | None = None, steps: int = STEPS) -> None:
    """Until the patch is undone. more: further numbers of modules of training. steps: of sample grids, at most."""
    def sample(*args, **settings):
        return samplers.sample_latents(*args, **settings | {"steps": min(settings["steps"], steps)})
    for place, number in (FEWER | (more or {})).items():
        patch.setattr(f"training.{place}", number)
    for module in ("engine.task", "world.base"):
        patch.setattr(f"training.{module}.sample_latents", sample)
