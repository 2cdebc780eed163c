"""IUV pictures resized by every filter of Pillow: those that mix parts are refused, the others and true ones are not."""

import numpy as np
import pytest
from PIL import Image

from pgpis_models.surface.densepose import IUV
from pgpis_models.surface.mixing import mixed_share
from tests.helpers.photos import figure

TRUE = (320, 240)
SIZES = ((512, 512), (512, 352), (700, 525), (300, 225), (256, 176), (160, 120), (96, 72))
MIXING = (Image.Resampling.BILINEAR, Image.Resampling.BOX, Image.Resampling.HAMMING, Image.Resampling.BICUBIC,
          Image.Resampling.LANCZOS)


@pytest.fixture(scope="module")
def iuvs():
    """Mannequins as they are drawn: whole, seated and closer."""
    drawn = [figure(1, TRUE), figure(2, TRUE, seated=True), figure(3, TRUE, closer=True), figure(4, TRUE)]
    return [np.ascontiguousarray(one.iuv()) for one in drawn]


def resized(iuv, size, how):
    return np.asarray(Image.fromarray(iuv).resize(size[::-1], how))


@pytest.mark.parametrize("size", SIZES)
def test_nearest_is_taken_and_filters_that_mix_are_refused(size, iuvs):
    for iuv in iuvs:
        nearest = resized(iuv, size, Image.Resampling.NEAREST)
        assert np.array_equal(IUV.from_picture(nearest).part, nearest[..., 0])
        for how in MIXING:
            made = resized(iuv, size, how)
            if how == Image.Resampling.BOX and size[0] > 0.85 * TRUE[0]:
                continue   # it mixes few or no pixels there
            for order, picture in (("part,u,v", made), ("v,u,part", made[..., ::-1])):
                with pytest.raises(ValueError, match="resized by a filter that mixes|part channel reaches"):
                    IUV.from_picture(np.ascontiguousarray(picture), order)


@pytest.mark.parametrize("seed", range(12))
def test_true_pictures_are_far_from_the_limit(seed):
    one = figure(seed % 6 + 10, ((256, 192), (512, 384))[seed % 2], closer=seed % 3 == 0)
    assert mixed_share(one.iuv()) < 0.035
    IUV.from_picture(one.iuv())


def test_parts_at_random_and_pictures_of_few_borders_are_not_judged_mixed():
    rng = np.random.default_rng(0)
    noise = np.dstack([rng.integers(0, 25, (64, 64)), *rng.integers(0, 256, (2, 64, 64))]).astype(np.uint8)
    assert mixed_share(noise) < 0.02
    assert mixed_share(np.array([[[0, 0, 0], [12, 100, 100], [24, 200, 200]]], np.uint8)) == 0
