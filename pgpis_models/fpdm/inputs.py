"""Photos and poses as FPDM wants them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..poses.keypoints import Keypoints
from .fusion import FusionModel
from .model import FPDM, Encoded, Source
from .pictures import draw_poses
from .pixels import clip_pixels, resized, source_pixels, unit_tensor


def encode_source(method: FPDM, sources: Tensor, device: torch.device) -> Source:
    """sources (B, 3, H, W) in -1..1, best of the method's photo_size (others are squashed to it) -> Source, on the device.

    Once for any number of poses.
    """
    config = method.config
    photos = [resized(photo, config.photo_size) for photo in as_bytes(sources)]
    return method.encode_source(source_pixels(photos, config.source_size, config.photo_size).to(device),
                                clip_pixels(photos, config.fusion.image).to(device))


def encode_poses(method: FPDM, source: Source, poses: Sequence[Keypoints], device: torch.device,
                 one_person: Tensor | None = None) -> Encoded:
    """A Source with poses, drawn as in the training of stage 2: one source with B poses, B with one, or B with B.
    one_person: as of `FPDM.encode`."""
    config = method.config
    pictures = draw_poses(poses, config.pose_canvas, config.fusion)
    return method.encode(source, unit_tensor(pictures, config.image_size).to(device),
                         clip_pixels(pictures, config.fusion.image).to(device), one_person)


def encode_pictures(method: FPDM, sources: Tensor, poses: Sequence[Keypoints], device: torch.device,
                    one_person: Tensor | None = None) -> Encoded:
    """sources (B or 1, 3, H, W) in -1..1 at the method's photo_size, B or 1 poses -> Encoded, on the device.

    one_person: weights (B or 1, N) of `surface.facing` where the sources are N photos of one person.
    """
    return encode_poses(method, encode_source(method, sources, device), poses, device, one_person)


def embed_photos(model: FusionModel, photos: Tensor, device: torch.device) -> Tensor:
    """Target photos (B, 3, H, W) in -1..1 of any size -> what a fusion embedding foresees, (B, E) of length 1.

    Photos are cropped where stage 1 was trained on crops.
    """
    pixels = clip_pixels(as_bytes(photos), model.config.image, crop=model.config.crop)
    return torch.nn.functional.normalize(model.embed(pixels.to(device)), dim=-1)


def as_bytes(photos: Tensor) -> list[np.ndarray]:
    """(B, 3, H, W) in -1..1 -> B pictures (H, W, 3) uint8: the encoders' filters work on 8 bits, as in training."""
    values = ((photos.detach().float().clamp(-1, 1) + 1) * 127.5).round().byte()
    return list(values.permute(0, 2, 3, 1).cpu().numpy())
