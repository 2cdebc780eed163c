"""What the tests of the training tasks share: tiny files, and a folder in which people are drawn once per module."""

import pytest

from tests.guided import guided  # noqa: F401 - a fixture
from tests.tiny import write_files


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_files(tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("run")
