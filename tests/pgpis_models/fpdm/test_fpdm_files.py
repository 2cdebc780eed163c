"""FPDM's checkpoint files: hostile, damaged and unfitting ones, and ours coming back as they were."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections import OrderedDict
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pgpis_models.checkpoint import load_checkpoint, save_checkpoint
from pgpis_models.convert import main
from pgpis_models.files.torch_states import read_torch_file
from pgpis_models.fpdm import convert as convert_fpdm
from pgpis_models.fpdm.config import CONFIGS, FUSION_CONFIGS, FPDMConfig
from pgpis_models.fpdm.convert import convert, published_names, required_keys
from pgpis_models.fpdm.drawing import draw_fpdm
from pgpis_models.fpdm.fusion import FusionModel
from pgpis_models.fpdm.model import FPDM
from pgpis_models.parts.vision_tower import TowerSizes
from pgpis_models.poses.keypoints import Keypoints
from pgpis_models.poses.padded_rows import FRAME


@pytest.fixture(scope="module")
def tiny() -> FPDM:
    torch.manual_seed(0)
    model = FPDM(CONFIGS["tiny"])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model.eval()


@pytest.mark.parametrize("name", ["fpdm", "fpdm_fusion"])
def test_checkpoints_of_both_stages_come_back_as_they_were(tmp_path, tiny, name):
    module = tiny if name == "fpdm" else tiny.fusion
    weights = {key: torch.randn(shape) for key, shape in module.unet_weight_shapes().items()}
    save_checkpoint(tmp_path / "a.safetensors", module, weights, base="sd21", step=3, data="none", licence="test")
    loaded = load_checkpoint(tmp_path / "a.safetensors", expect_method=name)
    assert loaded.method.config == module.config and loaded.unet_weights.keys() == weights.keys()
    state = module.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in loaded.method.state_dict().items())


def test_the_demo_sizes_fit_together():
    with torch.device("meta"):
        model = FPDM(CONFIGS["demo"])
    assert model.config.latent_size == (32, 24) and model.config.fusion == FUSION_CONFIGS["demo"]
    with pytest.raises(ValueError, match="multiples of 8"):
        FPDMConfig(image_size=(100, 96))
    with pytest.raises(ValueError, match="3 attention heads do not divide"):
        TowerSizes(heads=3)


read_lightning = partial(read_torch_file, inside="state_dict")


class Bomb:
    """Unpickled by anything that runs what it reads, it makes a file."""

    def __init__(self, path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def published(tmp_path, **more):
    """A stage 1 file of the tiny sizes as Lightning writes it, with `more` at its top level."""
    model, names = FusionModel(FUSION_CONFIGS["tiny"]), published_names(CONFIGS["tiny"])
    state = OrderedDict((names[f"fusion.{name}"][0].removeprefix("fusion_model."), value)
                        for name, value in model.state_dict().items())
    state |= {key.replace("img_encoder", "pose_encoder", 1): value for key, value in state.items() if "img_encoder" in key}
    path = tmp_path / "stage1.ckpt"
    torch.save({"state_dict": state, "epoch": 1} | more, path)
    return path, model


def test_the_canvas_of_poses_can_be_set(tmp_path, monkeypatch, capsys):
    """By the pictures that a checkpoint draws: the authors' test script draws on photos of 750 pixels by 1101."""
    state = {key: torch.randn(shape) for key, shape in required_keys(CONFIGS["tiny"]).items()}
    torch.save({"state_dict": state}, tmp_path / "stage2.ckpt")
    full = convert_fpdm.convert
    monkeypatch.setattr(convert_fpdm, "convert", lambda *given, **more: full(*given, **more, config=CONFIGS["tiny"]))
    pose = Keypoints(np.linspace((20, 20), (150, 240), 18), np.ones(18, bool), FRAME)
    drawn = {}
    for name, flags in (("usual", []), ("photo", ["--pose-canvas", "1101x750"])):
        output = tmp_path / f"{name}.safetensors"
        assert main(["fpdm", str(tmp_path / "stage2.ckpt"), str(output), *flags]) == 0
        drawn[name] = draw_fpdm(pose, load_checkpoint(output, expect_method="fpdm").method.config.pose_canvas)
    assert drawn["usual"].shape == (550, 375, 3) and drawn["photo"].shape == (1101, 750, 3)
    # Lines are as many pixels wide on both, so on twice the canvas they cover half as much of it.
    share = {name: (picture.max(2) > 0).mean() for name, picture in drawn.items()}
    assert 1.5 < share["usual"] / share["photo"] < 2.5
    path, _ = published(tmp_path)
    for given, message in (([str(path), "--pose-canvas", "1101x750"], "is of stage 1.*Leave --pose-canvas out"),
                           ([str(path), "--pose-canvas", "1101"], "--pose-canvas is '1101'; expected HEIGHTxWIDTH")):
        assert main(["fpdm", given[0], str(tmp_path / "no.safetensors"), *given[1:]]) == 2
        assert re.search(message, capsys.readouterr().err) and not (tmp_path / "no.safetensors").exists()


def test_code_in_a_file_is_not_run_and_its_weights_are_still_read(tmp_path):
    path, model = published(tmp_path, hyper_parameters=Bomb(tmp_path / "ran"), callbacks={"x": Bomb(tmp_path / "ran")})
    output = tmp_path / "out.safetensors"
    assert "fpdm_fusion" in convert([path], output, config=CONFIGS["tiny"])
    assert not (tmp_path / "ran").exists()
    loaded = load_checkpoint(output).method
    state = model.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in loaded.state_dict().items())
    torch.save({"state_dict": Bomb(tmp_path / "ran")}, path)
    with pytest.raises(ValueError, match="holds no state_dict"):
        read_lightning(path)
    torch.save({"state_dict": {"a": Bomb(tmp_path / "ran"), "b": torch.ones(1)}}, path)
    with pytest.raises(ValueError, match="1 of 2 entries.*not tensors by name: a"):
        read_lightning(path)
    assert not (tmp_path / "ran").exists()
    with open(tmp_path / "bare.pkl", "wb") as file:
        pickle.dump({"state_dict": Bomb(tmp_path / "ran")}, file)
    with pytest.raises(ValueError, match="bare pickle"):
        read_lightning(tmp_path / "bare.pkl")
    assert not (tmp_path / "ran").exists()
    torch.load(path, weights_only=False)  # the bomb is real
    assert (tmp_path / "ran").exists()


def test_files_that_do_not_fit_are_refused_by_name(tmp_path):
    path, _ = published(tmp_path)
    with pytest.raises(ValueError, match="does not fit fpdm_fusion.*missing"):
        convert([path], tmp_path / "o.safetensors")
    state = torch.load(path, weights_only=True)["state_dict"]
    lacking = {key: value for key, value in state.items() if not key.startswith("combiner.")}
    torch.save({"state_dict": lacking | {"combiner.other": torch.ones(1)}}, path)
    with pytest.raises(ValueError, match="keys missing: combiner"):
        convert([path], tmp_path / "o.safetensors", config=CONFIGS["tiny"])
    changed = {key: value + 1 if key == "pose_encoder.visual_projection.weight" else value for key, value in state.items()}
    torch.save({"state_dict": changed}, path)
    with pytest.raises(ValueError, match="should equal others and do not .pose_encoder.visual_projection.weight"):
        convert([path], tmp_path / "o.safetensors", config=CONFIGS["tiny"])
    torch.save({"state_dict": {"x": torch.ones(1)}}, path)
    with pytest.raises(ValueError, match="of neither stage"):
        convert([path], tmp_path / "o.safetensors")
    with pytest.raises(ValueError, match="2 input files; expected one"):
        convert([path, path], tmp_path / "o.safetensors")
    with pytest.raises(FileNotFoundError):
        read_lightning(tmp_path / "absent.ckpt")
    assert not (tmp_path / "o.safetensors").exists()


def test_damaged_files_say_so(tmp_path):
    path, _ = published(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="not a whole torch file"):
        read_lightning(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02}q\x00X")
    with pytest.raises(ValueError, match="cannot be read"):
        read_lightning(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "x")
    with pytest.raises(ValueError, match="without one data.pkl"):
        read_lightning(path)


def test_tensors_may_not_reach_out_of_their_storage(tmp_path):
    """A file that claims more entries than its storage has must not show other memory."""
    path = tmp_path / "a.ckpt"
    torch.save({"state_dict": {"combiner.x": torch.arange(4.0)}}, path)
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    name = next(name for name in content if name.endswith("data.pkl"))
    start = content[name].index(b"K\x04\x85")  # the size (4,)
    content[name] = content[name][:start] + b"K\x7f\x85" + content[name][start + 3:]
    with zipfile.ZipFile(path, "w") as archive:
        for key, value in content.items():
            archive.writestr(key, value)
    with pytest.raises(ValueError, match="reaches to entry 126 of a storage of 4"):
        read_lightning(path)


def test_half_precision_and_strided_tensors_are_read(tmp_path):
    tensors = {"a": torch.randn(4, 3).half(), "b": torch.randn(4, 3).T, "c": torch.tensor(3), "d": torch.empty(0, 2),
               "e": nn.Parameter(torch.randn(2)), "f": torch.randn(5).bfloat16(), "g": torch.tensor([True, False])}
    torch.save({"state_dict": tensors}, tmp_path / "a.ckpt")
    read = read_lightning(tmp_path / "a.ckpt")
    assert all(torch.equal(read[key], value) and read[key].dtype == value.dtype for key, value in tensors.items())


def test_parts_of_other_commits_are_left_out_and_named(tmp_path):
    path, model = published(tmp_path)
    state = torch.load(path, weights_only=True)["state_dict"]
    torch.save({"state_dict": state | {"attention.to_q.weight": torch.ones(1), "combiner.other": torch.ones(1)}}, path)
    said = convert([path], tmp_path / "o.safetensors", config=CONFIGS["tiny"])
    assert "left out 1 keys that the released code does not have: combiner.other" in said   # attention is known
    loaded = load_checkpoint(tmp_path / "o.safetensors").method
    state = model.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in loaded.state_dict().items())


def test_many_storages_need_few_open_files(tmp_path):
    """Files with optimizer states hold thousands; systems allow 256 or 1024 open files."""
    resource = pytest.importorskip("resource")
    path = tmp_path / "many.ckpt"
    torch.save({"state_dict": {f"w{n}": torch.full((3,), float(n)) for n in range(200)}}, path)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").is_dir() else 100
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 20, hard))
    try:
        state = read_lightning(path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(state) == 200 and all(torch.equal(state[f"w{n}"], torch.full((3,), float(n))) for n in range(200))
