"""A CONDITIONING runs on a MODEL of the same checkpoint alone, and that costs neither a batch nor a bit."""

from __future__ import annotations

import dataclasses
import logging
from types import SimpleNamespace

import pytest
import torch

from tests.host.test_calls import embedded
from tests.host.test_model_untouched import applied, lora_for, sample, up_weights


@pytest.fixture(scope="module")
def pack(host):
    return SimpleNamespace(binding=host.pack("nodes.binding.model"), injections=host.pack("pgpis_models.unet.injections"),
                           passport=host.pack("nodes.binding.passport"), span=host.pack("nodes.binding.span"),
                           sampling=host.pack("nodes.sampling"), notice=host.pack("nodes.notice"))


@pytest.fixture
def model(tiny):
    return tiny.model()


@pytest.fixture(scope="module")
def parts(host, demo):
    method, = host.pack("nodes.loaders").LoadCheckpoint.execute("cfld_tiny.safetensors").result
    base, _ = host.pack("nodes.loaders").LoadDemoBase.execute().result
    return SimpleNamespace(method=method, model=base, cond=embedded(host, method))


def calls_of(model):
    seen = []
    model.model.diffusion_model.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape[0]))
    return seen


def free(cond):
    """The CONDITIONING without what guards it."""
    return [[tokens, {key: value for key, value in values.items() if key != "hooks"}] for tokens, values in cond]


def test_a_model_without_the_method_is_refused_before_anything_runs(pack, tiny, model):
    _, positive, negative = applied(pack, tiny, model)
    seen = calls_of(model)
    for conds in ((positive, negative), (positive, [[negative[0][0], {}]])):
        with pytest.raises(ValueError, match="CONDITIONING is of a PGPIS checkpoint, the MODEL is one without a PGPIS "
                                             "method; expected both from one Apply PGPIS or Pose Transfer. Connect"):
            sample(model, *conds, tiny)
    assert not seen


def test_a_model_of_another_checkpoint_is_refused_with_both_names(pack, tiny, model):
    origin = pack.passport.Origin
    rows = pack.injections.harmonise([pack.injections.Injections(
        context=pack.injections.everywhere(torch.zeros(1, 5, tiny.context)))], 1)
    one = pack.binding.apply_injections(model, rows, {}, "one.safetensors (cfld on base demo)", "1")
    other, = pack.binding.conditionings(rows, tiny.latent, origin("other.safetensors (cfld on base demo)", "2"))
    with pytest.raises(ValueError, match=r"CONDITIONING is of other.safetensors .*MODEL is that of one.safetensors"):
        sample(one, other, other, tiny)
    with pytest.raises(ValueError, match=r"CONDITIONING is of other.safetensors .*MODEL is that of one.safetensors"):
        sample(one, free(other), free(other), tiny)   # where a node took the hooks off
    both = pack.binding.apply_injections(one, rows, {}, "other", "2")
    assert torch.isfinite(sample(both, other, other, tiny)).all()


@pytest.mark.hosts
def test_the_guard_costs_no_batch_and_no_bit(pack, tiny, model):
    patched, positive, negative = applied(pack, tiny, model, weights=up_weights(tiny))
    guarded = sample(patched, positive, negative, tiny)
    seen = calls_of(model)
    assert torch.equal(sample(patched, free(positive), free(negative), tiny), guarded)
    assert torch.equal(sample(patched, positive, negative, tiny), guarded)
    assert seen == [2] * 4, "two terms a step in one call, with and without"
    again = applied(pack, tiny, model, weights=up_weights(tiny))   # as another Apply PGPIS of the same checkpoint
    assert torch.equal(sample(again[0], positive, again[2], tiny), guarded) and seen == [2] * 6


@pytest.mark.hosts
def test_a_lora_as_hook_stays_in_the_batch_and_is_the_lora(pack, tiny, model):
    import comfy.hooks
    patched, positive, negative = applied(pack, tiny, model, weights=up_weights(tiny))
    loaded, _ = lora_for(model)
    hooks, cache = comfy.hooks.create_hook_lora(loaded, 1.0, 0.0), {}
    for hook in hooks.hooks:   # the host reads a file; these patches are read already
        hook.need_weight_init = False
        hook.weights = loaded
    hooked = [comfy.hooks.set_hooks_for_conditioning(cond, hooks, cache=cache) for cond in (positive, negative)]
    with_lora = patched.clone()
    with_lora.add_patches(loaded, 1.0)
    seen = calls_of(model)
    found, expected = sample(patched, *hooked, tiny), sample(with_lora, positive, negative, tiny)
    assert float((found - expected).abs().max()) < 1e-4 * float(expected.abs().max()) and seen == [2] * 4
    assert not torch.equal(expected, sample(patched, positive, negative, tiny))


# --- what a checkpoint is known by --------------------------------------------------------------------------

def test_equal_files_are_one_checkpoint_and_another_training_is_another(host, parts, demo):
    again = host.pack("nodes.loaders").LoadCheckpoint.execute("cfld_tiny.safetensors").result[0]
    assert again.origin == parts.method.origin and len(again.origin.digest) == 64
    name = next(iter(again.checkpoint.unet_weights))
    trained = {**again.checkpoint.unet_weights, name: again.checkpoint.unet_weights[name] + 1e-3}
    other = dataclasses.replace(again, checkpoint=dataclasses.replace(again.checkpoint, unet_weights=trained))
    meta = dataclasses.replace(again.checkpoint.meta, step=1)
    later = dataclasses.replace(again, checkpoint=dataclasses.replace(again.checkpoint, meta=meta))
    assert len({one.origin.digest for one in (again, other, later)}) == 3


def test_apply_and_guider_sample_with_the_checkpoint_of_their_own_conditioning(host, pack, parts):
    import comfy.samplers
    patched, positive, negative, latent = pack.sampling.Apply.execute(parts.model, parts.cond).result
    guider, *_ = pack.sampling.GuiderNode.execute(parts.model, parts.cond, "default").result
    plain = comfy.samplers.CFGGuider(parts.model)
    plain.set_conds(positive, negative)
    noise = torch.zeros_like(latent["samples"])
    for one in (guider, plain):
        def run():
            return one.sample(noise, noise, comfy.samplers.sampler_object("euler"),  # noqa: B023
                              torch.tensor([5.0, 0.0]), disable_pbar=True)
        if one is guider:
            assert torch.isfinite(run()).all()
            continue
        with pytest.raises(ValueError, match=r"cfld_tiny.safetensors \(cfld on base demo\), the MODEL is one without"):
            run()


# --- swapped ------------------------------------------------------------------------------------------------

def test_swapped_conditionings_are_told_at_the_sampler(pack, parts, caplog):
    import comfy.samplers
    patched, positive, negative, latent = pack.sampling.Apply.execute(parts.model, parts.cond).result
    noise = torch.zeros_like(latent["samples"])

    def run(first, second):
        guider = comfy.samplers.CFGGuider(patched)
        guider.set_conds(first, second)
        guider.set_cfg(2.0)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            guider.sample(noise, noise, comfy.samplers.sampler_object("euler"), torch.tensor([5.0, 0.0]), disable_pbar=True)
        return "positive and negative are swapped" in caplog.text
    assert run(negative, positive)
    assert not run(positive, negative) and not run(positive, positive)


def test_a_notice_goes_to_the_node_that_runs(pack, monkeypatch):
    import server
    from comfy_execution.utils import CurrentNodeContext
    told = []
    monkeypatch.setattr(server.PromptServer.instance, "send_progress_text", lambda text, node: told.append((text, node)),
                        raising=False)
    with CurrentNodeContext("prompt", "17"):
        pack.notice.notice("mind the gap")
    assert told == [("mind the gap", "17")]
