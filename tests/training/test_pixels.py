"""The loss in pixels: for both kinds of prediction, on the right pictures, and learned while the decoder stays."""

from functools import partial

import numpy as np
import pytest
import torch

from pgpis_models.base import decode_latents, encode_latents, load_vae
from pgpis_models.metrics import part_colour
from pgpis_models.schedule import NoiseSchedule
from tests import fpdm_tiny
from tests.steps import adam, changed, step, weights
from tests.tiny import MODEL, train_config
from training.cfld import CFLDTask
from training.fpdm import FPDMTask
from training.fpdm_fusion import FusionTask
from training.loop import run
from training.pixels import Decoder, PredictionRecorder, part_colour_error

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def fusion(folder, files):
    return str(run(fpdm_tiny.train_config(folder, files, "fpdm_fusion"), FusionTask))


def cfld(folder, files, **method):
    torch.manual_seed(0)
    settings = {"model": MODEL | {"prompt_drop": 0.0}, "pixels": 2.0}
    return CFLDTask(train_config(folder, files, method=settings | method), CPU)


def fpdm(folder, files, fusion, **method):
    torch.manual_seed(0)
    own = {"fusion": fusion, "init_tower": fpdm_tiny.tower_file(folder)}
    config = fpdm_tiny.train_config(folder, files, "fpdm", method={"pixels": 2.0} | method, fpdm=own)
    return FPDMTask(config, CPU)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_a_true_prediction_is_the_true_picture(files, prediction):
    """The noise or velocity itself in place of a UNet: the clean latents come out, and their picture has no error."""
    schedule, vae = NoiseSchedule(prediction=prediction), load_vae(files.vae)
    clean, noise, t = 0.5 * torch.randn(3, 4, 8, 8), torch.randn(3, 4, 8, 8), torch.tensor([0, 500, 900])
    seen = PredictionRecorder(lambda noisy, timesteps, rows: schedule.target(clean, noise, timesteps), schedule)
    seen(schedule.add_noise(clean, noise, t), t, {})
    assert torch.allclose(seen.clean, clean, atol=1e-4)
    with torch.no_grad():
        picture = decode_latents(vae, clean)
    decoder = Decoder(vae)
    assert decoder.error(decoder.made(seen.clean), picture * 2 - 1) < 1e-6
    grey = decoder.error(decoder.made(clean), torch.zeros(3, 3, 64, 64))
    assert torch.allclose(grey, 4 * (picture - 0.5).square().mean(), rtol=1e-4)


def test_on_request_it_moves_with_the_mean_psnr(files):
    """Of pictures of very different errors, against skimage's PSNR: a hundredth of a decibel more of the mean lowers it by
    that many nepers, and where all errors are typical it pushes as hard as the plain one does."""
    from skimage.metrics import peak_signal_noise_ratio
    vae = load_vae(files.vae)
    torch.manual_seed(0)
    latents = 0.5 * torch.randn(4, 4, 8, 8)
    with torch.no_grad():
        made = decode_latents(vae, latents) * 2 - 1
    far = made + torch.tensor([0.1, 0.2, 0.4, 0.8]).view(4, 1, 1, 1) * torch.randn_like(made)
    near = made + 0.8 * (far - made)

    def psnr(pictures):
        return np.mean([peak_signal_noise_ratio(a.numpy() / 2, b.numpy() / 2, data_range=1.0)
                        for a, b in zip(pictures, made, strict=True)])
    found = [Decoder(vae, psnr=True).error(made, pictures).item() for pictures in (far, near)]
    assert found[0] - found[1] == pytest.approx(0.01 * np.log(10) / 10 * (psnr(near) - psnr(far)), rel=0.05)
    typical = made + 0.1 * torch.randn_like(made).sign()
    pushes = []
    for psnr_wanted in (False, True):
        free = latents.clone().requires_grad_(True)
        decoder = Decoder(vae, psnr_wanted)
        decoder.error(decoder.made(free), typical).backward()
        pushes.append(free.grad)
    assert torch.allclose(pushes[1], pushes[0] / 1.1, rtol=0.02, atol=1e-6)   # 1.1: the floor beside the typical error


@pytest.mark.parametrize("reconstruct", [True, False])
def test_pictures_are_those_of_the_latents(folder, files, reconstruct):
    """What a batch brings as pictures is what its latents show, source half and target half."""
    task = cfld(folder, files, reconstruct=reconstruct)
    batch = task.batch(np.random.default_rng(0), 4)
    kinds = ("source", "target") if reconstruct else ("target",)
    latents = torch.cat([batch[f"{kind}_latents"] for kind in kinds])
    assert batch["picture"].shape == (4, 3, 64, 64) and batch["picture"].min() >= -1 and batch["picture"].max() > 0.2
    assert batch["part"].shape == (4, 64, 64)
    # the background is one colour, so people are where the pictures differ from it
    background = (batch["picture"] - batch["picture"][:, :, :1, :1]).abs().amax(1) < 0.02
    assert ((batch["part"] == 0) == background).float().mean() > 0.97
    with torch.no_grad():
        again = encode_latents(task.vae, batch["picture"])
    assert torch.allclose(again, latents, atol=1e-4) and not torch.allclose(again.roll(1, 0), latents, atol=0.1)


def test_the_colours_of_parts_are_those_that_part_colour_counts():
    """Against each part's mean by hand in float64, and against the measure: what it calls a hit costs less than a half."""
    rng = np.random.default_rng(0)
    parts = torch.from_numpy(rng.integers(0, 25, (3, 6, 4))).repeat_interleave(10, 1).repeat_interleave(10, 2)
    parts[0, :5, :5] = 24
    parts[0, 6:, :] = 0
    parts[0, :5, 10:] = 0     # a part of 25 pixels
    true, made = torch.rand(3, 3, 60, 40) * 2 - 1, torch.rand(3, 3, 60, 40) * 2 - 1
    made = true + 0.5 * (made - true) + 0.3 * torch.rand(3, 3, 1, 1)
    costs, hits = [], 0
    for row in range(3):
        for part in range(1, 25):
            inside = (parts[row] == part).numpy()
            if inside.sum() >= 30:
                off = ((made - true)[row].double().numpy()[:, inside] / 2).mean(1)
                costs.append((off @ off) / (off @ off + 0.12 ** 2))
                hits += costs[-1] < 0.5
    assert part_colour_error(made, true, parts).item() == pytest.approx(np.mean(costs), rel=1e-4)
    assert 0 < hits < len(costs)
    assert part_colour((made + 1) / 2, (true + 1) / 2, parts, parts) == pytest.approx(hits / len(costs))
    assert part_colour_error(true, true, parts) == 0 == part_colour_error(made, true, torch.zeros_like(parts))


@pytest.mark.parametrize("method", ["cfld", "fpdm"])
def test_they_are_learned_and_the_decoder_stays_as_it_is(folder, files, fusion, method):
    colours = {"part_colours": 0.5}
    task = cfld(folder, files, reconstruct=False, **colours) if method == "cfld" else fpdm(folder, files, fusion, **colours)
    model = task.model.train()
    before, names = weights(task.vae), set(model.state_dict())
    batch, optimiser = task.batch(np.random.default_rng(0), 4), adam(task, 3e-3)
    first, logs = step(task, batch, optimiser)
    parts = logs["denoising"] + 2.0 * logs["pixels"] + 0.5 * logs["part_colours"] \
        + task.config.method.caption_loss * logs.get("caption", 0.0)
    assert abs(first - parts.item()) < 1e-4 * first
    later = [step(task, batch, optimiser)[1] for _ in range(25)][-1]
    assert later["pixels"] < 0.9 * logs["pixels"] and later["part_colours"] < 0.9 * logs["part_colours"]
    assert not changed(task.vae, before) and not any("vae" in name or "decoder.conv_out" in name for name in names)
    assert all(parameter.grad is None for parameter in task.vae.parameters())


def test_without_it_no_pictures_are_made(folder, files):
    task = cfld(folder, files, pixels=0.0)
    batch = task.batch(np.random.default_rng(0), 4)
    assert not {"picture", "part"} & set(batch) and not {"pixels", "part_colours"} & set(task.model(batch)[1])
    with pytest.raises(ValueError, match="method.part_colours is 0.5, but method.pixels is 0"):
        cfld(folder, files, pixels=0.0, part_colours=0.5)
    with pytest.raises(ValueError, match=r"\['pixels'\] need captions or person masks"):
        partial(CFLDTask, train_config(folder, files, method={"pixels": 1.0}, data={"kind": "deepfashion"}), CPU)()
