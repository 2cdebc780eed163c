"""Photos and poses as QEN wants them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..poses.drawing import cfld_rasters, draw_cfld
from ..poses.keypoints import Keypoints
from .config import QENConfig
from .model import QEN, Appearance, Encoded

DRAWING = 3   # channels of a skeleton picture


def pose_rasters(poses: Sequence[Keypoints], config: QENConfig) -> Tensor:
    """Poses -> (B, C, h, w) in 0..1 of config.pose_size: the skeleton's drawing, with CFLD's heat maps if C is 21.

    The paper draws OpenPose skeletons and does not state their line width; this is CFLD's drawing.
    """
    if config.pose_channels == DRAWING:
        return torch.stack([torch.from_numpy(draw_cfld(pose, config.pose_size)) for pose in poses]).float() / 255
    return cfld_rasters(poses, config.pose_size)


def encode_source(method: QEN, sources: Tensor, device: torch.device) -> Appearance:
    """sources (B, 3, H, W) in -1..1 at the method's image size -> Appearance, on the device; once for many poses."""
    return method.encode_appearance(sources.to(device))


def encode_poses(method: QEN, source: Appearance, poses: Sequence[Keypoints], device: torch.device,
                 mask: Tensor | None = None, strength: float = 1.0, start: float = 0.0, end: float = 1.0) -> Encoded:
    """An Appearance with poses: one source with B poses, B with one, or B with B. The rest as in `encode_pictures`."""
    return method.with_pose(source, pose_rasters(poses, method.config).to(device),
                            None if mask is None else mask.to(device), strength, start, end)


def encode_pictures(method: QEN, sources: Tensor, poses: Sequence[Keypoints], device: torch.device,
                    mask: Tensor | None = None, strength: float = 1.0, start: float = 0.0, end: float = 1.0,
                    one_person: Tensor | None = None) -> Encoded:
    """sources (B or 1, 3, H, W) in -1..1 at the method's image size, B or 1 poses -> Encoded, on the device.

    mask: pose regions (B or 1, 1, any, any) in place of those that the poses give. strength, start, end: of the control
    branch, as of any ControlNet. one_person: weights (B or 1, N) of `surface.facing` where the sources are N photos of one
    person.
    """
    source = encode_source(method, sources, device)
    source = source if one_person is None else method.joined(source, one_person)
    return encode_poses(method, source, poses, device, mask, strength, start, end)
