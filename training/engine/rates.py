"""Learning rates over a run."""

from __future__ import annotations

import math
from collections.abc import Sequence

from training.engine.config import TrainConfig


def learning_rate(config: TrainConfig, images: int) -> float:
    """Factor of the base learning rate for the step after `images` images, 0..1.

    `cfld` counts optimiser steps, as the authors do: 1000 of warm-up whatever the batch, a tenth from half time on. `fpdm`
    counts epochs of which a run has 100, as theirs: stairs of a fifth in the first five, a tenth from the 55th on.
    """
    if config.schedule == "fpdm":
        epoch = 100 * images // config.images
        return (epoch + 1) / 5 if epoch < 5 else 1.0 if epoch < 55 else 0.1
    if config.schedule == "cfld":
        steps = math.ceil(config.images / config.batch)
        return cfld_lr(images // config.batch, base=1.0, warmup=1000, decay_at=steps // 2)
    if images < config.warmup_images:
        return (images + config.batch) / (config.warmup_images + config.batch)
    left = (config.images - images) / max(1.0, config.decay_share * config.images)
    return min(1.0, max(0.0, left))


def cfld_lr(
    step: int,
    base: float = 1e-4,
    warmup: int = 1000,  # iterations
    decay_at: int | Sequence[int] = 50 * 455,  # iterations; epoch 50 of 455 iterations each
    warmup_rate: float = 0.1,
    decay_rate: float = 0.1,
) -> float:
    """Learning rate of CFLD's training at iteration `step` from 0 (CFLD's authors' code).

    Linear from warmup_rate to 1 of `base` during `warmup` iterations, then times decay_rate at each of `decay_at`.
    """
    if step < warmup:
        return base * (warmup_rate + (1.0 - warmup_rate) * (step + 1) / warmup)
    milestones = (decay_at,) if isinstance(decay_at, int) else decay_at
    return base * decay_rate ** sum(step >= milestone for milestone in milestones)
