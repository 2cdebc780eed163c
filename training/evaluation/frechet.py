"""FID as the papers compute it: torchvision's Inception-v3 (ImageNet weights, not the TF-FID port) on inputs made by
`inception_input`, with a training-set picture folder as the real set. It is NOT the standard FID (standard.py) and the two
differ by several points: give each under its own name, never in one column of a table."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pgpis_models.metrics import check_pair
from pgpis_models.parts.pixels import IMAGENET_MEAN, IMAGENET_STD


def frechet_distance(real: Tensor, fake: Tensor) -> float:
    """Frechet distance between two sets of features, (N, D) and (M, D), taken as Gaussians:
    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), with unbiased covariances.

    The trace of the root is the sum of the roots of the eigenvalues of C1^(1/2) C2 C1^(1/2), a symmetric matrix, so
    singular covariances (fewer pictures than dimensions) need no constant on the diagonal, as scipy's sqrtm would.

    Raises ValueError with fewer than two rows or different widths. float64; D = 2048 takes some seconds on a CPU.
    """
    if real.ndim != 2 or fake.ndim != 2 or real.shape[1] != fake.shape[1] or min(len(real), len(fake)) < 2:
        raise ValueError(f"features came as {tuple(real.shape)} and {tuple(fake.shape)}; expected (N, D) and (M, D) "
                         f"with the same D and 2 rows or more each.")
    real, fake = real.double(), fake.double()
    cov_real, cov_fake = (torch.cov(x.T).reshape(x.shape[1], x.shape[1]) for x in (real, fake))
    values, vectors = torch.linalg.eigh(cov_real)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    shared = torch.linalg.eigvalsh(root @ cov_fake @ root).clamp(min=0).sqrt().sum()
    distance = (real.mean(0) - fake.mean(0)).square().sum() + cov_real.trace() + cov_fake.trace() - 2.0 * shared
    return float(distance)


def inception_input(images: Tensor) -> Tensor:
    """Pictures (B, 3, H, W) in [0, 1] -> (B, 3, 299, 299), what the papers' FID feeds to torchvision's Inception-v3.

    Bilinear without antialias, then torchvision's `transform_input`, which is meant for ImageNet-normalised pictures,
    applied to [0, 1]: a quirk of the papers' protocol, kept so that numbers compare. Not for the standard FID.
    """
    check_pair(images, images)
    x = F.interpolate(images, size=(299, 299), mode="bilinear", align_corners=False)
    mean, std = (x.new_tensor(values).reshape(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return x * (std / 0.5) + (mean - 0.5) / 0.5
