"""For all tests of the models."""

from tests.helpers.guided import guided  # noqa: F401 - a fixture
