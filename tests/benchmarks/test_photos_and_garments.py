"""What the errors of several photos and of a garment transfer mean, on pictures of which they are known."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pgpis_models.surface.densepose import part_numbers
from tests.helpers.dressed import swap

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
photos, garment = (importlib.import_module(name) for name in ("several_photos", "garment"))
TRUNK_BEHIND = part_numbers(("torso back",))


@pytest.fixture(scope="module")
def people():
    """Two people from the front, from behind and turned, with other colours behind."""
    return [photos.views(number, 2, two_tone=True) for number in range(2)]


def as_pictures(people):
    """Their targets, (N, 3, H, W) in 0..1."""
    return torch.stack([torch.from_numpy(drawn[photos.TARGET].image.copy()).permute(2, 0, 1) / 255 for drawn in people])


def test_other_colours_stand_behind_and_nowhere_else(people):
    for number, drawn in enumerate(people):
        plain = photos.views(number, 2)
        for two, one in zip(drawn, plain, strict=True):
            changed = (two.image != one.image).any(-1)
            assert not changed[~np.isin(two.part, part_numbers(photos.BEHIND))].any()
        front, back = ((drawn[view].image != plain[view].image).any(-1).sum() / (drawn[view].part > 0).sum()
                       for view in (photos.FRONT, photos.BACK))
        assert front < 0.05 and back > 0.25, "a photo from the front does not tell the colours behind"


def test_errors_are_told_apart_by_what_the_first_photo_shows(people):
    truth = as_pictures(people)
    assert photos.errors(truth, people) == (pytest.approx(0, abs=1e-6), pytest.approx(0, abs=1e-6))
    assert photos.errors(truth + 0.1, people) == (pytest.approx(0.1, abs=1e-5), pytest.approx(0.1, abs=1e-5))
    behind = torch.from_numpy(np.stack([np.isin(drawn[photos.TARGET].part, TRUNK_BEHIND) for drawn in people]))[:, None]
    assert behind.sum() > 200, "targets that show no back say nothing"
    seen, hidden = photos.errors(torch.where(behind, 1 - truth, truth), people)
    assert hidden > 0.02 and seen < 0.1 * hidden


def test_a_transfer_is_compared_with_the_new_and_the_old_clothes():
    person, donor, truth = swap(0, garment.full_figure(0), garment.full_figure(1))
    mask, soft = garment.masks(person, donor)
    swapped = np.where(mask[..., None], truth.image, person.image)
    new, old, count, outside = garment.compared(swapped, person, truth, mask, soft)
    assert new == 0 and old / count > 0.1 and outside == 0
    assert garment.compared(person.image, person, truth, mask, soft) == (old, 0, count, 0), "nothing made: the old clothes"
    grey, lighter = (replace(person, image=np.full_like(person.image, level)) for level in (100, 150))
    half = np.arange(person.image.shape[1]) % 2 == 0
    inside = np.broadcast_to(half, mask.shape)
    new, old, count, _ = garment.compared(np.full_like(person.image, 110), grey, lighter, inside, soft)
    assert count == inside.sum() and (new, old) == (pytest.approx(40 / 255 * count), pytest.approx(10 / 255 * count))
    assert garment.compared(grey.image, grey, grey, inside, soft)[2] == 0, "where nothing is to change nothing is counted"
    spoilt = person.image.copy()
    spoilt[soft[0, 0].numpy() == 0] ^= 8
    assert garment.compared(spoilt, person, truth, mask, soft)[3] == 8
