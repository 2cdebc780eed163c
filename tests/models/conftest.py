"""For all tests of the models."""

from tests.guided import guided  # noqa: F401 - a fixture
