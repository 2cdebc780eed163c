"""Picture metrics, as the pose-transfer papers compute them (the authors' code of CFLD, FPDM and MCLD, which agree).

Pictures are (B, 3, H, W) float tensors in [0, 1]; every metric gives one float64 number per picture unless it says
otherwise, and works in float64 throughout. No scikit-image: the same numbers come from two separable filters.

LPIPS (Zhang et al. 2018) is there where its package and weights are: read where they lie, never fetched.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

SSIM_K1, SSIM_K2 = 0.01, 0.03  # Wang et al. 2004
INSTALL = "pip install torchvision lpips"
BAND = 2 ** 17        # pixels looked at together on a CPU, since what its cache holds is fast; elsewhere 64 times as many
Window = list[tuple[list[float], int]]   # filters one after the other: weights, and pixels between those that they weigh
UNIFORM: Window = [([1 / 3] * 3, 1), ([1 / 17] * 17, 3)]   # 51 pixels, with fewer sums
LPIPS_SMALLEST = 32   # pixels of a side that AlexNet reads


def psnr(prediction: Tensor, target: Tensor, mask: Tensor | None = None, data_range: float = 1.0) -> Tensor:
    """Peak signal-to-noise ratio in dB -> (B,) float64; inf for equal pictures.

    mask: (B, H, W) or (B, 1, H, W) bool, pixels that count (all three channels of them); None for all.
    """
    check_pair(prediction, target)
    rows = max(1, _together(prediction) // max(1, prediction[:, :, 0].numel()))
    error = torch.cat([made.double().sub(true).square_().mean(1)      # (B, H, W)
                       for made, true in zip(prediction.split(rows, 2), target.split(rows, 2), strict=True)], 1)
    return 10.0 * torch.log10(data_range**2 / _masked_mean(error, mask))


def mean_error(prediction: Tensor, target: Tensor) -> Tensor:
    """FPDM's L1: the mean absolute difference -> (B,) float64."""
    check_pair(prediction, target)
    return (prediction.double() - target.double()).abs().mean((1, 2, 3))


def mae_ratio(prediction: Tensor, target: Tensor) -> Tensor:
    """FPDM's MAE: the sum of absolute differences over the sum of both pictures -> (B,) float64."""
    check_pair(prediction, target)
    prediction, target = prediction.double(), target.double()
    return (prediction - target).abs().sum((1, 2, 3)) / (prediction + target).sum((1, 2, 3))


def ssim_win51(prediction: Tensor, target: Tensor, mask: Tensor | None = None, data_range: float = 1.0) -> Tensor:
    """The papers' "SSIM" -> (B,) float64: uniform window of 51 pixels, sample covariance, channels averaged.

    Equals scikit-image's structural_similarity(win_size=51, data_range=1). Without a mask the mean leaves out 25 pixels
    at each border, where the window is not inside the picture; with one, the mean of the whole map over the mask.

    mask as in `psnr`. Raises ValueError when a side is shorter than 51 pixels.
    """
    check_pair(prediction, target)
    ssim = _ssim_map(prediction, target, UNIFORM, data_range, covariance_norm=51**2 / (51**2 - 1))
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
    check_pair(prediction, target)
    window = torch.exp(torch.arange(-5, 6, dtype=torch.float64) ** 2 / (-2.0 * 1.5**2))
    if data_range == "prediction":
        flat = prediction.double().flatten(1)
        data_range = (flat.amax(1) - flat.amin(1)).reshape(-1, 1, 1, 1)
    elif isinstance(data_range, str):
        raise ValueError(f"data_range is {data_range!r}; expected a number or 'prediction'.")
    ssim = _ssim_map(prediction, target, [((window / window.sum()).tolist(), 1)], data_range, covariance_norm=1.0)
    return _map_mean(ssim, mask, border=5)


def _together(pictures: Tensor) -> int:
    return BAND if pictures.device.type == "cpu" else 64 * BAND


@torch.no_grad()
def _ssim_map(a: Tensor, b: Tensor, window: Window, data_range: float | Tensor, covariance_norm: float) -> Tensor:
    """The SSIM of every pixel -> (B, H, W) float64, mean over the channels; borders are reflected."""
    (height, width), half = a.shape[-2:], sum(spacing * (len(weights) - 1) for weights, spacing in window) // 2
    if min(height, width) <= 2 * half:
        raise ValueError(f"SSIM with a window of {2 * half + 1} pixels got pictures of {height}x{width}; expected both "
                         f"sides {2 * half + 1} or more. Use ssim_gauss for small pictures.")
    rows, columns = (_reflected(side, half, a.device) for side in (height, width))
    most = _together(a)
    step, count = max(1, min(height, most // width)), max(1, most // (height * width))
    ranges = torch.as_tensor(data_range, dtype=torch.float64, device=a.device).expand(*a.shape[:2], 1, 1)
    found = torch.empty(a.shape, dtype=torch.float64, device=a.device)
    for x, y, whole, result in zip(*(each.flatten(0, 1).split(count) for each in (a, b, ranges, found)), strict=True):
        for top in range(0, height, step):
            band = rows[top:top + step + 2 * half]
            pair = (picture[:, band].double()[..., columns] for picture in (x, y))
            result[:, top:top + step] = _ssim_band(*pair, window, whole, covariance_norm)
    return found.mean(1)


def _ssim_band(a: Tensor, b: Tensor, window: Window, data_range: Tensor, covariance_norm: float) -> Tensor:
    """The SSIM of channels (N, h, w), which came with what the window reaches around them; data_range (N, 1, 1)."""
    mean_a, mean_b, squares, product = (_filtered(x, window) for x in (a, b, (a * a).addcmul_(b, b), a * b))
    both, means = mean_a * mean_b, (mean_a * mean_a).addcmul_(mean_b, mean_b)
    c1, c2 = (SSIM_K1 * data_range) ** 2, (SSIM_K2 * data_range) ** 2
    product.sub_(both).mul_(2 * covariance_norm).add_(c2)
    squares.sub_(means).mul_(covariance_norm).add_(c2)
    return both.mul_(2).add_(c1).mul_(product).div_(means.add_(c1).mul_(squares))


def _filtered(x: Tensor, window: Window) -> Tensor:
    """Separable filter of (N, H, W), without what it does not reach at the borders. Sums of shifted pictures: for float64
    faster than a convolution, and none larger than the picture."""
    for axis in (-2, -1):
        for weights, spacing in window:
            length = x.shape[axis] - spacing * (len(weights) - 1)
            total = x.narrow(axis, 0, length) * weights[0]
            for number, weight in enumerate(weights[1:], start=1):
                total.add_(x.narrow(axis, number * spacing, length), alpha=weight)
            x = total
    return x


def _reflected(length: int, half: int, device: torch.device) -> Tensor:
    """Which pixel of a side each of (length + 2 half) shows. Borders are reflected including the edge pixel
    (d c b a | a b c d), which torch's padding modes do not offer."""
    place = torch.arange(-half, length + half, device=device)
    place = torch.where(place < 0, -1 - place, place)
    return torch.where(place >= length, 2 * length - 1 - place, place)


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


def papers_resize_quantise(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Generated pictures (B, 3, H, W) in [0, 1] -> (B, 3, *size) as the papers measure them: antialiased bicubic
    resize, clamp, truncation (not rounding) to 8 bit, / 255."""
    x = F.interpolate(images, size=size, mode="bicubic", align_corners=False, antialias=True)
    return (x * 255.0).clamp(0, 255).to(torch.uint8).to(images.dtype) / 255.0


def check_pair(a: Tensor, b: Tensor) -> None:
    """Raises ValueError unless both are float pictures (B, C, H, W) of one shape."""
    if a.shape != b.shape or a.ndim != 4 or not (a.is_floating_point() and b.is_floating_point()):
        raise ValueError(f"pictures came as {a.dtype} {tuple(a.shape)} and {b.dtype} {tuple(b.shape)}; expected two "
                         f"float tensors of one shape (B, C, H, W) in [0, 1]. Divide 8-bit pictures by 255, resize "
                         f"one to the other's size.")


# --- LPIPS --------------------------------------------------------------------------------------

def weights_file(url: str) -> Path:
    """Where torch keeps what it once fetched from a page. Raises FileNotFoundError naming page and folder."""
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    if not file.is_file():
        raise FileNotFoundError(f"{file.name} is not in {file.parent}; have it from {url}")
    return file


def lpips_network() -> torch.nn.Module:
    """LPIPS v0.1 with AlexNet. Raises ImportError and FileNotFoundError saying what is missing."""
    try:
        import lpips
        from torchvision.models import AlexNet_Weights
    except ImportError as error:
        raise ImportError(f"the packages lpips and torchvision are needed ({error}): {INSTALL}") from error
    weights_file(AlexNet_Weights.IMAGENET1K_V1.url)
    return lpips.LPIPS(net="alex", version="0.1", verbose=False).train(False)


@cache
def _network() -> torch.nn.Module:
    return lpips_network()


@torch.no_grad()
def lpips_where_there(generated: Tensor, target: Tensor) -> Tensor | None:
    """Pictures (B, 3, H, W) in 0..1 -> (B,), 0 for equal ones; None without the network, and where it cannot read them."""
    if min(generated.shape[-2:]) < LPIPS_SMALLEST:
        return None
    try:
        network = _network()
    except (ImportError, OSError):
        return None
    return network(generated.cpu().float(), target.cpu().float(), normalize=True).flatten()
