"""Pictures as CLIP wants them, by the arithmetic of MCLD's authors."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..parts.pixels import CLIP_MEAN, CLIP_STD, cropped


def clip_pixels(pictures: np.ndarray, size: int = 224) -> Tensor:
    """Pictures (B, H, W, 3) uint8 RGB -> (B, 3, size, size), what the CLIP image encoder is given.

    The published pipeline squashes photo and texture map to 512x512 first; of what is not square CLIP's processor takes the
    middle. Pillow's bicubic filter, CLIP's mean and standard deviation.
    """
    if pictures.ndim != 4 or pictures.shape[3] != 3 or pictures.dtype != np.uint8 or not all(pictures.shape):
        raise ValueError(f"pictures came as {pictures.dtype} {pictures.shape}; expected uint8 (B, H, W, 3)")
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    taken = torch.from_numpy(np.stack([cropped(picture, (size, size)) for picture in pictures]))
    return (taken.permute(0, 3, 1, 2).float() / 255 - mean) / std
