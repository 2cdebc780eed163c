"""Pictures as CLIP wants them, by the arithmetic of MCLD's authors."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..parts.pixels import CLIP_MEAN, CLIP_STD, resized


def clip_pixels(pictures: np.ndarray, size: int = 224) -> Tensor:
    """Square pictures (B, S, S, 3) uint8 RGB -> (B, 3, size, size), what the CLIP image encoder is given.

    The published pipeline squashes photo and texture map to 512x512 first. Pillow's bicubic filter, CLIP's mean and
    standard deviation.
    """
    if pictures.ndim != 4 or pictures.shape[1] != pictures.shape[2] or pictures.dtype != np.uint8:
        raise ValueError(f"pictures came as {pictures.dtype} {pictures.shape}; expected square ones, uint8 (B, S, S, 3): "
                         "squash them to the size of the generated picture first")
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    return (_resized(pictures, (size, size)) / 255 - mean) / std


def _resized(pictures: np.ndarray, size: tuple[int, int]) -> Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, *size) float32, still 0..255."""
    return torch.from_numpy(np.stack([resized(picture, size) for picture in pictures])).permute(0, 3, 1, 2).float()
