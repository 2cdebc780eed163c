"""Pairs of drawn people for CFLD and QEN, and the latents that are made of them once."""

import dataclasses

import numpy as np
import pytest
import torch

from pgpis_models.poses.drawing import cfld_raster
from pgpis_models.unet.autoencoder import load_vae
from tests.helpers.tiny import RASTER, SIZE, cfld_config, train_config
from training.data.kinds import pairs_class
from training.world import pairs as pairs_module
from training.world.bank import open_bank
from training.world.latents import bank_latents

CPU = torch.device("cpu")


def opened(config, method=None):
    return pairs_class("mannequins", "pairs")(config, method or cfld_config(), CPU)


def test_mannequin_pairs_are_two_views_of_one_person_at_the_methods_size(folder, files):
    pairs = opened(train_config(folder, files))
    bank = pairs.bank
    batch = pairs.batch(np.random.default_rng(2), 6)
    for row in range(6):
        found = [(who, view) for who in range(bank.people) for view in range(bank.views)
                 if np.array_equal(bank.image[who, view], batch["source"][row].permute(1, 2, 0))]
        targets = [(who, view) for who in range(bank.people) for view in range(bank.views)
                   if torch.equal(pairs.latents[who, view], batch["target_latents"][row])]
        (person, view), (same, other) = found[0], targets[0]
        assert person == same and view != other
        assert torch.equal(batch["source_latents"][row], pairs.latents[person, view])
        for kind, seen in (("source", view), ("target", other)):
            raster = cfld_raster(bank.poses([same], [seen])[0], RASTER)
            assert torch.equal(batch[f"{kind}_pose"].full()[row], raster)
    held = pairs.held_out()
    assert held["source"].shape == (pairs_module.HELD_OUT_GRID, 3, *SIZE)
    assert not torch.equal(held["source"], held["target"])
    wider = cfld_config(image_size=[128, 128], patch=8, window=[4, 4])   # the same latents from larger sources
    with pytest.raises(ValueError, match=r"drawn once, at data.size \(64, 64\), but the method reads sources of "
                                         r"\(128, 128\)"):
        opened(train_config(folder, files), wider)


def test_transfers_alone_come_without_the_sources_latents_and_pose(folder, files):
    batch = opened(train_config(folder, files, method={"reconstruct": False})).batch(np.random.default_rng(2), 3)
    assert batch.keys() == {"source", "target_latents", "target_pose"}


def test_about_half_of_the_encoders_inputs_are_mirrored_where_asked(folder, files):
    plain, flipping = (opened(train_config(folder, files, data={"flip": flip})).batch(np.random.default_rng(1), 40)
                       for flip in (False, True))
    assert torch.equal(plain["target_latents"], flipping["target_latents"])
    same = [torch.equal(a, b) for a, b in zip(plain["source"], flipping["source"], strict=True)]
    mirrored = [torch.equal(a.flip(-1), b) for a, b in zip(plain["source"], flipping["source"], strict=True)]
    assert all(a != b for a, b in zip(same, mirrored, strict=True)) and 10 <= sum(mirrored) <= 30


def test_latents_of_a_bank_are_the_autoencoders_and_cached_by_its_encoder(folder, files, tmp_path):
    data = train_config(folder, files).data
    bank = open_bank(data)
    data = dataclasses.replace(data, cache=str(tmp_path / "cache"))
    latents = bank_latents(bank, str(files.vae), data, CPU)
    with torch.no_grad():
        expected = load_vae(files.vae).encode(bank.images(np.array([1]), np.array([0]))).latents
    assert latents.shape == (bank.people, bank.views, 4, 8, 8) and torch.allclose(latents[1, 0], expected[0], atol=1e-6)
    assert torch.equal(bank_latents(bank, str(files.vae), data, CPU), latents)
    assert len(list((tmp_path / "cache").glob("latents-*.npy"))) == 1
    with pytest.raises(ValueError, match="no autoencoder at .*nowhere.*demo/autoencoder.yaml"):
        bank_latents(bank, str(tmp_path / "nowhere"), data, CPU)


def test_halved_latents_are_those_of_pictures_of_half_the_size(folder, files, tmp_path):
    data = train_config(folder, files).data
    bank = open_bank(data)
    data = dataclasses.replace(data, cache=str(tmp_path / "cache"))
    latents = bank_latents(bank, str(files.vae), data, CPU, halved=True)
    picture = bank.images(np.array([1]), np.array([2])).double()
    small = picture.view(1, 3, SIZE[0] // 2, 2, SIZE[1] // 2, 2).mean((3, 5)).float()   # of the four pixels
    with torch.no_grad():
        expected = load_vae(files.vae).encode(small).latents
    assert latents.shape == (bank.people, bank.views, 4, 4, 4) and torch.allclose(latents[1, 2], expected[0], atol=1e-5)
    assert bank_latents(bank, str(files.vae), data, CPU).shape == (bank.people, bank.views, 4, 8, 8)   # a cache of its own
