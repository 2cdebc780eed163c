"""What a run is measured on beside its training: people and photos that it never trains on, in the same shape."""

import dataclasses

import numpy as np
import pytest
import torch

from pgpis_models.unet.autoencoder import encode_latents, load_vae
from tests.helpers.configs import METHODS, config_of
from tests.helpers.fpdm_tiny import train_config as fpdm_config
from tests.helpers.tiny import train_config
from training.train import task_class
from training.world.bank import HELD_OUT, WATCHED, open_bank, open_watched

CPU = torch.device("cpu")


def made(config):
    torch.manual_seed(0)
    return task_class(config.task)(config, CPU)


def shapes(batch):
    return {name: tuple(value.shape) for name, value in batch.items()}


@pytest.mark.parametrize("name", METHODS)
def test_unseen_people_come_with_their_own_latents(name, folder, files, fusion):
    config = config_of(name, folder, files, fusion)
    opened = made(config)
    batch = opened.unseen(np.random.default_rng(0), 8)
    assert shapes(batch) == shapes(opened.batch(np.random.default_rng(0), 8))
    bank = open_watched(config.data)
    own = bank.image.reshape(-1, *bank.size, 3)
    with torch.no_grad():
        everyone = np.repeat(np.arange(bank.people), bank.views), np.tile(np.arange(bank.views), bank.people)
        latents = encode_latents(load_vae(files.vae), bank.images(*everyone))
    for picture, target in zip(batch["source"][-len(batch["target_latents"]):], batch["target_latents"], strict=True):
        seen, = np.flatnonzero((own == picture.permute(1, 2, 0).numpy()).all((1, 2, 3)))
        nearest = (latents - target).abs().amax((1, 2, 3)).min(0)
        assert nearest.values < 1e-5 and int(nearest.indices) // bank.views == seen // bank.views   # of the same person


def test_unseen_pictures_are_of_nobody_trained_on(folder, files):
    opened = made(fpdm_config(folder, files, "fpdm_fusion"))
    batch = opened.unseen(np.random.default_rng(0), 6)
    assert shapes(batch) == shapes(opened.batch(np.random.default_rng(0), 6))
    bank = opened.pictures.test
    everyone = np.repeat(np.arange(bank.people), bank.views), np.tile(np.arange(bank.views), bank.people)
    pictures = (bank.images(*everyone) + 1) / 2
    for found in batch["source"]:   # in CLIP's normalisation: compare up to one factor and offset per channel
        flat = torch.cat([found[None], pictures]).flatten(2)
        flat = (flat - flat.mean(2, keepdim=True)) / flat.std(2, keepdim=True)
        assert (flat[1:] - flat[:1]).abs().amax((1, 2)).min() < 1e-3


def test_no_run_is_watched_on_the_people_of_the_demos_figures(folder, files):
    """`make demo` measures the first 64 held-out people."""
    data = dataclasses.replace(train_config(folder, files).data, views=1)
    figures, watched = (open_bank(data, held_out=64, start=start) for start in (HELD_OUT, WATCHED))
    assert not any(np.array_equal(one, other) for one in figures.caption for other in watched.caption)
