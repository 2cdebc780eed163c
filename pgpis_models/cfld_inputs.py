"""Photos and poses as CFLD wants them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .cfld import CFLD, Encoded
from .pose import Keypoints, cfld_rasters


def encode_pictures(method: CFLD, sources: Tensor, poses: Sequence[Keypoints], device: torch.device) -> Encoded:
    """sources (B or 1, 3, H, W) in -1..1 at the method's image size, B or 1 poses -> Encoded, on the device."""
    return method.encode(sources.to(device), cfld_rasters(poses, method.config.pose_size).to(device))
