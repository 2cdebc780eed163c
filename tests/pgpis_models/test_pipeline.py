"""One generation from end to end without ComfyUI: seeds, batches, photos of all kinds, and what does not fit."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from pgpis_models import pipeline
from pgpis_models.cfld.model import CFLD
from pgpis_models.checkpoint import load_checkpoint
from pgpis_models.noise.samplers import sample_latents, start_noise
from pgpis_models.noise.schedule import NoiseSchedule, ddpm_step, leading_timesteps
from pgpis_models.pipeline import Generator, read_photo
from pgpis_models.poses.drawing import cfld_rasters
from pgpis_models.poses.keypoints import Keypoints
from pgpis_models.unet.autoencoder import decode_latents, load_vae
from pgpis_models.unet.base import load_unet
from pgpis_models.unet.diffusers_binding import DiffusersBinding, swap_weights
from tests.helpers.fpdm_tiny import write_fpdm
from tests.helpers.tiny import RASTER, SIZE, SIZES, write_base, write_diffusers, write_files


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_files(tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="module")
def generator(files):
    return Generator(files.cfld, files.base, files.vae)


def poses(count, seed=0):
    rng = np.random.default_rng(seed)
    return [Keypoints(rng.uniform(5, 60, (18, 2)), np.ones(18, bool), SIZE) for _ in range(count)]


def sources(count):
    return torch.rand(count, 3, *SIZE, generator=torch.Generator().manual_seed(4)) * 2 - 1


# --- pictures -----------------------------------------------------------------------------------------------

@torch.no_grad()
def test_a_picture_is_what_the_parts_make_when_joined_by_hand(generator, files):
    """The default chain written out: three UNet calls per step, DDIM from the last timestep down in equal strides."""
    made = generator(sources(2), poses(2), seed=11)
    loaded = load_checkpoint(files.cfld)
    unet, sizes = load_unet(files.base)
    swap_weights(unet, loaded.unet_weights)
    binding, method = DiffusersBinding(unet), loaded.method
    encoded = method.encode(sources(2), cfld_rasters(poses(2), RASTER))
    pose = {f"down_residual.{level}": value for level, value in enumerate(encoded.pose_maps)}
    bias = {f"query_bias.{site}": value for site, value in encoded.query_bias.items()}
    x = start_noise((2, 4, 8, 8), 11)
    schedule = NoiseSchedule(prediction="v_prediction")
    count, weight = generator.defaults["steps"], generator.defaults["weights"]
    times = [round(1000 - n * 1000 / count) - 1 for n in range(count)]    # trailing
    for t, after in zip(times, [*times[1:], -1], strict=True):
        def predict(prompt, more, x=x, t=t):
            rows = {f"context.{stage}": prompt for stage in ("down", "mid", "up")} | more
            return binding(x, torch.tensor([t, t]), rows)
        nothing = encoded.null_prompt.expand(2, -1, -1)
        null = predict(nothing, {})
        posed = predict(nothing, pose)
        full = predict(encoded.prompt, pose | bias)
        v = null + weight["pose"] * (posed - null) + weight["appearance"] * (full - posed)
        a, before = schedule.abar(t), schedule.abar(after)
        clean, noise = a.sqrt() * x - (1 - a).sqrt() * v, (1 - a).sqrt() * x + a.sqrt() * v
        x = before.sqrt() * clean + (1 - before).sqrt() * noise
    expected = decode_latents(load_vae(files.vae), x)
    assert made.shape == (2, 3, *SIZE) and expected.std() > 0.05
    assert torch.allclose(made, expected, atol=2e-4)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_a_picture_does_not_depend_on_the_batch_that_it_is_made_in(generator, sampler):
    settings = {"seed": 3, "steps": 4, "sampler": sampler}
    together = generator(sources(4), poses(4), **settings)
    for k in (0, 2):
        alone = generator(sources(4)[k:k + 1], poses(4)[k:k + 1], first=k, **settings)
        assert torch.allclose(alone[0], together[k], atol=1e-4), k
    assert not torch.allclose(generator(sources(4)[:1], poses(4)[:1], first=1, **settings)[0], together[0], atol=1e-3)
    assert not torch.allclose(generator(sources(1), poses(1), **(settings | {"seed": 4}))[0], together[0], atol=1e-3)


def test_noise_of_the_steps_is_fresh_at_every_step_and_in_every_row():
    seen = []

    def denoise(x, t):
        seen.append(x.clone())
        return torch.zeros_like(x)

    schedule = NoiseSchedule()
    sample_latents(denoise, schedule, (2, 4, 2, 2), steps=3, seed=1, sampler="ddpm", spacing="leading")
    times = [*leading_timesteps(3).tolist(), -1]
    noises = []
    for step in range(2):   # what was added is what is left when the step without noise is taken away
        still = ddpm_step(schedule, torch.zeros_like(seen[0]), seen[step], times[step], times[step + 1], torch.zeros(1))
        noises.append(seen[step + 1] - still)
    rows = [noise[row].flatten() for noise in noises for row in range(2)] + [start_noise((2, 4, 2, 2), 1)[0].flatten()]
    likeness = torch.corrcoef(torch.stack(rows)) - torch.eye(5)
    assert likeness.abs().max() < 0.9
    with pytest.raises(ValueError, match="sampler 'euler' with spacing 'leading'; expected one of .*ddim"):
        sample_latents(denoise, schedule, (1, 4, 2, 2), sampler="euler", spacing="leading")


def test_one_source_serves_many_poses_and_many_sources_one_pose(generator):
    settings = {"steps": 2, "seed": 1}
    repeated = generator(sources(1).expand(3, -1, -1, -1), poses(3), **settings)
    assert torch.allclose(generator(sources(1), poses(3), **settings), repeated, atol=1e-4)
    repeated = generator(sources(3), poses(1) * 3, **settings)
    assert torch.allclose(generator(sources(3), poses(1), **settings), repeated, atol=1e-4)
    with pytest.raises(ValueError, match="2 sources and 3 poses"):
        generator(sources(2), poses(3), **settings)


def test_source_pose_weights_and_mode_all_matter(generator):
    usual = generator(sources(2)[:1], poses(2)[:1], steps=2)
    assert torch.equal(generator(sources(2)[:1], poses(2)[:1], steps=2), usual)
    others = {"source": generator(sources(2)[1:], poses(2)[:1], steps=2),
              "pose": generator(sources(2)[:1], poses(2)[1:], steps=2),
              "weights": generator(sources(2)[:1], poses(2)[:1], steps=2, weights={"appearance": 5.0}),
              "mode": generator(sources(2)[:1], poses(2)[:1], steps=2, mode="uc_full")}
    for name, other in others.items():
        assert (other - usual).abs().max() > 1e-3, name
    weight = generator.defaults["weights"]["appearance"]
    one = generator(sources(2)[:1], poses(2)[:1], steps=2, weights={"appearance": weight})
    assert torch.equal(one, usual)   # the weight that is not given keeps its default
    with pytest.raises(ValueError, match="unknown guidance mode 'all'"):
        generator(sources(1), poses(1), mode="all")
    with pytest.raises(ValueError, match=r"no scale \['style'\]"):
        generator(sources(1), poses(1), weights={"style": 1.0})


def test_every_mode_runs_with_its_default_weights(generator):
    from pgpis_models.cfld.model import GUIDANCE_MODES
    made = {mode: generator(sources(1), poses(1), mode=mode, steps=1) for mode in GUIDANCE_MODES}
    assert all(picture.shape == (1, 3, *SIZE) for picture in made.values())


def test_steps_are_reported(generator):
    seen = []
    generator(sources(1), poses(1), steps=3, callback=lambda index, t, x: seen.append((index, tuple(x.shape))))
    assert seen == [(n, (1, 4, 8, 8)) for n in range(3)] and generator.picture_size == SIZE


# --- what does not fit --------------------------------------------------------------------------------------

def test_a_base_of_another_width_is_refused_with_both_shapes(files, tmp_path):
    wide = write_base(tmp_path / "wide.safetensors", replace(SIZES, cross_attention_dim=96))
    with pytest.raises(ValueError, match=r"18 of 18 replaced weights do not fit this UNet: .*\(32, 64\) .UNet has \(32, 96"):
        Generator(files.cfld, wide, files.vae)


def test_a_checkpoint_of_a_full_base_asks_for_it(files, tmp_path):
    loaded = load_checkpoint(files.cfld)
    from pgpis_models.checkpoint import save_checkpoint
    path = tmp_path / "full.safetensors"
    save_checkpoint(path, loaded.method, loaded.unet_weights, base="sd15", step=0, data="none", licence="none")
    with pytest.raises(ValueError, match="full.safetensors was trained on sd15; give base and vae as diffusers folders"):
        Generator(path)
    with pytest.raises(ValueError, match="was trained on sd15"):
        Generator(path, files.base)
    assert Generator(path, files.base, files.vae).defaults["steps"] == 50


def test_fpdm_of_stable_diffusion_2_1_refuses_a_base_that_predicts_noise(files, tmp_path):
    """2.1-base has the same sizes; every weight of it is replaced, so that nothing else would tell."""
    path, wrong = write_fpdm(tmp_path, base="sd21"), tmp_path / "epsilon.safetensors"
    write_base(wrong, replace(SIZES, prediction="epsilon"))
    with pytest.raises(ValueError, match=r"epsilon.safetensors predicts epsilon; expected v_prediction: .*not for 2.1-base"):
        Generator(path, wrong, files.vae)
    assert Generator(path, files.base, files.vae).schedule.prediction == "v_prediction"
    assert Generator(write_fpdm(tmp_path), wrong, files.vae).schedule.prediction == "epsilon"   # another base may


def test_a_method_with_a_schedule_of_its_own_needs_no_scheduler_file(files, tmp_path, monkeypatch):
    folder = write_diffusers(tmp_path / "sd", SIZES)
    (folder / "scheduler" / "scheduler_config.json").unlink()
    with pytest.raises(ValueError, match="does not say whether its UNet predicts noise"):
        Generator(files.cfld, folder, files.vae)
    own = NoiseSchedule("linear", prediction="v_prediction")
    monkeypatch.setattr(CFLD, "noise_schedule", lambda _: own, raising=False)
    assert Generator(files.cfld, folder, files.vae).schedule is own


def test_files_in_the_wrong_place_are_refused_by_what_they_are(files):
    with pytest.raises(ValueError, match="is not a checkpoint of a method .*it is a \"base\" file"):
        Generator(files.base, files.base, files.vae)
    with pytest.raises(ValueError, match="is not a base UNet of this pack .pgpis.kind is \"vae\""):
        Generator(files.cfld, files.vae, files.vae)
    with pytest.raises(ValueError, match="is not an autoencoder in TAESD layout"):
        Generator(files.cfld, files.base, files.base)


def test_the_demos_own_base_is_the_default(files, monkeypatch):
    monkeypatch.setattr(pipeline, "DEMO_FOLDER", files.base.parent)
    own = Generator(files.cfld)(sources(1), poses(1), steps=1)
    assert torch.equal(own, Generator(files.cfld, files.base, files.vae)(sources(1), poses(1), steps=1))


# --- photos -------------------------------------------------------------------------------------------------

def photo():
    return np.random.default_rng(0).integers(0, 256, (20, 12, 3)).astype(np.uint8)


def test_photos_of_all_kinds_become_the_same_rgb_picture():
    rgb = photo()
    expected = read_photo(rgb, (16, 16))
    pillow = Image.fromarray(rgb).resize((16, 20), Image.Resampling.BICUBIC).resize((16, 16), Image.Resampling.BICUBIC)
    assert torch.allclose(expected[0].permute(1, 2, 0), torch.from_numpy(np.asarray(pillow) / 127.5 - 1).float(), atol=1e-6)
    opaque = np.concatenate([rgb, np.full((20, 12, 1), 255, np.uint8)], 2)
    assert torch.equal(read_photo(opaque, (16, 16)), expected)
    deep = rgb.astype(np.uint16) * 257   # 0..65535
    assert torch.equal(read_photo(deep, (16, 16)), expected)
    assert torch.equal(read_photo(deep + np.uint16(100) * (deep < 60000), (16, 16)), expected)   # rounded, not cut
    grey = rgb[..., 0]
    tripled = read_photo(np.repeat(grey[..., None], 3, 2), (16, 16))
    for same in (grey, grey[..., None], grey.astype(np.uint16) * 257):
        assert torch.equal(read_photo(same, (16, 16)), tripled)


@pytest.mark.parametrize("image", [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4, 2), np.uint8), np.zeros(4, np.uint8),
                                   np.zeros((1, 4, 4, 3), np.uint8)])
def test_arrays_that_are_no_photo_are_refused_with_their_shape(image):
    with pytest.raises(ValueError, match="expected .H, W., .H, W, 3. or .H, W, 4. of 8 or 16 bits"):
        read_photo(image, (8, 8))
