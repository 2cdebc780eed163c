"""What does not depend on the timestep is computed once per generation, and all terms of a step run as one call."""

from __future__ import annotations

import pytest
import torch

STEPS = 5


@pytest.fixture(scope="module")
def parts(host, demo):
    """(method, PGPIS_COND maker, MODEL) with a count of every call."""
    method, = host.pack("nodes.loaders").LoadCheckpoint.execute("cfld_tiny.safetensors").result
    model, _ = host.pack("nodes.loaders").LoadDemoBase.execute().result
    counts = {}

    def count(name):
        def hook(*_):
            counts[name] = counts.get(name, 0) + 1
        return hook
    module = method.checkpoint.method
    for name in ("backbone", "appearance_encoder", "pose_encoder", "decoder"):
        getattr(module, name).register_forward_hook(count(name))
    model.model.diffusion_model.time_embed.register_forward_hook(count("unet"))  # once in every UNet call
    return method, model, counts


def pose(host, people=2):
    xy = torch.rand(18, 2, generator=torch.Generator().manual_seed(1)).numpy() * (96, 128)
    module = host.pack("pgpis_models.poses.formats")
    return module.to_pose_keypoint([module.Keypoints(xy, [True] * 18, (128, 96))] * people)


def embedded(host, method):
    source = torch.rand(1, 128, 96, 3)
    return host.pack("nodes.appearance").AppearanceEmbedding.execute(method, source, pose(host), -1).result[0]


def run(host, model, positive=None, negative=None, guider=None, latent=None):
    import comfy.samplers
    if guider is None:
        guider = comfy.samplers.CFGGuider(model)
        guider.set_conds(positive, negative)
        guider.set_cfg(2.0)
    samples = latent["samples"]
    sigmas = comfy.samplers.calculate_sigmas(model.model.model_sampling, "normal", STEPS)
    with torch.inference_mode():
        guider.sample(torch.randn_like(samples), samples, comfy.samplers.sampler_object("euler"), sigmas, disable_pbar=True)


def test_encoders_run_once_and_the_unet_once_per_step(host, parts, demo):
    method, model, counts = parts
    embed, sampling = host.pack("nodes.appearance").AppearanceEmbedding, host.pack("nodes.sampling")
    counts.clear()
    [cond] = embed.execute(method, torch.rand(1, 128, 96, 3), pose(host), -1).result
    assert (cond.latent_size, cond.batch) == ((16, 12), 2)
    patched, positive, negative, latent = sampling.Apply.execute(model, cond).result
    run(host, patched, positive, negative, latent=latent)
    assert counts == {"backbone": 1, "appearance_encoder": 1, "pose_encoder": 1, "decoder": 1, "unet": STEPS}
    run(host, patched, positive, negative, latent=latent)  # another seed: nothing is encoded again
    assert counts == {"backbone": 1, "appearance_encoder": 1, "pose_encoder": 1, "decoder": 1, "unet": 2 * STEPS}


@pytest.mark.parametrize("mode, weights, rows", [
    ("uc_down_full", {}, 3), ("uc_down_updown_full", {}, 4),
    ("uc_down_full", {"pose": 2.0, "appearance": 2.0}, 2),  # equal weights telescope
    ("uc_full", {"appearance": 1.0}, 1)])                   # nothing but the last term
def test_a_step_runs_only_the_terms_that_weigh_something_in_one_call(mode, weights, rows, host, parts, demo):
    method, model, counts = parts
    cond = embedded(host, method)
    scales = {"pose": 1.2, "appearance": 2.3, "biases": 3.4, "prompt": 4.5} | weights
    guider, latent, _ = host.pack("nodes.sampling").GuiderNode.execute(model, cond, mode, **scales).result
    seen = []
    hook = model.model.diffusion_model.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape[0]))
    try:
        run(host, model, guider=guider, latent=latent)
    finally:
        hook.remove()
    assert seen == [2 * rows] * STEPS


def test_rows_reach_the_sampling_device_once_and_the_graph_keeps_its_own(host, parts, demo, monkeypatch):
    method, model, _ = parts
    binding = host.pack("nodes.binding.model")
    cond = embedded(host, method)
    patched, positive, negative, latent = host.pack("nodes.sampling").Apply.execute(model, cond).result
    moved, original = [], binding._loaded
    monkeypatch.setattr(binding, "_loaded", lambda name, *rest: moved.append(name) or original(name, *rest))
    before = dict(positive[0][1]["model_conds"])
    run(host, patched, positive, negative, latent=latent)
    ours = [name for name in before if name.startswith("pgpis.")]
    assert all(moved.count(name) == 2 for name in ours), "once for each of the two terms, whatever the number of steps"
    assert positive[0][1]["model_conds"] == before
