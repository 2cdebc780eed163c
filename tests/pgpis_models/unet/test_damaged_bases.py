"""Base and autoencoder files that are not what was written, and numbers that are none, are refused by name."""

import dataclasses
import json
import random
import time

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from pgpis_models.cfld.config import CONFIGS as CONFIGS_OF_CFLD
from pgpis_models.cfld.model import CFLD
from pgpis_models.checkpoint import load_checkpoint, save_checkpoint
from pgpis_models.noise.samplers import sample_latents
from pgpis_models.noise.schedule import NoiseSchedule
from pgpis_models.unet.autoencoder import load_vae, save_vae, tiny
from pgpis_models.unet.base import load_unet, read_sizes
from pgpis_models.unet.guidance import Term
from pgpis_models.unet.injections import Injections
from pgpis_models.unet.weights import check_finite, write_atomically
from tests.helpers.tiny import SIZES, write_base


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    torch.manual_seed(0)
    save_vae(folder / "vae.safetensors", tiny(8), step=0, data="none")
    return {"base": (write_base(folder / "base.safetensors"), load_unet), "vae": (folder / "vae.safetensors", load_vae)}


def rewritten(path, out, tensors=lambda t: t, metadata=lambda m: m):
    """The file with other tensors and metadata, and a digest that fits them."""
    with safe_open(str(path), "pt") as file:
        texts = {key: value for key, value in file.metadata().items() if key != "pgpis.digest"}
    write_atomically(out, tensors(load_file(path)), metadata(texts))
    return out


@pytest.mark.parametrize("kind", ["base", "vae"])
def test_a_byte_of_a_payload_that_changed_is_noticed(kind, files, tmp_path):
    path, load = files[kind]
    data, draw = bytearray(path.read_bytes()), random.Random(0)
    header = 8 + int.from_bytes(data[:8], "little")
    out = tmp_path / "flipped.safetensors"
    for _ in range(4):
        place = draw.randrange(header, len(data))
        flipped = bytearray(data)
        flipped[place] ^= 1 << draw.randrange(8)
        out.write_bytes(flipped)
        with pytest.raises(ValueError, match="flipped.safetensors is damaged"):
            load(out)


@pytest.mark.parametrize("kind", ["base", "vae"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_one_weight_that_is_no_number_is_named(kind, value, files, tmp_path):
    path, load = files[kind]
    name = {"base": "mid_block.resnets.0.conv1.weight", "vae": "taesd_decoder.3.conv.2.weight"}[kind]

    def spoilt(tensors):
        tensors[name].view(-1)[-1] = value
        return tensors
    with pytest.raises(ValueError, match=f"spoilt.safetensors: 1 weights hold values that are not finite.*{name}"):
        load(rewritten(path, tmp_path / "spoilt.safetensors", spoilt))


def test_large_weights_are_finite_and_none_that_is_not_hides_among_others():
    check_finite([("large", torch.full((4,), 3e38)), ("none", torch.empty(0))], "file")
    check_finite([("half", torch.full((9000,), 6e4, dtype=torch.float16)), ("count", torch.tensor(3))], "file")
    for kind in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        for value in (float("nan"), float("inf"), -float("inf"), *[1e300] * (kind == torch.float64)):
            for place in (0, 4999, 9999):
                weight = torch.randn(10_000).to(kind)
                weight[place] = value
                with pytest.raises(ValueError, match="file: 1 weights hold .*: odd;"):
                    check_finite([("fine", torch.ones(3)), ("odd", weight)], "file")


def test_a_checkpoint_with_one_weight_that_is_no_number_is_refused(tmp_path):
    method = CFLD(CONFIGS_OF_CFLD["tiny"])
    path = tmp_path / "whole.safetensors"
    weights = {name: torch.zeros(shape) for name, shape in method.unet_weight_shapes().items()}
    save_checkpoint(path, method, weights, base="demo", step=0, data="none", licence="none")

    def spoilt(tensors):
        tensors[sorted(tensors)[0]].view(-1)[0] = float("nan")
        return tensors
    with pytest.raises(ValueError, match=f"spoilt.safetensors: 1 weights .*{sorted(load_file(path))[0]}"):
        load_checkpoint(rewritten(path, tmp_path / "spoilt.safetensors", spoilt))


USUAL = dataclasses.asdict(SIZES)
CONFIGS = {
    "missing": (None, "pgpis.config is None"),
    "no JSON": ("{", "not JSON that can be read"),
    "nested": ("[" * 100_000, "not JSON that can be read"),
    "digits": ('{"heads": ' + "9" * 5000 + "}", "not JSON that can be read"),
    "a list": ("[1]", r"pgpis.config is \[1\]"),
    "no heads": (json.dumps(USUAL | {"heads": 0}), "make no UNet"),
    "negative": (json.dumps(USUAL | {"heads": -2}), "heads is -2"),
    "deep": (json.dumps(USUAL | {"layers_per_block": 10 ** 9}), "layers_per_block is 1000000000"),
    "wide": (json.dumps(USUAL | {"cross_attention_dim": 10 ** 12}), "cross_attention_dim is 1000000000000"),
    "odd width": (json.dumps(USUAL | {"block_out_channels": [33, 66, 66, 66]}), "make no UNet"),
    "no widths": (json.dumps(USUAL | {"block_out_channels": []}), "make no UNet"),
    "prediction": (json.dumps(USUAL | {"prediction": "sample"}), "expected one of epsilon, v_prediction"),
    "heads of no width": (json.dumps(USUAL | {"head_dim": 7}), "does not divide"),
    "text for a number": (json.dumps(USUAL | {"heads": "two"}), "heads"),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_sizes_that_no_base_can_have_are_refused_at_once(case, files, tmp_path):
    config, words = CONFIGS[case]
    changed = rewritten(files["base"][0], tmp_path / "odd.safetensors", metadata=lambda texts: {
        key: value for key, value in (texts | {"pgpis.config": config}).items() if value is not None})
    begun = time.process_time()
    with pytest.raises(ValueError, match=words) as refusal:
        read_sizes(changed) if case not in ("odd width", "no widths", "no heads") else load_unet(changed)
    assert "odd.safetensors" in str(refusal.value) and time.process_time() - begun < 2


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), -float("inf")])
def test_a_guidance_weight_is_a_number(weight):
    with pytest.raises(ValueError, match="guidance weight of 'pose'.*expected a finite number"):
        Term("pose", Injections(), weight)


def test_latents_that_end_as_no_numbers_are_named():
    def denoise(x, t):
        return torch.where(torch.arange(len(x)).view(-1, 1, 1, 1) == 1, torch.nan, x)
    with pytest.raises(ValueError, match=r"1 of 3 latents \(the first is number 8\) are not finite after 2 steps"):
        sample_latents(denoise, NoiseSchedule(), (3, 4, 4, 4), steps=2, first=7)
