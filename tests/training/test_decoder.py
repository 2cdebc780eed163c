"""Polishing the decoder on a method's latents: what stays, what it learns, and what its batches are."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pgpis_models.base import decode_latents, encode_latents, load_vae
from pgpis_models.pipeline import Generator
from tests.steps import adam, changed, step, weights
from tests.tiny import train_config
from training.decoder import DecoderTask
from training.loop import run
from training.train import task_class

CPU = torch.device("cpu")


def config(folder, files, **changes):
    return train_config(folder, files, task="decoder", decoder={"checkpoint": str(files.cfld), "pairs": 6} | changes.pop(
        "decoder", {}), **changes)


@pytest.fixture(scope="module")
def task(folder, files):
    torch.manual_seed(0)
    return DecoderTask(config(folder, files), CPU)


def test_only_the_decoder_is_trained_and_it_learns_to_decode_them(task):
    before = weights(task.model)
    optimiser, batch = adam(task, 3e-3), task.batch(np.random.default_rng(0), 5)
    losses = [step(task, batch, optimiser)[0] for _ in range(30)]
    assert losses[-1] < 0.8 * losses[0]
    assert changed(task.model, before) == {name for name in before if name.startswith("vae.decoder.")}


def test_batches_hold_the_methods_latents_first_and_true_ones_after(task, files):
    batch = task.batch(np.random.default_rng(3), 5)   # three of the method's, by the share of 0.6
    vae, rng = load_vae(files.vae), np.random.default_rng(3)
    pick = rng.integers(6, size=3)
    with torch.no_grad():
        true = encode_latents(vae, batch["image"])
    assert torch.allclose(batch["latents"][3:], true[3:], atol=1e-5)
    assert not torch.allclose(batch["latents"][:3], true[:3], atol=0.1)
    assert torch.equal(batch["latents"][:3], task.batch.made[pick])
    assert np.array_equal(task.bank.images(task.batch.who[pick], task.batch.view[pick]), batch["image"][:3])
    assert batch["person"].shape == (5, 1, *task.bank.size) and 0.05 < batch["person"].mean() < 0.6


def test_the_latents_are_those_whose_pictures_the_generator_makes(task, files):
    generator = Generator(files.cfld, files.base, files.vae)
    who, old, new = np.arange(4), np.zeros(4, int), np.ones(4, int)
    pictures = generator(task.held_out.images(who, old), task.held_out.poses(who, new), seed=task.config.seed)
    with torch.no_grad():
        assert torch.allclose(decode_latents(load_vae(files.vae), task.shown[:4]), pictures, atol=1e-4)


def test_the_exported_file_encodes_as_before(folder, files, tmp_path):
    path = run(config(folder, files, output=str(tmp_path), name="polished", ema=0.9), DecoderTask)
    assert task_class("decoder") is DecoderTask
    old, new = load_file(files.vae), load_file(path)
    assert old.keys() == new.keys()
    same = {name for name, value in old.items() if torch.equal(value, new[name])}
    assert {name for name in old if name.startswith("taesd_encoder.")} <= same
    assert any(name.startswith("taesd_decoder.") and name not in same for name in old)


def test_missing_files_and_bad_shares_are_named(folder, files):
    with pytest.raises(ValueError, match="decoder.checkpoint is '', which is not there"):
        DecoderTask(config(folder, files, decoder={"checkpoint": ""}), CPU)
    with pytest.raises(ValueError, match="decoder.share is 1.5; expected 0 to 1"):
        DecoderTask(config(folder, files, decoder={"share": 1.5}), CPU)
