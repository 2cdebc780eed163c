"""What a run is measured on beside its training: people and photos that it never trains on, in the same shape."""

import dataclasses

import numpy as np
import pytest
import torch

from pgpis_models.unet.autoencoder import encode_latents, load_vae
from tests.helpers.fpdm_tiny import train_config as fpdm_config
from tests.helpers.tiny import train_config
from tests.training.tasks.test_mcld_training import config as mcld_config
from tests.training.tasks.test_qen_training import config_of as qen_config
from training.train import task_class
from training.world.bank import HELD_OUT, WATCHED, open_bank
from training.world.captions import caption
from training.world.drawing import sample_identity

CPU = torch.device("cpu")
PEOPLE = 32


def made(config):
    torch.manual_seed(0)
    return task_class(config.task)(config, CPU)


@pytest.fixture(scope="module")
def configs(folder, files, fusion):
    told = {"caption_loss": 0.1}
    return {"cfld": train_config(folder, files, method=told),
            "qen": qen_config(folder, files, method=told | {"reconstruct": False}),
            "mcld": mcld_config(folder, files),
            "fpdm": fpdm_config(folder, files, "fpdm", method=told, fpdm={"fusion": fusion, "freeze_source": False}),
            "base": train_config(folder, files, task="base", base={"block_out_channels": [32, 32, 32, 32], "heads": 2}),
            "autoencoder": train_config(folder, files, task="autoencoder", autoencoder={"width": 8, "crop": 64}),
            "decoder": train_config(folder, files, task="decoder", decoder={"checkpoint": str(files.cfld), "pairs": 4}),
            "fpdm_fusion": fpdm_config(folder, files, "fpdm_fusion")}


def shapes(batch):
    return {name: tuple(value.shape) for name, value in batch.items()}


@pytest.mark.parametrize("task", ["cfld", "qen", "mcld", "fpdm", "base"])
def test_unseen_people_come_with_their_own_captions_and_latents(configs, files, task):
    config = configs[task]
    opened = made(config)
    batch = opened.unseen(np.random.default_rng(0), 8)
    assert shapes(batch) == shapes(opened.batch(np.random.default_rng(0), 8))
    known = np.stack([caption(sample_identity(WATCHED + n)) for n in range(PEOPLE)])
    bank = open_bank(config.data, held_out=PEOPLE, start=WATCHED)
    name = "latents" if task == "base" else "target_latents"
    for said, latents in zip(batch["caption"].numpy(), batch[name], strict=True):
        who, = np.flatnonzero((known == said).all((1, 2)))
        with torch.no_grad():
            views = encode_latents(load_vae(files.vae), bank.images(np.full(bank.views, who), np.arange(bank.views)))
        assert (views - latents).abs().amax((1, 2, 3)).min() < 1e-5


@pytest.mark.parametrize(("task", "name"), [("autoencoder", "image"), ("decoder", "image"), ("fpdm_fusion", "source")])
def test_unseen_pictures_are_of_nobody_trained_on(configs, task, name):
    opened = made(configs[task])
    batch = opened.unseen(np.random.default_rng(0), 6)
    assert shapes(batch) == shapes(opened.batch(np.random.default_rng(0), 6))
    bank = opened.pictures.test if task == "fpdm_fusion" else opened.held_out
    people = np.repeat(np.arange(bank.people), bank.views), np.tile(np.arange(bank.views), bank.people)
    assert np.array_equal(bank.caption[1], caption(sample_identity(WATCHED + 1)))
    pictures = (bank.images(*people) + 1) / 2
    for found in batch[name]:
        if task == "fpdm_fusion":   # in CLIP's normalisation: compare up to one factor and offset per channel
            flat = torch.cat([found[None], pictures]).flatten(2)
            flat = (flat - flat.mean(2, keepdim=True)) / flat.std(2, keepdim=True)
            assert (flat[1:] - flat[:1]).abs().amax((1, 2)).min() < 1e-3
        else:
            assert (pictures - (found + 1) / 2).abs().amax((1, 2, 3)).min() < 1e-5


def test_no_run_is_watched_on_the_people_of_the_demos_figures(configs):
    """`make demo` measures the first 64 held-out people."""
    data = dataclasses.replace(configs["cfld"].data, views=1)
    figures, watched = (open_bank(data, held_out=64, start=start) for start in (HELD_OUT, WATCHED))
    assert not any(np.array_equal(one, other) for one in figures.caption for other in watched.caption)
