"""What the tests of the training tasks share: tiny files, and a folder in which people are drawn once per module."""

import pytest

from tests.fpdm_tiny import train_config
from tests.guided import guided  # noqa: F401 - a fixture
from tests.tiny import write_files
from training.fpdm_fusion import FusionTask
from training.loop import run


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_files(tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def fusion(folder, files):
    """A run of two steps of FPDM's stage 1."""
    return str(run(train_config(folder, files, "fpdm_fusion", fpdm={"pairs_per_person": 2}), FusionTask))
