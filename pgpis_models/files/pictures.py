"""Picture files of the real world as arrays: one reader for the command line, preparation, training and evaluation."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

# Endings of pictures of any kind; which of them can be read depends on the installed Pillow.
ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".jfif", ".bmp", ".tif", ".tiff", ".gif", ".avif", ".heic", ".heif")
LARGEST = 250_000_000   # pixels of a picture
ORIENTATION = 0x0112    # EXIF tag: how the camera was held
UPRIGHT = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
           5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
           8: Image.Transpose.ROTATE_90}   # value of the tag -> what turns the picture upright


def readable_endings() -> tuple[str, ...]:
    """Those of ENDINGS that the installed Pillow reads; .heic needs the package pillow-heif."""
    known = Image.registered_extensions()
    return tuple(ending for ending in ENDINGS if known.get(ending) in Image.OPEN)


def open_photo(path: str | Path) -> np.ndarray:
    """A picture file -> (H, W, 3) RGB or (H, W, 4) RGBA uint8, or (H, W) uint16 grey; upright, the first of an animation.

    Palettes, CMYK and the like become RGB, a colour that stands for transparency an alpha channel, floating point of 0..1 or
    of 0..255 8 bits. Raises OSError when the file cannot be read to its end as a picture, naming it, and ValueError when it
    is larger than LARGEST pixels or its numbers are of no known range.
    """
    with _no_bomb_below(LARGEST):
        try:
            with Image.open(path) as file:
                if file.width * file.height > LARGEST:
                    raise ValueError(f"{path} has {file.width}x{file.height} pixels; expected {LARGEST // 10 ** 6} "
                                     "megapixels or fewer. Make it smaller")
                file.load()
                turn = UPRIGHT.get(orientation(file))
                picture = file.transpose(turn) if turn is not None else file.copy()
                picture.info = dict(file.info)   # transposing loses which colour is transparent
        except Image.DecompressionBombError as error:
            raise ValueError(f"{path} is larger than {LARGEST // 10 ** 6} megapixels ({error}); make it smaller") from error
        except (SyntaxError, EOFError) as error:   # of damaged PNG and TIFF files
            raise OSError(f"{path} cannot be read as a picture ({error})") from error
        except OSError as error:
            raise OSError(f"{path} cannot be read as a picture ({error}); expected one of {', '.join(readable_endings())}. "
                          "Copy or save it again") from error
    return _array(picture, path)


def orientation(picture: Image.Image) -> int:
    """The value of a picture's orientation tag, 1 to 8; 1 where there is none or its EXIF block is damaged."""
    try:
        value = picture.getexif().get(ORIENTATION, 1)
    except Exception:   # noqa: BLE001 - whatever Pillow makes of a damaged block, the pixels are whole
        return 1
    return value if value in UPRIGHT else 1


def _array(picture: Image.Image, path: str | Path) -> np.ndarray:
    key = picture.info.get("transparency")
    if picture.mode.startswith("I"):   # 16-bit grey; "I" is how some PNG files of it are opened
        grey = np.asarray(picture)
        if grey.min(initial=0) < 0 or grey.max(initial=0) > 65535:
            raise ValueError(f"{path} has grey values from {grey.min()} to {grey.max()}; expected 16 bits, 0 to 65535")
        grey = grey.astype(np.uint16)
        if isinstance(key, int):
            colour = np.round(grey / 257).astype(np.uint8)
            return np.dstack([colour, colour, colour, np.where(grey == key, 0, 255).astype(np.uint8)])
        return grey
    if picture.mode == "F":
        values = np.asarray(picture)
        low, high = float(values.min(initial=0)), float(values.max(initial=0))
        if not (low >= 0 and high <= 255):   # false for nan
            raise ValueError(f"{path} has floating point values from {low:.3g} to {high:.3g}; expected 0..1 or 0..255")
        scaled = np.round(values * (255 if high <= 1 else 1)).astype(np.uint8)
        return np.dstack([scaled] * 3)
    transparent = "A" in picture.getbands() or "a" in picture.getbands() or key is not None
    return np.asarray(picture.convert("RGBA" if transparent else "RGB"))


@contextmanager
def _no_bomb_below(pixels: int) -> Iterator[None]:
    """Pillow refuses pictures of twice its limit and warns of those above it; photos of today are above it."""
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = pixels
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def as_rgb(image: np.ndarray, ground: str = "white") -> Image.Image:
    """A photo (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) of 8 or 16 bits -> RGB Pillow image, transparency over
    `ground`: white for photos, black where that means nothing.

    Raises ValueError for other shapes and types.
    """
    if image.dtype == np.uint16:
        image = np.round(image / 257).astype(np.uint8)
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3, 4)):
        raise ValueError(f"a photo came as {image.dtype} {image.shape}; expected (H, W), (H, W, 3) or (H, W, 4) of "
                         "8 or 16 bits")
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[..., 0]
    picture = Image.fromarray(image)
    if picture.mode == "RGBA":
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, ground), picture)
    return picture.convert("RGB")


def open_rgb(path: str | Path, ground: str = "white") -> Image.Image:
    """A picture file as an RGB Pillow image, transparency over `ground`. Raises as `open_photo` does."""
    return as_rgb(open_photo(path), ground)


def open_mask(path: str | Path) -> np.ndarray:
    """A picture file as a mask (H, W) float32 in 0..1; what is transparent is black. Raises as `open_photo` does."""
    return np.asarray(open_rgb(path, "black").convert("L"), np.float32) / 255
