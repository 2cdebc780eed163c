"""What the tests of the training tasks share: tiny files, and a folder in which people are drawn once per module."""

import pytest
import torch

from pgpis_models.unet.base import load_unet
from tests.fpdm_tiny import train_config
from tests.guided import guided  # noqa: F401 - a fixture
from tests.tiny import shaken, write_base, write_files
from training.engine.loop import run
from training.tasks.fpdm_fusion import FusionTask
from training.world.base import CaptionedUNet, companion


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_files(tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A base with its pose adapter beside it."""
    path = write_base(tmp_path_factory.mktemp("base") / "base.safetensors")
    torch.manual_seed(1)
    captioned = CaptionedUNet(*load_unet(path), 0.0, 0.0, 1.0)
    shaken(captioned.pose_encoder, 0.2)
    captioned.save_companion(companion(path))
    return path


@pytest.fixture(scope="module")
def fusion(folder, files):
    """A run of two steps of FPDM's stage 1."""
    return str(run(train_config(folder, files, "fpdm_fusion", fpdm={"pairs_per_person": 2}), FusionTask))
