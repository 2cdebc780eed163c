"""QEN's nodes on tiny random models, in graphs that the host executes and by themselves."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from PIL import Image

from tests.host.test_nodes_run import ROW, ksampler, saved

SIZE = (128, 96)


@pytest.fixture(scope="module")
def method(host, tiny, tiny_method):
    picture = np.random.default_rng(0).integers(0, 255, (*SIZE, 3), dtype=np.uint8)
    Image.fromarray(picture).save(host.base / "input" / "qen_source.png")
    made = tiny_method("qen", "QEN", "qen_tiny", 31, unet_heads=tiny.heads, prompt_width=tiny.context)
    assert len(made.checkpoint.unet_weights) == 32
    return made


@pytest.fixture(scope="module")
def nodes(host):
    from types import SimpleNamespace
    return SimpleNamespace(**{name: host.pack(f"nodes.{name}") for name in ("loaders", "queries", "pose", "sampling")})


@pytest.fixture(scope="module")
def cfld(nodes, demo):
    return nodes.loaders.LoadCheckpoint.execute("cfld_tiny.safetensors").result[0]


def frames(count=1, people=True):
    joints = [value for n in range(18) for value in (20.0 + 3 * n, 10.0 + 6 * n, 1.0)]
    person = [{"pose_keypoints_2d": joints}] if people else []
    return [{"people": person, "canvas_height": SIZE[0], "canvas_width": SIZE[1]}] * count


def photo(count=1):
    return torch.rand(count, *SIZE, 3, generator=torch.Generator().manual_seed(0))


def embed(nodes, method, source=None, pose=None, mask=None, **widgets):
    values = {"person": -1, "strength": 1.0, "start_percent": 0.0, "end_percent": 1.0} | widgets
    return nodes.queries.QueryEmbedding.execute(method, photo() if source is None else source,
                                                frames() if pose is None else pose, mask=mask, **values).result[0]


# --- in graphs ----------------------------------------------------------------------------------------------

def graph(sampler="apply", widgets=None, mask=None, **more):
    embedding = {"method": ["method", 0], "source": ["source", 0], "pose": ["pose", 0], "person": -1, "strength": 1.0,
                 "start_percent": 0.0, "end_percent": 1.0} | (widgets or {}) | ({"mask": mask} if mask else {})
    made = {
        "base": ("PGPISLoadDemoBase", {}),
        "method": ("PGPISLoadCheckpoint", {"file": "qen_tiny.safetensors"}),
        "source": ("LoadImage", {"image": "qen_source.png"}),
        "pose": ("PGPISLoadPose", {"file": "(the text below)", "text": f"{ROW}\n{ROW}", "canvas_width": 176,
                                   "canvas_height": 256}),
        "cond": ("PGPISQueryEmbedding", embedding),
        "apply": ("PGPISApply", {"model": ["base", 0], "cond": ["cond", 0]}), "sampler": ksampler(3),
        "decode": ("VAEDecode", {"samples": ["sampler", 0], "vae": ["base", 1]}),
        "save": ("SaveImage", {"images": ["decode", 0], "filename_prefix": "q"}),
    } | more
    return {name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in made.items()}


def test_the_embedding_runs_under_a_ksampler_and_strength_and_per_cent_act(host, method):
    cases = {"plain": {}, "weak": {"strength": 0.2}, "late": {"start_percent": 0.5}, "early": {"end_percent": 0.4}}
    results = {name: saved(host, host.run(graph(widgets=widgets))) for name, widgets in cases.items()}
    assert all(len(pictures) == 2 and pictures[0].shape == (*SIZE, 3) for pictures in results.values())
    for name, pictures in results.items():
        others = [other[0] for key, other in results.items() if key != name]
        assert not any(np.array_equal(pictures[0], other) for other in others), name


def test_a_pose_mask_may_be_connected_and_changes_the_result(host, method):
    plain = saved(host, host.run(graph()))
    wide = saved(host, host.run(graph(mask=["region", 0], region=("PGPISPoseMask", {
        "pose": ["pose", 0], "width": 40, "height": 60, "blur": 40.0, "threshold": 0.004, "person": -1}))))
    own = saved(host, host.run(graph(mask=["region", 0], region=("PGPISPoseMask", {
        "image": ["drawn", 0], "width": 0, "height": 0, "blur": 8.0, "threshold": 0.004, "person": -1}),
        drawn=("PGPISDrawPose", {"pose": ["pose", 0], "width": 96, "height": 128, "person": -1}))))
    assert not np.array_equal(plain[0], wide[0]) and not np.array_equal(wide[0], own[0])


def test_attention_maps_are_pictures_over_the_source(host, method):
    result = host.run(graph(
        local=("PGPISAttentionMaps", {"method": ["method", 0], "source": ["source", 0], "kind": "local", "queries": "0-1, 5",
                                      "block": -1}),
        shared=("PGPISAttentionMaps", {"method": ["method", 0], "source": ["source", 0], "kind": "global", "queries": "",
                                       "block": 0}),
        first=("SaveImage", {"images": ["local", 0], "filename_prefix": "l"}),
        second=("SaveImage", {"images": ["shared", 0], "filename_prefix": "s"})))
    assert result.success, result.errors
    counts = {name: len(result.outputs[name]["images"]) for name in ("first", "second", "save")}
    assert counts == {"first": 3, "second": 4, "save": 2}


# --- by themselves ------------------------------------------------------------------------------------------

def test_the_embedding_gives_out_the_region_that_it_uses(nodes, method):
    region = torch.zeros(2, 40, 30)
    region[1, 10:20] = 1
    for mask, pose in ((None, frames(2)), (region, frames())):
        cond, given = nodes.queries.QueryEmbedding.execute(method, photo(), pose, -1, 1.0, 0.0, 1.0, mask=mask).result
        assert given.shape == (2, *SIZE) and torch.equal(given, cond.encoded.region[:, 0]) and given.any()


def test_a_checkpoint_that_masks_nothing_says_so(nodes, tiny_method, tiny, caplog):
    free = tiny_method("qen", "QEN", "qen_unmasked", 32, unet_heads=tiny.heads, prompt_width=tiny.context, mask="none")
    half = torch.zeros(1, *SIZE)
    half[:, :64] = 1
    with caplog.at_level(logging.WARNING):
        *_, given = nodes.queries.QueryEmbedding.execute(free, photo(), frames(), -1, 1.0, 0.0, 1.0).result
        assert given.all() and "MASK" not in caplog.text
        *_, given = nodes.queries.QueryEmbedding.execute(free, photo(), frames(), -1, 1.0, 0.0, 1.0, mask=half).result
    assert given.all() and "the MASK changes nothing" in caplog.text


def test_two_people_blend_in_their_tokens(host, nodes, method):
    first, second = embed(nodes, method), embed(nodes, method, source=photo(2), pose=frames(2))
    blend = host.pack("nodes.appearance").BlendAppearance.execute
    mixed, = blend(first, second, 0.25).result
    a, b = first.encoded.tokens, second.encoded.tokens
    assert mixed.batch == 2 and torch.allclose(mixed.encoded.tokens, 0.75 * a + 0.25 * b, atol=1e-6)
    assert all(torch.equal(mixed.encoded.pose[name], value) for name, value in first.encoded.pose.items())
    row, = blend(first, second, 0.5, 3).result
    assert row.batch == 6 and torch.equal(row.encoded.tokens[[0, 2]], torch.stack([a[0], b[0]]))
    region = torch.zeros(1, *SIZE)
    region[:, 30:60] = 1
    one_mask = embed(nodes, method, pose=frames(3), mask=region)
    assert blend(one_mask, first, 0.5).result[0].batch == 3, "one source and one mask for three poses"
    three = embed(nodes, method, source=photo(3), pose=frames(3))
    with pytest.raises(ValueError, match="cannot blend"):
        blend(second, three, 0.5)


def test_its_conditioning_on_a_model_without_the_method_is_refused(host, nodes, demo, method):
    import comfy.sample
    base, _ = nodes.loaders.LoadDemoBase.execute().result
    model, positive, negative, latent = nodes.sampling.Apply.execute(base, embed(nodes, method)).result
    start = torch.randn_like(latent["samples"])

    def sampled(on):
        return comfy.sample.sample(on, start, 1, 2.0, "euler", "normal", positive, negative, latent["samples"], seed=1,
                                   disable_pbar=True)
    with torch.inference_mode():
        assert torch.isfinite(sampled(model)).all()
        with pytest.raises(ValueError, match="Connect its MODEL output"):
            sampled(base)


@pytest.mark.parametrize("strength", [-1.0, float("nan"), float("inf")])
def test_a_strength_that_is_none_is_refused(nodes, method, strength):
    with pytest.raises(ValueError, match="strength is .*expected 0 or more"):
        embed(nodes, method, strength=strength)


def test_encoders_that_the_host_left_behind_are_moved(host, method, monkeypatch):
    """As with --novram, where the host loads its own layers alone."""
    import copy
    import dataclasses

    import comfy.model_management
    patcher = copy.copy(method.patcher)
    patcher.model, patcher.load_device = copy.deepcopy(method.patcher.model), torch.device("meta")
    monkeypatch.setattr(comfy.model_management, "load_models_gpu", lambda *_, **__: None)
    assert dataclasses.replace(method, patcher=patcher).load() == torch.device("meta")
    assert {parameter.device.type for parameter in patcher.model.parameters()} == {"meta"}


def test_skeletons_on_nothing_are_masked_as_on_black_and_on_white_with_a_warning(nodes, caplog):
    drawn, = nodes.pose.loading.DrawPose.execute(frames(), 0, 0, -1).result
    expected, = nodes.queries.PoseMask.execute(0, 0, 8.0, 1 / 255, -1, image=drawn).result
    alpha = (drawn.amax(-1, keepdim=True) > 0).float()
    clear = torch.cat([torch.where(alpha > 0, drawn, torch.ones_like(drawn)), alpha], -1)
    found, = nodes.queries.PoseMask.execute(0, 0, 8.0, 1 / 255, -1, image=clear).result
    assert torch.equal(found, expected) and not expected.all()
    with caplog.at_level(logging.WARNING):
        light, = nodes.queries.PoseMask.execute(0, 0, 8.0, 1 / 255, -1, image=1 - drawn).result
    assert "Expected skeletons on black" in caplog.text and light.mean() > 0.9


def test_the_pose_mask_is_nearly_the_region_that_the_embedding_uses(nodes, method, host):
    """Drawn otherwise and at another size, so the same but for the edge."""
    blur = method.checkpoint.method.config.mask_sigma
    mask, = nodes.queries.PoseMask.execute(0, 0, blur, 1 / 255, -1, pose=frames(2)).result
    assert mask.shape == (2, *SIZE) and set(mask.unique().tolist()) == {0.0, 1.0}
    own = embed(nodes, method).encoded.region[0, 0]
    both = (mask[0] * own).sum() / (mask[0] + own).clamp(0, 1).sum()
    assert both > 0.7
    drawn, = nodes.pose.loading.DrawPose.execute(frames(), 0, 0, -1).result
    from_image, = nodes.queries.PoseMask.execute(0, 0, blur, 1 / 255, -1, image=drawn).result
    assert torch.equal(from_image[0], mask[0])
    larger, = nodes.queries.PoseMask.execute(192, 256, blur, 1 / 255, -1, pose=frames()).result
    assert larger.shape == (1, 256, 192) and abs(larger.mean() - mask[0].mean()) < 0.1


def test_no_person_means_no_mask_and_a_warning(nodes, method, caplog):
    with caplog.at_level(logging.WARNING):
        nobody = embed(nodes, method, pose=frames(people=False))
    assert "no person" in caplog.text and nobody.encoded.region.all()
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        black = embed(nodes, method, mask=torch.zeros(1, 20, 30))
    assert "no person" in caplog.text
    white = embed(nodes, method, mask=torch.ones(1, 50, 10))
    assert torch.equal(black.encoded.region, white.encoded.region) and white.encoded.region.all()
    mask, = nodes.queries.PoseMask.execute(0, 0, 8.0, 0.004, -1, pose=frames(people=False)).result
    assert mask.shape == (1, *SIZE) and not mask.any()
    unseen = [{**frames()[0], "people": [{"pose_keypoints_2d": [5.0, 5.0, 0.1] * 18}]}]   # as SDPose writes nobody
    assert embed(nodes, method, pose=unseen).encoded.region.all()
    assert embed(nodes, method, pose=[{**frames()[0], "people": None}]).encoded.region.all()
    with pytest.raises(ValueError, match="Person 1 asked for, but frame 1 of 2 has 1"):
        embed(nodes, method, pose=frames(2), person=1)
    second = frames() + [{**frames()[0], "people": frames()[0]["people"] * 2}]
    mixed = embed(nodes, method, pose=second, person=1)   # not in the first frame, in the second
    assert mixed.encoded.region[0].all() and not mixed.encoded.region[1].all()
    both = embed(nodes, method, pose=frames(people=False) + frames())
    assert both.encoded.region[0].all() and not both.encoded.region[1].all()


def test_a_mask_of_another_size_is_any_pooled(nodes, method):
    mask = torch.zeros(1, 7, 5)
    mask[0, 3, 2] = 1
    region = embed(nodes, method, mask=mask).encoded.region[0, 0]
    expected = torch.zeros(*SIZE)
    expected[54:74, 38:58] = 1     # floor(3 * 128 / 7) to ceil(4 * 128 / 7), floor(2 * 96 / 5) to ceil(3 * 96 / 5)
    assert torch.equal(region, expected)


@pytest.mark.parametrize("change, words", [
    ({"mask": torch.zeros(1, 8, 8, 3)}, r"the MASK is \(1, 8, 8, 3\); expected a MASK"), ({"mask": "x"}, "the MASK is str"),
    ({"start_percent": 0.8, "end_percent": 0.2}, "start_percent is 0.8, end_percent 0.2; expected"),
    ({"pose": torch.zeros(1, 8, 8, 3)}, "Tensor.*expected POSE_KEYPOINT"),
    ({"source": torch.zeros(8, 8, 3)}, "expected an IMAGE"),
    ({"source": torch.rand(3, 8, 8, 3), "pose": frames(2)}, "3 sources and 2 poses; expected equal"),
    ({"pose": frames(2), "mask": torch.ones(3, 8, 8)}, "1 sources, 2 poses, 3 masks; expected equal")])
def test_wrong_things_are_refused_by_name(change, words, nodes, method):
    with pytest.raises(ValueError, match=words):
        embed(nodes, method, **change)


def test_nodes_of_another_method_are_refused_by_name(nodes, method, cfld, host):
    with pytest.raises(ValueError, match="cfld_tiny.safetensors .cfld.*expects one of method qen"):
        embed(nodes, cfld)
    with pytest.raises(ValueError, match="qen_tiny.safetensors .qen.*expects one of method cfld"):
        host.pack("nodes.appearance").AppearanceEmbedding.execute(method, photo(), frames(), -1)
    for given, word in (({}, "nothing"), ({"pose": frames(), "image": photo()}, "both a pose and an image")):
        with pytest.raises(ValueError, match=f"Pose Mask has {word} connected; expected one"):
            nodes.queries.PoseMask.execute(0, 0, 8.0, 0.004, -1, **given)


def test_attention_maps_of_both_methods_and_what_they_refuse(nodes, method, cfld):
    show = nodes.queries.AttentionMaps.execute
    local, = show(method, photo(2), "local", "0, 3", -1).result
    assert local.shape == (4, *SIZE, 3) and 0 <= local.min() and local.max() <= 1
    assert not torch.equal(local[0], local[1])
    assert show(cfld, photo(), "local", "", 0).result[0].shape[0] == 16
    for arguments, words in (((cfld, photo(), "global", "", -1), "CFLD has one kind"),
                             ((method, photo(), "local", "15-17", -1), "name 17; this checkpoint has 16 of that kind"),
                             ((method, photo(), "local", "a", -1), "'a' is neither"),
                             ((method, photo(), "local", "", 9), "block is 9.*has 4")):
        with pytest.raises(ValueError, match=words):
            show(*arguments)


def test_the_control_branch_is_not_moved_with_the_encoders(method, cfld):
    moved = {id(value) for value in method.patcher.model.parameters()}
    module = method.checkpoint.method
    assert {name.split(".")[0] for name, value in module.named_parameters() if id(value) not in moved} == {
        "control", "null_tokens"}
    assert cfld.patcher.model is cfld.checkpoint.method


def test_encoders_run_once_and_the_branch_once_per_step(host, nodes, method):
    import comfy.samplers
    calls = {}

    def count(name):
        return lambda *_: calls.update({name: calls.get(name, 0) + 1})
    module = method.checkpoint.method
    hooks = [getattr(module, name).register_forward_hook(count(name)) for name in ("backbone", "fusion", "pose_encoder")]
    cond = embed(nodes, method, pose=frames(2))
    model, _ = nodes.loaders.LoadDemoBase.execute().result
    patched, positive, negative, latent = nodes.sampling.Apply.execute(model, cond).result
    net = host.pack("nodes.binding.control").host_branch(module.control).model
    hooks.append(net.time_embed.register_forward_hook(count("branch")))
    hooks.append(model.model.diffusion_model.time_embed.register_forward_hook(count("unet")))
    guider = comfy.samplers.CFGGuider(patched)
    guider.set_conds(positive, negative)
    guider.set_cfg(2.0)
    sigmas = comfy.samplers.calculate_sigmas(model.model.model_sampling, "normal", 4)
    with torch.inference_mode():
        guider.sample(torch.randn_like(latent["samples"]), latent["samples"], comfy.samplers.sampler_object("euler"), sigmas,
                      disable_pbar=True)
    for hook in hooks:
        hook.remove()
    assert calls == {"backbone": 1, "fusion": 1, "pose_encoder": 1, "branch": 4, "unet": 4}
