"""The reference network as a UNet of the host, and the noise schedule of published weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.host.mcld.helpers import Clip, embed, largest_error, sampled

TOLERANCE = 1e-4   # of the largest value; 1e-6 is usual


@pytest.mark.hosts
def test_the_hosts_reference_network_equals_diffusers(nodes, pack, files, base, method, tiny):
    network = nodes.reference.reference_of(method, base.model)
    generator = torch.Generator().manual_seed(3)
    latent, context = (torch.randn(*shape, generator=generator) for shape in ((5, 4, *tiny.latent), (5, 16, tiny.context)))
    ours = network(latent, context)   # more people than run at once
    reference = pack.mcld_parts.ReferenceWriter(files["mcld_tiny"].method.reference().eval())
    with torch.no_grad():
        theirs = reference(latent, context)
    error = largest_error(ours, theirs)
    print(f"reference network: {error:.1e}")
    assert error < TOLERANCE and len(ours) == 16
    assert (ours["up.3.2"][0] - ours["up.3.2"][1]).abs().max() > 0.01


def test_the_reference_network_is_the_hosts_to_move_and_is_made_once(nodes, base, method):
    import comfy.model_management as management
    network = nodes.reference.reference_of(method, base.model)
    assert nodes.reference.reference_of(method, base.model.clone()) is network
    assert not method.side_weights and not list(method.checkpoint.method.reference_unet.parameters())
    management.unload_all_models()
    network(torch.zeros(1, 4, 16, 12), torch.zeros(1, 16, 64))
    assert network.patcher in [loaded.model for loaded in management.current_loaded_models]
    assert network.patcher.model is not base.model.model


def test_encoders_and_reference_network_run_once_and_the_unet_once_per_step(nodes, base, method, people):
    source, target, _ = people
    network = nodes.reference.reference_of(method, base.model)
    modules = {name: method.checkpoint.method.get_submodule(name)
               for name in ("vision.tower", "vision.face", "face_projector", "pose_guider")}
    modules |= {"reference": network.patcher.model.diffusion_model, "unet": base.model.model.diffusion_model}
    counts = dict.fromkeys(modules, 0)

    def counted(name):
        def hook(*_):
            counts[name] += 1
        return hook
    hooks = [module.register_forward_pre_hook(counted(name)) for name, module in modules.items()]
    try:
        cond = embed(nodes, method, base, source, target)
        once = dict.fromkeys(modules, 1) | {"unet": 0, "vision.tower": 2}   # for photo and texture map
        assert counts == once
        sampled(nodes, base, cond, steps=3)
        assert counts == once | {"unet": 3}
        sampled(nodes, base, cond, steps=2, seed=6)   # another seed: nothing is encoded again
        assert counts == once | {"unet": 5}
    finally:
        for hook in hooks:
            hook.remove()


def test_published_weights_sample_on_their_own_schedule_and_the_demo_on_its_bases(nodes, pack, files, base, method, people):
    source, target, _ = people
    patched = nodes.sampling.Apply.execute(base.model, embed(nodes, method, base, source, target)).result[0]
    assert patched.get_model_object("model_sampling") is base.model.get_model_object("model_sampling")
    published = nodes.loaders.LoadCheckpoint.execute("mcld_published.safetensors").result[0]
    cond = nodes.multifocal.MultiFocalEmbedding.execute(published, source.image, target.densepose, 0.5,
                                                        clip_vision=Clip(64)).result[0]
    patched = nodes.sampling.Apply.execute(base.model, cond).result[0]
    sampling = patched.get_model_object("model_sampling")
    betas = np.linspace(0.00085, 0.012, 1000)   # written out: linear, rescaled to zero terminal SNR
    root = np.sqrt(np.cumprod(1 - betas))
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    expected = np.sqrt(1 - root[:-1] ** 2) / root[:-1]
    assert np.allclose(sampling.sigmas[:-1].numpy(), expected, rtol=2e-3)
    assert sampling.sigmas[-1] > 4000
    x, sigma = torch.randn(1, 4, 2, 2), torch.tensor([3.0])
    v = torch.randn(1, 4, 2, 2)
    denoised = x / 10 - v * 3 / 10 ** 0.5   # x = sqrt(1 + sigma^2) x_t; x0 = alpha x_t - sigma_t v
    assert torch.allclose(sampling.calculate_denoised(sigma, v, x), denoised, atol=1e-6)
    assert base.model.get_model_object("model_sampling") is not sampling
    guided = nodes.sampling.GuiderNode.execute(base.model, cond, "default", appearance=3.5).result[2]   # for BasicScheduler
    assert torch.equal(guided.get_model_object("model_sampling").sigmas, sampling.sigmas)
