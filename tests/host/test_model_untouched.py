"""The pack on a MODEL leaves the MODEL as it was, and composes with LoRAs, ControlNets and other packs' patches."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

STEPS = torch.tensor([5.0, 1.0, 0.0])


@pytest.fixture(scope="module")
def pack(host):
    return SimpleNamespace(binding=host.pack("nodes.binding.model"), attention=host.pack("nodes.binding.attention"),
                           injections=host.pack("pgpis_models.unet.injections"))


@pytest.fixture
def model(tiny):
    return tiny.model()


def injections_of(pack, tiny, seed=0, scale=1.0, batch=1, **more):
    g = torch.Generator().manual_seed(seed)
    h, w = tiny.latent
    return pack.injections.Injections(
        context=pack.injections.everywhere(torch.randn(batch, 5, tiny.context, generator=g)),
        query_bias={f"up.3.{n}": scale * torch.randn(batch, h * w, tiny.width, generator=g) for n in range(3)},
        down_residuals=tuple(scale * torch.randn(batch, tiny.widths[n], h >> n, w >> n, generator=g) for n in range(2)),
        **more)


def applied(pack, tiny, model, seed=0, weights=None, **more):
    """(patched MODEL, positive CONDITIONING, negative CONDITIONING)."""
    rows = pack.injections.harmonise([injections_of(pack, tiny, 99, 0.0), injections_of(pack, tiny, seed, **more)], 1)
    negative, positive = pack.binding.conditionings(rows, tiny.latent)
    return pack.binding.apply_injections(model, rows, weights or {}), positive, negative


def text(tiny, seed=50):
    return [[torch.randn(1, 7, tiny.context, generator=torch.Generator().manual_seed(seed)), {}]]


def sample(model, positive, negative, tiny, cfg=2.0, batch=1):
    import comfy.samplers
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, negative)
    guider.set_cfg(cfg)
    start = torch.randn(batch, 4, *tiny.latent, generator=torch.Generator().manual_seed(11))
    with torch.inference_mode():
        return guider.sample(start, torch.zeros_like(start), comfy.samplers.sampler_object("euler"), STEPS,
                             disable_pbar=True)


def state_of(model):
    import comfy.model_management
    comfy.model_management.unload_all_models()
    return {name: value.clone() for name, value in model.model.state_dict().items()}


def up_weights(tiny, seed=1):
    return {name: value for name, value in tiny.unet(seed).state_dict().items()
            if name.startswith("up_blocks") and ("attn2.to_k" in name or "attn2.to_v" in name)}


def lora_for(model, strength=1.0, scale=0.2):
    """A LoRA on the up blocks' cross-attention keys, in the host's own form, and the weights it changes by how much."""
    import comfy.weight_adapter
    g = torch.Generator().manual_seed(4)
    loaded, deltas = {}, {}
    for key, value in model.model.state_dict().items():
        if "output_blocks" in key and key.endswith("attn2.to_k.weight"):
            up, down = scale * torch.randn(value.shape[0], 2, generator=g), torch.randn(2, value.shape[1], generator=g)
            loaded[key] = comfy.weight_adapter.LoRAAdapter(set(), (up, down, 2.0, None, None, None))
            deltas[key] = strength * (up @ down)
    return loaded, deltas


@pytest.mark.hosts
def test_weights_and_results_are_bit_identical_after_the_node_is_removed(pack, tiny, model):
    before, picture = state_of(model), sample(model, text(tiny), text(tiny, 51), tiny)
    patched, positive, negative = applied(pack, tiny, model, weights=up_weights(tiny))
    assert not torch.equal(sample(patched, positive, negative, tiny), picture)
    after = state_of(model)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(sample(model, text(tiny), text(tiny, 51), tiny), picture)
    assert not model.patches and not model.wrappers
    assert not model.model_options["transformer_options"].get("patches")


@pytest.mark.hosts
def test_another_conditioning_on_the_patched_model_runs_as_unpatched(pack, tiny, model):
    patched, positive, _ = applied(pack, tiny, model)
    plain = sample(model, text(tiny), text(tiny, 51), tiny)
    assert torch.equal(sample(patched, text(tiny), text(tiny, 51), tiny), plain)
    mixed = sample(patched, positive, text(tiny, 51), tiny)  # ours and an ordinary one under one guidance
    assert torch.isfinite(mixed).all() and not torch.equal(mixed, plain)


def test_zero_injections_are_bit_identical_to_none(pack, tiny, model):
    rows = pack.injections.harmonise([injections_of(pack, tiny, scale=0.0)], 1)
    patched, (ours,) = pack.binding.apply_injections(model, rows, {}), pack.binding.conditionings(rows, tiny.latent)
    theirs = [[ours[0][0], {}]]
    assert torch.equal(sample(patched, ours, ours, tiny), sample(model, theirs, theirs, tiny))


def test_two_applications_to_one_model_do_not_interfere(pack, tiny, model):
    first = applied(pack, tiny, model, 1, up_weights(tiny, 1))
    alone = sample(*first, tiny)
    second = applied(pack, tiny, model, 2, up_weights(tiny, 2))
    other = sample(*second, tiny)
    assert torch.equal(sample(*first, tiny), alone)
    assert torch.equal(sample(*second, tiny), other) and not torch.equal(alone, other)


def test_applying_twice_in_a_row_adds_nothing_twice(pack, tiny, model):
    weights = up_weights(tiny)
    once, positive, negative = applied(pack, tiny, model, 1, weights)
    twice, *_ = applied(pack, tiny, once, 1, dict(weights))
    assert torch.equal(sample(twice, positive, negative, tiny), sample(once, positive, negative, tiny))
    with pytest.raises(ValueError, match="another PGPIS checkpoint"):
        applied(pack, tiny, once, 1, up_weights(tiny, 2))


@pytest.mark.hosts
@pytest.mark.parametrize("order", ["before", "after"])
def test_a_lora_adds_to_the_replaced_weights(order, pack, tiny, model):
    import comfy.model_management
    import comfy.utils
    weights = up_weights(tiny)
    loaded, deltas = lora_for(model, 0.7)
    if order == "before":
        model = model.clone()
        model.add_patches(loaded, 0.7)
        patched, positive, negative = applied(pack, tiny, model, weights=weights)
    else:
        patched, positive, negative = applied(pack, tiny, model, weights=weights)
        patched = patched.clone()
        patched.add_patches(loaded, 0.7)
    comfy.model_management.load_models_gpu([patched])
    names = comfy.utils.unet_to_diffusers(model.model.model_config.unet_config)
    native = {f"diffusion_model.{names[name]}": value for name, value in weights.items()}
    state = patched.model.state_dict()
    touched = 0
    for key, delta in deltas.items():
        assert torch.allclose(state[key], native[key] + delta, atol=1e-6)
        touched += key in native
    assert touched == 9
    sample(patched, positive, negative, tiny)
    comfy.model_management.unload_all_models()


def tiny_controlnet(tiny, model):
    import comfy.cldm.cldm
    import comfy.controlnet
    import comfy.model_management
    import comfy.ops
    config = {key: value for key, value in model.model.model_config.unet_config.items()
              if key not in ("out_channels", "transformer_depth_output", "image_size", "disable_unet_model_creation")}
    net = comfy.cldm.cldm.ControlNet(image_size=32, hint_channels=3, operations=comfy.ops.manual_cast, **config)
    g = torch.Generator().manual_seed(8)
    for value in net.parameters():
        torch.nn.init.normal_(value, std=0.05, generator=g)
    control = comfy.controlnet.ControlNet(net, load_device=comfy.model_management.get_torch_device(), manual_cast_dtype=None)
    h, w = tiny.latent
    return control.copy().set_cond_hint(torch.rand(1, 3, 8 * h, 8 * w, generator=g), 0.9)


def with_control(cond, control):
    return [[tokens, {**values, "control": control, "control_apply_to_uncond": False}] for tokens, values in cond]


def test_lora_controlnet_and_pack_run_together_on_one_model(pack, tiny, model):
    control = tiny_controlnet(tiny, model)
    loaded, _ = lora_for(model)
    patched, positive, negative = applied(pack, tiny, model, weights=up_weights(tiny))
    with_lora = patched.clone()
    with_lora.add_patches(loaded, 1.0)
    results = {"pack": sample(patched, positive, negative, tiny), "and LoRA": sample(with_lora, positive, negative, tiny),
               "and ControlNet": sample(patched, with_control(positive, control), with_control(negative, control), tiny),
               "all three": sample(with_lora, with_control(positive, control), with_control(negative, control), tiny)}
    for name, result in results.items():
        assert torch.isfinite(result).all(), name
        assert not any(torch.equal(result, other) for key, other in results.items() if key != name), name


def test_our_control_network_adds_to_a_users_controlnet_without_changing_its_tensors(host, pack):
    control, passport = host.pack("nodes.binding.control"), host.pack("nodes.binding.passport")
    options = {"cond_or_uncond": [1, 0], passport.CARRIED: {"": "a checkpoint"}}   # as of a MODEL of ours
    theirs = {"input": [torch.ones(1)], "output": [torch.full((2,), 0.5)] * 11 + [None], "middle": [torch.ones(2)]}
    rows = {"pgpis.control_on": torch.tensor([1, 0]), "pgpis.passport": passport.Passport((2, 2))}

    def merged(previous, cond=rows, strength=1.0, sigma=1.0):
        ours = control.InjectedControl(lambda sample, time: ([torch.full((1,), float(n)) for n in range(12)],
                                                             torch.full((1,), 100.0)))
        ours.strength, ours.timestep_range = strength, (10.0, 0.5)
        ours.model_sampling_current = SimpleNamespace(calculate_input=lambda t, x: x, timestep=lambda t: t)
        if previous is not None:
            ours.set_previous_controlnet(SimpleNamespace(get_control=lambda *args: previous))
        with torch.no_grad():   # as the host runs it
            return ours.get_control(torch.zeros(2, 4, 2, 2), torch.full((2,), sigma), cond, 2, options)
    both = merged(theirs)
    assert [v.tolist() for v in both["output"]] == [[n + 0.5, 0.5] for n in range(11)] + [[11.0, 0.0]]
    assert both["middle"][0].tolist() == [101.0, 1.0] and both["input"] == theirs["input"]
    assert all(v.tolist() == [0.5, 0.5] for v in theirs["output"][:11]) and theirs["middle"][0].tolist() == [1.0, 1.0]
    assert merged(None, strength=0.5)["middle"][0].tolist() == [50.0, 0.0]
    assert merged(theirs, sigma=0.4) is theirs and merged(None, sigma=20.0) is None, "outside of its share of the sampling"
    assert merged(theirs, rows | {"pgpis.control_on": torch.tensor([0, 0])}) is theirs, "no row has a pose"
    assert merged(theirs, {}) is theirs, "a CONDITIONING that is not ours"


class OtherPack:
    """The convention of IPAdapter_plus: an object on attn2's blocks to which later comers add themselves."""

    def __init__(self, callback, **kwargs):
        self.callbacks = [(callback, kwargs)]

    def add(self, callback, **kwargs):
        self.callbacks.append((callback, kwargs))

    def __call__(self, q, k, v, extra_options):
        from comfy.ldm.modules.attention import optimized_attention
        out = optimized_attention(q, k, v, extra_options["n_heads"])
        for callback, kwargs in self.callbacks:
            out = out + callback(out, q, k, v, extra_options, **kwargs)
        return out


def patch_by_convention(model, key, **kwargs):
    model = model.clone()
    replaced = model.model_options["transformer_options"].setdefault("patches_replace", {}).setdefault("attn2", {})
    if key not in replaced:
        replaced[key] = OtherPack(add_mean_of_query, **kwargs)
    else:
        replaced[key].add(add_mean_of_query, **kwargs)
    return model


def add_mean_of_query(out, q, k, v, extra_options, weight, sigma_start=999.0, sigma_end=0.0):
    return weight * q.mean(1, keepdim=True).expand_as(out)


@pytest.mark.hosts
@pytest.mark.parametrize("key", [("output", 9), ("output", 9, 0)])
def test_an_adapter_by_convention_composes_before_and_after(key, pack, tiny, model):
    before, positive, negative = applied(pack, tiny, patch_by_convention(model, key, weight=0.8))
    reference = sample(before, positive, negative, tiny)
    alone, *_ = applied(pack, tiny, model)
    assert not torch.equal(sample(alone, positive, negative, tiny), reference)
    if len(key) == 2:
        after = patch_by_convention(alone, key, weight=0.8)
        assert torch.allclose(sample(after, positive, negative, tiny), reference, atol=1e-5)
        out_of_range = patch_by_convention(alone, key, weight=0.8, sigma_start=0.01, sigma_end=0.0)
        assert torch.equal(sample(out_of_range, positive, negative, tiny), sample(alone, positive, negative, tiny))
    assert torch.equal(sample(model, text(tiny), text(tiny), tiny), sample(tiny.model(), text(tiny), text(tiny), tiny))


@pytest.mark.hosts
def test_an_adapter_on_a_clone_does_not_reach_the_model_that_it_was_cloned_from(pack, tiny, model):
    """A node runs again on the MODEL that the host keeps: clones share objects since 0.14."""
    cached, positive, negative = applied(pack, tiny, model)
    alone = sample(cached, positive, negative, tiny)
    first, *others = (sample(patch_by_convention(cached, ("output", 9), weight=0.8), positive, negative, tiny)
                      for _ in range(3))
    assert all(torch.equal(first, other) for other in others) and not torch.equal(first, alone)
    assert torch.equal(sample(cached, positive, negative, tiny), alone)
    twice = patch_by_convention(patch_by_convention(cached, ("output", 9), weight=0.4), ("output", 9), weight=0.4)
    both = sample(twice, positive, negative, tiny)
    assert float((both - first).abs().max()) < 1e-5 * float(first.abs().max()), "both adapters of a chain act"


def test_key_counts_hold_under_another_packs_replacement(pack, tiny, model):
    short = pack.injections.Injections(context=pack.injections.everywhere(injections_of(pack, tiny).context["up"][:, :2]))
    rows = pack.injections.harmonise([short, pack.injections.Injections(context=injections_of(pack, tiny).context)], 1)
    conds = pack.binding.conditionings(rows, tiny.latent)
    plain = pack.binding.apply_injections(model, rows, {})
    under = pack.binding.apply_injections(patch_by_convention(model, ("output", 9), weight=0.0), rows, {})
    assert torch.allclose(sample(plain, *conds, tiny), sample(under, *conds, tiny), atol=1e-5)


@pytest.mark.hosts
def test_a_replacement_put_over_ours_is_an_error_that_says_so(pack, tiny, model):
    patched, positive, negative = applied(pack, tiny, model)
    patched.set_model_attn2_replace(OtherPack(add_mean_of_query, weight=1.0), "output", 9)
    with pytest.raises(ValueError, match="up.3.0.*OtherPack.*Put Apply PGPIS after"):
        sample(patched, positive, negative, tiny)


def test_latents_of_another_size_are_an_error_that_names_both(pack, tiny, model):
    patched, positive, negative = applied(pack, tiny, model)
    other = SimpleNamespace(latent=(24, 24))
    with pytest.raises(ValueError, match=r"12x16 \(a picture of 96x128\).*24x24 \(192x192\)"):
        sample(patched, positive, negative, other)


def test_a_batch_that_does_not_fit_is_an_error_that_names_both(pack, tiny, model):
    rows = pack.injections.harmonise([injections_of(pack, tiny, batch=3)], 3)
    patched, (cond,) = pack.binding.apply_injections(model, rows, {}), pack.binding.conditionings(rows, tiny.latent)
    with pytest.raises(ValueError, match="3 source and pose pairs.*2 latents"):
        sample(patched, cond, cond, tiny, batch=2)
    sample(patched, cond, cond, tiny, batch=3)


def test_a_model_of_another_width_is_an_error_that_names_both(pack, tiny, model):
    wrong = pack.injections.Injections(context=pack.injections.everywhere(torch.zeros(1, 5, 768)),
                                       query_bias={"up.3.0": torch.zeros(1, 192, 320)})
    rows = pack.injections.harmonise([wrong], 1)
    with pytest.raises(ValueError) as error:
        pack.binding.apply_injections(model, rows, {}, "cfld.safetensors (cfld on base sd15)")
    for word in ("cfld on base sd15", "768", "320", "widths (32, 64, 128, 128)", "Load the base model"):
        assert word in str(error.value)
    weights = {"up_blocks.3.attentions.0.transformer_blocks.0.attn2.to_k.weight": torch.zeros(320, 768),
               "no.such": torch.zeros(1)}
    good = pack.injections.harmonise([injections_of(pack, tiny)], 1)
    with pytest.raises(ValueError, match=r"2 of 2.*\(320, 768\), the MODEL has \(32, 64\).*no.such"):
        pack.binding.apply_injections(model, good, weights)
