"""Pairs are found by the kind of data and the family of methods, so that a task names neither."""

import importlib
import subprocess
import sys
from dataclasses import fields
from inspect import signature
from pathlib import Path

import pytest

from training.data.kinds import PLACES, pairs_class
from training.engine.config import DataConfig

ROOT = Path(__file__).resolve().parents[3]
FAMILIES = ("pairs", "focal", "fpdm_pairs")


def test_every_kind_that_a_config_may_name_has_a_place():
    kind = next(field for field in fields(DataConfig) if field.name == "kind")
    assert set(kind.metadata["options"]) == set(PLACES)


@pytest.mark.parametrize("family", FAMILIES)
def test_both_kinds_of_a_family_offer_the_same(family):
    photos, drawn = (pairs_class(kind, family) for kind in ("deepfashion", "mannequins"))
    assert photos is importlib.import_module(f"training.data.{family}").Pairs
    assert drawn is importlib.import_module(f"training.world.{family}").Pairs
    used = {"unseen", "held_out", "licence", *(("draw", "targets") if family == "fpdm_pairs" else ("batch",))}
    for one in (photos, drawn):
        assert used - {"licence"} <= set(vars(one))
        assert list(signature(one).parameters)[0] == "config" and list(signature(one).parameters)[-1] == "device"
    for name in used - {"licence"}:
        assert list(signature(getattr(photos, name)).parameters) == list(signature(getattr(drawn, name)).parameters), name


def test_a_run_on_photos_never_imports_the_drawn_world():
    code = ("import sys; from training.data.kinds import pairs_class; "
            f"[pairs_class('deepfashion', family) for family in {FAMILIES}]; "
            "print([name for name in sys.modules if name.startswith('training.world')])")
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
