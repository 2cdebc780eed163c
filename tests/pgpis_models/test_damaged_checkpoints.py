"""Checkpoints that are not what was written: every byte counts, and nothing is built that the file cannot hold."""

import json
import resource
import struct
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from pgpis_models.cfld.config import CONFIGS
from pgpis_models.cfld.model import CFLD
from pgpis_models.checkpoint import load_checkpoint, save_checkpoint
from pgpis_models.fpdm.config import FusionConfig
from pgpis_models.fpdm.fusion import FusionModel
from pgpis_models.parts.swin_tower import SwinSizes
from pgpis_models.unet.digest import BLOCK, digest, row, tensor_sums


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A small whole checkpoint."""
    torch.manual_seed(0)
    method = CFLD(CONFIGS["tiny"])
    path = tmp_path_factory.mktemp("whole") / "whole.safetensors"
    weights = {name: torch.randn(shape) for name, shape in method.unet_weight_shapes().items()}
    weights["conv_in.weight"] = torch.randn(32, 4, 3, 3)   # one that the method does not ask for
    save_checkpoint(path, method, weights, base="sd15", step=1, data="none", licence="none", dtype=torch.float16)
    return path


@pytest.fixture(scope="module")
def smallest(tmp_path_factory):
    """One that loads fast."""
    model = FusionModel(FusionConfig(embed=8, projection=8, hidden=8, swin=SwinSizes((64, 64), (4, 4), 8, (1, 1), (1, 1))))
    path = tmp_path_factory.mktemp("smallest") / "smallest.safetensors"
    save_checkpoint(path, model, {}, base="demo", step=1, data="none", licence="none")
    return path


def parts_of(path):
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    return data, 8 + size


def test_the_sums_are_those_of_the_words_written_out():
    values = torch.randint(0, 255, (8 * (3 * BLOCK + 5) + 3,), dtype=torch.uint8)
    words = np.frombuffer(values.numpy().tobytes()[:values.numel() // 8 * 8], "<i8").astype(object)
    tail = int.from_bytes(bytes(values[-3:].tolist()), "little")
    first, second = sum(words) + tail, sum(word * (n // BLOCK + 1) for n, word in enumerate(words)) + 3 * tail
    assert tensor_sums(values) == (first % 2 ** 64, second % 2 ** 64)


def test_the_digest_sees_names_types_shapes_places_and_metadata_but_not_their_order():
    a, b = torch.arange(20000.0), torch.ones(3, dtype=torch.float16)

    def of(tensors, x="1"):
        return digest([row(*item) for item in tensors], {"x": x, "y": "2"})
    usual = of([("a", a), ("b", b)])
    assert usual == digest([row("b", b), row("a", a)], {"y": "2", "x": "1"})
    swapped = a.clone()
    swapped[:8192], swapped[8192:16384] = a[8192:16384], a[:8192]
    others = [[("a", swapped), ("b", b)], [("c", a), ("b", b)], [("a", a.reshape(2, -1)), ("b", b)],
              [("a", a), ("b", b.view(torch.bfloat16))], [("a", a)]]
    assert all(of(tensors) != usual for tensors in others) and of([("a", a), ("b", b)], "2") != usual


@pytest.mark.parametrize("seed", range(200))
def test_any_byte_of_the_tensors_that_changed_is_found(smallest, tmp_path, seed):
    data, start = parts_of(smallest)
    rng = np.random.default_rng(seed)
    where = int(rng.integers(start, len(data)))
    damaged = bytearray(data)
    damaged[where] ^= 1 << int(rng.integers(8))
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"damaged\.safetensors is damaged"):
        load_checkpoint(path)


@pytest.fixture(scope="module")
def wanted(whole):
    return load_checkpoint(whole)


@given(st.data())
@settings(max_examples=100)
def test_any_bit_of_the_header_that_changed_is_refused_or_means_the_same(whole, wanted, tmp_path, data):
    content, start = parts_of(whole)
    damaged = bytearray(content)
    damaged[data.draw(st.integers(0, start - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(damaged)
    try:
        found = load_checkpoint(path)
    except ValueError as error:
        assert "damaged.safetensors" in str(error)
        return
    assert found.meta == wanted.meta and all(torch.equal(a, b) for a, b in zip(
        found.method.state_dict().values(), wanted.method.state_dict().values(), strict=True))
    assert found.unet_weights.keys() == wanted.unet_weights.keys()


def rewritten(whole, path, metadata=None, tensors=None, drop=()):
    """The file with other metadata or tensors, and no digest."""
    with safe_open(str(whole), "pt") as file:
        own = {key: file.get_tensor(key) for key in file.keys() if key not in drop}
        texts = {key: value for key, value in file.metadata().items() if key != "pgpis.digest"}
    save_file(own | (tensors or {}), str(path), texts | (metadata or {}))
    return path


def test_a_file_without_a_digest_loads_with_one_line_of_warning(whole, tmp_path, caplog):
    path = rewritten(whole, tmp_path / "old.safetensors")
    load_checkpoint(path)
    assert len(caplog.records) == 1 and "old.safetensors has no digest" in caplog.text
    caplog.clear()
    load_checkpoint(path, verify=False)
    assert not caplog.records


def test_a_stored_unet_weight_that_is_gone_is_found(whole, tmp_path):
    with safe_open(str(whole), "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}
        texts = file.metadata()
    del tensors["unet.conv_in.weight"]
    save_file(tensors, str(tmp_path / "short.safetensors"), texts)
    with pytest.raises(ValueError, match="short.safetensors is damaged"):
        load_checkpoint(tmp_path / "short.safetensors")


CONFIG_FAULTS = [
    ({"decoder_depth": 10 ** 9}, "decoder_depth is 1000000000; expected 0 to"),
    ({"swin_depths": [2, 2, 10 ** 7, 2]}, "swin_depths is 10000000"), ({"image_size": [10 ** 6, 10 ** 6]}, "image_size"),
    ({"image_size": [4096, 4096]}, "sides up to 2048"), ({"prompt_width": -24}, "prompt_width is -24"),
    ({"decoder_heads": 0}, "makes no network"), ({"window": 0}, "makes no network"),
    ({"prompt_tokens": 10 ** 30}, "prompt_tokens"), ({"prompt_width": 10 ** 8}, "prompt_width"),
    ({"mlp_ratio": 1e300}, "mlp_ratio"), ({"mlp_ratio": float("nan")}, "mlp_ratio is nan"),
    ({"swin_heads": [0, 0, 0, 0]}, "makes no network"), ({"pose_groups": 0}, "makes no network"),
]


@pytest.mark.parametrize("change, message", CONFIG_FAULTS, ids=lambda value: str(value)[:40])
def test_sizes_that_the_file_cannot_hold_are_refused_before_anything_is_built(whole, tmp_path, change, message):
    with safe_open(str(whole), "pt") as file:
        config = json.loads(file.metadata()["pgpis.config"])
    path = rewritten(whole, tmp_path / "large.safetensors", {"pgpis.config": json.dumps(config | change)})
    began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=message) as caught:
        load_checkpoint(path, verify=False)
    assert "large.safetensors" in str(caught.value)
    assert time.process_time() - began < 1 and resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


@pytest.mark.parametrize("metadata", [
    {"pgpis.method": "5"}, {"pgpis.method": "[]"}, {"pgpis.method": '"bfld"'}, {"pgpis.step": '"many"'},
    {"pgpis.step": "true"}, {"pgpis.config": "7"}, {"pgpis.config": "[" * 100_000}, {"pgpis.step": "9" * 5000},
    {"pgpis.base": "{}"}, {"pgpis.licence": "null"}, {"pgpis.format": "1.5"}, {"pgpis.format": '"one"'},
    {"pgpis.data": "{"},
], ids=lambda value: str(value)[:40])
def test_metadata_of_other_kinds_name_the_file(whole, tmp_path, metadata):
    path = rewritten(whole, tmp_path / "odd.safetensors", metadata)
    with pytest.raises(ValueError, match="odd.safetensors"):
        load_checkpoint(path)


@pytest.mark.parametrize("kind", [torch.int32, torch.bool, torch.complex64, torch.uint8])
def test_weights_that_are_no_floating_point_numbers_are_refused(whole, tmp_path, kind):
    with safe_open(str(whole), "pt") as file:
        key = "method.decoder.queries" if "method.decoder.queries" in file.keys() else next(
            key for key in file.keys() if file.get_slice(key).get_dtype() == "F16")
        value = torch.ones(file.get_slice(key).get_shape(), dtype=kind)
    with pytest.raises(ValueError, match="odd.safetensors.*no floating point numbers"):
        load_checkpoint(rewritten(whole, tmp_path / "odd.safetensors", tensors={key: value}))
