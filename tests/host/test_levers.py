"""The host's own nodes that save time, before and after the pack on one MODEL."""

from __future__ import annotations

import importlib
from types import SimpleNamespace

import pytest
import torch

from tests.host.test_model_untouched import applied, up_weights

STEPS = 20
LOOSE = 3.0   # reuse_threshold: random weights change more from step to step than trained ones


@pytest.fixture(scope="module")
def pack(host):
    return SimpleNamespace(binding=host.pack("nodes.binding.model"), injections=host.pack("pgpis_models.unet.injections"),
                           schedule=host.pack("nodes.binding.schedule"), noise=host.pack("pgpis_models.noise.schedule"))


@pytest.fixture
def model(tiny):
    return tiny.model()


def sample(model, positive, negative, tiny, steps=STEPS):
    import comfy.samplers
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, negative)
    guider.set_cfg(2.0)
    start = torch.randn(1, 4, *tiny.latent, generator=torch.Generator().manual_seed(11))
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "sgm_uniform", steps)
    with torch.inference_mode():
        return guider.sample(start, torch.zeros_like(start), comfy.samplers.sampler_object("euler"), sigmas,
                             disable_pbar=True)


def cached(name, model, threshold):
    """The MODEL behind the host's EasyCache or LazyCache."""
    node = getattr(importlib.import_module("comfy_extras.nodes_easycache"), f"{name}Node")
    return node.execute(model, threshold, 0.15, 0.95, False).result[0]


def calls_of(model):
    """Grows by one with each call that computes; the caches wrap what is inside of `forward`."""
    seen = []
    model.model.diffusion_model.time_embed.register_forward_pre_hook(lambda *_: seen.append(1))
    return seen


@pytest.mark.hosts
@pytest.mark.parametrize("name", ["EasyCache", "LazyCache"])
def test_caches_leave_out_steps_the_same_before_the_pack_and_behind_it(name, pack, tiny, model):
    parts = {"weights": up_weights(tiny)}
    patched, positive, negative = applied(pack, tiny, model, **parts)
    seen = calls_of(model)
    whole = sample(patched, positive, negative, tiny)
    assert len(seen) == STEPS
    assert torch.equal(sample(cached(name, patched, 0.0), positive, negative, tiny), whole), "a cache that never holds"
    counts, results = [], []
    for order in ("before", "behind"):
        first = (applied(pack, tiny, cached(name, model, LOOSE), **parts)[0] if order == "before"
                 else cached(name, patched, LOOSE))
        seen.clear()
        results.append(sample(first, positive, negative, tiny))
        counts.append(len(seen))
    assert torch.equal(*results) and counts[0] == counts[1] < 0.8 * STEPS, counts
    assert not torch.equal(results[0], whole) and torch.isfinite(results[0]).all()


def test_a_sampling_that_the_user_put_on_is_not_dropped_without_a_word(pack, tiny, model):
    from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete
    own = pack.noise.NoiseSchedule(kind="linear")
    given, = ModelSamplingDiscrete().patch(model, "lcm", False)
    with pytest.raises(ValueError, match=r"sampling of its own \(ModelSamplingDiscreteDistilled, LCM\).*one.safetensors "
                                         "brings the noise schedule that it was trained on.*behind this one"):
        pack.schedule.with_schedule(given, own, "one.safetensors")
    assert pack.schedule.with_schedule(given, None, "one.safetensors") is given
    once = pack.schedule.with_schedule(model, own, "one.safetensors")
    again = pack.schedule.with_schedule(once, own, "one.safetensors").get_model_object("model_sampling")
    assert torch.equal(again.sigmas, pack.schedule.sigmas_of(own))
    behind, = ModelSamplingDiscrete().patch(once, "lcm", False)
    assert type(behind.get_model_object("model_sampling")).__bases__[0].__name__ == "ModelSamplingDiscreteDistilled"
