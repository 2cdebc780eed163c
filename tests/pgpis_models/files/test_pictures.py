"""Picture files of any kind open as they look; what cannot be read to its end is named."""

import errno
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pgpis_models.command.output import ANIMATED, STILL, check_ending, save
from pgpis_models.files import pictures
from pgpis_models.files.pictures import ORIENTATION, as_rgb, open_mask, open_photo, open_rgb
from pgpis_models.unet import weights

RGB = np.random.default_rng(0).integers(0, 4, (5, 3, 3), dtype=np.uint8) * 80
LARGE = np.repeat(np.repeat(RGB, 16, 0), 16, 1)   # (80, 48, 3), flat enough for palettes and for JPEG's half colours

# what an orientation tag says of the stored rows and columns, written with numpy
STORED = {1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
          5: lambda a: a.swapaxes(0, 1), 6: lambda a: np.rot90(a, 1), 7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
          8: lambda a: np.rot90(a, -1)}


def test_transparency_is_laid_over_white():
    rgba = np.zeros((8, 8, 4), np.uint8)
    rgba[:4] = (255, 0, 0, 255)
    picture = np.asarray(as_rgb(rgba))
    assert (picture[:4] == (255, 0, 0)).all() and (picture[4:] == 255).all()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "LA", "CMYK", "1", "YCbCr"])
@pytest.mark.parametrize("ending", [".png", ".tif", ".webp", ".bmp", ".gif", ".jpg", ".jfif", ".avif"])
def test_every_mode_that_a_format_can_hold_opens_as_it_looks(mode, ending, tmp_path):
    picture = Image.fromarray(LARGE)
    picture = picture.quantize(64) if mode == "P" else picture.convert(mode)
    path = tmp_path / f"photo{ending}"
    try:
        picture.save(path, lossless=True, quality=100)
    except (OSError, ValueError, KeyError):
        return   # not a file that anybody can have
    opened = np.asarray(open_rgb(path)).astype(int)
    lossy = ending in (".jpg", ".jfif", ".avif") or mode in ("YCbCr", "CMYK") or ending == ".gif"
    wanted = np.asarray(picture.convert("RGB")).astype(int)
    assert opened.shape == wanted.shape and np.abs(opened - wanted).mean() <= (6 if lossy else 0)


@pytest.mark.parametrize("value", STORED)
@pytest.mark.parametrize("ending", [".png", ".jpg", ".tif", ".webp"])
def test_the_orientation_tag_turns_a_photo_upright(value, ending, tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION] = value
    path = tmp_path / f"turned{ending}"
    Image.fromarray(np.ascontiguousarray(STORED[value](LARGE))).save(path, exif=exif, quality=100)
    assert np.abs(open_photo(path).astype(int) - LARGE).mean() < 6


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("block", [b"Exif\0\0broken", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff",
                                   b"Exif\0\0II*\0\xff\xff\xff\xff", b""])
def test_a_damaged_block_beside_the_pixels_does_not_matter(block, tmp_path):
    path = tmp_path / "photo.jpg"
    Image.fromarray(LARGE).save(path, quality=100, exif=block)
    assert np.abs(open_photo(path).astype(int) - LARGE).mean() < 6


def test_a_colour_that_stands_for_transparency_is_laid_over_the_ground(tmp_path):
    image = np.full((4, 4, 3), 80, np.uint8)
    image[0] = (255, 0, 0)
    Image.fromarray(image).save(tmp_path / "rgb.png", transparency=(255, 0, 0))
    Image.fromarray(image[..., 1]).save(tmp_path / "grey.png", transparency=0)
    palette = Image.new("P", (4, 4))
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.save(tmp_path / "palette.png", transparency=0)
    deep = np.full((4, 4), 20560, np.uint16)
    deep[0] = 7
    Image.fromarray(deep).save(tmp_path / "deep.png", transparency=7)
    for name, rows in (("rgb", 1), ("grey", 1), ("palette", 4), ("deep", 1)):
        for ground, level in (("white", 255), ("black", 0)):
            opened = np.asarray(open_rgb(tmp_path / f"{name}.png", ground))
            assert (opened[:rows] == level).all(), name
            assert (opened[rows:] == 80).all(), name


def test_sixteen_bits_and_floating_point_keep_their_levels(tmp_path):
    deep = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    Image.fromarray(deep).save(tmp_path / "deep.png")
    Image.fromarray(deep).save(tmp_path / "deep.tif")
    for name in ("deep.png", "deep.tif"):
        assert np.array_equal(open_photo(tmp_path / name), deep)
        assert np.array_equal(np.asarray(open_rgb(tmp_path / name))[..., 0], deep // 257)
    for scale in (1, 255):
        Image.fromarray((deep / 65535 * scale).astype(np.float32)).save(tmp_path / "float.tif")
        assert np.array_equal(np.asarray(open_rgb(tmp_path / "float.tif"))[..., 0], deep // 257)
    assert np.allclose(open_mask(tmp_path / "deep.png"), deep / 65535, atol=1e-6)


@pytest.mark.parametrize("values", [-1.0, 300.0, float("nan"), float("inf")])
def test_floating_point_of_another_range_is_named(values, tmp_path):
    Image.fromarray(np.full((4, 4), values, np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(ValueError, match="float.tif has floating point values from"):
        open_photo(tmp_path / "float.tif")


def test_the_first_picture_of_an_animation_is_taken(tmp_path):
    frames = [Image.new("RGB", (6, 5), colour) for colour in ("red", "blue")]
    for name in ("film.webp", "film.gif", "film.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], lossless=True)
        assert (np.asarray(open_rgb(tmp_path / name)) == (255, 0, 0)).all()


@pytest.mark.parametrize("ending", [".jpg", ".png", ".webp", ".tif", ".bmp"])
def test_a_file_that_is_cut_off_anywhere_is_named(ending, tmp_path):
    whole = tmp_path / f"whole{ending}"
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (40, 30, 3), dtype=np.uint8)).save(whole)
    data, cut = whole.read_bytes(), tmp_path / f"cut{ending}"
    refused = 0
    for share in np.linspace(0, 0.95, 20):
        cut.write_bytes(data[:int(len(data) * share)])
        try:
            open_photo(cut)
        except OSError as error:
            refused += 1
            assert f"cut{ending}" in str(error)
    assert refused == 20


def test_large_photos_open_and_larger_ones_are_named(tmp_path, monkeypatch):
    path = tmp_path / "large.png"
    Image.new("1", (20000, 5)).save(path)   # 100,000 pixels stand for 250 million: the limit is what is tried
    monkeypatch.setattr(pictures, "LARGEST", 100_000)
    before = Image.MAX_IMAGE_PIXELS
    assert open_photo(path).shape == (5, 20000, 3)
    monkeypatch.setattr(pictures, "LARGEST", 99_999)
    with pytest.raises(ValueError, match="large.png has 20000x5 pixels"):
        open_photo(path)
    header = bytearray(path.read_bytes())
    header[16:24] = struct.pack(">II", 2 ** 30, 2 ** 30)   # a bomb that says so
    (tmp_path / "bomb.png").write_bytes(header)
    with pytest.raises((ValueError, OSError), match="bomb.png"):
        open_photo(tmp_path / "bomb.png")
    assert Image.MAX_IMAGE_PIXELS == before


@pytest.mark.parametrize("name", ["x.mp4", "x", "x.psd", "x.json", "x.png.part"])
def test_an_ending_that_is_not_written_is_refused_before_the_work(name):
    for endings in (STILL, ANIMATED):
        with pytest.raises(ValueError, match=f"--out is {name}, .*; expected one of"):
            check_ending(Path(name), endings)


@pytest.mark.parametrize("ending", STILL)
def test_what_is_written_is_what_the_ending_says(ending, tmp_path):
    picture = torch.rand(3, 9, 7, generator=torch.Generator().manual_seed(0))
    path = tmp_path / f"made{ending}"
    check_ending(path, STILL)
    save(picture, path)
    with Image.open(path) as file:
        assert Image.registered_extensions()[ending] == file.format and file.size == (7, 9)
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_a_full_disk_is_said_with_the_bytes_that_are_needed(tmp_path, monkeypatch):
    path = tmp_path / "weights.safetensors"
    weights.write_atomically(path, {"a": torch.zeros(4)}, {})
    before = path.read_bytes()
    for error in (OSError(errno.ENOSPC, "No space left on device"),
                  weights.SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")):
        def full(*_, fault=error):
            raise fault
        monkeypatch.setattr(weights, "save_file", full)
        with pytest.raises(OSError, match="is full: weights.safetensors needs 4,000 bytes, .* are free. Make room"):
            weights.write_atomically(path, {"a": torch.zeros(1000)}, {})
        assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1
