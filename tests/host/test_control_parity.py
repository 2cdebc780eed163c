"""QEN's control branch on the host's ControlNet equals the one on diffusers', masks, strength and duration included."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from tests.host.test_binding_parity import (
    TOLERANCE,
    B,
    diffusers_predictions,
    euler,
    native_predictions,
    noise,
    relative,
)

LOCAL, SHARED = 5, 3


@pytest.fixture(scope="module")
def pack(host):
    names = {"binding": "nodes.binding.model", "control": "nodes.binding.control", "guider": "nodes.binding.guider",
             "diffusers": "pgpis_models.unet.diffusers_binding", "injections": "pgpis_models.unet.injections",
             "guidance": "pgpis_models.unet.guidance", "branch": "pgpis_models.unet.control_branch",
             "mask": "pgpis_models.unet.masked_attention"}
    return SimpleNamespace(**{name: host.pack(module) for name, module in names.items()})


@pytest.fixture(scope="module")
def models(tiny):
    unet = tiny.unet()
    return SimpleNamespace(unet=unet, model=tiny.model(unet))


@pytest.fixture(scope="module")
def start(tiny):
    return noise(torch.Generator().manual_seed(1), B, 4, *tiny.latent, scale=1.0), torch.full((B,), 400.0)


def branch_of(pack, tiny, mode):
    """A branch whose every weight matters, zero convolutions too."""
    torch.manual_seed(3)
    branch = pack.branch.ControlBranch(pack.branch.BranchSizes(tiny.widths, tiny.heads, tiny.context, LOCAL, mode))
    for name, value in branch.named_parameters():
        if name.startswith("controlnet"):
            torch.nn.init.normal_(value, std=0.05)
    return branch.eval().requires_grad_(False)


def terms_of(pack, tiny, branch, embedding="maps", people=True, batch=B, **how):
    """QEN's chain: nothing; pose with null tokens; pose with tokens."""
    g, i, (h, w) = torch.Generator().manual_seed(5), pack.injections, tiny.latent
    null, tokens = (noise(g, n, LOCAL + SHARED, tiny.context) for n in (1, batch))
    region = torch.zeros(batch, 1, 8 * h, 8 * w)
    region[:, :, 20:90, 30:37] = 1
    region[0, :, 5:9, 60:80] = 1
    if not people:
        region[:] = 1
    pose = {"stem": noise(g, batch, tiny.width, h, w)} if embedding == "stem" else {
        f"map_{n}": noise(g, batch, tiny.widths[n], -(-h // 2 ** n), -(-w // 2 ** n)) for n in range(3)}

    def control(shown):
        return i.Control(branch, {"tokens": shown, "region": region, **pose}, **how)
    return [i.Injections(context=i.everywhere(null)), i.Injections(context=i.everywhere(null), control=control(null)),
            i.Injections(context=i.everywhere(tokens), control=control(tokens))]


@pytest.mark.parametrize("mode, embedding, separate", [
    ("full", "maps", False), ("full", "stem", True), ("none", "maps", False), ("simple", "maps", True),
    ("simple_local", "stem", False)])
def test_the_branch_is_the_same_in_both_bindings(mode, embedding, separate, pack, tiny, models, start):
    branch = branch_of(pack, tiny, mode)
    rows = pack.injections.harmonise(terms_of(pack, tiny, branch, embedding, scale=0.7), B)
    ours = native_predictions(pack, models.model, rows, *start, tiny.latent, separate=separate)
    theirs = diffusers_predictions(pack, models.unet, rows, *start)
    error = relative(ours, theirs)
    print(f"parity of the branch, {mode}: {error:.1e}")
    assert error < TOLERANCE
    everywhere = pack.injections.harmonise(terms_of(pack, tiny, branch, embedding, people=False, scale=0.7), B)
    unmasked = diffusers_predictions(pack, models.unet, everywhere, *start)
    assert (relative(theirs, unmasked) > 1e-3) == (mode != "none"), "the mask does nothing, so this test sees nothing"
    bare = [pack.injections.Injections(context=term.context) for term in terms_of(pack, tiny, branch)]
    bare = diffusers_predictions(pack, models.unet, pack.injections.harmonise(bare, B), *start)
    assert relative(theirs[1:], bare[1:]) > 0.01
    assert torch.equal(theirs[0], bare[0]), "the first term has no pose"


def test_weights_map_onto_the_hosts_network_without_a_copy(pack, tiny):
    branch = branch_of(pack, tiny, "full")
    net = pack.control.host_branch(branch).model
    names = pack.control.host_names(branch.sizes)
    state = net.state_dict()
    assert {names[name] for name in branch.state_dict()} == set(state)
    for name, value in branch.state_dict().items():
        assert state[names[name]].data_ptr() == value.data_ptr(), name
    assert pack.control.host_branch(branch).model is net


def test_strength_and_share_of_the_sampling_are_those_of_the_other_binding(pack, tiny, models):
    """Four steps of which the branch runs on some: the host's per cent and our timesteps mean the same steps."""
    import comfy.samplers
    branch = branch_of(pack, tiny, "full")
    sigmas = comfy.samplers.calculate_sigmas(models.model.model.model_sampling, "normal", 4)
    x = torch.randn(B, 4, *tiny.latent, generator=torch.Generator().manual_seed(5))
    calls, results = {}, {}
    for name, how in {"all": {}, "part": {"start": 0.2, "end": 0.7, "scale": 0.6}, "none": {"scale": 0.0},
                      "ended": {"end": 0.0}, "unbegun": {"start": 1.0}}.items():
        terms = terms_of(pack, tiny, branch, **how)
        rows = pack.injections.harmonise(terms, B)
        weights = (1.0, 1.7, 2.3)
        chain = pack.guidance.Guidance(tuple(pack.guidance.Term(str(n), term, weight)
                                             for n, (term, weight) in enumerate(zip(terms, weights, strict=True))))
        guider = pack.guider.ChainGuider(pack.binding.apply_injections(models.model, rows, {}))
        guider.set_chain(chain, pack.binding.conditionings(rows, tiny.latent))
        seen = []
        hook = pack.control.host_branch(branch).model.time_embed.register_forward_hook(
            lambda module, args, out, seen=seen: seen.append(out.shape[0]))
        with torch.no_grad():
            ours = guider.sample(x, torch.zeros_like(x), comfy.samplers.sampler_object("euler"), sigmas, disable_pbar=True)
            hook.remove()
            binding = pack.diffusers.DiffusersBinding(models.unet)
            theirs = euler(binding.denoiser(chain, B), x * (sigmas[0] ** 2 + 1) ** 0.5, sigmas, "EPS") / 0.18215
            binding.release()
        assert relative(ours, theirs) < TOLERANCE, name
        calls[name], results[name] = seen, ours
    assert calls["all"] == calls["none"] == [2 * B] * 4, "only the two terms with a pose, in one call per step"
    assert calls["ended"] == calls["unbegun"] == [] and relative(results["ended"], results["none"]) < TOLERANCE
    assert 0 < len(calls["part"]) < 4 and set(calls["part"]) == {2 * B}
    assert relative(results["all"], results["part"]) > 0.01 and relative(results["part"], results["none"]) > 0.01


def test_a_half_precision_model_runs_the_branch_in_its_own_precision(pack, tiny, models, start):
    rows = pack.injections.harmonise(terms_of(pack, tiny, branch_of(pack, tiny, "simple")), B)
    ours = native_predictions(pack, tiny.model(models.unet, torch.float16), rows, *start, tiny.latent)
    assert relative(ours.float(), diffusers_predictions(pack, models.unet, rows, *start)) < 0.02


def test_a_model_of_another_width_is_refused_by_name(pack, tiny, models):
    branch = pack.branch.ControlBranch(pack.branch.BranchSizes((64, 64, 64, 64), 2, tiny.context, LOCAL))
    rows = pack.injections.harmonise([pack.injections.Injections(
        context=pack.injections.everywhere(torch.zeros(1, 8, tiny.context)),
        control=pack.injections.Control(branch, {"tokens": torch.zeros(1, 8, tiny.context)}))], 1)
    with pytest.raises(ValueError, match=r"qen.safetensors.*\(32, 64, 128, 128\).*\(64, 64, 64, 64\).*Load the base"):
        pack.binding.apply_injections(models.model, rows, {}, "qen.safetensors (qen on base demo)")


def test_a_users_controlnet_on_top_adds_to_the_branch(pack, tiny, models):
    """As ControlNetApplyAdvanced stacks them: the residuals of both are summed."""
    import comfy.samplers
    branch = branch_of(pack, tiny, "full")
    rows = pack.injections.harmonise(terms_of(pack, tiny, branch, batch=1), 1)
    patched = pack.binding.apply_injections(models.model, rows, {})
    conds = pack.binding.conditionings(rows, tiny.latent)
    second = pack.control.InjectedControl(branch)   # stands for a user's own, at the same strength

    def run(conds):
        guider = comfy.samplers.CFGGuider(patched)
        guider.set_conds(conds[2], conds[0])
        guider.set_cfg(1.5)
        x = torch.randn(1, 4, *tiny.latent, generator=torch.Generator().manual_seed(2))
        with torch.inference_mode():
            return guider.sample(x, torch.zeros_like(x), comfy.samplers.sampler_object("euler"),
                                 torch.tensor([5.0, 1.0, 0.0]), disable_pbar=True)
    stacked = [[[tokens, {**values, "control": second.copy().set_previous_controlnet(values["control"])}]
                for tokens, values in cond] for cond in conds]
    for cond in stacked[1:]:   # one object for all terms, as the node caches it
        cond[0][1]["control"] = stacked[0][0][1]["control"]
    twice = pack.injections.harmonise(terms_of(pack, tiny, branch, batch=1, scale=2.0), 1)
    assert relative(run(stacked), run(pack.binding.conditionings(twice, tiny.latent))) < TOLERANCE
    assert relative(run(stacked), run(conds)) > 0.01
