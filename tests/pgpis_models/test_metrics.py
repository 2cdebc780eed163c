"""Metrics against scikit-image, scipy and plain loops."""

import numpy as np
import pytest
import torch

from pgpis_models.metrics import (
    frechet_distance,
    inception_input,
    papers_resize_quantise,
    part_colour,
    part_colour_counts,
    psnr,
    ssim_gauss,
    ssim_win51,
    texel_error,
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


def test_psnr_and_ssim_equal_scikit_image():
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


def test_masked_ssim_is_the_mean_of_scikit_images_map_over_the_mask():
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


# --- FID -------------------------------------------------------------------------------------------------------------


def test_frechet_distance_equals_the_matrix_root_of_scipy():
    linalg = pytest.importorskip("scipy.linalg")
    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((12, 12))
    real, fake = rng.standard_normal((200, 12)) @ mixing, 1.3 * rng.standard_normal((150, 12)) + 0.2
    c1, c2 = np.cov(real, rowvar=False), np.cov(fake, rowvar=False)
    root = linalg.sqrtm(c1 @ c2).real
    expected = ((real.mean(0) - fake.mean(0)) ** 2).sum() + np.trace(c1 + c2 - 2 * root)
    assert frechet_distance(torch.from_numpy(real), torch.from_numpy(fake)) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(torch.from_numpy(real), torch.from_numpy(real)) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_with_fewer_pictures_than_dimensions():
    rng = np.random.default_rng(1)
    real, fake = rng.standard_normal((5, 30)), rng.standard_normal((6, 30)) + 1
    # tr (C1 C2)^(1/2) is the nuclear norm of A^T B for any A A^T = C1, B B^T = C2: no root of a singular matrix needed
    a, b = ((x - x.mean(0)).T / np.sqrt(len(x) - 1) for x in (real, fake))
    shared = np.linalg.svd(a.T @ b, compute_uv=False).sum()
    expected = ((real.mean(0) - fake.mean(0)) ** 2).sum() + (a**2).sum() + (b**2).sum() - 2 * shared
    assert frechet_distance(torch.from_numpy(real), torch.from_numpy(fake)) == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ValueError, match="2 rows or more"):
        frechet_distance(torch.zeros(1, 30), torch.zeros(6, 30))


def test_inception_input_is_torchvisions_transform_on_the_resized_picture():
    models = pytest.importorskip("torchvision.models")
    network = models.Inception3(init_weights=False, transform_input=True)
    images = pictures()[0].float()
    resized = torch.nn.functional.interpolate(images, size=(299, 299), mode="bilinear")
    torch.testing.assert_close(inception_input(images), network._transform_input(resized), atol=1e-6, rtol=0)


def test_quantising_truncates():
    assert papers_resize_quantise(torch.full((1, 3, 8, 8), 0.999), (8, 8)).unique().item() == pytest.approx(254 / 255)
    small = papers_resize_quantise(pictures()[0].float(), (35, 30))
    assert small.shape == (3, 3, 35, 30) and torch.equal((small * 255).round() / 255, small)


# --- parts and texels ------------------------------------------------------------------------------------------------


def body(seed: int, batch=4, size=(40, 30), parts=6):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, parts, (batch, 8, 6), generator=generator)
    part = coarse.repeat_interleave(5, 1).repeat_interleave(5, 2)
    return part, torch.rand(batch, *size, generator=generator), torch.rand(batch, *size, generator=generator)


def test_part_colour_equals_a_loop_over_the_parts():
    source, target_parts = body(0)[0], body(1)[0]
    target = torch.rand(4, 3, 40, 30, generator=torch.Generator().manual_seed(2))
    generated = target.clone()
    for part in range(1, 6):
        generated += (target_parts == part)[:, None] * 0.03 * part  # distances 0.05, 0.10, 0.16, ...
    hits = total = 0
    for i in range(4):
        for part in range(1, 6):
            pixels = target_parts[i] == part
            if pixels.sum() >= 200 and (source[i] == part).sum() >= 200:
                total += 1
                hits += (generated[i][:, pixels].mean(1) - target[i][:, pixels].mean(1)).norm().item() <= 0.12
    counts = part_colour_counts(generated, target, source, target_parts, min_pixels=200)
    assert (counts[0].sum().item(), counts[1].sum().item()) == (hits, total)
    assert 0 < hits < total < 20, "the case has parts of every kind"
    assert part_colour(generated, target, source, target_parts, min_pixels=200) == pytest.approx(hits / total)


def test_part_colour_needs_enough_pixels_in_source_and_target():
    parts = torch.zeros(1, 20, 20, dtype=torch.uint8)
    parts[0, 0, :] = 1  # 20 pixels: too few
    parts[0, 2:4, :15] = 2  # 30 pixels: just enough
    picture = torch.zeros(1, 3, 20, 20)
    assert part_colour_counts(picture + 0.06, picture, parts, parts)[1].item() == 1
    assert part_colour(picture + 0.06, picture, parts, parts) == 1.0  # 0.06 * sqrt(3) = 0.104
    assert part_colour(picture + 0.08, picture, parts, parts) == 0.0  # 0.139
    assert np.isnan(part_colour(picture, picture, torch.zeros_like(parts), parts))


def test_texel_error_equals_a_loop_over_the_pixels():
    (part, u, v), (source_part, source_u, source_v) = body(3), body(4)
    generator = torch.Generator().manual_seed(5)
    generated, target = torch.rand(2, 4, 3, 40, 30, generator=generator)
    u[0, 0, 0] = source_u[0, 0, 0] = 1.0  # the edge belongs to the last texel
    errors = {True: [], False: []}
    for i in range(4):
        def texel(p, x, y):
            return int(p), min(int(x * 16), 15), min(int(y * 16), 15)

        maps = source_part[i].flatten().tolist(), source_u[i].flatten().tolist(), source_v[i].flatten().tolist()
        shown = {texel(*pixel) for pixel in zip(*maps)}
        for row in range(40):
            for column in range(30):
                if part[i, row, column] > 0:
                    seen = texel(part[i, row, column], u[i, row, column].item(), v[i, row, column].item()) in shown
                    difference = (generated[i, :, row, column] - target[i, :, row, column]).abs().mean().item()
                    errors[seen].append(difference)
    seen, hidden = texel_error(generated, target, part, u, v, source_part, source_u, source_v)
    assert min(map(len, errors.values())) > 100
    assert seen == pytest.approx(np.mean(errors[True]), abs=1e-6)
    assert hidden == pytest.approx(np.mean(errors[False]), abs=1e-6)


def test_a_copy_of_the_pose_hides_nothing():
    part, u, v = body(6)
    picture = torch.zeros(4, 3, 40, 30)
    seen, hidden = texel_error(picture + 0.25, picture, part, u, v, part, u, v)
    assert seen == pytest.approx(0.25) and np.isnan(hidden)


def test_bad_maps_are_refused():
    part, u, v = body(7)
    picture = torch.zeros(4, 3, 40, 30)
    with pytest.raises(ValueError, match=r"target_u.*expected \(B, H, W\)"):
        texel_error(picture, picture, part, u[:, 1:], v, part, u, v)
    with pytest.raises(ValueError, match="u of the person reaches.*Divide 8-bit"):
        texel_error(picture, picture, part, u * 255, v, part, u, v)
    with pytest.raises(ValueError, match="source_parts"):
        part_colour(picture, picture, part[:1], part)
