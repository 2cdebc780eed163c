"""Faces of drawn people by the demo's own encoder: what is the same counts as the same, and persons are told apart."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pgpis_models.checkpoint import load_checkpoint
from pgpis_models.pipeline import DEMO_FOLDER
from training.engine.config import DataConfig
from training.world.bank import open_bank
from training.world.faces import REAL, embeddings, score_faces
from training.world.measures import SOURCE_VIEW, TARGET_VIEW, pictures

PEOPLE = 14


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    return open_bank(DataConfig(size=(256, 192), views=2, cache=str(tmp_path_factory.mktemp("faces"))), held_out=PEOPLE)


@pytest.fixture(scope="module")
def method():
    return load_checkpoint(DEMO_FOLDER / "demo_mcld.safetensors").method


def test_a_face_is_its_own_and_nearer_than_anybody_elses(bank, method):
    target = pictures(bank, TARGET_VIEW)
    rows = score_faces({"truth": target, "others": target.roll(1, 0)}, bank, method)
    assert rows["truth"]["fs_tgt"] == pytest.approx(1, abs=1e-6) and rows["truth"]["dist_tgt"] == pytest.approx(0, abs=1e-4)
    assert rows["truth"]["fs_ref"] == pytest.approx(rows[REAL]["fs_tgt"], abs=1e-6)   # the same pairs, the other way round
    assert rows[REAL]["fs_tgt"] > 0.9 > rows["others"]["fs_tgt"]
    assert rows[REAL]["dist_tgt"] < rows["others"]["dist_tgt"]


def test_means_are_over_those_who_show_both_eyes(bank, method):
    one, other = (torch.from_numpy(embeddings(pictures(bank, view), bank, view, method)).double()
                  for view in (SOURCE_VIEW, TARGET_VIEW))
    shown = torch.from_numpy(bank.eyes_visible.all(-1).all(-1))
    assert 0 < shown.sum() < PEOPLE
    row = score_faces({}, bank, method)[REAL]
    assert row["fs_tgt"] == pytest.approx(float(F.cosine_similarity(one[shown], other[shown]).mean()), abs=1e-9)
    assert row["dist_tgt"] == pytest.approx(float((one[shown] - other[shown]).norm(dim=1).mean()), abs=1e-9)


def test_nobody_to_compare_is_no_number(bank, method):
    row = score_faces({}, dataclasses.replace(bank, eyes_visible=np.zeros_like(bank.eyes_visible)), method)[REAL]
    assert np.isnan(row["fs_tgt"])
