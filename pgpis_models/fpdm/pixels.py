"""Photos and pose pictures as the tensors of FPDM's three encoders."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..parts.pixels import CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD, cropped, resized
from ..poses.keypoints import checked_size


def unit_tensor(pictures: Sequence[np.ndarray], size: tuple[int, int]) -> Tensor:
    """Pictures (H, W, 3) uint8 -> (B, 3, *size) float32 in [0, 1]: the pose guider's input, not normalised."""
    if not len(pictures):
        raise ValueError("no pictures; expected one or more of (H, W, 3) uint8")
    stacked = np.stack([resized(picture, size) for picture in pictures])
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).float().div_(255.0)


def _normalised(pixels: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    mean, std = (pixels.new_tensor(values).reshape(1, 3, 1, 1) for values in (mean, std))
    return (pixels - mean) / std


def source_pixels(photos: Sequence[np.ndarray], size: tuple[int, int] = (512, 512),
                  read_size: tuple[int, int] = (512, 512)) -> Tensor:
    """Photos (H, W, 3) uint8 -> (B, 3, *size), squashed, with ImageNet's mean and deviation: the source encoder's input.

    read_size: (H, W) that photos are squashed to first; training takes (256, 256) half of the time.
    """
    return _normalised(unit_tensor([resized(p, read_size) for p in photos], size), IMAGENET_MEAN, IMAGENET_STD)


def clip_pixels(pictures: Sequence[np.ndarray], size: tuple[int, int] = (224, 224), crop: bool = False,
                read_size: tuple[int, int] | None = None) -> Tensor:
    """Pictures (H, W, 3) uint8 -> (B, 3, *size) with CLIP's mean and deviation: the fusion model's input.

    crop: shorter side to `size` and the middle of the longer one, as stage 1 reads photos; else squashed, as stage 2
    does and both do with pose pictures (a mismatch of the original, kept). read_size: (H, W) that pictures are squashed
    to first: (512, 512) for the source photos of stage 2, as in `source_pixels`; None for all else.
    """
    if read_size is not None:
        pictures = [resized(picture, read_size) for picture in pictures]
    if crop:
        pictures = [cropped(picture, checked_size(size, "size")) for picture in pictures]
    return _normalised(unit_tensor(pictures, size), CLIP_MEAN, CLIP_STD)


def target_pixels(photos: Sequence[np.ndarray], size: tuple[int, int] = (512, 352),
                  read_size: tuple[int, int] = (512, 352)) -> Tensor:
    """Photos (H, W, 3) uint8 -> (B, 3, *size) in [-1, 1], squashed: what the autoencoder encodes."""
    return unit_tensor([resized(p, read_size) for p in photos], size) * 2.0 - 1.0
