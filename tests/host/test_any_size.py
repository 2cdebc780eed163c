"""Rows follow the latents: other sizes, deep shrink, context windows and parts of a batch, against the diffusers binding,
rows resized by hand, and each picture by itself."""

from __future__ import annotations

import inspect
from types import SimpleNamespace

import pytest
import torch

from tests.host import test_control_parity as control_parity
from tests.host.test_binding_parity import (
    TOLERANCE,
    B,
    diffusers_predictions,
    native_predictions,
    noise,
    relative,
    terms_of,
)

STEPS = torch.tensor([5.0, 1.0, 0.0])


@pytest.fixture(scope="module")
def pack(host):
    names = {"binding": "nodes.binding.model", "rows": "nodes.binding.rows", "attention": "nodes.binding.attention",
             "diffusers": "pgpis_models.unet.diffusers_binding", "injections": "pgpis_models.unet.injections",
             "branch": "pgpis_models.unet.control_branch", "sites": "pgpis_models.unet.sites"}
    return SimpleNamespace(**{name: host.pack(module) for name, module in names.items()})


@pytest.fixture(scope="module")
def models(tiny):
    unet = tiny.unet()
    return SimpleNamespace(unet=unet, model=tiny.model(unet))


def latents(size, count=B, seed=1):
    return noise(torch.Generator().manual_seed(seed), count, 4, *size, scale=1.0)


def sample(model, positive, negative, x, seed=None, sigmas=STEPS):
    import comfy.samplers
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, negative)
    guider.set_cfg(2.0)
    with torch.inference_mode():
        return guider.sample(x, torch.zeros_like(x), comfy.samplers.sampler_object("euler"), sigmas, disable_pbar=True,
                             seed=seed)


@pytest.mark.parametrize("size", [(24, 18), (32, 24), (8, 6), (21, 16)], ids=str)
@pytest.mark.parametrize("field", ["query_bias", "stem", "down_residuals"])
def test_latents_of_another_size_get_the_rows_that_diffusers_gives_them(field, size, pack, tiny, models):
    rows = pack.injections.harmonise(terms_of(field, pack, tiny), B)
    x, time = latents(size), torch.full((B,), 400.0)
    ours = native_predictions(pack, models.model, rows, x, time, tiny.latent)
    assert relative(ours, diffusers_predictions(pack, models.unet, rows, x, time)) < TOLERANCE
    assert relative(ours[2], ours[1]) > 0.01, "the rows act"


@pytest.mark.parametrize("embedding", ["maps", "stem"])
def test_the_control_branch_follows_too(embedding, pack, tiny, models):
    branch = control_parity.branch_of(pack, tiny, "full")
    rows = pack.injections.harmonise(control_parity.terms_of(pack, tiny, branch, embedding), B)
    x, time = latents((24, 18)), torch.full((B,), 400.0)
    ours = native_predictions(pack, models.model, rows, x, time, tiny.latent)
    assert relative(ours, diffusers_predictions(pack, models.unet, rows, x, time)) < TOLERANCE
    assert relative(ours[2], ours[0]) > 0.01


def test_another_shape_is_an_error_that_says_so(pack, tiny, models):
    rows = pack.injections.harmonise(terms_of("stem", pack, tiny), B)
    with pytest.raises(ValueError, match=r"encoded for latents of 12x16 .*runs 24x20 \(192x160\), which is another shape; "
                                         r"expected 12:16, larger or smaller: connect"):
        native_predictions(pack, models.model, rows, latents((20, 24)), torch.full((B,), 400.0), tiny.latent)


def test_an_area_of_the_same_shape_holds_the_whole_pose(pack, tiny, models):
    """A CONDITIONING on the upper left quarter of latents twice as large is the one on latents of that quarter's size."""
    null, full = terms_of("stem", pack, tiny, 1)[:2]
    rows = pack.injections.harmonise([null, full], 1)
    patched = pack.binding.apply_injections(models.model, rows, {})
    _, cond = pack.binding.conditionings(rows, tiny.latent)
    h, w = tiny.latent
    x = latents((2 * h, 2 * w), 1)
    corner = [[cond[0][0], {**cond[0][1], "area": (h, w, 0, 0), "strength": 1.0}]]
    one = torch.tensor([5.0, 0.0])
    found = sample(patched, corner, corner, x, sigmas=one)
    alone = sample(patched, cond, cond, x[..., :h, :w], sigmas=one)
    assert relative(found[..., :h - 2, :w - 2], alone[..., :h - 2, :w - 2]) < TOLERANCE


# --- the inner size -----------------------------------------------------------------------------------------

def shrunk(model, **widgets):
    from comfy_extras.nodes_model_downscale import PatchModelAddDownscale
    settings = {"block_number": 3, "downscale_factor": 2.0, "start_percent": 0.0, "end_percent": 1.0,
                "downscale_after_skip": True, "downscale_method": "bicubic", "upscale_method": "bicubic"} | widgets
    return PatchModelAddDownscale.execute(model, *settings.values()).result[0]


def means(value, size):
    """(B, C, h, w) -> (B, C, *size): of the cells that each new one touches."""
    height, width = value.shape[-2:]
    rows = [slice(y * height // size[0], -(-(y + 1) * height // size[0])) for y in range(size[0])]
    columns = [slice(x * width // size[1], -(-(x + 1) * width // size[1])) for x in range(size[1])]
    return torch.stack([torch.stack([value[..., y, x].mean((2, 3)) for x in columns], -1) for y in rows], -2)


def by_hand(model, rows, sites, size):
    """The rows on a plain MODEL, each at the size that the block turns out to have."""
    from comfy.ldm.modules.attention import optimized_attention
    slots = {0: rows.get("stem"), **{slot: rows.get(f"down_residual.{n}") for n, slot in enumerate((2, 5, 8, 11))}}

    def add(h, options):
        value = slots.get(options["block"][1])
        if value is None:
            return h
        return h + means(value, h.shape[-2:])

    def biased(bias, grid):
        def attend(q, k, v, options):
            value = means(bias.transpose(1, 2).unflatten(2, grid), options["activations_shape"][-2:])
            return optimized_attention(q + value.flatten(2).transpose(1, 2), k, v, options["n_heads"])
        return attend
    model = model.clone()
    model.set_model_input_block_patch(add)
    for name, value in rows.items():
        if name.startswith("query_bias."):
            site = sites[name.split(".", 1)[1]]
            grid = tuple(-(-side // 2 ** site.level) for side in size)
            model.set_model_attn2_replace(biased(value, grid), *site.host)
    return model


@pytest.mark.parametrize("order", ["deep shrink first", "deep shrink last"])
def test_deep_shrink_runs_the_rows_at_the_size_of_each_block(order, pack, tiny, models):
    i, size, g = pack.injections, (32, 32), torch.Generator().manual_seed(3)
    bias = {name: noise(g, 1, (size[0] >> site.level) * (size[1] >> site.level), tiny.widths[site.level], scale=2.0)
            for name, site in pack.sites.SITES.items() if name.endswith(".1") or name == "mid.0"}
    term = i.Injections(context=i.everywhere(noise(g, 1, 5, tiny.context)), query_bias=bias,
                        stem=noise(g, 1, tiny.width, *size),
                        down_residuals=tuple(noise(g, 1, tiny.widths[n], size[0] >> n, size[1] >> n) for n in range(4)))
    rows = i.harmonise([term], 1)
    cond, = pack.binding.conditionings(rows, size)
    if order == "deep shrink first":
        patched = pack.binding.apply_injections(shrunk(models.model), rows, {})
    else:
        patched = shrunk(pack.binding.apply_injections(models.model, rows, {}))
    hand = by_hand(shrunk(models.model), rows.terms[0], pack.sites.SITES, size)
    x, plain = latents(size, 1), [[cond[0][0], {}]]
    found, expected = sample(patched, cond, cond, x), sample(hand, plain, plain, x)
    assert relative(found, expected) < TOLERANCE
    whole = sample(pack.binding.apply_injections(models.model, rows, {}), cond, cond, x)
    assert relative(found, whole) > 0.01 and relative(found, sample(shrunk(models.model), plain, plain, x)) > 0.01


@pytest.mark.parametrize("factor", [1.4, 1.85, 3.7])
@pytest.mark.parametrize("block", [3, 4, 6])
def test_deep_shrink_by_a_factor_that_rounds_the_sides_runs_the_rows_too(block, factor, pack, tiny, models):
    """12 x 16 by 1.85 is 6 x 9, another aspect."""
    rows = pack.injections.harmonise(terms_of("query_bias", pack, tiny, 1)[1:2], 1)
    cond, = pack.binding.conditionings(rows, tiny.latent)
    way = {"block_number": block, "downscale_factor": factor}
    hand = by_hand(shrunk(models.model, **way), rows.terms[0], pack.sites.SITES, tiny.latent)
    x, plain = latents(tiny.latent, 1), [[cond[0][0], {}]]
    found = sample(shrunk(pack.binding.apply_injections(models.model, rows, {}), **way), cond, cond, x)
    assert relative(found, sample(hand, plain, plain, x)) < TOLERANCE
    assert relative(found, sample(shrunk(models.model, **way), plain, plain, x)) > 20 * TOLERANCE


@pytest.mark.hosts
def test_queries_that_another_node_cut_are_an_error_that_says_so(pack, tiny, models):
    rows = pack.injections.harmonise(terms_of("query_bias", pack, tiny, 1)[1:2], 1)
    cond, = pack.binding.conditionings(rows, tiny.latent)
    patched = pack.binding.apply_injections(models.model, rows, {})
    site = pack.sites.SITES["down.0.1"]   # the first with a bias
    patched.set_model_attn2_patch(lambda q, k, v, options: (q[:, ::2] if tuple(options["block"]) == site.host else q, k, v))
    with pytest.raises(ValueError, match="has 192 tokens, the block 96 queries for 16x12 cells; expected one for each cell. "
                                         "Another node merges or cuts"):
        sample(patched, cond, cond, latents(tiny.latent, 1))


def test_deep_shrink_keeps_the_control_branch(pack, tiny, models, caplog):
    """The host drops residuals of another size with a warning; ours come at the size of the skip."""
    branch = control_parity.branch_of(pack, tiny, "full")
    rows = pack.injections.harmonise(control_parity.terms_of(pack, tiny, branch, batch=1), 1)
    patched = shrunk(pack.binding.apply_injections(models.model, rows, {}))
    null, _, full = pack.binding.conditionings(rows, tiny.latent)
    x = latents(tiny.latent, 1)
    found = sample(patched, full, null, x)
    assert "control could not be applied" not in caplog.text and torch.isfinite(found).all()
    assert relative(found, sample(patched, null, null, x)) > 0.01


# --- the number of latents ----------------------------------------------------------------------------------

def batched(pack, tiny, model, count):
    """(patched MODEL, positive, negative) of `count` different pairs."""
    null, _, full = terms_of("all together", pack, tiny, count)
    rows = pack.injections.harmonise([null, full], count)
    negative, positive = pack.binding.conditionings(rows, tiny.latent)
    return pack.binding.apply_injections(model, rows, {}), positive, negative


@pytest.mark.parametrize("pairs, frames, length", [(6, 6, 4), (3, 6, 4), (1, 6, 4), (6, 6, 1)])
def test_context_windows_cut_rows_as_they_cut_latents(pairs, frames, length, pack, tiny, models):
    """The UNet sees each picture by itself, so that windows change nothing."""
    from comfy_extras.nodes_context_windows import ContextWindowsManualNode
    patched, positive, negative = batched(pack, tiny, models.model, pairs)
    settings = (length, 0, "standard_static", 1, False, "flat", 0, False)
    known = len(inspect.signature(ContextWindowsManualNode.execute).parameters) - 1   # 0.3.64 has no freenoise yet
    windows = ContextWindowsManualNode.execute(patched, *settings[:known]).result[0]
    x = latents(tiny.latent, frames)
    found, expected = sample(windows, positive, negative, x), sample(patched, positive, negative, x)
    assert relative(found, expected) < TOLERANCE
    if pairs > 1:
        assert relative(found[:1], sample(patched, positive, negative, x[[0, 2, 1, 3, 4, 5]])[1:2]) > 0.01


@pytest.mark.hosts
def test_latents_of_a_batch_get_their_own_pair(host, pack, tiny, models):
    """LatentFromBatch leaves their numbers in the noise alone."""
    import comfy.sample
    patched, positive, negative = batched(pack, tiny, models.model, 4)
    empty = {"samples": torch.zeros(4, 4, *tiny.latent)}

    def run(latent):
        drawn = comfy.sample.prepare_noise(latent["samples"], 7, latent.get("batch_index"))
        return sample(patched, positive, negative, drawn, 7)
    whole = run({**empty, "batch_index": [0, 1, 2, 3]})
    for start, length in ((2, 1), (1, 3), (0, 2)):
        part, = host.nodes.LatentFromBatch().frombatch(empty, start, length)
        assert relative(run(part), whole[start:start + length]) < TOLERANCE
    with pytest.raises(ValueError, match="4 source and pose pairs.*runs 3 latents; expected 4 or a multiple: connect"):
        sample(patched, positive, negative, latents(tiny.latent, 3), 7)   # noise of nowhere


def test_a_row_tensor_refuses_to_be_cut(pack):
    cond = pack.rows.RowsCond(torch.arange(4.0)[:, None])
    assert cond.process_cond(8).cond.flatten().tolist() == [0, 1, 2, 3] * 2
    with pytest.raises(ValueError, match="4 source and pose pairs.*3 latents"):
        cond.process_cond(3)


# --- precision ----------------------------------------------------------------------------------------------

def test_rows_run_on_weights_of_eight_bits(pack, tiny, models):
    """As the same UNet in float32 whose weights were rounded to eight bits."""
    import comfy.model_base
    import comfy.supported_models
    eight, plain = torch.float8_e4m3fn, models.model.model
    config = comfy.supported_models.SD15(dict(plain.model_config.unet_config))
    config.unet_config = dict(plain.model_config.unet_config)
    config.set_inference_dtype(eight, torch.float32)
    small = comfy.model_base.BaseModel(config, comfy.model_base.ModelType.EPS)
    state = {name: value.to(eight) for name, value in plain.diffusion_model.state_dict().items()}
    small.diffusion_model.load_state_dict(state)
    small.diffusion_model.to(eight)
    patcher = type(models.model)(small, models.model.load_device, models.model.offload_device)
    rounded = tiny.model(models.unet)
    rounded.model.diffusion_model.load_state_dict({name: value.float() for name, value in state.items()})
    rows = pack.injections.harmonise(terms_of("all together", pack, tiny), B)
    x, time = latents(tiny.latent), torch.full((B,), 400.0)
    found = native_predictions(pack, patcher, rows, x, time, tiny.latent)
    assert patcher.model_dtype() == eight
    assert relative(found, native_predictions(pack, rounded, rows, x, time, tiny.latent)) < TOLERANCE
    assert relative(found, native_predictions(pack, models.model, rows, x, time, tiny.latent)) > 1e-3
