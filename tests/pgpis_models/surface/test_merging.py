"""Several photos of one person joined into one texture map: against the true texture of drawn people."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from pgpis_models.surface.densepose import IUV, NobodyFound
from pgpis_models.surface.layout import tiles
from pgpis_models.surface.merging import merge
from pgpis_models.surface.provenance import COLOURS, INVENTED, OUTSIDE, sources_on_pose, sources_picture
from pgpis_models.surface.texture import warp
from pgpis_models.surface.viewing import quality, sharpness, stretch
from training.world.bank import HELD_OUT, pose_seed
from training.world.drawing import render
from training.world.paint import albedo
from training.world.poses import sample_pose
from training.world.wardrobe import sample_identity

REGION = np.ones((24, 200, 200), bool)
EVERY = 4   # texel of the map is compared with the true texture
FRONT, AHEAD, BACK = 0.3, -0.4, math.pi - 0.2


def drawn(person: int, heading: float, view: int = 0):
    """A full figure of a person never trained on: photo (H, W, 3) uint8 and true IUV."""
    pose = replace(sample_pose(pose_seed(HELD_OUT + person, view)), heading=heading, zoom=1.0, scale=0.86, x=0.0, y=0.0)
    made = render(sample_identity(HELD_OUT + person), pose)
    return made.image, IUV.from_picture(made.iuv())


def joined(*photos, **changes):
    return merge(*zip(*photos, strict=True), **{"fill": "all", "region": REGION} | changes)


@pytest.fixture(scope="module")
def people():
    return [[drawn(person, FRONT), drawn(person, BACK, 1)] for person in (0, 4)]


@pytest.fixture(scope="module")
def both(people):
    return joined(*people[0])


def true_texture(person: int) -> np.ndarray:
    """(24, 50, 50, 3) in 0..1, every fourth texel of the paint without light."""
    at = np.arange(0, 200, EVERY) / np.float32(199)
    part, v, u = (each.ravel() for each in np.meshgrid(np.arange(1, 25, dtype=np.uint8), 1 - at, at, indexing="ij"))
    return albedo(sample_identity(HELD_OUT + person), part, u, v).reshape(24, len(at), len(at), 3)


def hidden(iuv: IUV) -> np.ndarray:
    """(24, 50, 50) bool: the texel's square, of 16 x 16 on the part, has no pixel of the photo; as of `texel_error`."""
    shown, inside = np.zeros((24, 16, 16), bool), iuv.part > 0
    row, column = ((np.minimum(value[inside] * 16, 15)).astype(int) for value in (iuv.v, iuv.u))
    shown[iuv.part[inside] - 1, row, column] = True
    at = np.minimum(np.arange(0, 200, EVERY) / 199 * 16, 15).astype(int)
    return ~shown[:, np.minimum((1 - np.arange(0, 200, EVERY) / 199) * 16, 15).astype(int)][:, :, at]


def test_a_back_photo_shows_what_the_front_photo_hides(people):
    one, two = [], []
    for person, photos in zip((0, 4), people, strict=True):
        unseen, truth = hidden(photos[0][1]), true_texture(person)
        for errors, picture in ((one, warp(*photos[0], mode="fast", fill="all", region=REGION).picture),
                                (two, joined(*photos).texture.picture)):
            off = np.abs(tiles(picture)[:, ::EVERY, ::EVERY] / 255 - truth).mean(-1)
            errors += [off[unseen].mean(), off[~unseen].mean()]
    print(f"texel error, hidden and seen: one photo {np.round(one, 3)}, two {np.round(two, 3)}")
    assert sum(two[::2]) <= 0.6 * sum(one[::2]), "hidden"
    assert sum(two[1::2]) <= 1.05 * sum(one[1::2]), "and what the first shows is no worse"


def test_order_and_repetition_change_nothing(people, both):
    front, back = people[0]
    other = joined(back, front)
    assert np.array_equal(other.texture.picture, both.texture.picture)
    assert np.array_equal(other.shares, both.shares[::-1])
    alone, twice = joined(front), joined(front, front)
    assert np.array_equal(twice.texture.picture, alone.texture.picture)
    thrice = joined(front, back, (front[0].copy(), front[1]))
    assert np.array_equal(thrice.texture.picture, both.texture.picture) and not thrice.shares[2].any()


def test_the_map_says_where_each_texel_is_from(people, both):
    seen, valid = both.texture.seen, both.texture.valid
    assert np.allclose(both.shares.sum(0), seen, atol=1e-6) and (valid & ~seen).any()
    alone = both.shares[0] == 1
    front = joined(people[0][0], fill="none").texture.picture
    off = np.abs(both.texture.picture.astype(int) - front)[alone & seen]
    assert off.max() <= 1, "the texture map's way through 8 bits takes a level at most"
    picture = sources_picture(both)
    first, second, *_ = COLOURS.values()
    assert (picture[alone] == first).all() and (picture[both.shares[1] == 1] == second).all()
    assert (picture[valid & ~seen] == INVENTED).all() and not picture[~valid].any()
    iuv = people[0][1][1]
    posed = sources_on_pose(picture, iuv)
    assert (posed[iuv.part == 0] == OUTSIDE).all()
    assert (np.abs(posed[iuv.part == 1].astype(int) - second).sum(-1) < 30).mean() > 0.9, "a back is seen from behind"


def test_other_people_are_told_by_their_colours(people):
    (front, back), (stranger, _) = people
    same, behind, others = (joined(front, photo, fill="none").differences[0, 1]
                            for photo in (drawn(0, AHEAD, 2), back, stranger))
    print(f"same person {same:.3f}, from behind {behind:.3f}, another {others:.3f}")
    assert same < 0.2 < others and not behind > 0.2


def test_a_plane_turned_away_has_that_many_texels_per_pixel():
    """A card of one part, turned about its upright axis by 60 degrees: half as wide, so twice the texels across."""
    def card(width):
        v, u = np.meshgrid(np.linspace(1, 0, 100), np.linspace(0, 1, width), indexing="ij")
        return IUV(np.full(v.shape, 2, np.uint8), u.astype(np.float32), v.astype(np.float32))
    straight, turned = card(100), card(50)
    for iuv, across in ((straight, 199 / 99), (turned, 199 / 49)):
        longest, area = stretch(iuv.u * 199, iuv.v * -199, iuv.part > 0)
        assert np.allclose(longest, across, rtol=1e-4) and np.allclose(area, across * 199 / 99, rtol=1e-4)
    assert np.allclose(quality(straight)[0][10:-10, 10:-10] / quality(turned)[0][50, 25], 99 / 49, rtol=1e-4)


def test_a_blurred_photo_counts_less(people):
    cv2 = pytest.importorskip("cv2")
    image, iuv = people[0][0]
    blurred = cv2.GaussianBlur(image, (0, 0), 1.5)
    assert sharpness(blurred, iuv) < 0.7 * sharpness(image, iuv)
    shares = joined((image, iuv), (blurred, iuv), fill="none").shares
    assert (shares[0][shares[0] > 0] > 0.6).mean() > 0.999


def test_what_does_not_go_together_is_said(people):
    (image, iuv), (other, _) = people[0]
    with pytest.raises(ValueError, match="2 photos came with 1 DensePose; expected as many of each.*Estimate"):
        merge([image, other], [iuv])
    with pytest.raises(ValueError, match="photo 2 has 192x255 pixels, its DensePose 192x256; expected the same.*Estimate"):
        merge([image, other[1:]], [iuv, iuv])
    with pytest.raises(ValueError, match="photo 1 came as float64"):
        merge([image / 255], [iuv])
    with pytest.raises(NobodyFound, match="photo 2 of 2 shows no body part; expected a person in each"):
        merge([image, np.zeros_like(image)], [iuv, iuv])
