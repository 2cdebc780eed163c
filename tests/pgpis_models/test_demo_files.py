"""The demo files that come with the pack: whole, small, and one set."""

from __future__ import annotations

from importlib import import_module

import pytest

from pgpis_models.checkpoint import load_checkpoint
from pgpis_models.files.published import listed
from pgpis_models.noise.few_steps import Sampling
from pgpis_models.pipeline import DEMO_FOLDER
from pgpis_models.unet.autoencoder import load_vae
from pgpis_models.unet.base import load_unet
from pgpis_models.unet.lora import layers_of, lora_metadata, lora_sampling, read_lora
from pgpis_models.unet.weights import difference, shapes_of

METHODS = {"demo_cfld.safetensors": "cfld", "demo_mcld.safetensors": "mcld", "demo_fpdm.safetensors": "fpdm",
           "demo_qen.safetensors": "qen"}
BASES = {"demo_base.safetensors", "demo_vae.safetensors"}
LORAS = DEMO_FOLDER.with_name("loras")
METHOD_BYTES, ALL_BYTES, LORAS_BYTES = 25_000_000, 85 * 2 ** 20, 8_000_000
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


def test_every_method_has_a_small_lora_for_four_steps():
    files = {path.name: path.stat().st_size for path in LORAS.iterdir()}
    assert set(files) == {f"demo_{method}_lcm.safetensors" for method in METHODS.values()}
    assert sum(files.values()) <= LORAS_BYTES, files
    unet, _ = load_unet(DEMO_FOLDER / "demo_base.safetensors")
    for method in METHODS.values():
        name = f"demo_{method}_lcm.safetensors"
        assert lora_sampling(lora_metadata(LORAS / name), name, method) == Sampling(4, "lcm", "simple", 1.0)
        with pytest.raises(ValueError, match=f"was distilled from {method}"):
            lora_sampling(lora_metadata(LORAS / name), name, "another")
        assert not listed(LORAS / name)   # among the checkpoints of a folder that it was put into
        with pytest.raises(ValueError, match="is a LoRA, no checkpoint of a method; put it into models/loras"):
            load_checkpoint(LORAS / name)
        assert len(read_lora(LORAS / name, layers_of(unet))) > 200
