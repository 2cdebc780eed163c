"""Garment Mask, and what Masked Sampler does with masks before it samples."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.helpers.drawn_parts import drawn_parts
from tools.picture_workflows import drawn
from training.world.wardrobe import sample_identity


@pytest.fixture(scope="module")
def nodes(host):
    return host.pack("nodes.garments")


@pytest.fixture(scope="module")
def person(host):
    """IMAGE, DENSEPOSE, POSE_KEYPOINT and the true masks of the workflows' person A."""
    made = drawn("pgpis_person.png")
    pose = host.pack("pgpis_models.poses.keypoints").Keypoints(made.keypoints, made.detected, made.part.shape)
    iuv = host.pack("pgpis_models.surface.densepose").IUV(made.part, made.u, made.v)
    frames = host.pack("pgpis_models.poses.formats").to_pose_keypoint(pose)
    image = torch.from_numpy(made.image)[None].float() / 255
    return image, (iuv,), frames, drawn_parts(sample_identity(made.identity), made)


def test_a_mask_by_name_is_a_mask_of_the_picture(nodes, person):
    image, densepose, pose, truth = person
    mask = nodes.GarmentMask.execute(image, "all clothes", densepose, pose).result[0]
    assert mask.shape == image.shape[:3] and set(mask.unique().tolist()) == {0.0, 1.0}
    true = torch.from_numpy(truth["all clothes"])
    assert float((mask[0].bool() & true).sum() / (mask[0].bool() | true).sum()) > 0.9
    shared = nodes.GarmentMask.execute(image.repeat(2, 1, 1, 1), "all clothes", densepose).result[0]
    assert len(shared) == 2 and torch.equal(shared[0], shared[1])


def test_a_mask_that_cannot_be_made_names_the_picture(nodes, person):
    image, densepose, pose, _ = person
    with pytest.raises(ValueError, match="without densepose and pose.*Connect Estimate DensePose"):
        nodes.GarmentMask.execute(image, "hair")
    empty = type(densepose[0])(np.zeros_like(densepose[0].part), densepose[0].u, densepose[0].v)
    with pytest.raises(ValueError, match="picture 2 of 2: no hair is seen in a picture of 192x256"):
        nodes.GarmentMask.execute(image.repeat(2, 1, 1, 1), "hair", (densepose[0], empty))
    with pytest.raises(ValueError, match="2 pictures, 1 DENSEPOSE, 3 poses; expected equal numbers"):
        nodes.GarmentMask.execute(image.repeat(2, 1, 1, 1), "hair", densepose, pose * 3)


def test_a_donor_widens_the_mask_to_what_its_garment_covers(host, nodes, person):
    image, densepose, pose, _ = person
    lender = drawn("pgpis_source.png")   # in a skirt and sleeves; the person has a tank top
    donor = torch.from_numpy(lender.image)[None].float() / 255
    iuv = (type(densepose[0])(lender.part, lender.u, lender.v),)
    own = nodes.GarmentMask.execute(image, "upper garment", densepose, pose).result[0]
    mask = nodes.GarmentMask.execute(image, "upper garment", densepose, pose, donor=donor, donor_densepose=iuv).result[0]
    more = (mask - own)[0].bool()
    upper_arms = torch.from_numpy(np.isin(densepose[0].part, (15, 16, 17, 18)))
    assert (mask >= own).all() and (more & upper_arms).sum() > 0.4 * upper_arms.sum() > 100
    with pytest.raises(ValueError, match="a donor and no donor; expected the donor's picture"):
        nodes.GarmentMask.execute(image, "upper garment", densepose, pose, donor_densepose=iuv)
    with pytest.raises(ValueError, match="1 pictures, 1 DENSEPOSE, 1 poses, 2 donors, 3 DENSEPOSE of donors"):
        nodes.GarmentMask.execute(image, "hair", densepose, pose, donor=donor.repeat(2, 1, 1, 1), donor_densepose=iuv * 3)


# --- Masked Sampler -----------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def masking(host):
    return host.pack("pgpis_models.garments.feathering")


def disc(radius: float, size: int = 81) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return (torch.hypot(x - size // 2., y - size // 2.) <= radius).float()[None]


@pytest.mark.parametrize("grow", [-7, -2, 3, 10])
def test_a_mask_grows_and_shrinks_by_its_distance(masking, grow):
    made = masking.feathered(disc(20), (81, 81), 0, grow)[0]
    assert set(made.unique().tolist()) == {0.0, 1.0}
    assert (made != disc(20 + grow)).sum() <= 2 * np.pi * (20 + grow), "a ring of one pixel at most differs"
    assert (made >= disc(19 + grow)).all() and (made <= disc(21 + grow)).all()


def test_a_soft_mask_stays_soft_where_it_does_not_grow(masking):
    soft = 0.25 * disc(30) + 0.75 * disc(10)
    grown = masking.feathered(soft, (81, 81), 0, 5)[0]
    assert grown[0, 40, 40 + 14] == 1 and grown[0, 40, 40 + 20] == 0.25 and grown[0, 40, 40 + 31] == 0


def test_a_feather_outside_leaves_all_of_the_mask_new(masking):
    soft = masking.feathered(disc(20), (81, 81), 9, fade="outside")[0, 0]
    assert (soft[disc(20)[0] == 1] == 1).all() and (soft[disc(31)[0] == 0] == 0).all()
    fall = soft[40, 60:72]
    assert torch.allclose(fall[:11], torch.linspace(1, 0, 11), atol=1e-6) and fall[11] == 0


def test_a_mask_that_is_black_stays_so_and_one_that_shrinks_to_nothing_says_so(masking):
    soft = masking.feathered(torch.stack([torch.ones(8, 8), torch.zeros(8, 8)]), (8, 8), 1, 2, "outside")
    assert (soft[0] == 1).all() and not soft[1].any()
    assert not masking.feathered(torch.zeros(8, 8), (8, 8), 1, -3).any()
    with pytest.raises(ValueError, match="MASK of picture 1 of 1 shrinks to nothing.*Raise grow"):
        masking.feathered(disc(5), (81, 81), 1, -8)


@pytest.mark.parametrize("mask, said", [((32, 24), False), ((50, 50), True)])
def test_a_mask_of_another_shape_is_said(host, caplog, mask, said):
    """A black one, of which nothing is sampled."""
    latent, vae = {"samples": torch.zeros(1, 4, 8, 6)}, SimpleNamespace(encode=lambda picture: torch.zeros(1, 4, 8, 6))
    host.pack("nodes.sampling").MaskedSampler.execute(
        latent, vae, torch.zeros(1, 64, 48, 3), torch.zeros(1, *mask), 0.02, 0, 4, 1.5, "euler", "normal", 1.0, object())
    assert ("50x50 pixels (height x width), the reference 64x48: the mask is of another shape" in caplog.text) == said
