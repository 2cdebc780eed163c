"""Photos and poses as CFLD wants them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..poses.drawing import cfld_rasters
from ..poses.keypoints import Keypoints
from .model import CFLD, Appearance, Encoded


def encode_pictures(method: CFLD, sources: Tensor, poses: Sequence[Keypoints], device: torch.device,
                    one_person: Tensor | None = None) -> Encoded:
    """sources (B or 1, 3, H, W) in -1..1 at the method's image size, B or 1 poses -> Encoded, on the device.

    one_person: weights (B or 1, N) of `surface.facing` where the sources are N photos of one person.
    """
    source = encode_source(method, sources, device)
    return encode_poses(method, source if one_person is None else method.joined(source, one_person), poses, device)


def encode_source(method: CFLD, sources: Tensor, device: torch.device) -> Appearance:
    """sources (B, 3, H, W) as in `encode_pictures` -> Appearance, once for any number of poses."""
    return method.encode_appearance(sources.to(device))


def encode_poses(method: CFLD, source: Appearance, poses: Sequence[Keypoints], device: torch.device) -> Encoded:
    """An Appearance with poses: one source with B poses, B with one, or B with B."""
    return source.with_pose(method.encode_pose(cfld_rasters(poses, method.config.pose_size).to(device)))
