"""Picture metrics, as the pose-transfer papers compute them (the authors' code of CFLD, FPDM and MCLD, which agree).

Pictures are (B, 3, H, W) float tensors in [0, 1]; every metric gives one float64 number per picture unless it says
otherwise, and works in float64 throughout. No scikit-image: the same numbers come from two separable filters.

FID here is the papers' protocol: torchvision's Inception-v3 (ImageNet weights, not the TF-FID port) on inputs made by
`inception_input`, with a training-set picture folder as the real set. It is NOT the standard FID and the two differ by
several points: give each under its own name, never in one column of a table.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .parts.pixels import IMAGENET_MEAN, IMAGENET_STD

SSIM_K1, SSIM_K2 = 0.01, 0.03  # Wang et al. 2004
PART_PIXELS, PART_THRESHOLD = 30, 0.12   # of `part_colour`: which parts count, and how far off is still right (RGB, 0..1)


def psnr(prediction: Tensor, target: Tensor, mask: Tensor | None = None, data_range: float = 1.0) -> Tensor:
    """Peak signal-to-noise ratio in dB -> (B,) float64; inf for equal pictures.

    mask: (B, H, W) or (B, 1, H, W) bool, pixels that count (all three channels of them); None for all.
    """
    _check_pair(prediction, target)
    error = (prediction.double() - target.double()).square().mean(1)  # (B, H, W)
    return 10.0 * torch.log10(data_range**2 / _masked_mean(error, mask))


def mean_error(prediction: Tensor, target: Tensor) -> Tensor:
    """FPDM's L1: the mean absolute difference -> (B,) float64."""
    _check_pair(prediction, target)
    return (prediction.double() - target.double()).abs().mean((1, 2, 3))


def mae_ratio(prediction: Tensor, target: Tensor) -> Tensor:
    """FPDM's MAE: the sum of absolute differences over the sum of both pictures -> (B,) float64."""
    _check_pair(prediction, target)
    prediction, target = prediction.double(), target.double()
    return (prediction - target).abs().sum((1, 2, 3)) / (prediction + target).sum((1, 2, 3))


def ssim_win51(prediction: Tensor, target: Tensor, mask: Tensor | None = None, data_range: float = 1.0) -> Tensor:
    """The papers' "SSIM" -> (B,) float64: uniform window of 51 pixels, sample covariance, channels averaged.

    Equals scikit-image's structural_similarity(win_size=51, data_range=1). Without a mask the mean leaves out 25 pixels
    at each border, where the window is not inside the picture; with one, the mean of the whole map over the mask.

    mask as in `psnr`. Raises ValueError when a side is shorter than 51 pixels.
    """
    _check_pair(prediction, target)
    ones = torch.full((51,), 1.0 / 51, dtype=torch.float64, device=prediction.device)
    ssim = _ssim_map(prediction, target, ones, data_range, covariance_norm=51**2 / (51**2 - 1))
    return _map_mean(ssim, mask, border=25)


def ssim_gauss(
    prediction: Tensor, target: Tensor, mask: Tensor | None = None, data_range: float | str = 1.0
) -> Tensor:
    """SSIM of Wang et al. 2004 -> (B,) float64: Gaussian window of sigma 1.5 (11x11), population covariance.

    data_range: 1 for pictures in [0, 1]; "prediction" for the papers' "SSIM_256", whose range is max - min of the
                generated picture (their factor 255 on pictures and range cancels). A generated picture of one colour
                then has range 0, and the result is 0 or nan, as in the authors' code.

    Equals scikit-image's structural_similarity(gaussian_weights=True, sigma=1.5, use_sample_covariance=False). Mask and
    borders as in `ssim_win51`, with 5 pixels. Raises ValueError when a side is shorter than 11 pixels.
    """
    _check_pair(prediction, target)
    offsets = torch.arange(-5, 6, dtype=torch.float64, device=prediction.device)
    window = torch.exp(offsets**2 / (-2.0 * 1.5**2))
    if data_range == "prediction":
        flat = prediction.double().flatten(1)
        data_range = (flat.amax(1) - flat.amin(1)).reshape(-1, 1, 1, 1)
    elif isinstance(data_range, str):
        raise ValueError(f"data_range is {data_range!r}; expected a number or 'prediction'.")
    ssim = _ssim_map(prediction, target, window / window.sum(), data_range, covariance_norm=1.0)
    return _map_mean(ssim, mask, border=5)


def _ssim_map(a: Tensor, b: Tensor, window: Tensor, data_range: float | Tensor, covariance_norm: float) -> Tensor:
    """The SSIM of every pixel -> (B, H, W) float64, mean over the channels; borders are reflected."""
    height, width = a.shape[-2:]
    if min(height, width) < len(window):
        raise ValueError(f"SSIM with a window of {len(window)} pixels got pictures of {height}x{width}; expected both "
                         f"sides {len(window)} or more. Use ssim_gauss for small pictures.")
    a, b = a.double(), b.double()
    mean_a, mean_b, aa, bb, ab = (_filtered(x, window) for x in (a, b, a * a, b * b, a * b))
    var_a, var_b, cov = (
        covariance_norm * (product - first * second)
        for product, first, second in ((aa, mean_a, mean_a), (bb, mean_b, mean_b), (ab, mean_a, mean_b))
    )
    c1, c2 = (SSIM_K1 * data_range) ** 2, (SSIM_K2 * data_range) ** 2
    top = (2.0 * mean_a * mean_b + c1) * (2.0 * cov + c2)
    return (top / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))).mean(1)


def _filtered(x: Tensor, window: Tensor) -> Tensor:
    """Separable filter of (B, C, H, W) as two matrix products: for wide windows much faster than a convolution."""
    height, width = x.shape[-2:]
    return _filter_matrix(height, window) @ x @ _filter_matrix(width, window).T


def _filter_matrix(length: int, window: Tensor) -> Tensor:
    """(length, length): row i weighs the pixels under the window at i. Borders are reflected including the edge pixel
    (d c b a | a b c d), which torch's padding modes do not offer."""
    half = len(window) // 2
    place = torch.arange(length, device=window.device)[:, None]
    index = place + torch.arange(-half, half + 1, device=window.device)  # (length, len(window))
    index = torch.where(index < 0, -1 - index, index)
    index = torch.where(index >= length, 2 * length - 1 - index, index)
    return window.new_zeros(length, length).scatter_add_(1, index, window.expand(length, -1))


def _map_mean(values: Tensor, mask: Tensor | None, border: int) -> Tensor:
    if mask is None:
        return values[:, border : values.shape[1] - border, border : values.shape[2] - border].mean((1, 2))
    return _masked_mean(values, mask)


def _masked_mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """Mean of (B, H, W) over the mask -> (B,)."""
    if mask is None:
        return values.mean((1, 2))
    mask = mask[:, 0] if mask.ndim == 4 and mask.shape[1] == 1 else mask
    if mask.shape != values.shape or mask.dtype != torch.bool:
        raise ValueError(f"mask is {mask.dtype} of shape {tuple(mask.shape)}; expected bool {tuple(values.shape)}, one "
                         f"value per pixel. Threshold a soft mask first: mask > 0.5.")
    pixels = mask.sum((1, 2))
    if not pixels.all():
        empty = torch.nonzero(pixels == 0).flatten().tolist()
        raise ValueError(f"the mask of picture {empty[:10]} (of {len(pixels)}) has no pixel; expected at least one. "
                         f"Leave these pictures out.")
    return torch.where(mask, values, 0.0).sum((1, 2)) / pixels


def _check_pair(a: Tensor, b: Tensor) -> None:
    if a.shape != b.shape or a.ndim != 4 or not (a.is_floating_point() and b.is_floating_point()):
        raise ValueError(f"pictures came as {a.dtype} {tuple(a.shape)} and {b.dtype} {tuple(b.shape)}; expected two "
                         f"float tensors of one shape (B, C, H, W) in [0, 1]. Divide 8-bit pictures by 255, resize "
                         f"one to the other's size.")


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
    _check_pair(images, images)
    x = F.interpolate(images, size=(299, 299), mode="bilinear", align_corners=False)
    mean, std = (x.new_tensor(values).reshape(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return x * (std / 0.5) + (mean - 0.5) / 0.5


def papers_resize_quantise(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Generated pictures (B, 3, H, W) in [0, 1] -> (B, 3, *size) as the papers measure them: antialiased bicubic
    resize, clamp, truncation (not rounding) to 8 bit, / 255."""
    x = F.interpolate(images, size=size, mode="bicubic", align_corners=False, antialias=True)
    return (x * 255.0).clamp(0, 255).to(torch.uint8).to(images.dtype) / 255.0


def part_differences(difference: Tensor, parts: Tensor, numbers: int) -> tuple[Tensor, Tensor]:
    """Mean over each body part's pixels. difference: (B, 3, H, W). parts: (B, H, W) integers below `numbers` -> means
    (B, 3, numbers), 0 where a part is not there, and pixels of each part (B, numbers), of difference's type."""
    where, difference = parts.flatten(1).long(), difference.flatten(2)
    pixels = difference.new_zeros(len(where), numbers).scatter_add(1, where, torch.ones_like(difference[:, 0]))
    total = difference.new_zeros(len(where), 3, numbers).scatter_add(2, where[:, None].expand_as(difference), difference)
    return total / pixels.clamp(min=1)[:, None], pixels


def part_colour_counts(
    generated: Tensor, target: Tensor, source_parts: Tensor, target_parts: Tensor,
    min_pixels: int = PART_PIXELS, threshold: float = PART_THRESHOLD,
) -> tuple[Tensor, Tensor]:
    """How many body parts got the right colour -> hits (B,), parts (B,), both int64.

    generated, target: (B, 3, H, W) in [0, 1]. source_parts, target_parts: (B, H, W) integers, 0 background, 1.. parts,
    of the source and the target picture. A part counts when both show at least `min_pixels` of it; it is a hit when its
    mean colour over the target's pixels of it is within `threshold` (Euclidean RGB distance, colours in 0..1) of the
    target's. Sum both over all pictures before dividing: `part_colour` does.
    """
    _check_pair(generated, target)
    _check_maps(target, source_parts=source_parts, target_parts=target_parts)
    numbers = 1 + int(max(source_parts.max(), target_parts.max()))
    difference, in_target = part_differences(generated.double() - target.double(), target_parts, numbers)
    shown = source_parts.flatten(1).long()
    in_source = shown.new_zeros(len(shown), numbers).scatter_add_(1, shown, torch.ones_like(shown))
    distance = difference.norm(dim=1)  # (B, P)
    counted = (in_source >= min_pixels) & (in_target >= min_pixels)
    counted[:, 0] = False  # background
    hits = counted & (distance <= threshold)
    return hits.sum(1), counted.sum(1)


def part_colour(
    generated: Tensor, target: Tensor, source_parts: Tensor, target_parts: Tensor,
    min_pixels: int = PART_PIXELS, threshold: float = PART_THRESHOLD,
) -> float:
    """Share of the body parts of all pictures whose mean colour is right, 0..1; see `part_colour_counts`. nan when no
    part is large enough in both source and target."""
    hits, parts = part_colour_counts(generated, target, source_parts, target_parts, min_pixels, threshold)
    return float(hits.sum()) / float(parts.sum()) if parts.sum() else float("nan")


def texel_error(
    generated: Tensor, target: Tensor,
    target_part: Tensor, target_u: Tensor, target_v: Tensor,
    source_part: Tensor, source_u: Tensor, source_v: Tensor,
    texels: int = 16,
) -> tuple[float, float]:
    """Mean absolute RGB error over the person, (seen, hidden): apart for texels that the source shows and hides.

    generated, target: (B, 3, H, W) in [0, 1]. *_part: (B, H, W) integers, 0 background. *_u, *_v: (B, H, W) in [0, 1],
    position on the part. Each part is cut into texels x texels squares; a target pixel is seen when a pixel of the
    source of the same row of the batch lies in the same square. All pixels of the batch weigh the same; nan where there
    is no such pixel.
    """
    _check_pair(generated, target)
    _check_maps(target, target_part=target_part, target_u=target_u, target_v=target_v, source_part=source_part,
                source_u=source_u, source_v=source_v)
    target_texel = _texel_index(target_part, target_u, target_v, texels)  # (B, H*W)
    source_texel = _texel_index(source_part, source_u, source_v, texels)
    count = 1 + int(max(target_texel.max(), source_texel.max()))
    shown = torch.zeros(len(target), count, dtype=torch.bool, device=target.device).scatter_(1, source_texel, True)
    person = target_part.flatten(1) > 0
    seen = shown.gather(1, target_texel)
    error = (generated.double() - target.double()).abs().mean(1).flatten(1)
    return float(error[person & seen].mean()), float(error[person & ~seen].mean())


def _texel_index(part: Tensor, u: Tensor, v: Tensor, texels: int) -> Tensor:
    """(B, H*W) int64: a number of its own for each (part, column, row); background shares those of part 0."""
    person = part > 0
    for name, values in (("u", u), ("v", v)):
        low, high = (float(edge) for edge in values[person].aminmax()) if person.any() else (0.0, 0.0)
        if low < -1e-6 or high > 1 + 1e-6:
            raise ValueError(f"{name} of the person reaches from {low:.3f} to {high:.3f}; expected 0 to 1. Divide "
                             f"8-bit values by 255.")
    column, row = ((values.double() * texels).floor().clamp(0, texels - 1).long() for values in (u, v))
    return ((part.long() * texels + column) * texels + row).flatten(1)


def _check_maps(pictures: Tensor, **maps: Tensor) -> None:
    expected = (len(pictures), *pictures.shape[-2:])
    wrong = {name: tuple(value.shape) for name, value in maps.items() if tuple(value.shape) != expected}
    if wrong:
        raise ValueError(f"maps of other shapes than the pictures' {expected}: {wrong}; expected (B, H, W) each, one "
                         f"value per pixel of the pictures.")
