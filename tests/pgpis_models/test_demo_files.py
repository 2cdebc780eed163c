"""The demo files that come with the pack: whole, small, and one set."""

from __future__ import annotations

from importlib import import_module

import pytest

from pgpis_models.checkpoint import load_checkpoint
from pgpis_models.pipeline import DEMO_FOLDER
from pgpis_models.unet.autoencoder import load_vae
from pgpis_models.unet.base import load_unet
from pgpis_models.unet.weights import difference, shapes_of

METHODS = {"demo_cfld.safetensors": "cfld", "demo_mcld.safetensors": "mcld", "demo_fpdm.safetensors": "fpdm",
           "demo_qen.safetensors": "qen"}
BASES = {"demo_base.safetensors", "demo_vae.safetensors"}
METHOD_BYTES, ALL_BYTES = 25_000_000, 85 * 2 ** 20
ADAPTER = "demo_base_adapter.safetensors"   # not shipped; training on a base of one's own puts it there
FILES = {path.name: path.stat().st_size for path in DEMO_FOLDER.glob("*") if path.is_file() and path.name != ADAPTER}


def test_there_is_nothing_else_and_all_of_it_is_small():
    assert set(FILES) == BASES | set(METHODS)
    assert max(FILES.values()) <= METHOD_BYTES and sum(FILES.values()) <= ALL_BYTES, FILES


@pytest.mark.parametrize("name", sorted(METHODS))
def test_a_method_fits_the_demos_base_and_says_what_it_is(name):
    checkpoint = load_checkpoint(DEMO_FOLDER / name, expect_method=METHODS[name])
    preset = import_module(f"pgpis_models.{METHODS[name]}.config").CONFIGS["demo"]
    assert checkpoint.method.config == preset   # so that what is trained anew is of the same sizes
    assert checkpoint.meta.base == "demo" and checkpoint.meta.step > 0 and "demo weights" in checkpoint.meta.licence
    unet, _ = load_unet(DEMO_FOLDER / "demo_base.safetensors")
    assert not difference(shapes_of(checkpoint.unet_weights), shapes_of(dict(unet.named_parameters())), extras=True)
    assert set(checkpoint.method.unet_weight_shapes()) <= set(checkpoint.unet_weights)
    load_vae(DEMO_FOLDER / "demo_vae.safetensors")
