"""What the flicker of a walk means, on pictures of which it is known."""

import importlib
import sys
from pathlib import Path

import numpy as np

from training.world.motion import walk
from training.world.wardrobe import sample_identity

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
flicker = importlib.import_module("flicker").flicker


def test_flicker_is_the_variance_of_a_texel_over_the_frames_that_show_it():
    frames = walk(sample_identity(1_000_002), 3, (128, 96))
    levels = (0.2, 0.5, 0.9)
    flat = np.stack([np.full((128, 96, 3), level) for level in levels])
    assert abs(flicker(flat, frames) - 3 * np.var(levels)) < 1e-9
    for ground, drawn in zip(flat, frames, strict=True):
        ground[drawn.part == 0] = np.random.default_rng(0).random(3)   # what is no body does not count
    assert abs(flicker(flat, frames) - 3 * np.var(levels)) < 1e-9
    assert flicker(np.full_like(flat, 0.4), frames) < 1e-12
    true = np.stack([one.image for one in frames]) / 255
    shifted = np.roll(true, 2, axis=2)   # the person beside the IUV
    assert flicker(true, frames) < 0.5 * flicker(shifted, frames)
