"""QEN: what it injects of sources, poses and masks, and its files."""

from __future__ import annotations

import dataclasses
import logging

import pytest
import torch

from pgpis_models.checkpoint import load_checkpoint, save_checkpoint
from pgpis_models.methods import guidance_modes, picture_encoder
from pgpis_models.poses.keypoints import Keypoints
from pgpis_models.qen.config import CONFIGS
from pgpis_models.qen.inputs import encode_pictures, pose_rasters
from pgpis_models.qen.model import QEN
from pgpis_models.unet.control_diffusers import network_of
from pgpis_models.unet.injections import harmonise
from tests.helpers.tiny import shaken
from tests.helpers.tiny_qen import TINY, inputs, tiny_qen

CPU = torch.device("cpu")


def keypoints(count=1, size=(64, 64)):
    xy = torch.rand(18, 2, generator=torch.Generator().manual_seed(4)).numpy() * (size[1], size[0])
    return [Keypoints(xy, [True] * 18, size)] * count


@torch.no_grad()
def test_a_pose_without_a_person_gives_the_unmasked_result_with_a_warning(caplog):
    method = tiny_qen(mask="full")
    source, pose = inputs(TINY)
    with caplog.at_level(logging.WARNING):
        nobody = method.encode(source, torch.zeros_like(pose))
    assert "no person" in caplog.text
    x, t = torch.randn(2, 4, 8, 8), torch.tensor([100, 800])
    masked, unmasked = ({**nobody.pose, "region": nobody.region}, nobody.pose)
    run = network_of(method.control)
    for a, b in zip(run(x, t, nobody.tokens, **masked)[0], run(x, t, nobody.tokens, **unmasked)[0], strict=True):
        assert torch.equal(a, b)
    someone = method.encode(source, pose)
    assert 0 < someone.region.mean() < 1


@torch.no_grad()
def test_a_mask_of_any_size_takes_the_place_of_the_poses_own():
    method = tiny_qen()
    source, pose = inputs(TINY)
    mask = torch.zeros(1, 1, 33, 17)
    mask[..., 5, 5] = 1
    found = method.encode(source, pose, mask)
    assert found.region.shape == (1, 1, *TINY.image_size) and 0 < found.region.sum() < 40
    assert not torch.equal(found.region[0], method.encode(source, pose).region[0])
    with pytest.raises(ValueError, match="2 poses and 3 masks"):
        method.encode(source, pose, mask.expand(3, -1, -1, -1))
    with pytest.raises(ValueError, match=r"\(33, 17\); expected a mask"):
        method.encode(source, pose, mask[0, 0])


def test_the_chain_shows_nothing_then_the_pose_then_the_person():
    method = tiny_qen()
    source, pose = inputs(TINY)
    encoded = method.encode(source, pose, strength=0.7, start=0.1, end=0.9)
    chain = method.guidance(encoded, pose=1.5, appearance=2.5)
    null, posed, full = (term.injections for term in chain.terms)
    assert null.control is None and torch.equal(null.context["up"], method.null_tokens)
    assert torch.equal(posed.context["up"], method.null_tokens) and torch.equal(full.context["up"], encoded.tokens)
    assert torch.equal(posed.control.inputs["tokens"], method.null_tokens)
    assert torch.equal(full.control.inputs["tokens"], encoded.tokens)
    assert posed.control.network is full.control.network is method.control
    assert (full.control.scale, full.control.start, full.control.end) == (0.7, 0.1, 0.9)
    assert chain.coefficients() == pytest.approx((-0.5, -1.0, 2.5))
    assert guidance_modes()["uc_down_full"]["qen"] == ["pose", "appearance"]
    assert [term.name for term in method.guidance(encoded, "down_full").terms] == ["pose", "pose+appearance"]
    with pytest.raises(ValueError, match="no scale.*biases"):
        method.guidance(encoded, "uc_full", biases=1.0)
    with pytest.raises(ValueError, match="unknown guidance mode 'x'; expected one of"):
        method.guidance(encoded, "x")


def test_training_items_drop_the_person_and_the_pose_apart():
    method = tiny_qen(prompt_drop=0.5, pose_drop=0.25)
    source, pose = inputs(TINY)
    draws = torch.tensor([[0.4, 0.9], [0.6, 0.2], [0.6, 0.3], [0.1, 0.1]])
    injected = method.training_injections(source, pose, pose.flip(-1), draws)
    tokens, null = method.encode_appearance(source).tokens, method.null_tokens[0]
    for row, expected in enumerate((null, tokens[1], tokens[0], null)):
        assert torch.allclose(injected.context["mid"][row], expected)
        assert torch.equal(injected.control.inputs["tokens"][row], injected.context["mid"][row])
    assert injected.control.on.tolist() == [1, 0, 1, 0]
    assert torch.equal(injected.control.inputs["region"][2:], injected.control.inputs["region"][:2].flip(-1))
    assert method.training_injections(source, pose, pose, torch.zeros(4, 2)).control.on.tolist() == [1, 0, 0, 0]
    with pytest.raises(ValueError, match=r"\(4,\) for 4 training items; expected \(4, 2\)"):
        method.training_injections(source, pose, pose, torch.zeros(4))
    alone = method.training_injections(source, None, pose, torch.ones(2, 2))
    assert alone.context["up"].shape[0] == 2


@pytest.mark.parametrize("sources, poses, ok", [(1, 3, True), (3, 1, True), (2, 2, True), (2, 3, False)])
@torch.no_grad()
def test_batches_of_sources_and_poses(sources, poses, ok):
    method = tiny_qen()
    source, pose = inputs(TINY, sources)[0], inputs(TINY, poses)[1]
    if not ok:
        with pytest.raises(ValueError, match="2 sources, 3 poses"):
            method.encode(source, pose)
        return
    rows = harmonise([term.injections for term in method.guidance(method.encode(source, pose)).terms], max(sources, poses))
    assert all(value.shape[0] == max(sources, poses) for value in rows.terms[2].values())


@pytest.mark.parametrize("changes, words", [
    ({"mask": "soft"}, "mask is 'soft'; expected one of"), ({"pose_embedding": "x"}, "pose_embedding is 'x'"),
    ({"local_queries": 0}, "0 local.*expected 1 or more"), ({"image_size": (60, 64)}, "multiples of 8"),
    ({"pose_unshuffle": 4}, "pose_unshuffle is 4.*1/8"), ({"unet_widths": (32, 32)}, "expected four values")])
def test_sizes_that_cannot_be_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(TINY, **changes)


def test_a_raster_of_another_size_is_refused():
    method = tiny_qen()
    with pytest.raises(ValueError, match=r"\(1, 3, 8, 8\); expected \(B, 3, 64, 64\): draw"):
        method.encode_pose(torch.zeros(1, 3, 8, 8))


@pytest.mark.parametrize("preset", ["tiny", "demo"])
@torch.no_grad()
def test_a_checkpoint_rebuilds_the_same_method(preset, tmp_path):
    config = CONFIGS[preset]
    torch.manual_seed(0)
    method = shaken(QEN(config)).eval()
    weights = {name: torch.randn(shape) for name, shape in method.unet_weight_shapes().items()}
    assert len(weights) == 32
    path = tmp_path / "qen.safetensors"
    save_checkpoint(path, method, weights, base="demo", step=1, data="none", licence="none",
                    dtype=torch.float16 if preset == "demo" else None)
    if preset == "demo":
        assert path.stat().st_size < 25e6
        return
    again = load_checkpoint(path, expect_method="qen")
    assert again.method.config == config and set(again.unet_weights) == set(weights)
    sources = torch.rand(1, 3, 64, 64) * 2 - 1
    encoded = [picture_encoder("qen")(m, sources, keypoints(2), CPU, strength=0.5) for m in (method, again.method)]
    assert torch.equal(encoded[0].tokens, encoded[1].tokens) and torch.equal(encoded[0].region, encoded[1].region)
    x, t = torch.randn(2, 4, 8, 8), torch.tensor([10, 20])
    made = [network_of(m.control)(x, t, e.tokens.expand(2, -1, -1), e.region, **e.pose) for m, e in
            zip((method, again.method), encoded, strict=True)]
    assert torch.allclose(made[0][1], made[1][1], rtol=1e-4, atol=1e-5)   # memory that is mapped is aligned otherwise


def test_poses_become_the_raster_that_the_config_asks_for():
    assert pose_rasters(keypoints(2), TINY).shape == (2, 3, 64, 64)
    raster = pose_rasters(keypoints(1), CONFIGS["demo"])
    assert raster.shape == (1, 21, 256, 192)
    torch.manual_seed(0)
    encoded = encode_pictures(QEN(CONFIGS["demo"]).eval(), torch.zeros(1, 3, 256, 192), keypoints(1), CPU)
    assert list(encoded.pose) == ["map_0", "map_1", "map_2"] and encoded.region.shape == (1, 1, 256, 192)
