"""Rows of a CONDITIONING at the number and size of the latents that a run samples."""

from __future__ import annotations

from collections.abc import Mapping

import comfy.conds
import comfy.sample
import torch
from torch import Tensor

from ...pgpis_models.unet.fitting import fitted_rows
from .passport import PASSPORT, PREFIX, Passport, check_aspect, check_layout


class RowsCond(comfy.conds.CONDRegular):
    """A row tensor among the host's model_conds. The host cuts what is too long for a batch; this one refuses."""

    def process_cond(self, batch_size: int, **kwargs) -> RowsCond:
        """Called by the host at every step."""
        check_batch(self.cond.shape[0], batch_size)
        return super().process_cond(batch_size, **kwargs)


def check_batch(rows: int, latents: int) -> None:
    """Raises ValueError when rows cannot be repeated to the number of latents."""
    if latents % rows:
        raise ValueError(f"{rows} source and pose pairs are encoded, the sampler runs {latents} latents; expected {rows} or "
                         "a multiple: connect the LATENT output of Apply PGPIS. For some of its latents, connect those to "
                         "the latent input of Apply PGPIS too")


def for_run(held: Mapping[str, object], noise: Tensor, seed: int | None, whole: bool = True) -> dict[str, object]:
    """model_conds of one term with one row per latent of the run, at their size; a single row stays single.

    noise (B, 4, h, w): that of the run. whole: whether the term is for all of the latents, not an area of them. Done once,
    so that nothing is resized at every step and the host's context windows cut rows as they cut latents.
    """
    check_layout(noise.shape)
    passport: Passport = held[PASSPORT].cond
    size = (noise.shape[-2], noise.shape[-1])
    rows = {name.removeprefix(PREFIX): value.cond for name, value in held.items()
            if name.startswith(PREFIX) and name != PASSPORT}
    if whole:
        check_aspect(size, passport)
        rows = fitted_rows(rows, size)
    made = {name: type(value)(rows[name.removeprefix(PREFIX)]) if name.removeprefix(PREFIX) in rows else value
            for name, value in held.items()}
    count = max((value.shape[0] for value in rows.values()), default=1)
    if count in (1, noise.shape[0]):
        return made
    numbers = _numbers(count, noise, seed)
    return {name: value._copy_with(value.cond[numbers]) if isinstance(getattr(value, "cond", None), Tensor)
            and value.cond.shape[0] == count else value for name, value in made.items()}


def _numbers(count: int, noise: Tensor, seed: int | None) -> list[int]:
    """Which of `count` rows each latent of a run has. LatentFromBatch leaves a latent's number in nothing but the noise that
    is drawn for it, so that of a part of the batch is recognised by its noise. ValueError where it is not."""
    latents = noise.shape[0]
    if latents > count and latents % count == 0:
        return list(range(count)) * (latents // count)
    found: list[int | None] = [None]
    if seed is not None:
        drawn = comfy.sample.prepare_noise(torch.zeros(count, *noise.shape[1:]), seed, list(range(count)))
        found = [next((number for number in range(count) if torch.equal(drawn[number], one)), None) for one in noise.cpu()]
    if None in found:
        check_batch(count, latents)
        raise AssertionError(f"{count} rows for {latents} latents")   # check_batch refuses all that is no multiple
    return found
