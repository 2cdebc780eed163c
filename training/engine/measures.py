"""How a run does on people or photos that it never trains on, beside the same measure of those it does.

Both are of the averaged weights, on as many batches with the same random numbers. Where the two part, photos are learned by
heart: more people or photos help there, longer training does not.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn

BATCHES = 4   # of each kind, the same at every time: their differences over a run are not those of the people drawn

Batch = Callable[[np.random.Generator, int], dict[str, Tensor]]


def hash_seed(*numbers: int) -> int:
    """One 32-bit seed from several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


@torch.no_grad()
def measure(accelerator: Accelerator, model: nn.Module, batches: dict[str, Batch], size: int, seed: int,
            context: Callable[[], AbstractContextManager]) -> dict[str, float]:
    """{kind/name: mean} of the loss and its parts for each kind of batch, over all processes.

    model: the bare module, set to evaluation and back; forward(batch) -> (loss, parts). size: images of a batch and
    process. seed: of the batches and of what the model draws; the generators of torch stand elsewhere afterwards. context:
    what training computes in (precision, attention).
    """
    found: dict[str, list[Tensor]] = {}
    model.train(False)
    for kind, batch in batches.items():
        for number in range(BATCHES):
            key = (seed, accelerator.process_index, number)
            set_seed(hash_seed(*key))
            rows = {k: v.to(accelerator.device) for k, v in batch(np.random.default_rng(key), size).items()}
            with context():
                loss, parts = model(rows)
            for name, value in {"loss": loss, **parts}.items():
                found.setdefault(f"{kind}/{name}", []).append(value.detach().float())
    model.train()
    return {name: float(accelerator.reduce(torch.stack(values).mean(), "mean")) for name, values in found.items()}


def in_words(measured: dict[str, float], images: int) -> str:
    """One line for the terminal."""
    names = [name.removeprefix("held_out/") for name in measured if name.startswith("held_out/")]
    parts = [f"{name} {measured[f'held_out/{name}']:.4g} ({measured[f'trained_on/{name}']:.4g})" for name in names]
    return f"{images:,} images, never trained on (trained on): {', '.join(parts)}"
