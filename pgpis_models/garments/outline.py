"""The mask of a garment transfer: what the person's own garment covers, and what the donor's will cover."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..poses.keypoints import Keypoints
from ..surface.densepose import IUV
from .limbs import along_limbs
from .masks import PARTS, SEEN, enlarged, sorted_pixels
from .zones import HEAD, LOWER_ARM, SHANK, THIGH, TORSO, UPPER_ARM, Body

CLOTHES = ("upper garment", "lower garment", "all clothes")   # of PARTS
BINS = 16          # along a limb, from its first joint to its last
FEWEST = 6         # pixels that say whether a bin is covered
FULL = 0.9         # a garment that fills this share of its hull around the legs hangs between them
FLARE = 0.10       # by which such a one stands off the legs, in lengths of the trunk
SLACK = 0.03       # around what the donor's garment covers, likewise
NECK = 0.3         # share of the neck that a collar covers


@dataclass(frozen=True)
class Cover:
    """What of a body a garment covers.

    arm, leg: up to where, 0 none of it, 1 elbow or knee, 2 wrist or ankle. top, bottom: of the trunk, 0 its upper end and 1
    its lower; 1, 0 for none of it. neck: whether a collar covers it. hangs: whether it covers what lies between the legs.
    """

    arm: float
    leg: float
    top: float
    bottom: float
    neck: bool
    hangs: bool


def transfer_mask(photo: np.ndarray, part: str, densepose: IUV | None, pose: Keypoints | None, donor: np.ndarray,
                  donor_densepose: IUV | None, donor_pose: Keypoints | None) -> np.ndarray:
    """Photo (H, W, 3) uint8 -> (H, W) bool: the part as `part_mask` finds it, with what the donor's covers of a body.

    donor: (h, w, 3) uint8 of any size, with its DensePose, its pose or both. Sleeves, hems, necklines and waists reach as
    far as the longer of the two; a skirt covers what lies between the legs. What a donor's photo cuts off or hides goes on
    as it ends: sleeves that reach the edge of the photo are taken for long ones. Raises ValueError as `part_mask`, for parts
    that are no clothes, and where the donor shows none; the person need not.
    """
    if part not in CLOTHES:
        raise ValueError(f"part is {part!r}, which came with a donor; expected one of {', '.join(CLOTHES)}. Take another "
                         "part, or leave the donor away")
    labels, body, densepose, pose = sorted_pixels(photo, densepose, pose)
    try:
        others, donated, donor_densepose, donor_pose = sorted_pixels(donor, donor_densepose, donor_pose)
    except ValueError as error:
        raise ValueError(f"the donor: {error}") from error
    own, lent = (np.isin(each, PARTS[part]) for each in (labels, others))
    if lent.sum() < max(SEEN * lent.size, 4):
        raise ValueError(f"no {part} is seen in the donor's picture of {donor.shape[1]}x{donor.shape[0]} pixels; expected a "
                         "person who wears it. Choose another part, or check that densepose and pose are of this picture")
    cover = cover_of(lent, donated, along_limbs(donated, donor_densepose, donor_pose))
    return enlarged(own | covered(cover, body, along_limbs(body, densepose, pose)), photo.shape[:2])


def cover_of(garment: np.ndarray, body: Body, along: np.ndarray) -> Cover:
    """garment (H, W) bool on a Body, with `along_limbs` of it -> Cover."""
    trunk = body.zone == TORSO
    down = body.down[garment & trunk]
    top, bottom = (float(np.quantile(down, share)) for share in (0.01, 0.98)) if len(down) >= FEWEST else (1.0, 0.0)
    neck = (body.zone == HEAD) & (body.above < 0)
    collar = bool(neck.sum() >= FEWEST and garment[neck].mean() > NECK)
    legs = np.isin(body.zone, (THIGH, SHANK))
    cut_off = len(down) >= FEWEST and bottom > float(np.quantile(body.down[trunk], 0.95)) - 0.05
    leg = 2.0 if cut_off and legs.sum() < FEWEST else _reach(garment, legs, along)
    return Cover(_reach(garment, np.isin(body.zone, (UPPER_ARM, LOWER_ARM)), along), leg, top, bottom, collar,
                 leg > 0 and _hangs(garment & legs))


def covered(cover: Cover, body: Body, along: np.ndarray) -> np.ndarray:
    """(H, W) bool: what a garment with this cover covers of a Body, and SLACK around it."""
    arms, legs, trunk = (np.isin(body.zone, zones) for zones in ((UPPER_ARM, LOWER_ARM), (THIGH, SHANK), (TORSO,)))
    step = 2 / BINS
    mask = arms & (along <= cover.arm + step) if cover.arm > 0 else np.zeros_like(arms)
    mask = mask | (trunk & (body.down >= cover.top) & (body.down <= cover.bottom))
    if cover.neck:
        mask |= (body.zone == HEAD) & (body.above < 0)
    length = _trunk_length(body)
    if cover.leg > 0:
        below = legs & (along <= cover.leg + step)
        mask |= _grown(_hull(below | (trunk & (body.down > 0.8))), FLARE * length) if cover.hangs else below
    return _grown(mask, SLACK * length)


def _reach(garment: np.ndarray, limb: np.ndarray, along: np.ndarray) -> float:
    """Up to where limbs are covered, 0..2: over both sides, to the last of the bins that are mostly covered; 2 where nothing
    is seen beyond it."""
    place = np.minimum((along[limb] / 2 * BINS).astype(int), BINS - 1)
    seen = np.bincount(place, minlength=BINS)
    worn = np.bincount(place, garment[limb], minlength=BINS)
    known = seen >= FEWEST
    bins = np.flatnonzero(known & (worn > 0.5 * seen))
    if not len(bins):
        return 0.0
    last = int(bins[-1])
    return (last + 1) * 2 / BINS if known[last + 1:].any() else 2.0


def _hangs(garment: np.ndarray) -> bool:
    return garment.sum() >= FEWEST and float(garment.sum()) > FULL * float(_hull(garment).sum())


def _hull(mask: np.ndarray) -> np.ndarray:
    import cv2  # no cost when the host starts
    hull = np.zeros(mask.shape, np.uint8)
    at = np.argwhere(mask)[:, ::-1].astype(np.int32)
    if len(at):
        cv2.fillConvexPoly(hull, cv2.convexHull(at.reshape(-1, 1, 2)), 1)
    return hull > 0


def _grown(mask: np.ndarray, pixels: float) -> np.ndarray:
    import cv2  # no cost when the host starts
    if not mask.any():
        return mask
    return cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE) <= pixels


def _trunk_length(body: Body) -> float:
    """In pixels, of how fast `down` grows."""
    slope = np.hypot(*np.gradient(body.down))
    return float(1 / max(float(np.median(slope)), 1e-6))
