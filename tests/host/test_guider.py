"""PGPIS Guider against the host's own guidance: patches on the guidance, and samplers that ask for the negative too."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
import torch

from tests.host.test_calls import embedded

STEPS = 3


@pytest.fixture(scope="module")
def parts(host, demo):
    method, = host.pack("nodes.loaders").LoadCheckpoint.execute("cfld_tiny.safetensors").result
    model, _ = host.pack("nodes.loaders").LoadDemoBase.execute().result
    return SimpleNamespace(model=model, cond=embedded(host, method), sampling=host.pack("nodes.sampling"))


def sampled(guider, latent, sampler="euler"):
    import comfy.samplers
    samples = latent["samples"]
    sigmas = comfy.samplers.calculate_sigmas(guider.model_patcher.get_model_object("model_sampling"), "normal", STEPS)
    noise = torch.randn(samples.shape, generator=torch.Generator().manual_seed(4))
    with torch.inference_mode():
        return guider.sample(noise, samples, comfy.samplers.sampler_object(sampler), sigmas, disable_pbar=True, seed=0)


def hosts(parts, model, cfg):
    """The host's guider on what Apply PGPIS gives."""
    import comfy.samplers
    patched, positive, negative, latent = parts.sampling.Apply.execute(model, parts.cond).result
    guider = comfy.samplers.CFGGuider(patched)
    guider.set_conds(positive, negative)
    guider.set_cfg(cfg)
    return guider, latent


def ours(parts, model, **scales):
    return parts.sampling.GuiderNode.execute(model, parts.cond, "uc_down_full", **scales).result[:2]


def same(first, second) -> bool:
    return float((first - second).abs().max()) < 1e-4 * float(second.abs().max())


def rescaled(args):
    """A guidance patch that is not linear, as RescaleCFG's is."""
    guided = args["uncond"] + args["cond_scale"] * (args["cond"] - args["uncond"])
    return guided * args["cond"].std() / guided.std()


@pytest.mark.hosts
def test_equal_weights_are_the_hosts_guidance_with_its_patches(parts):
    model = parts.model.clone()
    model.set_model_sampler_cfg_function(rescaled)
    seen = []
    model.set_model_sampler_post_cfg_function(lambda args: seen.append(args["cond_scale"]) or args["denoised"])
    found = sampled(*ours(parts, model, pose=2.5, appearance=2.5))
    assert seen == [2.5] * STEPS
    assert same(found, sampled(*hosts(parts, model, 2.5)))
    assert not same(found, sampled(*ours(parts, parts.model, pose=2.5, appearance=2.5))), "the patch does something"


@pytest.mark.parametrize("sampler", ["euler_cfg_pp", "dpmpp_2m_cfg_pp"])
def test_samplers_that_need_the_negative_get_it_at_weight_1(sampler, parts):
    found = sampled(*ours(parts, parts.model, pose=1.0, appearance=1.0), sampler)
    assert same(found, sampled(*hosts(parts, parts.model, 1.0), sampler))
    plain = sampled(*ours(parts, parts.model, pose=1.0, appearance=1.0))
    assert torch.isfinite(found).all() and not same(found, plain)


def test_three_terms_say_once_which_patch_they_leave_out(parts, caplog):
    model = parts.model.clone()
    model.set_model_sampler_cfg_function(rescaled)
    scales = []
    model.set_model_sampler_post_cfg_function(lambda args: scales.append(args["cond_scale"]) or args["denoised"])
    with caplog.at_level(logging.WARNING):
        found = sampled(*ours(parts, model, pose=1.5, appearance=2.5))
    assert caplog.text.count("sampler_cfg_function, which works on two terms; PGPIS Guider runs 3 here") == 1
    assert same(found, sampled(*ours(parts, parts.model, pose=1.5, appearance=2.5))) and scales == [2.5] * STEPS


def test_a_last_term_of_weight_0_is_not_run(parts):
    """pose 2, appearance 0: null and pose alone."""
    rows = []
    hook = parts.model.model.diffusion_model.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    try:
        found = sampled(*ours(parts, parts.model, pose=2.0, appearance=0.0))
    finally:
        hook.remove()
    assert rows == [2 * parts.cond.batch] * STEPS and torch.isfinite(found).all()
