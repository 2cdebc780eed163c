"""The Swin tower of the demo's FPDM: what CFLD's or QEN's backbone and decoder say, from pixels in another range."""

import dataclasses
import json

import pytest
import torch

from pgpis_models.cfld.model import CFLD
from pgpis_models.checkpoint import load_checkpoint, save_checkpoint
from pgpis_models.fpdm.config import CONFIGS, FPDMConfig, FusionConfig
from pgpis_models.fpdm.fusion import FusionModel
from pgpis_models.parts.swin_tower import SwinSizes, SwinTower
from pgpis_models.qen.config import CONFIGS as QEN_CONFIGS
from pgpis_models.qen.model import QEN
from pgpis_models.settings import build
from tests.helpers.fpdm_tiny import fpdm_config
from tests.helpers.plain_fusion import plain_fusion
from tests.helpers.tiny import SIZE, cfld_config, shaken

MEAN, STD = (0.48, 0.45, 0.4), (0.26, 0.25, 0.27)


@pytest.fixture(scope="module")
def cfld():
    torch.manual_seed(0)
    return shaken(CFLD(cfld_config())).eval()


def start(tower, state):
    """Backbone and decoder of a tower from those of another model."""
    theirs = {"backbone": "backbone.", "decoder": "fusion." if tower.sizes.reads == "all" else "decoder."}
    for part in ("backbone", "decoder") if tower.decoder is not None else ("backbone",):
        prefix = theirs[part]
        own = getattr(tower, part)
        own.load_state_dict({name: state[prefix + name] for name in own.state_dict()})


def test_a_tower_started_from_cfld_says_its_prompt(cfld):
    tower = SwinTower(fpdm_config().source_swin, MEAN, STD).eval()
    start(tower, cfld.state_dict())
    picture = torch.rand(2, 3, *SIZE)
    pixels = (picture - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)
    with torch.no_grad():
        assert torch.allclose(tower(pixels), cfld.encode_appearance(picture * 2 - 1).prompt, atol=1e-4)


@torch.no_grad()
def test_a_tower_that_reads_all_maps_says_what_qen_s_local_queries_read():
    torch.manual_seed(1)
    qen = shaken(QEN(dataclasses.replace(QEN_CONFIGS["demo"], image_size=SIZE, window=(4, 4), swin_width=8, fusion_depth=2,
                                         swin_depths=(1, 1, 1, 1), swin_heads=(1, 1, 2, 2)))).eval()
    deep = dataclasses.replace(fpdm_config().source_swin, reads="all", decoder_depth=2)
    picture = torch.rand(2, 3, *SIZE)
    pixels = (picture - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)
    maps = [feature.double() for feature in qen.backbone(picture * 2 - 1)]
    fusion = qen.fusion.double()
    fusion.global_queries = None
    for depth in (2, 1):   # a shallower tower takes the first blocks
        tower = SwinTower(dataclasses.replace(deep, decoder_depth=depth), MEAN, STD).eval()
        state = {name: value.float() for name, value in qen.state_dict().items()}
        start(tower, state)
        fusion.blocks = fusion.blocks[:depth]
        assert (tower(pixels) - plain_fusion(fusion, maps)).abs().max() < 1e-4
        finest = tower.maps(pixels)[0]
        assert finest.shape[1] == (SIZE[0] // 4) * (SIZE[1] // 4) and torch.allclose(finest.double(), maps[0], atol=1e-4)


def test_towers_that_read_all_maps_refuse_what_does_not_fit():
    sizes = dataclasses.replace(fpdm_config().source_swin, reads="all")
    with pytest.raises(ValueError, match="reads is 'finest'; expected one of 'deepest', 'all'"):
        dataclasses.replace(sizes, reads="finest")
    with pytest.raises(ValueError, match=r"depths \(1, 1, 1\); expected 4 stages"):
        dataclasses.replace(sizes, depths=(1, 1, 1), heads=(1, 1, 2))


def test_one_vector_of_a_picture_keeps_places_apart(cfld):
    sizes = dataclasses.replace(fpdm_config().fusion.swin, width=8)
    tower = SwinTower(sizes, MEAN, STD).eval()
    start(tower, cfld.state_dict())
    assert sizes.grid == (2, 2) and sizes.pooled_width == 2 * 2 * 64
    pixels = torch.rand(1, 3, *SIZE)
    with torch.no_grad():
        vector, turned = tower.pooled(pixels), tower.pooled(pixels.flip(-1))
        picture = pixels * torch.tensor(STD).view(1, 3, 1, 1) + torch.tensor(MEAN).view(1, 3, 1, 1)
        flat = cfld.backbone(picture * 2 - 1)[-1].flatten(1)
    expected = (flat - flat.mean(1, keepdim=True)) / (flat.var(1, keepdim=True, correction=0) + 1e-5).sqrt()
    assert torch.allclose(vector, expected, atol=1e-4) and not torch.allclose(vector, turned, atol=0.1)


def test_towers_say_what_they_cannot():
    sizes = fpdm_config().fusion.swin
    with pytest.raises(ValueError, match="has no tokens; set tokens"):
        SwinTower(sizes)(torch.rand(1, 3, *SIZE))
    with pytest.raises(ValueError, match="gives tokens; one with tokens = 0"):
        SwinTower(fpdm_config().source_swin).pooled(torch.rand(1, 3, *SIZE))
    with pytest.raises(ValueError, match="tower of 16 tokens has token_width 0"):
        dataclasses.replace(sizes, tokens=16)
    with pytest.raises(ValueError, match=r"\(1, 3, 32, 32\); expected \(B, 3, 64, 64\)"):
        SwinTower(sizes).pooled(torch.rand(1, 3, 32, 32))


def test_configs_with_a_swin_tower_come_back_from_files(tmp_path):
    for config in (fpdm_config(), CONFIGS["demo"], CONFIGS["full"]):
        assert build(FPDMConfig, json.loads(json.dumps(dataclasses.asdict(config))), "file") == config
    model = FusionModel(FusionConfig(embed=8, projection=8, hidden=8, swin=SwinSizes((64, 64), (4, 4), 8, (1, 1), (1, 1))))
    save_checkpoint(tmp_path / "a.safetensors", model, {}, base="demo", step=0, data="none", licence="none")
    loaded = load_checkpoint(tmp_path / "a.safetensors").method
    pixels = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert loaded.config == model.config and torch.equal(loaded.embed(pixels), model.eval().embed(pixels))
    with pytest.raises(ValueError, match="unknown setting 'file.swin.windw'; did you mean 'file.swin.window'"):
        build(FusionConfig, {"swin": {"windw": 3}}, "file")
