"""From photos and poses to PGPIS_COND: what the embedding nodes and Pose Transfer share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..pgpis_models.framing.limits import limits
from ..pgpis_models.methods import picture_encoder
from ..pgpis_models.poses.files import on_canvas
from ..pgpis_models.poses.formats import from_pose_keypoint
from ..pgpis_models.poses.keypoints import Keypoints
from ..pgpis_models.unet.autoencoder import VAE_STRIDE
from .inputs import matching, resized, rgb
from .notice import notice
from .types import Cond, Method, on_cpu

DEMO = "demo"          # base of the checkpoints that know drawn mannequins alone
MANY_COLOURS = 0.16   # distinct colours per pixel: drawings of the demo have up to 0.1 at its size, photos 0.18 and more
PERSON_TOOLTIP = "Which person of each frame to take, counted from 0; -1 takes the largest."


def person_choice(person: int) -> int | str:
    """The `person` widget as `from_pose_keypoint` wants it."""
    return "largest" if person < 0 else person


def shown_poses(pose, person: int, empty: str = "error", whole: bool = False) -> list[Keypoints]:
    """POSE_KEYPOINT -> the pose of the `person` widget in every frame. empty: what a frame is that does not show that
    person, as of `from_pose_keypoint` and `on_canvas`. whole: with hands and face, for methods that draw them."""
    return on_canvas(from_pose_keypoint(pose, person_choice(person), empty=empty, whole=whole), empty)


def draws_hands(method: Method) -> bool:
    """Whether a checkpoint was trained on poses with hands and face."""
    return getattr(method.checkpoint.method.config, "whole", False)


def encoded_pairs(method: Method, source: torch.Tensor, poses: Sequence[Keypoints], mask: torch.Tensor | None = None,
                  **extras: Any) -> Cond:
    """Source IMAGE and poses through a method that takes keypoints -> PGPIS_COND.

    mask (B, 1, H, W), extras: what `encode_pictures` of the method takes beside. Raises ValueError for numbers that do not
    go together.
    """
    module, encode = method.checkpoint.method, picture_encoder(method.checkpoint.meta.method)
    photos = rgb(source, "the source IMAGE")
    more = {} if mask is None else {"masks": len(mask)}
    batch = matching(sources=len(photos), poses=len(poses), **more)   # before the work, not after it
    if not hasattr(module.config, "photo_size"):   # methods with one squash photos themselves, as their training did
        photos = resized(photos, module.config.image_size)
    if mask is not None:
        extras["mask"] = mask
    warn_of_photo(method, photos)
    device = method.load()
    with torch.no_grad():
        encoded = encode(module, photos * 2 - 1, poses, device, **extras)
    return Cond(method, on_cpu(encoded), batch, module.config.latent_size)


def limits_of(method: Method, poses: Sequence[Keypoints] = (), **given) -> list[str]:
    """What stands against the pictures of a checkpoint, in sentences; given: as `framing.limits.limits` takes it."""
    height, width = method.checkpoint.method.config.latent_size
    return limits(size=(height * VAE_STRIDE, width * VAE_STRIDE), poses=poses, **given)


def warn_of_limits(method: Method, poses: Sequence[Keypoints]) -> None:
    """A notice of what stands against these poses, where anything does."""
    if said := limits_of(method, poses):
        notice("\n".join(said))


def warn_of_photo(method: Method, photos: torch.Tensor) -> None:
    """A notice when a checkpoint of the demo is given photos (B, 3, H, W) in 0..1 rather than drawn mannequins."""
    if method.checkpoint.meta.base != DEMO:
        return
    height, width = method.checkpoint.method.config.image_size
    values = (resized(photos, (height, width)) * 255).round().to(torch.int64)
    codes = ((values[:, 0] * 256 + values[:, 1]) * 256 + values[:, 2]).flatten(1)   # (B, H W)
    if any(len(one.unique()) > MANY_COLOURS * one.numel() for one in codes):
        notice(f"{method.name} knows drawn mannequins alone, and this looks like a photo: expect a mannequin in its "
               "clothes' colours at best. For photos load weights that were trained on them, with the base that they name.")
