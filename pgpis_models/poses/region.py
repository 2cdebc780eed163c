"""The region around a skeleton: a drawing binarised, blurred to dilate it, and cut (QEN's pose region m_p)."""

from __future__ import annotations

import logging
import math

import torch
import torch.nn.functional as F
from torch import Tensor

BINARISE = 0.1        # of 1: pixels brighter than this in any channel belong to the skeleton; JPEG noise is darker
SHORT = 64            # pixels of a kernel's radius up to which a convolution is the faster way
REFERENCE = 512       # pixels of height at which the blur is given
log = logging.getLogger(__name__)


def skeleton_region(picture: Tensor, size: tuple[int, int], sigma: float = 8.0, threshold: float = 1 / 255) -> Tensor:
    """Skeleton pictures (B, C, H, W), uint8 or 0..1 -> the dilated region (B, 1, *size), 1 inside and 0 outside.

    The drawing is binarised, brought to `size` by any-pooling, blurred, and cut at `threshold` of its peak. sigma: of the
    blur, in pixels of a picture REFERENCE high. The paper says binarise and blur; it gives neither sigma nor threshold.
    """
    limit = BINARISE if picture.is_floating_point() else 255 * BINARISE
    drawn = any_pool((picture > limit).any(1, keepdim=True), size)
    sigma = sigma * size[0] / REFERENCE
    if sigma <= 0:
        return drawn
    radius = math.ceil(sigma * (math.sqrt(-2 * math.log(min(threshold, 0.5))) + 1))   # beyond it all limbs add up to less
    radius = min(radius, max(size) - 1)   # nothing is farther away within the picture
    offsets = torch.arange(-radius, radius + 1, device=drawn.device, dtype=drawn.dtype)
    kernel = torch.exp(-offsets.square() / (2 * sigma ** 2))
    kernel = kernel / kernel.sum()
    blurred = _convolved(_convolved(drawn, kernel, 2), kernel, 3)
    return (blurred > threshold * blurred.amax((2, 3), keepdim=True)).to(drawn.dtype)


def _convolved(maps: Tensor, kernel: Tensor, axis: int) -> Tensor:
    """Maps (B, 1, H, W) along one axis with an odd kernel, zeros around them; a long one through the Fourier
    transform, whose work does not grow with it."""
    radius = len(kernel) // 2
    if radius <= SHORT:
        shape, padding = ([1, 1, -1, 1], (radius, 0)) if axis == 2 else ([1, 1, 1, -1], (0, radius))
        return F.conv2d(maps, kernel.view(shape), padding=padding)
    length = maps.shape[axis]
    whole = 2 ** math.ceil(math.log2(length + radius))   # what a round wraps falls outside of the middle that is taken
    spectrum = torch.fft.rfft(maps, whole, dim=axis)
    factor = torch.fft.rfft(kernel, whole).view([-1 if dim == axis else 1 for dim in range(4)])
    return torch.fft.irfft(spectrum * factor, whole, dim=axis).narrow(axis, radius, length).clamp_min(0)


def any_pool(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """mask (B, 1, H, W), any size -> (B, 1, *size) float32: 1 where any pixel that a cell touches is above 0.5.

    A cell of a mask that is smaller than `size` takes the pixels that it lies on.
    """
    return F.adaptive_max_pool2d((mask > 0.5).float(), tuple(size))


def checked_region(mask: Tensor, size: tuple[int, int], warn: bool = True) -> Tensor:
    """A region of any size (B, 1, H, W) any-pooled to `size`; one without a pixel inside becomes everywhere, with a warning.

    warn: False in training, since to know would wait for the device. Raises ValueError when it is not such a tensor.
    """
    if not isinstance(mask, Tensor) or mask.ndim != 4 or mask.shape[1] != 1 or 0 in mask.shape:
        what = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        raise ValueError(f"the pose region is {what}; expected a mask (batch, 1, height, width) of any size")
    region = any_pool(mask, size)
    empty = region.amax((1, 2, 3)) == 0
    if warn and bool(empty.any()):
        log.warning("%d of %d pose masks have no person in them: attention is not masked there. Check the pose.",
                    int(empty.sum()), len(empty))
    return region.masked_fill(empty[:, None, None, None], 1.0)
