"""The papers' FID against scipy, plain formulas and torchvision."""

import numpy as np
import pytest
import torch

from training.evaluation.frechet import frechet_distance, inception_input


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
    images = torch.rand(3, 3, 70, 60, generator=torch.Generator().manual_seed(0))
    resized = torch.nn.functional.interpolate(images, size=(299, 299), mode="bilinear")
    torch.testing.assert_close(inception_input(images), network._transform_input(resized), atol=1e-6, rtol=0)
