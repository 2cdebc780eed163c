"""What the tasks of all methods share: presets and what overrides them, a trained backbone, and pictures as bytes."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pgpis_models.cfld.config import CONFIGS, CFLDConfig
from pgpis_models.fpdm.config import CONFIGS as FPDM_CONFIGS
from pgpis_models.fpdm.config import FPDMConfig
from pgpis_models.parts.swin import SwinBackbone
from tests.helpers.tiny import shaken, train_config
from training.engine.config import MethodConfig
from training.engine.task import as_unit, configured, load_backbone
from training.tasks.cfld import CFLDTask


def a_backbone(seed=0) -> SwinBackbone:
    torch.manual_seed(seed)
    return shaken(SwinBackbone((64, 64), (4, 4), 8, (1, 1, 1, 1), (1, 1, 2, 2), 4, drop_path=0.0))


# --- settings -----------------------------------------------------------------------------------------------

def test_overrides_reach_any_depth_and_leave_the_rest_of_the_preset():
    swin = FPDM_CONFIGS["demo"].source_swin
    made = configured(FPDMConfig, FPDM_CONFIGS, MethodConfig(preset="demo", model={
        "context": 32, "source_swin": {"tokens": 20, "depths": [1, 1, 1, 1]}, "fusion": {"embed": 24}}))
    assert made == dataclasses.replace(
        FPDM_CONFIGS["demo"], context=32, source_swin=dataclasses.replace(swin, tokens=20, depths=(1, 1, 1, 1)),
        fusion=dataclasses.replace(FPDM_CONFIGS["demo"].fusion, embed=24))


def test_what_a_preset_lacks_may_be_given_whole_and_what_it_has_be_taken_away():
    assert FPDM_CONFIGS["full"].source_swin is None
    swin = dataclasses.asdict(FPDM_CONFIGS["demo"].source_swin)
    assert configured(FPDMConfig, FPDM_CONFIGS, MethodConfig(model={"source_swin": swin})).source_swin == \
        FPDM_CONFIGS["demo"].source_swin
    assert configured(FPDMConfig, FPDM_CONFIGS, MethodConfig(preset="demo", model={"source_swin": None})).source_swin is None


def test_unknown_presets_and_settings_are_named():
    with pytest.raises(ValueError, match=r"method.preset is 'huge'; expected one of \['demo', 'full', 'tiny'\]"):
        configured(CFLDConfig, CONFIGS, MethodConfig(preset="huge"))
    with pytest.raises(ValueError, match="unknown setting 'method.model.windw'; did you mean 'method.model.window'"):
        configured(CFLDConfig, CONFIGS, MethodConfig(model={"windw": 3}))


# --- a trained backbone -------------------------------------------------------------------------------------

@pytest.mark.parametrize("prefix", ["backbone.", "method.backbone."])
def test_a_backbone_is_read_from_any_file_that_holds_one(tmp_path, prefix):
    trained, fresh = a_backbone(1), a_backbone(2)
    state = {f"{prefix}{name}": value.half() for name, value in trained.state_dict().items()}
    others = {"decoder.x": torch.zeros(3), "method.pose_encoder.backbone": torch.zeros(1)}
    save_file(state | others, tmp_path / "a.safetensors")
    load_backbone(fresh, str(tmp_path / "a.safetensors"))
    own = fresh.state_dict()
    assert all(torch.equal(own[name], value.half().float()) for name, value in trained.state_dict().items())
    assert {value.dtype for value in own.values() if value.is_floating_point()} == {torch.float32}


class Ran:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return type(self.path).touch, (self.path,)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("wrapped", [True, False])
def test_a_torch_file_has_the_published_imagenet_layout(tmp_path, wrapped, zipped):
    """Checked by what it computes: published names as timm and Swin's authors have them, with their classifier."""
    trained, fresh = a_backbone(1), a_backbone(2)
    published = {name: value for name, value in trained.state_dict().items() if not name.startswith("norm")}
    state = published | {"norm.weight": torch.ones(64), "norm.bias": torch.zeros(64), "head.weight": torch.zeros(5, 64),
                         "head.bias": torch.zeros(5)}
    beside = {"model": state, "config": Ran(tmp_path / "ran"), "epoch": 3}   # as a run of Swin's code leaves it
    torch.save(beside if wrapped else state, tmp_path / "swin.pth", _use_new_zipfile_serialization=zipped)
    load_backbone(fresh, str(tmp_path / "swin.pth"))
    own = fresh.state_dict()
    assert all(torch.equal(own[name], value) for name, value in published.items()) and not (tmp_path / "ran").exists()


def test_backbones_that_are_missing_or_of_another_size_are_refused(tmp_path):
    with pytest.raises(ValueError, match="method.backbone is .*nowhere.pth, which is not there; expected a torch file with"):
        load_backbone(a_backbone(), str(tmp_path / "nowhere.pth"))
    for content in (b"", b"\x80\x04.", b"PK\x03\x04cut"):
        (tmp_path / "odd.pth").write_bytes(content)
        with pytest.raises(ValueError, match="^method.backbone: .*odd.pth.*Expected the published ImageNet weights"):
            load_backbone(a_backbone(), str(tmp_path / "odd.pth"))
    state = {f"backbone.{name}": value for name, value in a_backbone().state_dict().items()}
    name = "backbone.patch_embed.proj.weight"
    save_file(state | {name: torch.zeros(3, 3)}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"a.safetensors \(there\) does not hold this backbone: 1 keys of another.*patch"):
        load_backbone(a_backbone(), str(tmp_path / "a.safetensors"), "there")
    save_file({"decoder.x": torch.zeros(3)}, tmp_path / "b.safetensors")
    with pytest.raises(ValueError, match=r"does not hold this backbone: \d+ keys missing"):
        load_backbone(a_backbone(), str(tmp_path / "b.safetensors"))


# --- pictures -----------------------------------------------------------------------------------------------

def test_bytes_become_the_numbers_that_networks_read():
    picture = np.random.default_rng(0).integers(0, 256, (2, 3, 5, 4), dtype=np.uint8)
    assert np.allclose(as_unit(torch.from_numpy(picture)).numpy(), picture / 127.5 - 1, atol=1e-7)
    plain = torch.rand(1, 3, 2, 2) * 2 - 1
    assert as_unit(plain) is plain


@pytest.mark.parametrize("name, said", [("base", "'nowhere', which is not there; expected a file"),
                                        ("vae", "'nowhere', which is not there; expected a file"),
                                        ("init", "'nowhere', which is not there; expected a checkpoint")])
def test_files_that_are_missing_are_found_before_any_data_is_opened(name, said, tmp_path, monkeypatch):
    """Latents of a data set take hours to encode."""
    opened = []
    monkeypatch.setattr("training.tasks.pairs.pairs_class", lambda *kind: opened.append(kind))
    there = SimpleNamespace(base=tmp_path, vae=tmp_path)
    with pytest.raises(ValueError, match=f"method.{name} is {said}"):
        CFLDTask(train_config(tmp_path, there, method={name: "nowhere"}), torch.device("cpu"))
    with pytest.raises((ValueError, OSError)):   # there, and no base
        CFLDTask(train_config(tmp_path, there), torch.device("cpu"))
    assert not opened
