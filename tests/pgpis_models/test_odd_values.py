"""Values of every kind that JSON, CSV and safetensors can hold, where another kind was expected: taken, or refused in words
that name the file."""

import json
import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from pgpis_models import generate
from pgpis_models.body.frames import Figure, figure_of, to_frames
from pgpis_models.body.library import save_poses
from pgpis_models.body.picture import see
from pgpis_models.body.state import State
from pgpis_models.cfld.config import CFLDConfig
from pgpis_models.command.pairing import listed_pairs
from pgpis_models.files import presets
from pgpis_models.noise.few_steps import read_sampling
from pgpis_models.poses.files import load_poses
from pgpis_models.settings import build, check_ranges
from pgpis_models.unet.lora import ALPHA, DOWN, UP, lora_metadata, lora_name, lora_sampling, merge_lora, read_lora

VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.sampled_from([10 ** 400, -10 ** 400, 1e308, -1e308]), st.floats(),
    st.text(max_size=4), st.lists(st.floats(), max_size=4), st.dictionaries(st.text(max_size=3), st.integers(), max_size=2))
[FRAME] = json.loads(json.dumps(to_frames([Figure(State())], [see(State(), (64, 48))])))


def places(tree, before=()):
    """Every place in nested dicts and lists, lists by their first two entries."""
    yield before
    keys = tree if isinstance(tree, dict) else range(min(len(tree), 2)) if isinstance(tree, list) else ()
    for key in keys:
        yield from places(tree[key], (*before, key))


def changed(tree, place, value):
    tree = json.loads(json.dumps(tree))
    if not place:
        return value
    holder = tree
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = value
    return tree


@given(st.sampled_from(list(places(FRAME))), VALUES)
@settings(max_examples=150)
def test_a_pose_file_with_another_value_anywhere_is_read_or_named(tmp_path, place, value):
    frame, path = changed(FRAME, place, value), tmp_path / "changed.json"
    path.write_text(json.dumps([frame]), encoding="utf-8", errors="surrogatepass")
    try:
        for each in load_poses(path):
            figure = figure_of(each, "a frame of changed.json")
            if figure:
                assert np.isfinite(figure.state.camera.view((64, 48)).project(np.zeros((1, 3)))).all()
    except ValueError as error:
        assert len(str(error)) < 1000 and ("changed.json" in str(error) or "frame" in str(error))


@given(st.sampled_from(["steps", "sampler", "scheduler", "cfg", "other"]), VALUES)
@settings(max_examples=60)
def test_sampling_of_a_file_with_another_value_is_taken_or_names_the_file(name, value):
    try:
        assert 0 < read_sampling({name: value}, "few.safetensors").cfg < 100
    except ValueError as error:
        assert str(error).startswith("few.safetensors: pgpis.sampling")


@given(st.sampled_from([item for item in CFLDConfig.__dataclass_fields__]), VALUES)
@settings(max_examples=100)
def test_a_setting_of_another_value_is_taken_or_named(name, value):
    try:
        check_ranges(build(CFLDConfig, {name: value}))
    except ValueError as error:
        assert name in str(error)


@pytest.mark.parametrize("fusion", [[], [1], "whole", 5, True, {"points": []}], ids=str)
def test_a_config_of_another_kind_is_no_traceback_at_the_command_line(fusion, tmp_path, monkeypatch):
    path = tmp_path / "odd.safetensors"
    values = {"format": 1, "method": "fpdm", "config": {"fusion": fusion}, "base": "demo", "step": 0, "data": "none",
              "licence": "none"}
    save_file({"method.x": torch.zeros(1)}, str(path), {f"pgpis.{key}": json.dumps(value) for key, value in values.items()})
    pose = tmp_path / "pose.json"
    pose.write_text(json.dumps([FRAME]))
    with pytest.raises(SystemExit) as stopped:
        generate.main(["--checkpoint", str(path), "--source", str(pose), "--pose", str(pose), "--device", "cpu",
                       "--out", str(tmp_path / "made.png")])
    assert stopped.value.code == 2


# --- LoRA files -----------------------------------------------------------------------------------------------

LINEAR, CONV = lora_name("a.to_q"), lora_name("b.conv")
SHAPES = st.lists(st.sampled_from([0, 1, 2, 3, 4, 8]), max_size=4).map(tuple)
KINDS = st.sampled_from([torch.float32, torch.float16, torch.int32, torch.bool, torch.complex64, torch.float8_e4m3fn])


@st.composite
def odd_loras(draw):
    """Down, up and alpha of a layer of which some are as they should be."""
    good = draw(st.sampled_from([((2, 8), (8, 2)), ((2, 8, 3, 3), (8, 2, 1, 1))]))
    down, up = (shape if draw(st.booleans()) else draw(SHAPES) for shape in good)
    tensors = {DOWN: torch.ones(down), UP: torch.ones(up), ALPHA: torch.ones(draw(st.sampled_from([(), (1,), (2,), (0,)])))}
    odd = draw(st.sampled_from([None, DOWN, UP, ALPHA]))
    if odd:
        tensors[odd] = tensors[odd].to(draw(KINDS)) if draw(st.booleans()) else tensors[odd] * draw(st.sampled_from(
            [float("nan"), float("inf"), 3e38]))
    name = LINEAR if len(good[0]) == 2 else CONV
    return {name + key: value for key, value in tensors.items() if draw(st.integers(0, 9))}


@given(odd_loras())
@settings(max_examples=150)
def test_a_lora_of_any_shapes_and_kinds_is_merged_or_named(tmp_path, tensors):
    path = tmp_path / "odd.safetensors"
    save_file(tensors, str(path))
    unet = nn.ModuleDict({"a": nn.ModuleDict({"to_q": nn.Linear(8, 8)}), "b": nn.ModuleDict({"conv": nn.Conv2d(8, 8, 3)})})
    try:
        read_lora(path, ["a.to_q", "b.conv"])
        merge_lora(unet, path)
    except ValueError as error:
        assert "odd.safetensors" in str(error)
        return
    assert all(bool(value.isfinite().all()) for value in unet.parameters())


def test_a_lora_whose_change_would_be_huge_is_compared_before_it_is_made(tmp_path):
    path = tmp_path / "huge.safetensors"
    save_file({LINEAR + DOWN: torch.ones(1, 10 ** 6), LINEAR + UP: torch.ones(10 ** 6, 1)}, str(path))   # 4 TB together
    unet = nn.ModuleDict({"a": nn.ModuleDict({"to_q": nn.Linear(8, 8)})})
    with pytest.raises(ValueError, match=r"huge.safetensors changes a.to_q as \(1000000, 1000000\), the UNet has \(8, 8\)"):
        merge_lora(unet, path)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "9" * 5000, '"x"', '{"cfg": NaN}', '{"cfg": 1' + "0" * 400 + "}",
                                  "null", "[]"], ids=lambda text: text[:12])
def test_what_a_lora_says_of_its_steps_is_read_or_named(text, tmp_path):
    path = tmp_path / "few.safetensors"
    save_file({"x": torch.ones(1)}, str(path), {"pgpis.sampling": text})
    with pytest.raises(ValueError, match="few.safetensors"):
        lora_sampling(lora_metadata(path), path, "qen")


def test_a_lora_of_another_method_is_refused(tmp_path):
    path = tmp_path / "few.safetensors"
    save_file({"x": torch.ones(1)}, str(path), {"pgpis.method": '"mcld"'})
    with pytest.raises(ValueError, match="few.safetensors was distilled from mcld, the checkpoint is of qen"):
        lora_sampling(lora_metadata(path), path, "qen")
    assert lora_sampling(lora_metadata(path), path, "mcld") is None


# --- what a preset finder, a list of pairs and a kept pose are given ------------------------------------------

@given(st.sampled_from([presets.NATIVE, presets.DIFFUSERS]), st.booleans(), SHAPES, SHAPES, SHAPES,
       st.sampled_from(["F32", "F16", "I8", "BOOL", "C64", "U16", "F8_E8M0", "F8_E5M2"]))
@settings(max_examples=100)
def test_a_file_with_the_names_of_a_base_and_other_shapes_is_none(tmp_path, place, whole, keys, first, bias, kind):
    sizes, header, end = {"F32": 4, "F16": 2, "U16": 2, "C64": 8}, {}, 0
    prefix = "model.diffusion_model." * whole
    for name, shape, of in ((place, keys, "F32"), (presets.FIRST[place], first, "F32"),
                            (presets.LAST_BIAS[place], bias, kind)):
        start, end = end, end + int(np.prod(shape)) * sizes.get(of, 1)
        header[prefix + name] = {"dtype": of, "shape": list(shape), "data_offsets": [start, end]}
    text, path = json.dumps(header).encode(), tmp_path / "base.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(end))
    presets._base.cache_clear()
    assert presets.base_of(path) is None and not presets.is_vae(path) and not presets.is_clip(path)


@given(st.binary(max_size=60))
@settings(max_examples=100)
def test_a_list_of_pairs_of_any_bytes_names_the_file(tmp_path, content):
    path = tmp_path / "pairs.csv"
    for whole in (content, b"source,pose,out\n" + content):
        path.write_bytes(whole)
        with pytest.raises((ValueError, FileNotFoundError), match="pairs.csv|--out is"):
            assert listed_pairs(path, tmp_path / "photos", tmp_path / "poses", tmp_path / "out")


@pytest.mark.parametrize("row", ["a" * 200_000 + ",b", "a" * 5000 + ",b", "\0,b", '"a,b', "a\0b,c"], ids=lambda row: row[:6])
def test_names_that_no_file_can_have_are_named(row, tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text(f"source,pose\n{row}\n")
    with pytest.raises((ValueError, FileNotFoundError), match="pairs.csv") as refused:
        listed_pairs(path, tmp_path, tmp_path, tmp_path / "out")
    assert len(str(refused.value)) < 2000


def test_poses_of_numpy_are_kept_as_their_numbers(tmp_path):
    """As detectors of other packs give them."""
    flat = FRAME["people"][0]["pose_keypoints_2d"]
    kept = [load_poses(save_poses([FRAME | {"people": [{"pose_keypoints_2d": kind}]}], tmp_path, "numpy"))
            for kind in (flat, np.array(flat), [np.float32(value) for value in flat])]
    for one in kept:
        np.testing.assert_allclose(one[0]["people"][0]["pose_keypoints_2d"], flat, rtol=1e-6)
