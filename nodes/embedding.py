"""From photos and poses to PGPIS_COND: what the embedding nodes and Pose Transfer share."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from logging import INFO, WARNING
from typing import Any

import torch
from comfy_api.latest import io

from ..pgpis_models.framing.limits import limits
from ..pgpis_models.methods import picture_encoder
from ..pgpis_models.poses.files import on_canvas
from ..pgpis_models.poses.formats import NOBODY, from_pose_keypoint
from ..pgpis_models.poses.keypoints import Keypoints
from ..pgpis_models.surface.densepose import IUV
from ..pgpis_models.surface.facing import weights_of
from ..pgpis_models.surface.people import NOT_COMPARED, strangers, views_of_maps
from ..pgpis_models.unet.autoencoder import VAE_STRIDE
from .inputs import matching, pixels, resized, rgb
from .notice import notice
from .schema import ADVANCED
from .types import Cond, Method, PoseKeypointType, on_cpu

DEMO = "demo"          # base of the checkpoints that know drawn mannequins alone
MANY_COLOURS = 0.16   # distinct colours per pixel: drawings of the demo have up to 0.1 at its size, photos 0.18 and more
EACH, TOGETHER = PHOTOS = ("one person each", "one person together")
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


def photos_inputs(poses: bool = True) -> list[io.Input]:
    """The widget for whom the photos of a batch show and, with `poses`, an input for their poses: behind all others."""
    widget = io.Combo.Input("photos", **ADVANCED, options=list(PHOTOS), default=EACH, optional=True, tooltip=(
        "Whom a batch of photos shows. one person each: as many people as photos. one person together: all show one "
        "person, such as front and back, and are read together for every pose."))
    found = PoseKeypointType.Input("source_pose", optional=True, tooltip=(
        "Pose(s) found in the photos, one frame each: photos of one person then weigh by what they show of each target. "
        "All weigh the same without."))
    return [widget, found] if poses else [widget]


def views_of(source_pose, person: int = -1) -> list[Keypoints] | None:
    """POSE_KEYPOINT of the photos -> the pose of the `person` widget in each, or nobody's; None where nothing is
    connected."""
    return None if source_pose is None else from_pose_keypoint(source_pose, person_choice(person), empty=NOBODY)


def one_person(photos: str, source: torch.Tensor, targets: Sequence[Keypoints | IUV],
               views: Sequence[Keypoints | IUV] | None) -> torch.Tensor | None:
    """Weights (B or 1, N) of N photos that show one person by the widget `photos`, else None. views: their poses or
    DensePose. Raises ValueError for views of another number."""
    return weights_of(len(source), targets, views) if photos == TOGETHER else None


def look_apart(photos: str, source: torch.Tensor, views: Sequence[Keypoints | IUV] | None, give: str,
               textures: torch.Tensor | None = None) -> tuple[list[str], list[str]]:
    """A sentence where photos that are said to show one person look like two people's, by their colours, or else one where
    they cannot be compared, which says what to `give`.

    views: their poses or DensePose, which say what is compared; where there are none, textures, a map of each, are. Of one
    map for all nothing is said: Merge Photos, which makes it, compares what it joins.
    """
    if photos != TOGETHER or len(source) < 2:
        return [], []
    pictures = None
    if views is None and textures is not None:
        if len(textures) < 2:
            return [], []
        pictures = pixels(textures, "the texture IMAGE", ground=0.0)
        views = views_of_maps(pictures)
    if views is None:
        return [], [NOT_COMPARED.format(give=give)]
    if pictures is None and len(views) != len(source):   # refused where they are read
        return [], []
    said = strangers(list(pixels(source, "the source IMAGE") if pictures is None else pictures), views)
    return [said] if said else [], []


def encoded_pairs(method: Method, source: torch.Tensor, poses: Sequence[Keypoints], mask: torch.Tensor | None = None,
                  weights: torch.Tensor | None = None, **extras: Any) -> Cond:
    """Source IMAGE and poses through a method that takes keypoints -> PGPIS_COND.

    mask (B, 1, H, W), extras: what `encode_pictures` of the method takes beside. weights: of photos of one person, as of
    `one_person`. Raises ValueError for numbers that do not go together, and for a method that reads one photo of a person.
    """
    module, encode = method.checkpoint.method, picture_encoder(method.checkpoint.meta.method)
    photos = rgb(source, "the source IMAGE")
    more = {} if mask is None else {"masks": len(mask)}
    people = len(photos) if weights is None else 1
    batch = matching(sources=people, poses=len(poses), **more)   # before the work, not after it
    if not hasattr(module.config, "photo_size"):   # methods with one squash photos themselves, as their training did
        photos = resized(photos, module.config.image_size)
    if mask is not None:
        extras["mask"] = mask
    if weights is not None:
        if "one_person" not in signature(encode).parameters:
            raise ValueError(f"{method.name} reads one photo of a person and photos is '{TOGETHER}'; expected '{EACH}'. "
                             "Set it so")
        extras["one_person"] = weights
    warn_of_photo(method, photos)
    device = method.load()
    with torch.no_grad():
        encoded = encode(module, photos * 2 - 1, poses, device, **extras)
    return Cond(method, on_cpu(encoded), batch, module.config.latent_size)


def limits_of(method: Method, poses: Sequence[Keypoints] = (), **given) -> list[str]:
    """What stands against the pictures of a checkpoint, in sentences; given: as `framing.limits.limits` takes it."""
    height, width = method.checkpoint.method.config.latent_size
    return limits(size=(height * VAE_STRIDE, width * VAE_STRIDE), poses=poses, **given)


def warn_of_limits(method: Method, poses: Sequence[Keypoints], photos: str = EACH, source: torch.Tensor | None = None,
                   views: Sequence[Keypoints] | None = None) -> None:
    """A notice of what stands against these poses, where anything does. photos, source, views: the widget, the photos, and
    their poses, where a node takes them."""
    apart, unknown = ([], []) if source is None else look_apart(photos, source, views, "connect their poses to source_pose")
    said = [*apart, *limits_of(method, poses, source_poses=views or (), together=photos == TOGETHER)]
    if said or unknown:
        notice("\n".join([*said, *unknown]), WARNING if said else INFO)


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
