"""Which side of a person a view shows, and how much each of several photos shows of what a target pose will show."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..poses.keypoints import JOINTS, Keypoints
from .densepose import IUV

BROAD = 0.5     # breadth of shoulders or hips over the torso's length, from which on a view counts as straight on
LEAST = 0.05    # of the person's pixels that torso and legs must have before DensePose says which side they show
PAIRS = (("left shoulder", "right shoulder", 1.0), ("left hip", "right hip", 0.6))   # breadths of people, about


def front_share(view: Keypoints | IUV) -> float:
    """0 for a person seen from behind, 1 from the front, between them for views from the side, and where it cannot be said
    0.5."""
    return _of_densepose(view) if isinstance(view, IUV) else _of_pose(view)


def _of_densepose(iuv: IUV) -> float:
    front, back = (int(iuv.part_mask(f"torso {side}", f"left upper leg {side}", f"right upper leg {side}").sum())
                   for side in ("front", "back"))
    return front / (front + back) if front + back > LEAST * int((iuv.part > 0).sum()) and front + back else 0.5


def _of_pose(pose: Keypoints) -> float:
    """By which of the shoulders, and of the hips, stands to the right in the picture."""
    at, there = {name: pose.xy[number] for number, name in enumerate(JOINTS)}, dict(zip(JOINTS, pose.present, strict=True))
    hips = [at[name] for name in ("left hip", "right hip") if there[name]]
    pairs = [(at[left][0] - at[right][0]) / breadth for left, right, breadth in PAIRS if there[left] and there[right]]
    if not pairs:
        return 0.5
    if there["neck"] and hips:
        length = float(((at["neck"] - sum(hips) / len(hips)) ** 2).sum() ** 0.5)
    else:
        length = max(map(abs, pairs)) / BROAD
    mean = sum(pairs) / len(pairs)
    return min(max(0.5 + 0.5 * mean / max(BROAD * length, 1e-6), 0.0), 1.0)


def photo_weights(photos: Sequence[Keypoints | IUV], targets: Sequence[Keypoints | IUV]) -> Tensor:
    """N views of one person and B targets -> (B, N) float32 that sum to 1: the share of what a target shows that each photo
    shows, front and back counted apart; equal where no photo shows any of it."""
    fronts = torch.tensor([float(front_share(view)) for view in photos])[None]                  # (1, N)
    wanted = torch.tensor([float(front_share(view)) for view in targets])[:, None]              # (B, 1)
    shown = fronts * wanted + (1 - fronts) * (1 - wanted)
    shown = torch.where(shown.sum(1, keepdim=True) > 1e-6, shown, 1.0)
    return shown / shown.sum(1, keepdim=True)


def weights_of(count: int, targets: Sequence[Keypoints | IUV], views: Sequence[Keypoints | IUV] | None = None) -> Tensor:
    """`photo_weights` of N = count photos where their poses or DensePose are given as `views`, else (1, N), all equal.
    Raises ValueError for views of another number."""
    if views is None:
        return torch.full((1, count), 1 / count)
    if len(views) != count:
        raise ValueError(f"{count} photos of one person came with {len(views)} of their poses; expected one for each photo, "
                         "or none")
    return photo_weights(views, targets)
