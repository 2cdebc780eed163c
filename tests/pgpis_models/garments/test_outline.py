"""Masks of garment transfers on drawn people: where a person changes who puts on the donor's clothes is what they cover."""

from __future__ import annotations

import numpy as np
import pytest

from pgpis_models.garments.limbs import along_limbs
from pgpis_models.garments.masks import part_mask, sorted_pixels
from pgpis_models.garments.outline import Cover, covered, transfer_mask
from pgpis_models.surface.densepose import IUV
from tests.helpers.drawn_parts import grown
from tests.helpers.dressed import densepose_of, pose_of, swap
from training.world.drawing import Rendering

# number of the person, its view and the donor's: knee-long to trousers that the donor's picture cuts off; a short dress to a
# top and trousers; a sleeveless top to one with sleeves
SWAPS = {"longer": (302, 1, 2), "dress": (314, 3, 0), "sleeves": (312, 2, 3)}
CHANGED = 24   # of 255: by more the person's picture and the one in other clothes differ where clothes do
GROW = 4       # pixels, as Masked Sampler grows a mask in a picture of 192 pixels


@pytest.fixture(scope="module")
def swaps() -> dict[str, tuple[Rendering, Rendering, Rendering]]:
    return {name: swap(*numbers) for name, numbers in SWAPS.items()}


def given(drawn: Rendering, what: str):
    return (densepose_of(drawn) if "densepose" in what else None), (pose_of(drawn) if "pose" in what.split() else None)


@pytest.mark.parametrize("what", ["densepose pose", "densepose", "pose"])
@pytest.mark.parametrize("name", SWAPS)
def test_the_mask_covers_old_and_new_outline(name, what, swaps):
    person, donor, truth = swaps[name]
    changed = np.abs(truth.image.astype(int) - person.image).max(-1) > CHANGED
    own = part_mask(person.image, "all clothes", *given(person, what))
    mask = transfer_mask(person.image, "all clothes", *given(person, what), donor.image, *given(donor, what))
    before, after = (float((changed & grown(one, GROW)).sum() / changed.sum()) for one in (own, mask))
    print(f"{name} by {what}: of what changes {before:.3f} without the donor, {after:.3f} with")
    assert not (own & ~mask).any() and before < 0.9 and after > 0.96
    assert grown(mask, GROW).sum() < 1.7 * changed.sum(), "the mask takes more than the clothes"


def test_a_short_garment_leaves_what_it_does_not_reach(swaps):
    """The other way round: arms and legs of a person in long clothes are in the mask by those, not by the donor's."""
    body = sorted_pixels(swaps["longer"][0].image, *given(swaps["longer"][0], "densepose pose"))
    along = along_limbs(*body[1:])
    mask = covered(Cover(arm=0.5, leg=0, top=0, bottom=0.6, neck=False, hangs=False), body[1], along)
    arm = np.isin(body[1].zone, (2, 3))
    assert mask[arm & (along < 0.5)].all() and mask[arm & (along > 1)].mean() < 0.1
    assert mask[body[1].down > 0.8].mean() < 0.02
    assert not covered(Cover(0, 0, 1, 0, False, False), body[1], along).any()


def test_positions_along_limbs_by_parts_are_those_by_the_skeleton(swaps):
    person = swaps["longer"][0]
    _, body, densepose, pose = sorted_pixels(person.image, densepose_of(person), pose_of(person))
    by_pose, by_parts = along_limbs(body, densepose, pose), along_limbs(body, densepose, None)
    known = np.isfinite(by_pose)
    assert np.array_equal(known, np.isfinite(by_parts)) and known.sum() > 1000
    print(f"half differ by less than {np.median(np.abs(by_pose - by_parts)[known]):.3f}")
    assert np.median(np.abs(by_pose - by_parts)[known]) < 0.15


def test_what_cannot_be_transferred_says_so(swaps):
    person, donor, _ = swaps["longer"]
    own, lent = given(person, "densepose pose"), given(donor, "densepose pose")
    with pytest.raises(ValueError, match="part is 'hair', which came with a donor; expected one of upper garment"):
        transfer_mask(person.image, "hair", *own, donor.image, *lent)
    with pytest.raises(ValueError, match="the donor: a garment mask came without densepose and pose"):
        transfer_mask(person.image, "all clothes", *own, donor.image, None, None)
    nobody = IUV(np.zeros_like(lent[0].part), lent[0].u, lent[0].v)
    with pytest.raises(ValueError, match="no upper garment is seen in the donor's picture of 192x256"):
        transfer_mask(person.image, "upper garment", *own, donor.image, nobody, None)
