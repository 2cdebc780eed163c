"""Photos and poses as QEN wants them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .pose import Keypoints, cfld_rasters
from .qen import QEN, Encoded, QENConfig


def pose_rasters(poses: Sequence[Keypoints], config: QENConfig) -> Tensor:
    """Poses -> (B, C, h, w) in 0..1 of config.pose_size: the skeleton's drawing, with CFLD's heat maps if C is 21.

    The paper draws OpenPose skeletons and does not state their line width; this is CFLD's drawing.
    """
    return cfld_rasters(poses, config.pose_size)[:, :config.pose_channels]


def encode_pictures(method: QEN, sources: Tensor, poses: Sequence[Keypoints], device: torch.device,
                    mask: Tensor | None = None, strength: float = 1.0, start: float = 0.0, end: float = 1.0) -> Encoded:
    """sources (B or 1, 3, H, W) in -1..1 at the method's image size, B or 1 poses -> Encoded, on the device.

    mask: pose regions (B or 1, 1, any, any) in place of those that the poses give. strength, start, end: of the control
    branch, as of any ControlNet.
    """
    raster = pose_rasters(poses, method.config).to(device)
    return method.encode(sources.to(device), raster, None if mask is None else mask.to(device), strength, start, end)
