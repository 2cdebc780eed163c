"""Base models as files: what is saved comes back, narrow autoencoders are exact at the host's width, and a fresh one
starts as a correct colour picture."""

import dataclasses
import json

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from safetensors.torch import load_file, save_file

from pgpis_models.noise.schedule import NoiseSchedule
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
from pgpis_models.unet.base import BaseSizes, load_unet, read_sizes, save_unet
from tests.helpers.tiny import SIZES, shaken, write_base, write_diffusers
from training.engine.config import AutoencoderConfig, DataConfig, TrainConfig
from training.world.autoencoder import AutoencoderTask, colour_identity


@pytest.fixture(autouse=True)
def without_gradients():
    torch.manual_seed(0)
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("base") / "base.safetensors")


# --- autoencoder --------------------------------------------------------------------------------------------

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
    assert not loaded.training and all(torch.equal(value, loaded.state_dict()[name])
                                       for name, value in model.state_dict().items())
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
    with pytest.raises(ValueError, match="1 keys missing .'decoder.layers.18.bias'., 1 unexpected .'decoder.layers.98.bias"):
        load_vae(tmp_path / "vae.safetensors")


def test_a_fresh_autoencoder_of_colour_identity_gives_the_mean_colour_back():
    """The latent is 3 (c - 0.75), which the decoder's clamp 3 tanh(z / 3) bends: a picture of one colour c comes back as
    0.75 + tanh(c - 0.75) in every pixel, near c for light colours, and never grey."""
    model = colour_identity(tiny(8)).eval()
    colours = torch.tensor([[0.75, 0.75, 0.75], [1.0, 0.6, 0.5], [0.9, 0.3, 0.7], [0.0, 1.0, 0.4]])
    pictures = colours[:, :, None, None].expand(-1, -1, 32, 48)
    latents = encode_latents(model, pictures * 2 - 1)
    assert torch.allclose(latents[:, :3], (3 * (colours - 0.75))[:, :, None, None].expand(-1, -1, 4, 6), atol=1e-5)
    decoded = model.decode(latents).sample / 2 + 0.5
    assert torch.allclose(decoded, 0.75 + torch.tanh(pictures - 0.75), atol=1e-5)
    assert (decoded - pictures).abs().max() < 0.12 and (decoded[1] - pictures[1]).abs().max() < 0.01


def test_colour_identity_shows_each_cell_its_own_mean():
    model = colour_identity(tiny(8)).eval()
    cells = torch.rand(1, 3, 2, 3) * 0.5 + 0.5
    fine = cells.repeat_interleave(8, 2).repeat_interleave(8, 3)
    fine = fine + 0.05 * (torch.arange(24) % 2 * 2 - 1)   # stripes of one pixel average out
    latents = encode_latents(model, fine * 2 - 1)
    assert torch.allclose(latents[:, :3], 3 * (cells - 0.75), atol=1e-5)


def test_sizes_that_no_autoencoder_file_can_have_are_refused_before_training():
    data = DataConfig(size=(64, 48))
    for settings, message in ((AutoencoderConfig(width=65), "width is 65; expected 4 to 64, the host's"),
                              (AutoencoderConfig(crop=56), "crop is 56; expected a multiple of 8 up to 48")):
        with pytest.raises(ValueError, match=message):
            AutoencoderTask(TrainConfig(data=data, autoencoder=settings), torch.device("cpu"))


# --- UNet ---------------------------------------------------------------------------------------------------

def test_a_base_comes_back_in_half_precision_with_its_sizes(tmp_path):
    unet = shaken(SIZES.build(), 0.02).half().float().eval()
    save_unet(tmp_path / "base.safetensors", unet, SIZES, step=5, data="mannequins")
    loaded, sizes = load_unet(tmp_path / "base.safetensors")
    assert sizes == SIZES == read_sizes(tmp_path / "base.safetensors") and not loaded.training
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in unet.state_dict().items())
    x, time, context = torch.randn(1, 4, 16, 16), torch.tensor([500]), torch.randn(1, 16, 64)
    assert torch.equal(loaded(x, time, context).sample, unet(x, time, context).sample)
    assert sizes.schedule().prediction == "v_prediction"


def test_a_diffusers_folder_is_read_with_its_prediction(tmp_path):
    sizes = dataclasses.replace(SIZES, prediction="epsilon", caption_tokens=0)
    folder = write_diffusers(tmp_path, sizes)
    assert load_unet(folder)[1] == sizes
    write_diffusers(folder, dataclasses.replace(sizes, prediction="v_prediction"))
    for path in (folder, folder / "unet"):
        assert load_unet(path)[1].prediction == "v_prediction"
    (folder / "scheduler" / "scheduler_config.json").write_text("{}")   # as old as Stable Diffusion 1.5's
    assert load_unet(folder)[1].prediction == "epsilon"


def test_a_diffusers_folder_without_a_scheduler_is_refused(tmp_path):
    """A wrong guess loads as well, and makes grey noise."""
    folder = write_diffusers(tmp_path / "sd", SIZES)
    (folder / "scheduler" / "scheduler_config.json").unlink()
    for path in (folder, folder / "unet"):
        with pytest.raises(ValueError, match="does not say whether its UNet predicts noise.*fetch scheduler/"):
            load_unet(path)
    own = NoiseSchedule(prediction="v_prediction")   # of a method that does not use the base's
    assert load_unet(folder, own)[1].prediction == "v_prediction"


def change(base, path, tensors=lambda t: t, metadata=lambda m: m):
    """The base file with other tensors or metadata."""
    from safetensors import safe_open
    with safe_open(str(base), "pt") as file:
        texts = dict(file.metadata())
    save_file(tensors(load_file(base)), path, metadata(texts))
    return path


def test_files_that_are_not_the_base_they_say_are_refused_with_the_keys(tmp_path, base):
    path = tmp_path / "changed.safetensors"

    def renamed(tensors):
        return {f"x.{key}" if key.startswith("conv_in") else key: value for key, value in tensors.items()}

    with pytest.raises(ValueError, match="2 keys missing .'conv_in.weight', 'conv_in.bias'., 2 unexpected .'x.conv_in"):
        load_unet(change(base, path, tensors=renamed))
    wider = json.dumps(dataclasses.asdict(SIZES) | {"cross_attention_dim": 96})
    with pytest.raises(ValueError, match="does not hold the UNet that its metadata describes: 32 keys missing"):
        load_unet(change(base, path, metadata=lambda m: m | {"pgpis.config": wider}))
    newer = json.dumps(dataclasses.asdict(SIZES) | {"head": 3})
    with pytest.raises(ValueError, match="sizes of the base: unknown key 'head'; did you mean 'heads'"):
        load_unet(change(base, path, metadata=lambda m: m | {"pgpis.config": newer}))
    with pytest.raises(ValueError, match="is not a base UNet of this pack .pgpis.kind is None"):
        load_unet(change(base, path, metadata=lambda m: {}))
    path.write_bytes(base.read_bytes()[:5000])
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        load_unet(path)
    with pytest.raises(FileNotFoundError, match="no file"):
        load_unet(tmp_path / "nowhere.safetensors")


def test_full_sizes_are_those_of_stable_diffusion():
    sizes = BaseSizes()
    with torch.device("meta"):
        count = sum(p.numel() for p in sizes.build().parameters())
    assert count == 859_520_964   # CFLD's paper gives this number for SD1.5
