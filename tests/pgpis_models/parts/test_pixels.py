"""The one resize of photos: the same pixels in every path, whatever Pillow does first."""

from __future__ import annotations

import hashlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from pgpis_models.fpdm.pixels import source_pixels, unit_tensor
from pgpis_models.mcld.pixels import clip_pixels
from pgpis_models.parts.pixels import resized
from pgpis_models.pipeline import Generator, read_photo
from pgpis_models.surface.densepose import IUV, pose_picture

BICUBIC = Image.Resampling.BICUBIC
# Of the photo below at 512x512, width first, with 8 bits between the passes.
DIGEST = "f5b4e3ea739f3730"


def photo(height=1101, width=750):
    """Stripes, checks and noise of whole numbers: the same bytes wherever it is made."""
    y, x = np.mgrid[:height, :width].astype(np.int64)
    noise = (x * 2654435761 + y * 40503 + x * y * 97) % 256
    return np.stack([noise, 255 * ((x // 7 + y // 5) % 2), (x * 3 + y * 2) % 256], axis=-1).astype(np.uint8)


def by_width_first(picture, size):
    image = Image.fromarray(picture)
    return np.asarray(image.resize((size[1], image.height), BICUBIC).resize((size[1], size[0]), BICUBIC))


def test_a_photo_of_750x1101_has_the_same_pixels_with_every_version_of_pillow():
    made = resized(photo(), (512, 512))
    assert np.array_equal(made, by_width_first(photo(), (512, 512)))
    assert hashlib.sha256(made.tobytes()).hexdigest()[:16] == DIGEST
    image = Image.fromarray(photo())   # the order matters for this picture, so that the digest says something
    other = np.asarray(image.resize((750, 512), BICUBIC).resize((512, 512), BICUBIC))
    assert (other != made).mean() > 0.01


def test_the_command_line_reads_a_photo_of_750x1101_in_these_pixels():
    expected = torch.from_numpy(by_width_first(photo(), (512, 512)).copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
    assert torch.equal(read_photo(photo(), (512, 512)), expected)
    config = SimpleNamespace(image_size=(512, 352), photo_size=(512, 512))
    generator = SimpleNamespace(method=SimpleNamespace(config=config))
    assert torch.equal(Generator.prepare(generator, photo()), expected)
    # and FPDM's own code finds them again, to the bit
    pixels = ((expected[0].permute(1, 2, 0) + 1) * 127.5).round().to(torch.uint8).numpy()
    assert torch.equal(source_pixels([pixels]), source_pixels([photo()]))


def test_clip_and_the_pose_guider_read_their_pictures_so_too():
    square = photo(700, 700)
    assert torch.equal(clip_pixels(square[None]), clip_pixels(by_width_first(square, (224, 224))[None]))
    for height, width in ((1101, 750), (750, 1101), (300, 224)):   # the middle of what is not square
        tall = by_width_first(photo(height, width), (224 * height // width, 224) if height > width else (
            224, 224 * width // height))
        top, left = (tall.shape[0] - 224) // 2, (tall.shape[1] - 224) // 2
        middle = tall[top:top + 224, left:left + 224].copy()
        assert torch.equal(clip_pixels(photo(height, width)[None]), clip_pixels(middle[None]))
    y, x = np.mgrid[:1101, :750]
    iuv = IUV(((x // 40 + y // 60) % 25).astype(np.uint8), (x / 750).astype(np.float32), (y / 1101).astype(np.float32))
    expected = by_width_first(iuv.to_picture("v,u,part"), (512, 512))
    assert torch.equal(pose_picture(iuv), torch.from_numpy(expected.copy()).permute(2, 0, 1).float() / 255)


def test_a_picture_of_the_right_size_is_left_as_it_is_and_others_are_refused():
    assert np.array_equal(resized(photo(64, 48), (64, 48)), photo(64, 48))
    assert unit_tensor([photo(64, 48)], (32, 24)).shape == (1, 3, 32, 24)
    with pytest.raises(ValueError, match="uint8"):
        resized(photo().astype(np.float32), (8, 8))
