"""Apply PGPIS and Pose Transfer bypassed, for a share of the sampling, and the guidance interval of PGPIS Guider."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from tests.host.test_calls import embedded, pose

STEPS = 4


@pytest.fixture(scope="module")
def nodes(host):
    return SimpleNamespace(**{name.split(".")[-1]: host.pack(f"nodes.{name}") for name in (
        "loaders", "sampling", "transfer", "applying", "binding.span", "binding.model")})


@pytest.fixture(scope="module")
def parts(host, nodes, demo, tiny):
    method, = nodes.loaders.LoadCheckpoint.execute("cfld_tiny.safetensors").result
    model, _ = nodes.loaders.LoadDemoBase.execute().result
    g = torch.Generator().manual_seed(50)
    text = [[[torch.randn(1, 7, tiny.context, generator=g), {"pooled_output": None}]] for _ in range(2)]
    return SimpleNamespace(method=method, model=model, cond=embedded(host, method), positive=text[0], negative=text[1])


def sigmas_of(model):
    import comfy.samplers
    return comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", STEPS)


def sample(model, positive, negative, latent, cfg=2.0, sigmas=None, x=None):
    import comfy.samplers
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, negative)
    guider.set_cfg(cfg)
    return ran(guider, latent, sigmas, x)


def ran(guider, latent, sigmas=None, x=None):
    """Latents of a run; with x a run goes on from there."""
    import comfy.samplers
    samples, model = latent["samples"], guider.model_patcher
    noise = torch.randn(samples.shape, generator=torch.Generator().manual_seed(4))
    sigmas = sigmas_of(model) if sigmas is None else sigmas
    if x is not None:
        noise = torch.zeros_like(samples)
    with torch.inference_mode():
        return guider.sample(noise, samples if x is None else x, comfy.samplers.sampler_object("euler"), sigmas,
                             disable_pbar=True)


def bypassed(node) -> dict[str, str | None]:
    """Which input each output of a bypassed node is, by the frontend's rule: that at the output's own place if its type
    fits, else the first of its type. Sockets come before widgets, required ones first."""
    def sockets(kind):
        return [(name, value[0]) for name, value in node.INPUT_TYPES().get(kind, {}).items()
                if value[0] not in ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO") and not isinstance(value[0], list)]
    inputs, found = sockets("required") + sockets("optional"), {}
    for slot, output in enumerate(node.define_schema().outputs):
        kind = output.io_type
        own = slot < len(inputs) and inputs[slot][1] == kind
        found[output.display_name] = inputs[slot][0] if own else next((name for name, one in inputs if one == kind), None)
    return found


@pytest.mark.hosts
@pytest.mark.parametrize("name", ["sampling.Apply", "transfer.PoseTransfer"])
def test_every_output_of_a_bypassed_node_is_the_input_of_its_name(name, nodes):
    module, kind = name.split(".")
    names = ("model", "positive", "negative", "latent")
    passed = bypassed(getattr(getattr(nodes, module), kind))
    assert passed == {one: one for one in names} | ({"frame": None} if kind == "PoseTransfer" else {})


def test_what_is_not_connected_is_named(nodes, parts):
    with pytest.raises(ValueError, match="Apply PGPIS has no cond; expected cond .*embedding node.*Connect it"):
        nodes.sampling.Apply.execute(parts.model)
    with pytest.raises(ValueError, match="Pose Transfer has no method and no image; expected method .*image .*Connect them"):
        nodes.transfer.PoseTransfer.execute(parts.model)


# --- a share of the sampling --------------------------------------------------------------------------------

def applied(nodes, parts, start, end, given=True, latent=None):
    texts = (parts.positive, parts.negative) if given else (None, None)
    return nodes.sampling.Apply.execute(parts.model, parts.cond, *texts, latent, start, end).result


def test_the_whole_sampling_is_what_it_was(nodes, parts):
    model, positive, negative, latent = applied(nodes, parts, 0.0, 1.0)
    bare = applied(nodes, parts, 0.0, 1.0, given=False)
    assert torch.equal(sample(model, positive, negative, latent), sample(*bare))
    assert len(positive) == len(negative) == 1


@pytest.mark.parametrize("at", [0.0, 0.5, 1.0])
def test_a_share_of_nothing_is_the_plain_model(at, nodes, parts):
    model, positive, negative, latent = applied(nodes, parts, at, at)
    assert model is parts.model and positive is parts.positive and negative is parts.negative
    patched, positive, negative, latent = applied(nodes, parts, at, at, given=False)
    null = applied(nodes, parts, 0.0, 1.0, given=False)[2]
    assert torch.equal(sample(patched, positive, negative, latent), sample(patched, null, null, latent))


@pytest.mark.parametrize("given", [True, False], ids=["with a conditioning of its own", "with the method's null"])
@pytest.mark.parametrize("start, end", [(0.0, 0.5), (0.5, 1.0), (0.3, 0.7)])
def test_outside_of_the_share_the_other_conditioning_acts(start, end, given, nodes, parts):
    """Step by step: each step's sigma lies inside, ours at the very edge too, or outside."""
    model, positive, negative, latent = applied(nodes, parts, start, end, given)
    _, full, null, _ = applied(nodes, parts, 0.0, 1.0, given=False)
    other = (parts.positive, parts.negative) if given else (null, null)
    sampling, sigmas = model.get_model_object("model_sampling"), sigmas_of(model)
    first, last = sampling.percent_to_sigma(start), sampling.percent_to_sigma(end)
    inside = [last <= float(sigma) <= first for sigma in sigmas[:-1]]
    assert True in inside and False in inside, "both happen"
    for number, acts in enumerate(inside):
        step = torch.stack([sigmas[number], torch.zeros(())])
        found = sample(model, positive, negative, latent, sigmas=step)
        assert torch.equal(found, sample(model, *((full, null) if acts else other), latent, sigmas=step)), number
    whole = sample(model, positive, negative, latent)
    assert not torch.equal(whole, sample(model, full, null, latent)) and torch.isfinite(whole).all()


def test_at_the_very_edge_only_ours_acts(nodes, parts):
    """A step exactly at 50 per cent, where the host would mix both."""
    model, positive, negative, latent = applied(nodes, parts, 0.5, 1.0)
    _, full, null, _ = applied(nodes, parts, 0.0, 1.0, given=False)
    edge = torch.tensor([model.get_model_object("model_sampling").percent_to_sigma(0.5), 0.0])
    found = sample(model, positive, negative, latent, sigmas=edge)
    assert torch.equal(found, sample(model, full, null, latent, sigmas=edge))


def test_a_range_that_a_conditioning_has_stays_its_own(nodes):
    outside = nodes.span.outside([[None, {"start_percent": 0.2, "end_percent": 0.9}]], 0.4, 0.6)
    assert [(one["start_percent"], one["end_percent"]) for _, one in outside] == [(0.2, 0.4), (0.6, 0.9)]
    assert nodes.span.outside([[None, {"start_percent": 0.45, "end_percent": 0.55}]], 0.4, 0.6) == []
    with pytest.raises(ValueError, match="start_percent is 0.7, end_percent 0.3; expected start before end. Swap them"):
        nodes.span.check_span(0.7, 0.3)


# --- latents ------------------------------------------------------------------------------------------------

def test_latents_that_are_connected_are_given_out_or_refused(nodes, parts):
    larger = {"samples": torch.zeros(2, 4, 32, 24), "noise_mask": torch.ones(2, 256, 192)}
    model, positive, negative, latent = applied(nodes, parts, 0.0, 1.0, latent=larger)
    assert latent is larger and sample(model, positive, negative, latent).shape == (2, 4, 32, 24)
    with pytest.raises(ValueError, match="encoded for latents of 12x16 .*runs 20x20 .*another shape"):
        applied(nodes, parts, 0.0, 1.0, latent={"samples": torch.zeros(2, 4, 20, 20)})
    with pytest.raises(ValueError, match="2 source and pose pairs.*latent input holds 3 latents; expected 2, a multiple"):
        applied(nodes, parts, 0.0, 1.0, latent={"samples": torch.zeros(3, 4, 16, 12)})


def test_latents_of_a_batch_choose_their_pairs(host, nodes, parts):
    frames = [*pose(host, 2), *pose(host, 1)]
    for joint in range(18):   # three different people
        frames[1]["people"][0]["pose_keypoints_2d"][3 * joint] *= 0.5
    cond, *_ = host.pack("nodes.appearance").AppearanceEmbedding.execute(parts.method, torch.rand(1, 128, 96, 3), frames,
                                                                         -1).result
    model, positive, negative, latent = nodes.sampling.Apply.execute(parts.model, cond).result
    second, = host.nodes.LatentFromBatch().frombatch(latent, 1, 1)
    model, one, none, part = nodes.sampling.Apply.execute(parts.model, cond, latent=second).result
    assert part is second and one[0][0].shape[0] == 1
    for name, value in one[0][1]["model_conds"].items():
        if isinstance(value.cond, torch.Tensor):
            assert torch.equal(value.cond, positive[0][1]["model_conds"][name].cond[1:2]), name


# --- the guidance interval ----------------------------------------------------------------------------------

def test_weights_act_within_the_guidance_interval_alone(nodes, parts):
    scales = {"pose": 1.5, "appearance": 2.5}

    def guider(**span):
        return nodes.sampling.GuiderNode.execute(parts.model, parts.cond, "uc_down_full", **scales, **span).result
    part, latent, model = guider(start_percent=0.3, end_percent=0.7)
    always, _, _ = guider()
    alone = nodes.sampling.GuiderNode.execute(parts.model, parts.cond, "uc_full", appearance=1.0).result[0]
    rows, sigmas, sampling = [], sigmas_of(model), model.get_model_object("model_sampling")
    hook = parts.model.model.diffusion_model.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    try:
        ran(part, latent)
    finally:
        hook.remove()
    inside = [sampling.percent_to_sigma(0.7) <= float(sigma) <= sampling.percent_to_sigma(0.3) for sigma in sigmas[:-1]]
    assert True in inside and False in inside
    assert rows == [parts.cond.batch * (3 if acts else 1) for acts in inside], "outside the last term runs by itself"
    for number, acts in enumerate(inside):
        step = torch.stack([sigmas[number], torch.zeros(())])
        found, expected = ran(part, latent, step), ran(always if acts else alone, latent, step)
        assert float((found - expected).abs().max()) < 1e-5 * float(expected.abs().max())
    never, *_ = guider(start_percent=0.5, end_percent=0.5)
    assert torch.allclose(ran(never, latent), ran(alone, latent), atol=1e-5)
    with pytest.raises(ValueError, match="start_percent is 0.9, end_percent 0.2"):
        guider(start_percent=0.9, end_percent=0.2)
