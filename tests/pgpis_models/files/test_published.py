"""Published and retrained weights are known by what is in them, and converted once, whole or not at all."""

from __future__ import annotations

import importlib
import os
import pickle
from functools import cache

import pytest
import torch
from safetensors.torch import load_file, save_file

from pgpis_models.cfld.convert import published_layout as cfld_layout
from pgpis_models.cfld.model import CFLD
from pgpis_models.checkpoint import load_checkpoint, read_metadata
from pgpis_models.files import published
from pgpis_models.files.torch_states import read_weights
from pgpis_models.fpdm.config import CONFIGS, FUSION_CONFIGS
from pgpis_models.fpdm.convert import required_keys
from pgpis_models.mcld.convert import published_layout as mcld_layout
from tests.helpers.published import (
    as_safetensors,
    as_torch,
    cfld_states,
    fpdm_state,
    mcld_states,
    tiny_converters,
)


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    tiny_converters(importlib.import_module, monkeypatch)


@cache
def names_of_full_size():
    """Kind -> all names of the file as the authors save it."""
    layout, four = cfld_layout(), mcld_layout()
    kinds = {"cfld": [*layout.parameters, *layout.buffers], "cfld_unet": [f"model.{name}" for name in layout.unet],
             "fpdm": list(required_keys(CONFIGS["full"])), "fpdm_fusion": list(required_keys(FUSION_CONFIGS["full"]))}
    names = ("mcld", "mcld_reference", "mcld_guider", "mcld_projector")
    return kinds | dict(zip(names, map(list, four.values()), strict=True))


@pytest.mark.parametrize("kind", published.KINDS)
@pytest.mark.parametrize("how", ["torch", "lightning", "safetensors", "compiled"])
def test_every_published_file_is_known_by_its_names(tmp_path, kind, how):
    names = names_of_full_size()[kind]
    state = dict(zip(names, torch.zeros(len(names), 1), strict=True))   # one record of a torch file
    path = tmp_path / "anything.weights"
    if how == "torch":
        torch.save(state, path)
    elif how == "lightning":
        torch.save({"state_dict": state, "epoch": 3, "hyper_parameters": {"lr": 1e-4}}, path)
    else:
        save_file({f"_orig_mod.{key}" if how == "compiled" else key: value for key, value in state.items()}, path)
    assert published.kind_of(path) == kind


def test_other_files_are_none_of_them(tmp_path):
    files = {"detector.pth": {"conv1.weight": torch.zeros(1)}, "sd.bin": {"input_blocks.0.0.weight": torch.zeros(1)}}
    for name, state in files.items():
        torch.save(state, tmp_path / name)
        assert published.kind_of(tmp_path / name) is None and not published.listed(tmp_path / name)
    (tmp_path / "old.ckpt").write_bytes(pickle.dumps({"appearance_encoder.": 1}))
    (tmp_path / "page.ckpt").write_text("<html>")
    (tmp_path / "cut.bin").write_bytes(b"PK\x03\x04 cut off")
    for name in ("old.ckpt", "page.ckpt", "cut.bin", "not_there.bin"):
        assert published.kind_of(tmp_path / name) is None
        assert published.published_set(tmp_path / name) is None


@pytest.mark.parametrize("compiled", [False, True])
def test_a_retrained_model_of_accelerate_converts_to_the_same_bytes_as_the_release(tmp_path, compiled):
    release = as_torch(tmp_path / "release", cfld_states(), prefix="module.")
    retrained = as_safetensors(tmp_path / "run", cfld_states(), compiled)
    importlib.import_module("pgpis_models.cfld.convert").convert(release, tmp_path / "a.safetensors")
    importlib.import_module("pgpis_models.cfld.convert").convert(retrained[::-1], tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert load_checkpoint(tmp_path / "b.safetensors").meta.method == "cfld"
    assert isinstance(load_checkpoint(tmp_path / "b.safetensors").method, CFLD)


@pytest.mark.parametrize("method", ["cfld", "mcld", "fpdm"])
def test_a_set_is_converted_once_beside_the_originals_into_the_bytes_of_the_converter(tmp_path, method):
    states = {"cfld": cfld_states, "mcld": mcld_states, "fpdm": lambda: {"epoch": fpdm_state()}}[method]()
    files = as_torch(tmp_path / "set", states, ".ckpt" if method == "fpdm" else ".bin")
    found = published.published_set(files[0])
    assert found.method == method and found.files[0] == files[0] and set(found.files) == set(files)
    assert found.output == tmp_path / "set" / f"{files[0].stem}.{method}.safetensors" and not found.converted()
    found.convert()
    importlib.import_module(f"pgpis_models.{method}.convert").convert(files, tmp_path / "by_hand.safetensors")
    assert found.output.read_bytes() == (tmp_path / "by_hand.safetensors").read_bytes()
    assert found.converted() and read_metadata(found.output).method == method
    assert published.kind_of(found.output) == published.OWN and published.published_set(found.output) is None
    os.utime(files[0], ns=(found.output.stat().st_mtime_ns + 10**9,) * 2)   # trained on: converted anew
    assert not found.converted()


def test_only_the_file_that_stands_for_a_set_is_listed(tmp_path):
    for files in (as_torch(tmp_path / "cfld", cfld_states()), as_torch(tmp_path / "mcld", mcld_states(), ".pth"),
                  as_safetensors(tmp_path / "run", cfld_states())):
        assert [published.listed(path) for path in files] == [True] + [False] * (len(files) - 1)
        with pytest.raises(ValueError, match="expected the file that stands for the set"):
            published.published_set(files[1])


def test_what_is_missing_or_there_twice_is_named(tmp_path):
    files = as_torch(tmp_path, mcld_states(), ".pth")
    files[1].unlink()
    files[3].unlink()
    with pytest.raises(ValueError, match="no MCLD's reference UNet .*, no MCLD's face projector .*all 4 files of mcld"):
        published.published_set(files[0])
    files = as_torch(tmp_path / "two", cfld_states())
    as_torch(tmp_path / "two", {"other": cfld_states(1)["model_1"]})
    with pytest.raises(ValueError, match="several files of a kind: model_1.bin, other.bin .*a folder of its own"):
        published.published_set(files[0])


def test_nothing_is_left_of_a_conversion_that_fails(tmp_path, monkeypatch):
    files = as_torch(tmp_path, cfld_states())
    state = torch.load(files[1])
    del state["model.conv_in.weight"]
    torch.save(state, files[1])
    found = published.published_set(files[0])
    with pytest.raises(ValueError, match="conv_in.weight"):
        found.convert()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.bin", "model_1.bin"]
    as_torch(tmp_path, cfld_states())
    monkeypatch.setattr("pgpis_models.unet.weights._sync", lambda *_: (_ for _ in ()).throw(OSError(28, "disk full")))
    with pytest.raises(OSError, match="is full: model.cfld.safetensors needs .* bytes"):
        found.convert()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.bin", "model_1.bin"] and not found.converted()


def test_names_that_are_there_compiled_and_plain_are_refused(tmp_path):
    save_file({"a.b": torch.zeros(1), "a._orig_mod.b": torch.ones(1)}, tmp_path / "both.safetensors")
    with pytest.raises(ValueError, match="1 of 2 names are there twice"):
        read_weights(tmp_path / "both.safetensors")


def test_objects_in_a_file_are_never_built(tmp_path):
    """A pickle that would run a command is known by no name, and refused by the converter that is forced on it."""
    class Bad:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "made"),)
    states = cfld_states()
    files = as_torch(tmp_path, states)
    torch.save(states["model"] | {"decoder.more": Bad()}, files[0])
    found = published.published_set(files[0])   # its names are those of CFLD
    with pytest.raises(ValueError, match="refused: it holds objects other than tensors"):
        found.convert()
    assert not (tmp_path / "made").exists() and not found.output.exists()


def test_weights_of_compiled_fpdm_load(tmp_path):
    state = fpdm_state()
    inner = {key.replace("unet.", "unet._orig_mod.", 1) if key.startswith("unet.") else key: value
             for key, value in state.items()}
    plain, compiled = as_torch(tmp_path / "a", {"e": state}, ".ckpt"), as_torch(tmp_path / "b", {"e": inner}, ".ckpt")
    for files in (plain, compiled):
        published.published_set(files[0]).convert()
    assert (tmp_path / "a" / "e.fpdm.safetensors").read_bytes() == (tmp_path / "b" / "e.fpdm.safetensors").read_bytes()
    assert len(load_file(tmp_path / "a" / "e.fpdm.safetensors")) > 100
