"""Autoencoder files: what is saved comes back, and narrow autoencoders are exact at the host's width."""

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from safetensors.torch import load_file, save_file

from pgpis_models.unet.autoencoder import (
    HOST_VAE_WIDTH,
    LATENT_SCALE,
    decode_latents,
    encode_latents,
    load_vae,
    save_vae,
    taesd_from_tiny,
    tiny,
    tiny_from_taesd,
    trim_tiny,
)
from tests.helpers.tiny import shaken, write_base


@pytest.fixture(autouse=True)
def without_gradients():
    torch.manual_seed(0)
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("base") / "base.safetensors")


def test_a_narrow_autoencoder_padded_to_the_hosts_width_computes_the_same():
    narrow = shaken(tiny(12)).eval()
    state = taesd_from_tiny(narrow)
    assert state["taesd_encoder.0.weight"].shape == (HOST_VAE_WIDTH, 3, 3, 3)
    wide = tiny_from_taesd(state)
    assert isinstance(wide, AutoencoderTiny) and wide.encoder.layers[0].weight.shape[0] == HOST_VAE_WIDTH
    picture = torch.rand(2, 3, 32, 24) * 2 - 1
    latents = encode_latents(narrow, picture)
    assert latents.shape == (2, 4, 4, 3) and latents.std() > 0.01
    assert torch.allclose(encode_latents(wide, picture), latents, atol=1e-5)
    assert torch.allclose(decode_latents(wide, latents), decode_latents(narrow, latents), atol=1e-5)
    trimmed = trim_tiny(wide)
    assert trimmed.encoder.layers[0].weight.shape[0] == 12
    own, back = narrow.state_dict(), trimmed.state_dict()
    assert own.keys() == back.keys() and all(torch.equal(own[key], back[key]) for key in own)


def test_the_hosts_layout_is_that_of_its_taesd_classes():
    """Layer by layer as ComfyUI's class builds it: the decoder has a clamp first, so its numbers are one higher."""
    names = set(taesd_from_tiny(tiny(8)))
    assert {"vae_scale", "vae_shift", "taesd_encoder.0.weight", "taesd_encoder.14.bias", "taesd_decoder.1.weight",
            "taesd_decoder.19.bias", "taesd_encoder.1.conv.0.weight", "taesd_decoder.3.conv.4.bias"} <= names
    assert not any(name.startswith(("taesd_decoder.0.", "taesd_encoder.15.", "taesd_decoder.20.")) for name in names)


def test_only_channels_that_nothing_writes_to_are_trimmed():
    model = shaken(tiny(10))
    assert trim_tiny(model) is model
    state = {name: value.clone() for name, value in model.state_dict().items()}
    for value in state.values():   # channels 7, 8 and 9 are written by nothing but one bias
        if value.shape[0] == 10:
            value[7:] = 0
    state["decoder.layers.2.bias" if "decoder.layers.2.bias" in state else "decoder.layers.0.bias"][7] = 0.3
    model.load_state_dict(state)
    trimmed = trim_tiny(model)
    assert trimmed.encoder.layers[0].weight.shape[0] == 8
    latents, picture = torch.randn(1, 4, 3, 3), torch.rand(1, 3, 16, 16)
    assert torch.allclose(decode_latents(trimmed, latents), decode_latents(model, latents), atol=1e-6)
    assert torch.allclose(encode_latents(trimmed, picture), encode_latents(model, picture), atol=1e-6)
    for value in model.state_dict().values():
        value.zero_()
    assert trim_tiny(model).encoder.layers[0].weight.shape[0] == 1   # nothing at all is still a model


def test_an_autoencoder_file_comes_back_and_tells_the_host_its_scale(tmp_path):
    model = shaken(tiny(8)).half().float()
    save_vae(tmp_path / "vae.safetensors", model, step=3, data="mannequins")
    loaded = load_vae(tmp_path / "vae.safetensors")
    state = loaded.state_dict()
    assert not loaded.training and all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    stored = load_file(tmp_path / "vae.safetensors")
    assert stored["vae_scale"].item() == pytest.approx(LATENT_SCALE, abs=1e-7) and stored["vae_shift"].item() == 0
    assert stored["taesd_encoder.0.weight"].dtype == torch.float16


def test_a_full_autoencoder_uses_its_posteriors_mean_and_the_scale(tmp_path):
    torch.manual_seed(1)
    full = AutoencoderKL(block_out_channels=(32, 32, 32, 32), down_block_types=("DownEncoderBlock2D",) * 4,
                         up_block_types=("UpDecoderBlock2D",) * 4, layers_per_block=1, latent_channels=4).eval()
    full.save_pretrained(tmp_path / "sd" / "vae")
    picture = torch.rand(1, 3, 32, 16) * 2 - 1
    latents = encode_latents(load_vae(tmp_path / "sd"), picture)
    assert torch.allclose(latents, full.encode(picture).latent_dist.mean * 0.18215, atol=1e-6)
    assert latents.shape == (1, 4, 4, 2)
    expected = (full.decode(latents / 0.18215).sample / 2 + 0.5).clamp(0, 1)
    assert torch.allclose(decode_latents(load_vae(tmp_path / "sd"), latents), expected, atol=1e-6)


def test_files_of_another_kind_are_not_taken_for_an_autoencoder(tmp_path, base):
    for name, text in ((base, "is not an autoencoder in TAESD layout: .* keys missing .*taesd|not an autoencoder"),
                       (tmp_path / "text.safetensors", "not a whole safetensors file")):
        if not name.exists():
            name.write_text("no")
        with pytest.raises(ValueError, match=text):
            load_vae(name)
    state = taesd_from_tiny(tiny(8))
    del state["taesd_decoder.19.bias"]
    save_file(state | {"taesd_decoder.99.bias": torch.zeros(3)}, tmp_path / "vae.safetensors")
    with pytest.raises(ValueError, match="1 keys missing: decoder.layers.18.bias; 1 keys unexpected: decoder.layers.98"):
        load_vae(tmp_path / "vae.safetensors")
