"""Checks and conversions of what users plug into nodes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

import comfy.model_management
import numpy as np
import torch.nn.functional as F
from torch import Tensor

from ..pgpis_models.surface.coloured_parts import has_charts
from ..pgpis_models.surface.densepose import IUV

# Resizing may leave 0..1: the host's bicubic by 0.1 to 0.3 at hard edges. Other ranges (-1..1, 0..255) go farther.
RANGE_SLACK = 0.5
MOST_PIXELS = 2 ** 28   # of all pictures together that a node draws: 3.2 GB as one IMAGE

One = TypeVar("One")


def watched(items: Iterable[One]) -> Iterator[One]:
    """The same items, with a look at the host's Cancel before each: for loops over what may be thousands of pictures."""
    for item in items:
        comfy.model_management.throw_exception_if_processing_interrupted()
        yield item


def too_many(count: int, size: tuple[int, int], channels: int = 3) -> str:
    """What to say of `count` pictures of (H, W) pixels that would be too large to hold; "" of those that are not.

    channels: float32 numbers of a pixel in all that a node gives of it."""
    height, width = size
    if count * height * width <= MOST_PIXELS:
        return ""
    needed, most = (pixels * channels * 4 / 1e9 for pixels in (count * height * width, MOST_PIXELS))
    return (f"{count} pictures of {width}x{height} (width x height) would take {needed:.1f} GB; expected {most:.1f} GB at "
            "most")


def rgb(image: Tensor, what: str, ground: float = 1.0) -> Tensor:
    """IMAGE (B, H, W, C) in 0..1 -> (B, 3, H, W) float32 in 0..1.

    Grey (C = 1) becomes three equal channels; what a resize overshot is cut. With an alpha channel (C = 4) the picture is
    laid on `ground`: white for photos, since those of garments have light backgrounds; 0 where black means nothing. Raises
    ValueError for other shapes, other ranges and non-finite values.
    """
    if not isinstance(image, Tensor) or image.ndim != 4 or image.shape[-1] not in (1, 3, 4) or 0 in image.shape:
        shape = tuple(image.shape) if isinstance(image, Tensor) else type(image).__name__
        raise ValueError(f"{what} is {shape}; expected an IMAGE (batch, height, width, channels) of 1, 3 or 4 channels. "
                         "Connect the IMAGE output of a Load Image node")
    if not image.is_floating_point():
        raise ValueError(f"{what} holds {image.dtype} values; expected floating point in 0..1. Divide by the largest value "
                         "of the format")
    picture = image.float()
    low, high = (float(bound) for bound in picture.aminmax())   # both NaN where any value is
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"{what} holds values that are not finite; expected 0..1. Check the node that made it (a VAE in "
                         "half precision is the usual cause)")
    if low < -RANGE_SLACK or high > 1 + RANGE_SLACK:
        raise ValueError(f"{what} holds values from {low:.3g} to {high:.3g}; expected 0..1. "
                         f"{'Divide by 255 (8 bit) or 65535 (16 bit)' if high > 2 else 'Bring the range to 0..1 first'}")
    picture = picture.clamp(0, 1).movedim(-1, 1)
    if picture.shape[1] == 4:
        colour, alpha = picture[:, :3], picture[:, 3:]
        return colour * alpha + ground * (1 - alpha)
    return picture.expand(-1, 3, -1, -1)


def pixels(image: Tensor, what: str, ground: float = 1.0) -> np.ndarray:
    """IMAGE -> (B, H, W, 3) uint8 RGB; ground and errors as of `rgb`."""
    return (rgb(image, what, ground) * 255).round_().byte().movedim(1, -1).cpu().numpy()


def needed(node: str, **inputs: tuple[object, str]) -> None:
    """Raises ValueError that lists the inputs of a node that are not connected; name -> (what came, what it takes)."""
    lacking = [f"{name} ({what})" for name, (value, what) in inputs.items() if value is None]
    if lacking:
        raise ValueError(f"{node} has no {' and no '.join(name for name, (value, _) in inputs.items() if value is None)}; "
                         f"expected {', '.join(lacking)}. Connect {'it' if len(lacking) == 1 else 'them'}")


def checked_densepose(densepose, charts: bool = False) -> tuple[IUV, ...]:
    """DENSEPOSE as the nodes of this pack give it. Raises ValueError for what another pack calls so and, where `charts` are
    needed, for one that lacks U and V."""
    if not isinstance(densepose, tuple) or not densepose or not all(isinstance(one, IUV) for one in densepose):
        kind = type(densepose[0] if isinstance(densepose, (tuple, list)) and densepose else densepose).__name__
        raise ValueError(f"the DENSEPOSE holds {kind}; expected that of Estimate DensePose or Read IUV of this pack. Turn "
                         "another pack's into an IUV picture and read it with Read IUV")
    if charts and not all(has_charts(iuv) for iuv in densepose if iuv.part.any()):
        raise ValueError("the DENSEPOSE has parts but no U and V, since it was read from a coloured picture; expected all "
                         "three here, where texture is carried or MCLD's pose is drawn. Use Estimate DensePose, or an IUV "
                         "picture")
    return densepose


def checked_faces(face, length: int) -> Tensor:
    """The embeddings (B, length) of a FACE_EMBEDS as the nodes of this pack give it. Raises ValueError for what another pack
    calls so, and for another length."""
    vectors = getattr(face, "vectors", None)
    if not isinstance(vectors, Tensor) or vectors.ndim != 2:
        raise ValueError(f"the FACE_EMBEDS holds {type(face).__name__}; expected that of Face Embedding of this "
                         "pack")
    if vectors.shape[1] != length:
        raise ValueError(f"the FACE_EMBEDS has the shape {tuple(vectors.shape)}; expected (B, {length}): use the encoder "
                         "that this checkpoint was trained with")
    return vectors


def checked_views(count: int, views: Sized, what: str) -> None:
    """Raises ValueError where what describes N = count photos of one person does not come once for each."""
    if len(views) != count:
        raise ValueError(f"{count} photos of one person came with {len(views)} {what}; expected one for each photo")


def matching(**counts: int) -> int:
    """The number of pictures that these inputs make together. Raises ValueError when two of them differ and neither is 1."""
    if len(set(counts.values()) - {1}) > 1:
        came = (" and " if len(counts) == 2 else ", ").join(f"{count} {name}" for name, count in counts.items())
        one = "either" if len(counts) == 2 else "each that differs"
        raise ValueError(f"{came}; expected equal numbers, or one of {one}. Repeat or "
                         "drop some (Repeat Image Batch, Image From Batch)")
    return max(counts.values())


def resized(picture: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, 3, H, W) -> (B, 3, *size), bicubic with antialiasing as in training; the aspect ratio is not kept."""
    if tuple(picture.shape[-2:]) == tuple(size):
        return picture
    return F.interpolate(picture, size=size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)


def as_image(picture: Tensor) -> Tensor:
    """(B, 3, H, W) -> IMAGE (B, H, W, 3)."""
    return picture.movedim(1, -1).contiguous()


def matched(count: int, tensor: Tensor, what: str) -> Tensor:
    """A batch of one repeated to `count`; a batch of `count` as it is; ValueError that states both otherwise."""
    if tensor.shape[0] == count:
        return tensor
    if tensor.shape[0] != 1:
        raise ValueError(f"{what} has {tensor.shape[0]} entries for {count} pictures; expected 1 or {count}")
    return tensor.expand(count, *tensor.shape[1:])
