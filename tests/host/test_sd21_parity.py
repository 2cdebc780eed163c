"""A UNet of Stable Diffusion 2.1's kind (v-prediction, heads by width, linear projections): native equals diffusers."""

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
    terms_of,
)


@pytest.fixture(scope="module")
def pack(host):
    return SimpleNamespace(binding=host.pack("nodes.binding.model"),
                           diffusers=host.pack("pgpis_models.unet.diffusers_binding"),
                           injections=host.pack("pgpis_models.unet.injections"),
                           guidance=host.pack("pgpis_models.unet.guidance"),
                           sites=host.pack("pgpis_models.unet.sites"))


@pytest.fixture(scope="module")
def wide(host, tmp_path_factory):
    """A base file of the kind, and what the loaders of host and diffusers make of it."""
    base = host.pack("pgpis_models.unet.base")
    sizes = base.BaseSizes((32, 64, 128, 128), cross_attention_dim=48, head_dim=16, prediction="v_prediction",
                           linear_projection=True, upcast_attention=True)
    path = tmp_path_factory.mktemp("sd21") / "base.safetensors"
    torch.manual_seed(0)
    base.save_unet(path, sizes.build(), sizes, step=0, data="none")
    unet = base.load_unet(path)[0].requires_grad_(False)
    return SimpleNamespace(unet=unet, model=host.pack("nodes.loaders").native_unet(path), widths=sizes.block_out_channels,
                           width=32, context=48, latent=(16, 11))  # 11 halves to 6, 3 and 2, as 44 does in FPDM


@pytest.fixture(scope="module")
def start(wide):
    g = torch.Generator().manual_seed(1)
    return noise(g, B, 4, *wide.latent, scale=1.0), torch.full((B,), 400.0)


def test_the_native_unet_has_the_kinds_own_attention(wide):
    attention = wide.model.model.diffusion_model.input_blocks[4][1].transformer_blocks[0].attn1
    assert attention.heads == 4 and attention.attn_precision == torch.float32
    assert wide.model.model.diffusion_model.input_blocks[1][1].use_linear
    assert wide.model.model.model_type.name == "V_PREDICTION"


@pytest.mark.parametrize("field", ["stem", "time_embedding", "all together"])
def test_native_prediction_equals_diffusers(field, pack, wide, start):
    rows = pack.injections.harmonise(terms_of(field, pack, wide), B)
    ours = native_predictions(pack, wide.model, rows, *start, wide.latent)
    error = relative(ours, diffusers_predictions(pack, wide.unet, rows, *start))
    print(f"parity {field}: {error:.1e}")
    assert error < TOLERANCE and relative(ours[2], ours[1]) > 0.01


def test_a_whole_v_prediction_run_equals_a_plain_loop(host, pack, wide):
    import comfy.samplers
    terms = terms_of("stem", pack, wide)
    chain = pack.guidance.Guidance((pack.guidance.Term("null", terms[0]), pack.guidance.Term("source+pose", terms[1], 1.7),
                                    pack.guidance.Term("all", terms[2], 2.3)))
    rows = pack.injections.harmonise(terms, B)
    guider = host.pack("nodes.binding.guider").ChainGuider(pack.binding.apply_injections(wide.model, rows, {}))
    guider.set_chain(chain, pack.binding.conditionings(rows, wide.latent))
    x = torch.randn(B, 4, *wide.latent, generator=torch.Generator().manual_seed(5))
    sigmas = comfy.samplers.calculate_sigmas(wide.model.model.model_sampling, "normal", 4)
    with torch.no_grad():
        ours = guider.sample(x, torch.zeros_like(x), comfy.samplers.sampler_object("euler"), sigmas, disable_pbar=True)
        binding = pack.diffusers.DiffusersBinding(wide.unet)
        theirs = euler(binding.denoiser(chain, B), x * (sigmas[0] ** 2 + 1) ** 0.5, sigmas, "V_PREDICTION") / 0.18215
        binding.release()
    assert relative(ours, theirs) < TOLERANCE
