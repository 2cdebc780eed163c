"""QEN: the query fusion against a plain re-implementation, the branch against diffusers' own, and what it injects."""

from __future__ import annotations

import dataclasses
import logging

import pytest
import torch

from pgpis_models.checkpoint import load_checkpoint, save_checkpoint
from pgpis_models.methods import guidance_modes, picture_encoder
from pgpis_models.poses.keypoints import Keypoints
from pgpis_models.qen.config import CONFIGS, QENConfig
from pgpis_models.qen.inputs import encode_pictures, pose_rasters
from pgpis_models.qen.model import QEN
from pgpis_models.unet.base import BaseSizes
from pgpis_models.unet.control import run_control
from pgpis_models.unet.control_branch import BranchSizes, ControlBranch, branch_shapes
from pgpis_models.unet.control_diffusers import network_of
from pgpis_models.unet.diffusers_binding import DiffusersBinding
from pgpis_models.unet.injections import Control, harmonise
from pgpis_models.unet.masked_attention import MASK_MODES
from tests.helpers.plain_fusion import plain_fusion
from tests.helpers.tiny import shaken

TINY = CONFIGS["tiny"]
CPU = torch.device("cpu")


def tiny_qen(seed=0, **changes) -> QEN:
    torch.manual_seed(seed)
    return shaken(QEN(dataclasses.replace(TINY, **changes))).eval()


def inputs(config: QENConfig, batch=2, seed=1):
    g = torch.Generator().manual_seed(seed)
    pose = torch.zeros(batch, config.pose_channels, *config.pose_size)
    pose[:, :3, 10:30, 20:24] = torch.rand(batch, 3, 20, 4, generator=g) / 2 + 0.5
    return torch.rand(batch, 3, *config.image_size, generator=g) * 2 - 1, pose


def keypoints(count=1, size=(64, 64)):
    xy = torch.rand(18, 2, generator=torch.Generator().manual_seed(4)).numpy() * (size[1], size[0])
    return [Keypoints(xy, [True] * 18, size)] * count


# --- query fusion -------------------------------------------------------------------------------------------

@pytest.mark.parametrize("local, shared", [(5, 3), (1, 7), (4, 0)])
@torch.no_grad()
def test_the_query_fusion_is_the_papers_two_stages(local, shared):
    method = tiny_qen(local_queries=local, global_queries=shared)
    source, _ = inputs(TINY)
    features = method.backbone(source)
    tokens = method.encode_appearance(source).tokens
    assert tokens.shape == (2, local + shared, TINY.prompt_width)
    plain = plain_fusion(method.double().fusion, [feature.double() for feature in features])
    assert (tokens - plain).abs().max() < 1e-5
    assert (tokens[0] - tokens[1]).abs().max() > 1e-3, "two people give the same tokens"


@torch.no_grad()
def test_attention_maps_are_the_weights_that_the_fusion_uses():
    method = tiny_qen()
    source, _ = inputs(TINY)
    maps = method.attention_maps(source)
    assert maps.shape == (2, TINY.fusion_depth, TINY.tokens, 16, 16)
    assert torch.allclose(maps.sum((-1, -2)), torch.ones(2, 2, TINY.tokens), atol=1e-5) and (maps >= 0).all()
    assert (maps[0] - maps[1]).abs().max() > 1e-5
    assert torch.allclose(maps, maps_by_hand(method.fusion, method.backbone(source)), atol=1e-6)


def weights_by_hand(attention, queries, keys) -> torch.Tensor:
    """(B, N, C), (B, M, C) -> (B, N, M): the mean over heads of softmax(q k / sqrt(d)), head by head."""
    q, k = attention.to_q(queries).double(), attention.to_k(keys).double()
    size = q.shape[-1] // attention.heads
    heads = [slice(h * size, (h + 1) * size) for h in range(attention.heads)]
    return sum(torch.softmax(q[..., h] @ k[..., h].mT / size ** 0.5, -1) for h in heads) / attention.heads


def maps_by_hand(fusion, features) -> torch.Tensor:
    """What the docstring of `attention_maps` says, with each scale's cells repeated over the finest grid one by one."""
    sources, local_count = fusion.sources(features), fusion.local
    queries, found = fusion.queries(len(features[0])), []
    height, width = fusion.grids[0]
    for block in fusion.blocks:
        local, seen = queries[:, :local_count], 0
        for norm, attention, source, (h, w) in zip(block.cross_norms, block.cross, sources, fusion.grids, strict=True):
            weights = weights_by_hand(attention, norm(local), source)
            for row in range(height):
                for column in range(width):
                    cell = (row * h // height) * w + column * w // width
                    share = torch.zeros(height, width, dtype=torch.float64)
                    share[row, column] = h * w / (height * width) / len(sources)
                    seen = seen + weights[:, :, cell, None, None] * share
            local = local + attention(norm(local), source)
        both = block.self_norm(torch.cat([local, queries[:, local_count:]], 1))
        mixing = weights_by_hand(block.self_attention, both, both)[:, local_count:, :local_count]
        mixing = mixing / mixing.sum(-1, keepdim=True)
        shared = torch.stack([sum(mixing[:, g, n, None, None] * seen[:, n] for n in range(local_count))
                              for g in range(mixing.shape[1])], 1)
        found.append(torch.cat([seen, shared], 1))
        queries = block(queries, sources, local_count)
    return torch.stack(found, 1).float()


# --- control branch -----------------------------------------------------------------------------------------

def branch(mode="none", **changes) -> ControlBranch:
    torch.manual_seed(2)
    sizes = BranchSizes(**{"widths": (32, 32, 64, 64), "heads": 4, "context_width": 24, "local_queries": 5} | changes,
                        mask=mode)
    return shaken(ControlBranch(sizes)).eval()


@torch.no_grad()
def test_the_branch_is_diffusers_controlnet_where_nothing_is_masked():
    from diffusers import ControlNetModel
    ours = branch()
    theirs = ControlNetModel(block_out_channels=(32, 32, 64, 64), cross_attention_dim=24, attention_head_dim=4).eval()
    theirs.controlnet_cond_embedding = torch.nn.Identity()
    assert {k: tuple(v.shape) for k, v in theirs.state_dict().items()} == branch_shapes(ours.sizes)
    theirs.load_state_dict(ours.state_dict())
    x, t, tokens, stem = torch.randn(2, 4, 12, 10), torch.tensor([3, 700]), torch.randn(2, 8, 24), torch.randn(2, 32, 12, 10)
    run = network_of(ours)
    skips, middle = run(x, t, tokens, torch.ones(2, 1, 96, 80), stem=stem)
    expected, expected_middle = theirs(x, t, tokens, stem, return_dict=False)
    assert all((a - b).abs().max() < 1e-5 for a, b in zip([*skips, middle], [*expected, expected_middle], strict=True))
    maps = {f"map_{n}": torch.randn(2, w, -(-12 // 2 ** n), -(-10 // 2 ** n)) for n, w in enumerate((32, 32, 64))}
    mapped, plain = run(x, t, tokens, None, **maps)[0], run(x, t, tokens)[0]
    assert torch.equal(mapped[1], plain[1]) and not torch.equal(mapped[2], plain[2])
    with pytest.raises(ValueError, match=r"\['hint'\]; expected pose inputs of \['stem'"):
        run(x, t, tokens, hint=stem)


def test_a_branch_that_starts_from_a_base_changes_nothing_yet():
    unet = BaseSizes((32, 32, 64, 64), heads=4, cross_attention_dim=24).build()
    ours = branch("full")
    ours.start_from(unet.state_dict())
    skips, middle = network_of(ours)(torch.randn(1, 4, 8, 8), torch.tensor([5]), torch.randn(1, 8, 24),
                                     torch.ones(1, 1, 64, 64))
    assert not any(value.any() for value in (*skips, middle))
    state, own = unet.state_dict(), ours.state_dict()
    assert all(torch.equal(own[name], state[name]) for name in own if not name.startswith("controlnet"))
    with pytest.raises(ValueError, match="does not fit a control branch.*weights differ"):
        branch(widths=(32, 32, 32, 32)).start_from(state)


@pytest.mark.parametrize("mode", MASK_MODES)
def test_gradients_are_finite_in_every_mode_and_reach_every_weight(mode):
    method = tiny_qen(mask=mode)
    unet = BaseSizes(TINY.unet_widths, heads=TINY.unet_heads, cross_attention_dim=TINY.prompt_width).build()
    source, pose = inputs(TINY)
    injected = method(source, pose, pose, torch.ones(4, 2))
    rows = harmonise([injected], 4)
    assert 0 < rows.stacked()["control.region"].mean() < 0.9
    out = DiffusersBinding(unet)(torch.randn(4, 4, *TINY.latent_size), torch.tensor([1, 300, 600, 999]), rows.stacked(),
                                 rows.control)
    out.square().mean().backward()
    for name, value in method.named_parameters():
        if name == "null_tokens":
            continue   # nothing was dropped
        assert value.grad is not None and torch.isfinite(value.grad).all(), name
        assert value.grad.any() or name.endswith(("to_k.bias", "norm.bias")), name


# --- running a control --------------------------------------------------------------------------------------

def counting(calls):
    def network(sample, timestep, hint):
        calls.append((sample.shape[0], timestep.tolist(), hint.flatten().tolist()))
        return [hint.view(-1, 1, 1, 1).clone() for _ in range(12)], 2 * hint.view(-1, 1, 1, 1)
    return network


@torch.no_grad()
def test_a_control_runs_on_its_rows_only_and_not_at_all_when_there_are_none():
    calls = []
    control = Control(counting(calls), {}, scale=0.5)
    rows = {"control_on": torch.tensor([1, 0, 1]), "control.hint": torch.tensor([2.0, 4.0, 6.0])}
    skips, middle = run_control(control, torch.zeros(3, 4, 2, 2), torch.tensor(7), rows)
    assert calls == [(2, [7, 7], [2.0, 6.0])]
    assert skips[3].flatten().tolist() == [1.0, 0.0, 3.0] and middle.flatten().tolist() == [2.0, 0.0, 6.0]
    assert run_control(control, torch.zeros(3, 4, 2, 2), 7, rows | {"control_on": torch.zeros(3)}) is None
    assert len(calls) == 1


def test_where_gradients_are_wanted_all_rows_run_and_those_without_it_get_zeros():
    """Nothing waits for the device to say which; what an idle row would give is not even multiplied."""
    calls = []
    control = Control(counting(calls), {}, scale=0.5)
    hint = torch.tensor([2.0, float("nan"), 6.0], requires_grad=True)
    rows = {"control_on": torch.tensor([1, 0, 1]), "control.hint": hint}
    skips, middle = run_control(control, torch.zeros(3, 4, 2, 2), torch.tensor(7), rows)
    assert calls[0][:2] == (3, [7, 7, 7])
    assert skips[3].flatten().tolist() == [1.0, 0.0, 3.0] and middle.flatten().tolist() == [2.0, 0.0, 6.0]
    (sum(skip.sum() for skip in skips) + middle.sum()).backward()
    assert hint.grad.tolist() == [7.0, 0.0, 7.0]
    skips, _ = run_control(control, torch.zeros(3, 4, 2, 2), 7, rows | {"control_on": torch.zeros(3)})
    assert len(calls) == 2 and not skips[0].any()


@torch.no_grad()
def test_a_control_runs_in_its_share_of_the_sampling():
    calls = []
    control = Control(counting(calls), {}, start=0.25, end=0.5)
    rows = {"control_on": torch.ones(4), "control.hint": torch.ones(4)}
    times = torch.tensor([999, 749, 500, 499])   # (1 - 0.25) 999 = 749.25 and (1 - 0.5) 999 = 499.5
    skips, _ = run_control(control, torch.zeros(4, 4, 2, 2), times, rows)
    assert skips[0].flatten().tolist() == [0.0, 1.0, 1.0, 0.0]
    assert run_control(control, torch.zeros(4, 4, 2, 2), 999, rows) is None


def test_a_chain_with_two_strengths_of_one_network_is_refused():
    method = tiny_qen()
    source, pose = inputs(TINY)
    terms = [method.guidance(method.encode(source, pose, strength=s)).terms[2].injections for s in (1.0, 0.5)]
    with pytest.raises(ValueError, match="two strengths"):
        harmonise(terms, 2)


# --- encoding and guidance ----------------------------------------------------------------------------------

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


# --- files --------------------------------------------------------------------------------------------------

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
