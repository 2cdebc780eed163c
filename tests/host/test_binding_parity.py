"""The native MODEL and the diffusers UNet give the same prediction for the same weights and injections."""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace

import pytest
import torch

TOLERANCE = 1e-4  # of the largest value; 1e-6 is usual
B = 2             # rows per guidance term


@pytest.fixture(scope="module")
def pack(host):
    return SimpleNamespace(binding=host.pack("nodes.binding.model"),
                           diffusers=host.pack("pgpis_models.unet.diffusers_binding"),
                           injections=host.pack("pgpis_models.unet.injections"),
                           guidance=host.pack("pgpis_models.unet.guidance"),
                           sites=host.pack("pgpis_models.unet.sites"))


@pytest.fixture(scope="module")
def models(tiny):
    unet = tiny.unet()
    return SimpleNamespace(unet=unet, model=tiny.model(unet))


class TinyControl(torch.nn.Module):
    """A control network of random convolutions: 12 skips and a middle from the sample, the time and one input."""

    def __init__(self, widths):
        super().__init__()
        channels = [widths[0]] * 4 + [widths[1]] * 3 + [widths[2]] * 3 + [widths[3]] * 2
        levels = [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
        self.levels = [*levels, 3]
        self.convs = torch.nn.ModuleList(torch.nn.Conv2d(5, c, 3, padding=1) for c in [*channels, widths[3]])
        self.calls = 0

    def forward(self, sample, timestep, hint):
        self.calls += 1
        x = torch.cat([sample * timestep.view(-1, 1, 1, 1) / 1000, hint], 1)
        out = []
        for level, conv in zip(self.levels, self.convs, strict=True):
            y = x
            for _ in range(level):
                y = y[:, :, ::2, ::2]
            out.append(0.3 * conv(y))
        return out[:12], out[12]


def noise(generator, *shape, scale=0.5):
    return torch.randn(*shape, generator=generator) * scale


def terms_of(field, pack, tiny, batch=B):
    """Three guidance terms in which `field` is present, differently, and for some fields absent in the first."""
    g = torch.Generator().manual_seed(7)
    i, sites = pack.injections, pack.sites.SITES
    h, w = tiny.latent
    grid = lambda level: (-(-h // 2**level), -(-w // 2**level))  # noqa: E731  the UNet rounds up
    width = {name: tiny.widths[site.level] for name, site in sites.items()}
    size = {name: grid(site.level) for name, site in sites.items()}
    tokens = {name: s[0] * s[1] for name, s in size.items()}
    base = noise(g, 1, 5, tiny.context)
    plain = i.everywhere(base)
    ups = ("up.1.0", "up.2.1", "up.3.2", "mid.0", "down.0.1")
    torch.manual_seed(9)   # each call gives the same network
    control = TinyControl(tiny.widths).requires_grad_(False)
    all_fields = {
        "context": lambda k: {"context": i.everywhere(noise(g, batch, 5, tiny.context))},
        "context per stage": lambda k: {"context": {s: noise(g, batch, n, tiny.context) for s, n in
                                                    (("down", 3), ("mid", 4), ("up", 3))}},
        "context per site": lambda k: {"context": {**plain, **{s: noise(g, batch, 6, tiny.context) for s in ups}}},
        "token counts": lambda k: {"context": i.everywhere(noise(g, batch, 2 + 3 * k, tiny.context))},
        "extra_attention": lambda k: {"context": plain, "extra_attention": {} if k == 0 else {s: i.ExtraAttention(
            noise(g, batch, 4, tiny.context), noise(g, width[s], tiny.context), noise(g, width[s], tiny.context), 0.5 * k)
            for s in ups}},
        "query_bias": lambda k: {"context": plain, "query_bias": {} if k == 0 else {
            s: noise(g, batch, tokens[s], width[s], scale=2.0) for s in ups}},
        "self_reference": lambda k: {"context": plain, "self_reference": {} if k == 0 else {
            s: noise(g, batch, tokens[s], width[s], scale=2.0) for s in ups}},
        "self_reference everywhere": lambda k: {"context": plain, "self_reference": {
            s: noise(g, batch, tokens[s], width[s], scale=2.0) for s in sites}},
        "self_reference of two": lambda k: {"context": plain, "self_reference_parts": 2, "self_reference": {
            s: noise(g, batch, 2 * tokens[s], width[s], scale=2.0) for s in sites} if k else {}},
        "stem": lambda k: {"context": plain, "stem": None if k == 0 else noise(g, batch, tiny.width, h, w)},
        "down_residuals": lambda k: {"context": plain, "down_residuals": () if k == 0 else tuple(
            noise(g, batch, tiny.widths[n], *grid(n)) for n in range(4))},
        "time_embedding": lambda k: {"context": plain, "time_embedding": None if k == 0 else
                                     noise(g, batch, 4 * tiny.width)},
        "control": lambda k: {"context": plain, "control": None if k == 0 else
                              i.Control(control, {"hint": noise(g, batch, 1, h, w)}, 0.8)},
    }
    if field == "nothing":
        return [i.Injections(context=plain) for _ in range(3)]
    chosen = [name for name in all_fields if not name.startswith(("context", "self_reference "))] \
        if field == "all together" else [field]
    result = []
    for k in range(3):
        values = {}
        for name in chosen:
            made = all_fields[name](k)
            values |= made if "context" not in values or name == "token counts" else \
                {key: value for key, value in made.items() if key != "context"}
        result.append(i.Injections(**values))
    return result


FIELDS = ["context", "context per stage", "context per site", "token counts", "extra_attention", "query_bias",
          "self_reference", "self_reference everywhere", "self_reference of two", "stem", "down_residuals", "time_embedding",
          "control",
          pytest.param("all together", marks=pytest.mark.hosts)]


@torch.no_grad()
def native_predictions(pack, model, rows, x, t, latent, weights=None, separate=False, order=None):
    """The UNet's raw output for each term, through the host's own batching of conds."""
    import comfy.model_management
    import comfy.samplers

    patched = pack.binding.apply_injections(model, rows, weights or {})
    conds = pack.binding.conditionings(rows, latent)
    guider = comfy.samplers.CFGGuider(patched)
    order = order or range(len(conds))
    outputs = {}

    def sample(model_wrap, sigmas, extra_args, callback, noise, *rest, **kwargs):
        options = extra_args["model_options"]
        sigma = model_wrap.inner_model.model_sampling.sigma(t)
        seen = []
        def spy(executor, *args, **kw):
            seen.append(executor(*args, **kw))
            return seen[-1]
        import comfy.patcher_extension as extension
        extension.add_wrapper_with_key(extension.WrappersMP.DIFFUSION_MODEL, "spy", spy, options, is_model_options=True)
        x_in = x * (sigma[0] ** 2 + 1) ** 0.5  # EPS.calculate_input divides by this
        batches = [[index] for index in order] if separate else [list(order)]
        for batch in batches:
            before = len(seen)
            conds = [model_wrap.conds[str(n)] for n in batch]
            comfy.samplers.calc_cond_batch(model_wrap.inner_model, conds, x_in, sigma, options)
            chunks = torch.cat(seen[before:]).chunk(len(batch))
            if len(seen) - before == 1:
                chunks = chunks[::-1]  # the host stacks the last cond first
            outputs.update(zip(batch, chunks, strict=True))
        return torch.zeros_like(noise)

    guider.inner_set_conds({str(n): cond for n, cond in enumerate(conds)})
    sampler = SimpleNamespace(sample=sample)
    guider.sample(torch.zeros_like(x), torch.zeros_like(x), sampler, torch.tensor([1.0, 0.0]), disable_pbar=True)
    comfy.model_management.unload_all_models()
    return torch.stack([outputs[n] for n in range(len(conds))])


def diffusers_predictions(pack, unet, rows, x, t, strength=0.0):
    binding = pack.diffusers.DiffusersBinding(unet)
    try:
        with torch.no_grad():
            k = len(rows.terms)
            first = ([row // B * B for row in range(k * B)], strength) if strength else None
            return torch.stack(binding(x.repeat(k, 1, 1, 1), t.repeat(k), rows.stacked(), rows.control,
                                       first_frame=first).chunk(k))
    finally:
        binding.release()


def relative(a, b):
    return float((a - b).abs().max() / b.abs().max())


@pytest.fixture(scope="module")
def start(tiny):
    g = torch.Generator().manual_seed(1)
    return noise(g, B, 4, *tiny.latent, scale=1.0), torch.full((B,), 400.0)


@pytest.fixture(scope="module")
def of_diffusers(pack, tiny, models, start):
    """field -> what diffusers predicts of its terms, computed once."""
    @cache
    def predicted(field):
        return diffusers_predictions(pack, models.unet, pack.injections.harmonise(terms_of(field, pack, tiny), B), *start)
    return predicted


@pytest.fixture(scope="module")
def without(pack, tiny, models, start):
    """What the host predicts without any field but the context."""
    nothing = pack.injections.harmonise(terms_of("nothing", pack, tiny), B)
    return native_predictions(pack, models.model, nothing, *start, tiny.latent)


@pytest.mark.parametrize("separate", [False, True], ids=["one batch", "split batch"])
@pytest.mark.parametrize("field", FIELDS)
def test_native_prediction_equals_diffusers(field, separate, pack, tiny, models, start, of_diffusers, without,
                                            record_property):
    rows = pack.injections.harmonise(terms_of(field, pack, tiny), B)
    ours = native_predictions(pack, models.model, rows, *start, tiny.latent, separate=separate)
    theirs = of_diffusers(field)
    error = relative(ours, theirs)
    record_property("relative error", error)
    print(f"parity {field}: {error:.1e}")
    assert error < TOLERANCE
    assert relative(ours[2], without[2]) > 0.01, f"{field} does not change the output, so this test sees nothing"
    assert relative(ours[2], ours[1]) > 0.01, f"{field} does not differ between terms"


def test_replaced_weights_give_the_prediction_of_a_unet_with_those_weights(pack, tiny, models, start):
    rows = pack.injections.harmonise(terms_of("query_bias", pack, tiny), B)
    names = [name for name in models.unet.state_dict() if "attn2.to_" in name or name.startswith(("conv_in", "mid_block"))]
    other = tiny.unet(1).state_dict()
    weights = {name: other[name] for name in names}
    ours = native_predictions(pack, models.model, rows, *start, tiny.latent, weights)
    before = pack.diffusers.swap_weights(models.unet, weights)
    theirs = diffusers_predictions(pack, models.unet, rows, *start)
    pack.diffusers.swap_weights(models.unet, before)
    error = relative(ours, theirs)
    print(f"parity unet_weights: {error:.1e}")
    assert error < TOLERANCE
    assert relative(ours, native_predictions(pack, models.model, rows, *start, tiny.latent)) > 0.01


@pytest.mark.parametrize("order", [[2, 0, 1], [1, 2, 0]])
def test_the_order_of_conds_in_a_batch_does_not_matter(order, pack, tiny, models, start):
    rows = pack.injections.harmonise(terms_of("all together", pack, tiny), B)
    ours = native_predictions(pack, models.model, rows, *start, tiny.latent, order=order)
    assert relative(ours, diffusers_predictions(pack, models.unet, rows, *start)) < TOLERANCE


def test_a_pair_encoded_once_serves_a_larger_batch_of_latents(pack, tiny, models, start):
    terms = terms_of("all together", pack, tiny, batch=1)
    rows, wide = pack.injections.harmonise(terms, 1), pack.injections.harmonise(terms, B)
    ours = native_predictions(pack, models.model, rows, *start, tiny.latent)
    assert relative(ours, diffusers_predictions(pack, models.unet, wide, *start)) < TOLERANCE


def test_a_half_precision_model_runs_and_stays_close(pack, tiny, models, start):
    rows = pack.injections.harmonise(terms_of("all together", pack, tiny), B)
    ours = native_predictions(pack, tiny.model(models.unet, torch.float16), rows, *start, tiny.latent)
    error = relative(ours.float(), diffusers_predictions(pack, models.unet, rows, *start))
    print(f"float16 error: {error:.1e}")
    assert error < 0.02


@pytest.mark.parametrize("name", ["attention_basic", "attention_sub_quad", "attention_split", "attention_pytorch"])
def test_every_attention_of_the_host_takes_our_key_counts(name, host, pack, monkeypatch):
    import comfy.ldm.modules.attention as attention
    ours = host.pack("nodes.binding.attention")
    monkeypatch.setattr(ours, "optimized_attention_masked", getattr(attention, name))
    g = torch.Generator().manual_seed(3)
    q, k, v = noise(g, 3, 20, 32), noise(g, 3, 7, 32), noise(g, 3, 7, 32)
    count = torch.tensor([2, 7, 5])
    site = pack.sites.SITES["mid.0"]
    call = ours.Call({"context_count.mid": count}, (1, 1))
    out = ours.CrossAttention(site)(q, k, v, {"n_heads": 4, "pgpis": call})
    expected = torch.cat([host.pack("pgpis_models.unet.attention").attend(q[n:n + 1], k[n:n + 1, :c], v[n:n + 1, :c], 4)
                          for n, c in enumerate(count.tolist())])
    assert relative(out, expected) < 1e-5


# --- whole runs ---------------------------------------------------------------------------------------------

def euler(denoise, x, sigmas, prediction):
    """k-diffusion's Euler sampler written out: x0 from eps or v, d = (x - x0) / sigma. sigmas end in 0."""
    from math import log
    table = [((1 - a) / a) ** 0.5 for a in torch.cumprod(
        1 - torch.linspace(0.00085 ** 0.5, 0.012 ** 0.5, 1000, dtype=torch.float64) ** 2, 0).tolist()]
    for sigma, following in zip(sigmas.tolist()[:-1], sigmas.tolist()[1:], strict=True):
        t = min(range(1000), key=lambda n: abs(log(table[n]) - log(sigma)))
        out = denoise(x / (sigma ** 2 + 1) ** 0.5, t)
        x0 = x - sigma * out if prediction == "EPS" else x / (sigma ** 2 + 1) - out * sigma / (sigma ** 2 + 1) ** 0.5
        x = x + (x - x0) / sigma * (following - sigma)
    return x


@pytest.mark.parametrize("prediction", ["EPS", "V_PREDICTION"])
def test_a_whole_sampling_run_equals_a_plain_loop(prediction, host, pack, tiny, models):
    import comfy.samplers
    terms = terms_of("all together", pack, tiny)
    chain = pack.guidance.Guidance((pack.guidance.Term("null", terms[0]), pack.guidance.Term("pose", terms[1], 1.7),
                                    pack.guidance.Term("full", terms[2], 2.3)))
    rows = pack.injections.harmonise(terms, B)
    model = tiny.model(models.unet, prediction=prediction)
    guider = host.pack("nodes.binding.guider").ChainGuider(pack.binding.apply_injections(model, rows, {}))
    guider.set_chain(chain, pack.binding.conditionings(rows, tiny.latent))
    start = torch.randn(B, 4, *tiny.latent, generator=torch.Generator().manual_seed(5))
    sigmas = comfy.samplers.calculate_sigmas(model.model.model_sampling, "normal", 6)
    with torch.no_grad():
        ours = guider.sample(start, torch.zeros_like(start), comfy.samplers.sampler_object("euler"), sigmas,
                             disable_pbar=True)
        binding = pack.diffusers.DiffusersBinding(models.unet)
        first = start * (sigmas[0] ** 2 + 1) ** 0.5  # the host starts a full denoising at the variance-preserving scale
        theirs = euler(binding.denoiser(chain, B), first, sigmas, prediction) / 0.18215
        binding.release()
    error = relative(ours, theirs)
    print(f"sampling run {prediction}: {error:.1e}")
    assert error < TOLERANCE


def test_cfg_of_the_last_term_against_the_first_equals_the_chain_with_equal_weights(host, pack, tiny, models):
    import comfy.samplers
    terms = terms_of("all together", pack, tiny)
    guidance = pack.guidance
    chain = guidance.Guidance((guidance.Term("null", terms[0]), guidance.Term("pose", terms[1], 2.0),
                               guidance.Term("full", terms[2], 2.0)))
    assert [term.name for term in chain.needed().terms] == ["null", "full"]
    start = torch.randn(B, 4, *tiny.latent, generator=torch.Generator().manual_seed(5))
    sigmas, results = torch.tensor([5.0, 1.0, 0.0]), []
    all_rows, ends = pack.injections.harmonise(terms, B), pack.injections.harmonise([terms[0], terms[2]], B)
    with torch.no_grad():
        guider = host.pack("nodes.binding.guider").ChainGuider(pack.binding.apply_injections(models.model, all_rows, {}))
        guider.set_chain(chain, pack.binding.conditionings(all_rows, tiny.latent))
        plain = comfy.samplers.CFGGuider(pack.binding.apply_injections(models.model, ends, {}))
        negative, positive = pack.binding.conditionings(ends, tiny.latent)
        plain.set_conds(positive, negative)
        plain.set_cfg(2.0)
        for one in (guider, plain):
            results.append(one.sample(start, torch.zeros_like(start), comfy.samplers.sampler_object("euler"), sigmas,
                                      disable_pbar=True))
    assert relative(*results) < TOLERANCE


def test_references_of_unequal_numbers_of_photos_are_not_mixed(pack, tiny, models, start):
    i, terms = pack.injections, terms_of("self_reference of two", pack, tiny)
    terms[1] = i.Injections(context=terms[1].context, self_reference=terms[1].self_reference)
    with pytest.raises(ValueError, match="reference features of 1 and 2 photos in one call"):
        native_predictions(pack, models.model, i.harmonise(terms, B), *start, tiny.latent)


@pytest.mark.parametrize("field, strength, separate, order", [
    ("nothing", 1.0, False, "before"), ("self_reference", 1.0, False, "after"), ("self_reference", 0.4, True, "before"),
    ("self_reference", 2.0, False, "after"), ("self_reference of two", 2.0, True, "before"),
    ("self_reference of two", 1.3, False, "after"), ("self_reference", 1.3, False, "before"),
    ("self_reference of two", 0.4, False, "after"), ("self_reference of two", 0.4, False, "before"),
    pytest.param("all together", 0.4, False, "before", marks=pytest.mark.hosts)])
def test_the_first_frame_is_held_alike(field, strength, separate, order, host, pack, tiny, models, start, of_diffusers):
    """Whether the MODEL holds it before or after a method is applied, and whether terms run together or one by one."""
    hold = host.pack("nodes.binding.first_frame").hold_first_frame
    rows = pack.injections.harmonise(terms_of(field, pack, tiny), B)
    first = models.model if order == "before" else pack.binding.apply_injections(models.model, rows, {})
    model = hold(first, strength)
    ours = native_predictions(pack, model, rows, *start, tiny.latent, separate=separate)
    theirs = diffusers_predictions(pack, models.unet, rows, *start, strength)
    assert relative(ours, theirs) < TOLERANCE
    plain = of_diffusers(field)
    assert relative(ours[:, :1], plain[:, :1]) < TOLERANCE < 1e-3 < relative(ours[:, 1:], plain[:, 1:])
    off = native_predictions(pack, hold(model, 0.0), rows, *start, tiny.latent)
    assert relative(off, plain) < TOLERANCE
