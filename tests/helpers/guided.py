"""Guidance in place of the demo's default, which runs one term alone."""

import pytest

from pgpis_models.pipeline import DEFAULTS


@pytest.fixture(scope="module", autouse=True)
def guided():
    """With weights of 1 a picture is one row, and the middle of the tests' small UNets one pixel: a group norm refuses to
    normalise a single number. It also leaves the chain of terms untested."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("appearance", "source", "fusion"):
            patch.setitem(DEFAULTS["demo"]["weights"], name, 1.2)
        yield
