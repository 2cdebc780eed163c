"""Drawn people in other drawn people's clothes: what a garment transfer should make."""

from __future__ import annotations

from dataclasses import replace

from pgpis_models.poses.keypoints import Keypoints
from pgpis_models.surface.densepose import IUV
from training.world.bank import HELD_OUT, pose_seed
from training.world.drawing import Rendering, render
from training.world.poses import sample_pose
from training.world.wardrobe import Identity, sample_identity

CLOTHES = ("top", "top_second", "top_pattern", "top_period", "sleeve", "ease", "collar", "letter", "letter_rgb",
           "bottom_kind", "bottom", "bottom_second", "bottom_pattern", "bottom_period", "leg", "fit", "waistline", "belt")


def dressed(who: Identity, donor: Identity) -> Identity:
    """The person in all of the donor's clothes but the shoes."""
    return replace(who, **{name: getattr(donor, name) for name in CLOTHES})


def swap(number: int, view: int, donor_view: int) -> tuple[Rendering, Rendering, Rendering]:
    """Held-out person `number`, the one after as donor, and the first in the second's clothes, in the first's pose."""
    person, donor = (sample_identity(HELD_OUT + number + one) for one in (0, 1))
    pose = sample_pose(pose_seed(person.seed, view))
    lent = render(donor, sample_pose(pose_seed(donor.seed, donor_view)))
    return render(person, pose), lent, render(dressed(person, donor), pose)


def densepose_of(drawn: Rendering) -> IUV:
    """Its own, exact."""
    return IUV(drawn.part, drawn.u, drawn.v)


def pose_of(drawn: Rendering) -> Keypoints:
    """Its own, as a detector would see it."""
    return Keypoints(drawn.keypoints, drawn.detected, drawn.part.shape)
