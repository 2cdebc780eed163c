"""Masks by name on drawn people, of whom the painter says what each pixel shows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pgpis_models.garments import masks as garments
from pgpis_models.poses.keypoints import Keypoints
from pgpis_models.surface.densepose import IUV
from tests.helpers.drawn_parts import drawn_parts
from training.world.bank import HELD_OUT, pose_seed
from training.world.drawing import render
from training.world.poses import sample_pose
from training.world.wardrobe import sample_identity

PEOPLE = range(200, 206)   # held out, both views of each
FEWEST = 200               # pixels of a part that is measured: a cheek seen from behind is no face
ASKED = ("upper garment", "hair", "skin", "face")


def densepose_of(drawn) -> IUV:
    return IUV(drawn.part, drawn.u, drawn.v)


def pose_of(drawn) -> Keypoints:
    return Keypoints(drawn.keypoints, drawn.detected, drawn.part.shape)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


@pytest.fixture(scope="module")
def people():
    """(rendering, true masks) of full figures and closer views."""
    identities = [sample_identity(HELD_OUT + number) for number in PEOPLE]
    drawings = [(who, render(who, sample_pose(pose_seed(who.seed, view)))) for who in identities for view in (0, 1)]
    return [(drawn, drawn_parts(who, drawn)) for who, drawn in drawings]


@pytest.fixture(scope="module")
def overlaps(people):
    """(what was given, name of the mask) -> overlap with the truth on each person who shows it."""
    found = {}
    for drawn, truth in people:
        for given, densepose in (("both", densepose_of(drawn)), ("pose", None)):
            made = garments.part_masks(drawn.image, densepose, pose_of(drawn))
            for name, true in truth.items():
                if true.sum() >= FEWEST:
                    found.setdefault((given, name), []).append(overlap(made[name], true))
    return found


@pytest.mark.parametrize("name", ASKED)
def test_an_artists_masks_overlap_the_truth(overlaps, name):
    values = overlaps["both", name]
    print(name, [round(value, 3) for value in values])
    assert len(values) >= 6 and np.mean(values) > 0.9 and np.median(values) > 0.92


@pytest.mark.parametrize("name", ["upper garment", "all clothes"])
def test_a_skeleton_alone_gives_garments_before_a_plain_ground(overlaps, name):
    print(name, [round(value, 3) for value in overlaps["pose", name]])
    assert np.median(overlaps["pose", name]) > 0.9


def test_garments_and_skin_do_not_overlap_and_a_face_is_skin(people):
    drawn, _ = people[0]
    made = garments.part_masks(drawn.image, densepose_of(drawn), pose_of(drawn))
    assert not (made["skin"] & (made["hair"] | made["all clothes"])).any() and not (made["face"] & ~made["skin"]).any()
    assert np.array_equal(made["all clothes"], made["upper garment"] | made["lower garment"])


def test_large_pictures_are_sorted_small_and_masked_at_their_size(people):
    """A picture enlarged so that each pixel is 4 x 4 has the same masks, but for their edges."""
    drawn, truth = people[0]
    large = [np.repeat(np.repeat(each, 4, 0), 4, 1) for each in (drawn.image, drawn.part, drawn.u, drawn.v)]
    height, width = large[1].shape
    assert height > garments.LONGEST
    pose = replace(pose_of(drawn), xy=4 * pose_of(drawn).xy, canvas=(height, width))
    mask = garments.part_mask(large[0], "upper garment", IUV(*large[1:]), pose)
    assert mask.shape == (height, width)
    assert overlap(mask, np.repeat(np.repeat(truth["upper garment"], 4, 0), 4, 1)) > 0.9


def test_what_cannot_be_masked_says_so(people):
    drawn, _ = people[0]
    densepose, pose = densepose_of(drawn), pose_of(drawn)
    blank = np.zeros_like(densepose.part)
    nobody = IUV(blank, 0 * densepose.u, 0 * densepose.v)
    small = IUV(*(np.ascontiguousarray(each[::2, ::2]) for each in (densepose.part, densepose.u, densepose.v)))
    for given, words in ((("hat", densepose, pose), "part is 'hat'; expected one of upper garment"),
                         (("hair", None, None), "without densepose and pose; expected one of them.*Connect"),
                         (("hair", small, pose), "DENSEPOSE is 96x128 pixels and the picture 192x256; expected one size"),
                         (("hair", densepose, replace(pose, canvas=(256, 256))), "canvas is 256x256.*expected one shape"),
                         (("hair", nobody, None), "no hair is seen in a picture of 192x256 pixels; expected a person"),
                         (("face", nobody, pose), "no face is seen")):
        with pytest.raises(ValueError, match=words):
            garments.part_mask(drawn.image, *given)
