"""What the tests of the training tasks share: tiny files, autoencoders that pictures are encoded with, and a folder in which
people are drawn once for all of them."""

import os
from functools import cache

import pytest

from pgpis_models.unet.autoencoder import load_vae
from tests.helpers.fpdm_tiny import train_config
from tests.helpers.small import shrink
from tests.helpers.tiny import write_files
from training.engine.loop import run
from training.tasks.fpdm_fusion import FusionTask


@pytest.fixture(autouse=True)
def fewer(monkeypatch):
    shrink(monkeypatch)
    for module in ("latents", "focal"):   # which encode pictures that lie on disk already, and keep no autoencoder
        monkeypatch.setattr(f"training.world.{module}.load_vae", loaded_once)


@cache
def _loaded(path: str, _written: int):
    return load_vae(path)


def loaded_once(path: str):
    return _loaded(str(path), os.stat(path).st_mtime_ns)


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    return write_files(tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="session")
def fusion(folder, files):
    """A run of two steps of FPDM's stage 1."""
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        return str(run(train_config(folder, files, "fpdm_fusion", fpdm={"pairs_per_person": 2}), FusionTask))


@pytest.fixture
def small_grids(monkeypatch):
    """Sample grids at the end of a run are most of its cost."""
    for place, people in (("data.pairs.HELD_OUT_PHOTOS", 2), ("world.pairs.HELD_OUT_GRID", 2),
                          ("data.focal.HELD_OUT_GRID", 4), ("world.focal.HELD_OUT_GRID", 2), ("tasks.fpdm.SHOWN", 2),
                          ("tasks.fpdm_fusion.SHOWN", 2)):
        monkeypatch.setattr(f"training.{place}", people)
