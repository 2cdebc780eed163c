"""QEN's networks: the query fusion against a plain re-implementation, the branch against diffusers' own."""

from __future__ import annotations

import pytest
import torch

from pgpis_models.unet.base import BaseSizes
from pgpis_models.unet.control import run_control
from pgpis_models.unet.control_branch import BranchSizes, ControlBranch, branch_shapes
from pgpis_models.unet.control_diffusers import network_of
from pgpis_models.unet.diffusers_binding import DiffusersBinding
from pgpis_models.unet.injections import Control, harmonise
from pgpis_models.unet.masked_attention import MASK_MODES
from tests.helpers.plain_fusion import plain_fusion
from tests.helpers.tiny import shaken
from tests.helpers.tiny_qen import TINY, inputs, tiny_qen


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
