"""Metrics against scikit-image."""

import numpy as np
import pytest
import torch

from pgpis_models import metrics as ours
from pgpis_models.metrics import (
    papers_resize_quantise,
    psnr,
    ssim_gauss,
    ssim_win51,
)


def pictures(batch=3, size=(70, 60), seed=0) -> tuple[torch.Tensor, torch.Tensor]:
    """Smooth pictures and noisy copies, in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(batch, 3, 8, 7, generator=generator, dtype=torch.float64)
    target = torch.nn.functional.interpolate(coarse, size=size, mode="bilinear")
    noise = torch.randn(target.shape, generator=generator, dtype=torch.float64)
    return (target + 0.1 * torch.arange(1, batch + 1).reshape(-1, 1, 1, 1) * noise).clamp(0, 1), target


def blob(batch=3, size=(70, 60)) -> torch.Tensor:
    rows, columns = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    return torch.stack([(rows - 20 - 5 * i) ** 2 + (columns - 10) ** 2 < 300 for i in range(batch)])


# --- PSNR and SSIM ---------------------------------------------------------------------------------------------------


BANDS = pytest.mark.parametrize("band", [7 * 60, 70 * 60 * 2, ours.BAND])   # rows of a channel, channels, all together


@BANDS
def test_psnr_and_ssim_equal_scikit_image(band, monkeypatch):
    monkeypatch.setattr(ours, "BAND", band)
    metrics = pytest.importorskip("skimage.metrics")
    prediction, target = pictures()
    results = psnr(prediction, target), ssim_win51(prediction, target), ssim_gauss(prediction, target)
    papers = ssim_gauss(prediction, target, data_range="prediction")
    gauss = dict(channel_axis=0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
    for i, (a, b) in enumerate(zip(prediction.numpy(), target.numpy())):
        assert results[0][i].item() == pytest.approx(metrics.peak_signal_noise_ratio(b, a, data_range=1), abs=1e-9)
        win51 = metrics.structural_similarity(a, b, win_size=51, channel_axis=0, data_range=1)
        assert results[1][i].item() == pytest.approx(win51, abs=1e-9)
        plain = metrics.structural_similarity(a, b, data_range=1, **gauss)
        assert results[2][i].item() == pytest.approx(plain, abs=1e-9)
        ranged = metrics.structural_similarity(a * 255, b * 255, data_range=(a.max() - a.min()) * 255, **gauss)
        assert papers[i].item() == pytest.approx(ranged, abs=1e-9)


@BANDS
def test_masked_ssim_is_the_mean_of_scikit_images_map_over_the_mask(band, monkeypatch):
    monkeypatch.setattr(ours, "BAND", band)
    metrics = pytest.importorskip("skimage.metrics")
    prediction, target = pictures()
    mask = blob()
    assert mask[0, :, 0].any(), "the mask reaches the border, where the window is reflected"
    gauss, win51 = ssim_gauss(prediction, target, mask), ssim_win51(prediction, target, mask[:, None])
    for i, (a, b) in enumerate(zip(prediction.numpy(), target.numpy())):
        options = dict(channel_axis=0, data_range=1, full=True)
        window = dict(gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
        _, full = metrics.structural_similarity(a, b, **window, **options)
        assert gauss[i].item() == pytest.approx(full.mean(0)[mask[i].numpy()].mean(), abs=1e-9)
        _, full = metrics.structural_similarity(a, b, win_size=51, **options)
        assert win51[i].item() == pytest.approx(full.mean(0)[mask[i].numpy()].mean(), abs=1e-9)


def test_masked_psnr_counts_the_pixels_of_the_mask_only():
    prediction, target = pictures()
    mask = blob()
    spoiled = torch.where(mask[:, None], prediction, 0.5)
    assert torch.equal(psnr(spoiled, target, mask), psnr(prediction, target, mask))
    for i in range(3):
        error = ((prediction[i] - target[i]) ** 2)[:, mask[i]].mean().item()
        assert psnr(prediction, target, mask)[i].item() == pytest.approx(-10 * np.log10(error))
    everything = torch.ones(3, 70, 60, dtype=torch.bool)
    torch.testing.assert_close(psnr(prediction, target, everything), psnr(prediction, target))


def test_equal_pictures_are_perfect():
    _, target = pictures()
    assert torch.isinf(psnr(target, target)).all()
    torch.testing.assert_close(ssim_win51(target, target), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(ssim_gauss(target.float(), target.float()), torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda a, b: psnr(a, b[:, :, 1:]), "two float tensors of one shape"),
        (lambda a, b: psnr((a * 255).byte(), (b * 255).byte()), "Divide 8-bit pictures by 255"),
        (lambda a, b: ssim_win51(a[..., :40], b[..., :40]), "70x40; expected both sides 51 or more"),
        (lambda a, b: ssim_gauss(a, b, data_range="target"), "expected a number or 'prediction'"),
        (lambda a, b: psnr(a, b, blob().float()), r"mask is torch.float32.*expected bool \(3, 70, 60\)"),
        (lambda a, b: psnr(a, b, blob()[:, 1:]), "mask is torch.bool of shape"),
        (lambda a, b: ssim_gauss(a, b, blob() & (torch.arange(3) != 1)[:, None, None]), r"\[1\] \(of 3\) has no pixel"),
    ],
)
def test_bad_pictures_and_masks_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(*pictures())


def test_quantising_truncates():
    assert papers_resize_quantise(torch.full((1, 3, 8, 8), 0.999), (8, 8)).unique().item() == pytest.approx(254 / 255)
    small = papers_resize_quantise(pictures()[0].float(), (35, 30))
    assert small.shape == (3, 3, 35, 30) and torch.equal((small * 255).round() / 255, small)
