"""Checkpoints: what is written comes back bit for bit, and everything else is refused with a reason."""

import json
import shutil
import struct
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pgpis_models.cfld.config import CONFIGS, CFLDConfig
from pgpis_models.cfld.model import CFLD
from pgpis_models.checkpoint import load_checkpoint, read_metadata, save_checkpoint  # fmt: skip
from pgpis_models.settings import build
from pgpis_models.unet import weights
from pgpis_models.unet.weights import difference, write_atomically

TINY = replace(CONFIGS["tiny"], drop_path=0.1)
ABOUT = {"base": "demo", "step": 1200, "data": "mannequins", "licence": "MIT"}


def a_method(seed=0):
    torch.manual_seed(seed)
    module = CFLD(TINY)
    unet = {name: torch.randn(shape) for name, shape in module.unet_weight_shapes().items()}
    return module.eval(), unet


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    module, unet = a_method()
    path = tmp_path_factory.mktemp("original") / "cfld.safetensors"
    save_checkpoint(path, module, unet, **ABOUT)
    return path, module, unet


@pytest.fixture
def saved(original, tmp_path):
    """A file of the test's own to spoil, and what is in it."""
    path, module, unet = original
    return Path(shutil.copy(path, tmp_path)), module, unet


def rewritten(path, tensors=lambda t: t, **metadata):
    """The same file with other tensors or `pgpis.*` metadata (None leaves one out)."""
    with weights.open_safetensors(path) as file:
        texts = dict(file.metadata())
    texts |= {f"pgpis.{key}": value for key, value in metadata.items()}
    values = {key: value.clone() for key, value in load_file(path).items()}
    save_file(tensors(values), path, {key: value for key, value in texts.items() if value is not None})
    return path


def test_a_checkpoint_comes_back_bit_for_bit_and_describes_itself(saved):
    path, module, unet = saved
    loaded = load_checkpoint(path, expect_method="cfld")
    assert loaded.method.config == TINY and not loaded.method.training
    own, back = module.state_dict(), loaded.method.state_dict()
    assert own.keys() == back.keys() and all(torch.equal(own[key], back[key]) for key in own)
    assert loaded.unet_weights.keys() == unet.keys()
    assert all(torch.equal(unet[key], loaded.unet_weights[key]) for key in unet)
    meta = read_metadata(path)
    assert meta == loaded.meta and meta.method == "cfld" and meta.format_version == 1
    assert {key: getattr(meta, key) for key in ABOUT} == ABOUT
    assert meta.config == json.loads(json.dumps(asdict(TINY)))


def test_a_loaded_method_computes_what_the_saved_one_does(saved):
    path, module, _ = saved
    source, pose = torch.randn(1, 3, 64, 64), torch.rand(1, 21, 64, 64)
    with torch.no_grad():
        mine, other = load_checkpoint(path).method.encode(source, pose), module.encode(source, pose)
    assert torch.equal(mine.prompt, other.prompt)
    assert all(torch.equal(mine.query_bias[site], other.query_bias[site]) for site in other.query_bias)


def test_files_in_half_precision_are_loaded_in_float32_unless_asked_otherwise(tmp_path):
    module, unet = a_method()
    for dtype in (torch.float16, torch.bfloat16):
        path = tmp_path / f"{dtype}.safetensors"
        save_checkpoint(path, module, unet, **ABOUT, dtype=dtype)
        assert {value.dtype for value in load_file(path).values()} == {dtype}
        loaded = load_checkpoint(path)
        assert {p.dtype for p in (*loaded.method.parameters(), *loaded.unet_weights.values())} == {torch.float32}
        assert torch.equal(loaded.method.learnable_vector, module.learnable_vector.to(dtype).float())
        loaded = load_checkpoint(path, dtype=dtype)
        assert {p.dtype for p in (*loaded.method.parameters(), *loaded.unet_weights.values())} == {dtype}
        if dtype is torch.bfloat16:
            prompt = loaded.method.encode_appearance(torch.randn(1, 3, 64, 64, dtype=dtype)).prompt
            assert prompt.dtype == dtype and prompt.isfinite().all()


def test_training_on_from_a_checkpoint_leaves_the_file_alone(saved):
    path, _, _ = saved
    before = path.read_bytes()
    loaded = load_checkpoint(path)
    with torch.no_grad():
        for value in (*loaded.method.parameters(), *loaded.unet_weights.values()):
            value.add_(1.0)
    assert path.read_bytes() == before
    save_checkpoint(path, loaded.method, loaded.unet_weights, **ABOUT)  # over the file that it is mapped from
    again = load_checkpoint(path)
    assert torch.equal(again.method.learnable_vector, loaded.method.learnable_vector)


def test_more_unet_weights_than_the_method_trains_are_kept(tmp_path):
    module, unet = a_method()
    unet["conv_in.weight"] = torch.randn(32, 4, 3, 3)
    save_checkpoint(tmp_path / "c.safetensors", module, unet, **ABOUT)
    assert torch.equal(load_checkpoint(tmp_path / "c.safetensors").unet_weights["conv_in.weight"],
                       unet["conv_in.weight"])


# --- writing --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("fault", ["save_file", "_sync"])
def test_a_fault_while_writing_leaves_the_old_file_and_no_other(saved, monkeypatch, fault):
    path, module, unet = saved
    before = path.read_bytes()

    def broken(first, name="", *rest):
        if fault == "save_file":
            name.write_bytes(b"half a file")
        raise OSError("disk full")

    monkeypatch.setattr(weights, fault, broken)
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(path, module, unet, **ABOUT)
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]


def test_an_interrupt_while_writing_cleans_up_too(tmp_path, monkeypatch):
    def interrupted(tensors, name, metadata):
        name.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(weights, "save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "folder" / "x.safetensors", {"a": torch.zeros(1)}, {})
    assert list((tmp_path / "folder").iterdir()) == []


def test_a_wrapped_module_or_missing_unet_weights_cannot_be_saved(tmp_path):
    module, unet = a_method()
    with pytest.raises(ValueError, match="Sequential is not a method of this pack.*cfld"):
        save_checkpoint(tmp_path / "c.safetensors", torch.nn.Sequential(module), unet, **ABOUT)
    gone = sorted(unet)[:11]
    for name in gone:
        del unet[name]
    with pytest.raises(ValueError, match="11 keys missing") as caught:
        save_checkpoint(tmp_path / "c.safetensors", module, unet, **ABOUT)
    assert sum(name in str(caught.value) for name in gone) == 10
    assert list(tmp_path.iterdir()) == []


# --- files that are refused -----------------------------------------------------------------------------------

def test_missing_unexpected_and_misshapen_keys_are_listed_with_counts(saved):
    path, module, _ = saved
    first = sorted(key for key in module.state_dict() if "fc1.weight" in key)

    def change(tensors):
        for key in list(tensors):
            if key.startswith("method.pose_encoder."):
                del tensors[key]
        for index in range(12):
            tensors[f"method.extra.{index}"] = torch.zeros(1)
        tensors["stray"] = torch.zeros(1)
        tensors[f"method.{first[0]}"] = torch.zeros(3, 5)
        return tensors

    with pytest.raises(ValueError) as caught:
        load_checkpoint(rewritten(path, change))
    text = str(caught.value)
    assert "30 keys missing" in text and "13 keys unexpected" in text and "1 keys of another shape" in text
    assert text.count("method.pose_encoder") == 10 and text.count("method.extra") == 10
    assert f"method.{first[0]} (3, 5) instead of (32, 8)" in text
    rewritten(path, lambda t: {key: value for key, value in t.items() if "unet." not in key})
    with pytest.raises(ValueError, match=r"keys missing.*"):
        load_checkpoint(path)


def test_unet_weights_of_another_width_are_refused(saved):
    path = saved[0]
    name = next(iter(saved[2]))
    with pytest.raises(ValueError, match=r"1 keys of another shape: unet.*\(32, 99\) instead of \(32, 24\)"):
        load_checkpoint(rewritten(path, lambda t: t | {f"unet.{name}": torch.zeros(32, 99)}))


@pytest.mark.parametrize("read", [load_checkpoint, read_metadata])
@pytest.mark.parametrize(("content", "reason"), [
    (b"", "truncated or of another kind"),
    (b"abc", "truncated or of another kind"),
    (struct.pack("<Q", 2 ** 62) + b"{}", "truncated or of another kind"),
    (b"PK\x03\x04 a torch file", "torch file; turn it into ours"),
    (b"\x80\x02}q\x00.", "torch file; turn it into ours"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    (b"<!DOCTYPE html><html>log in</html>", "web page"),
])  # fmt: skip
def test_files_of_another_kind_are_refused_saying_what_they_are(tmp_path, read, content, reason):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=reason) as caught:
        read(path)
    assert str(path) in str(caught.value) and f"{len(content)} bytes" in str(caught.value)


@pytest.mark.parametrize("read", [load_checkpoint, read_metadata])
def test_a_truncated_checkpoint_is_refused(saved, read):
    path = saved[0]
    whole = path.read_bytes()
    for length in (len(whole) - 1, len(whole) // 2, 200):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=f"{length} bytes.*not a whole safetensors file"):
            read(path)


@pytest.mark.parametrize("read", [load_checkpoint, read_metadata])
def test_a_missing_file_is_a_file_not_found(tmp_path, read):
    with pytest.raises(FileNotFoundError, match="nothing.safetensors"):
        read(tmp_path / "nothing.safetensors")


@pytest.mark.parametrize("read", [load_checkpoint, read_metadata])
@pytest.mark.parametrize(("metadata", "reason"), [
    ({"format": None}, "no pgpis.format and pgpis.method.*pgpis_models.convert"),
    ({"method": None, "kind": '"base"'}, 'it is a "base" file'),
    ({"format": "2"}, "checkpoint format 2, this version of the pack reads up to 1; update"),
    ({"format": '"one"'}, "checkpoint format 'one'"),
    ({"config": "{not json"}, "not JSON"),
    ({"config": "[1]"}, "pgpis.config"),
    ({"step": None, "data": None}, r"lack \['pgpis.data', 'pgpis.step'\]"),
])  # fmt: skip
def test_foreign_newer_and_damaged_metadata_are_refused(saved, read, metadata, reason):
    path = rewritten(saved[0], **metadata)
    with pytest.raises(ValueError, match=reason) as caught:
        read(path)
    assert str(path) in str(caught.value)


def test_other_methods_are_refused(saved):
    with pytest.raises(ValueError, match="holds 'cfld', expected 'mcld'"):
        load_checkpoint(saved[0], expect_method="mcld")
    with pytest.raises(ValueError, match="unknown method 'tomorrow'; this version.*cfld"):
        load_checkpoint(rewritten(saved[0], method='"tomorrow"'))


@pytest.mark.parametrize(("change", "reason"), [
    ({"promt_tokens": 5}, "unknown setting 'promt_tokens'; did you mean 'prompt_tokens'"),
    ({"zzz": 5}, "unknown setting 'zzz'; did you mean '"),
    ({"prompt_tokens": "5"}, r"prompt_tokens is '5' \(str\); expected int"),
    ({"prompt_tokens": True}, r"prompt_tokens is True \(bool\); expected int"),
    ({"image_size": [64]}, r"image_size has 1 values \[64\]; expected 2"),
    ({"window": [4, 4.5]}, "window"),
    ({"appearance_features": [0, 2, 3]}, r"appearance_features is \(0, 2, 3\)"),
    ({"drop_path": None}, r"drop_path is None \(NoneType\); expected float"),
])  # fmt: skip
def test_a_config_that_does_not_fit_is_refused(saved, change, reason):
    config = json.loads(json.dumps(asdict(TINY))) | change
    with pytest.raises(ValueError, match=reason):
        load_checkpoint(rewritten(saved[0], config=json.dumps(config)))


def test_configs_survive_json_and_take_defaults_for_what_older_files_lack():
    for config in CONFIGS.values():
        assert build(CFLDConfig, json.loads(json.dumps(asdict(config))), "config") == config
    assert build(CFLDConfig, {"window": [8, 6], "mlp_ratio": 4}, "config") == CFLDConfig(window=(8, 6))


def test_difference_is_empty_when_nothing_differs():
    assert difference({"a": (1,)}, {"a": (1,)}) == ""
    assert difference({"a": (1,)}, {"a": (1,), "b": (2,)}, extras=True) == ""
    assert difference({"a": (1,)}, {"b": (2,)}) == "1 keys missing: a; 1 keys unexpected: b"
