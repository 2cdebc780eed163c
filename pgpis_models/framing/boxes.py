"""The frame: which part of a photo a method is shown, and how that part maps to the picture it makes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..poses.keypoints import Keypoints
from ..surface.densepose import IUV
from ..unet.autoencoder import VAE_STRIDE
from .bodies import Body

SQUARE_SHOWS = (16, 11)   # height to width: DeepFashion's photos, which methods of square pictures were trained on squashed
# Of the frame's height, as the mannequins of the demo and the full figures of DeepFashion stand in it.
TOP, BOTTOM, SIDE = 0.055, 0.057, 0.03
STANDING = 0.855          # height of a person who stands upright
CLOSE_TOP = 0.075         # above a person whom the lower edge cuts off
# A photo of the right shape is left whole where the best frame would be at least so tall, and its middle not farther off.
WHOLE_HEIGHT, WHOLE_SHIFT, WHOLE_SHAPE = 0.72, 0.15, 0.02


@dataclass(frozen=True)
class Layout:
    """How pictures of a checkpoint are laid out. made: (height, width) in pixels of what it makes, which may be squashed.
    size: the same unsquashed, which is the size of framed photos."""

    made: tuple[int, int]
    size: tuple[int, int]


def layout_of(config: Any) -> Layout:
    """The layout that a method was trained with, from its config.

    Pictures that are not square are as wide as what they show. A square says nothing of what was squashed into it: all
    published methods that make squares learnt from DeepFashion, whose photos are 11 wide to 16 high.
    """
    made = tuple(side * VAE_STRIDE for side in config.latent_size)
    height, width = made
    if height == width:
        width = round(height * SQUARE_SHOWS[1] / SQUARE_SHOWS[0])
    return Layout(made, (height, width))


@dataclass(frozen=True)
class Frame:
    """PGPIS_FRAME: which part of which photo was framed, so that the result finds its way back.

    original: (H, W) of the photo. box: (x0, y0, x1, y1) whole pixels of the photo, which may reach beyond it. size: (h, w)
    of the framed picture. made: (h, w) of what the method makes, the same picture perhaps squashed. person: which one, in
    words. thumbnail: the photo at 16 x 16, to know it by.
    """

    original: tuple[int, int]
    box: tuple[int, int, int, int]
    size: tuple[int, int]
    made: tuple[int, int]
    person: str
    thumbnail: bytes

    @property
    def scale(self) -> float:
        """Pixels of the framed picture per pixel of the photo, down its height."""
        return self.size[0] / (self.box[3] - self.box[1])

    @property
    def whole(self) -> bool:
        """Whether the photo was left as it is."""
        return self.box == (0, 0, self.original[1], self.original[0])

    def pose(self, pose: Keypoints) -> Keypoints:
        """A pose in pixels of the photo -> on the framed picture."""
        x0, y0, x1, y1 = self.box
        height, width = self.size
        return pose.moved(lambda xy: (xy - (x0, y0)) * (width, height) / (x1 - x0, y1 - y0), self.size)

    def map(self, values: np.ndarray, scale: float = 1.0, shift: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
        """Labels or a mask (H, W) of the photo, or of another picture that `scale` and `shift` bring onto it -> (*size),
        the nearest value at every pixel's centre, 0 beyond the picture."""
        x0, y0, x1, y1 = self.box
        height, width = self.size
        rows = (((np.arange(height) + 0.5) * (y1 - y0) / height + y0) - shift[1]) / scale
        columns = (((np.arange(width) + 0.5) * (x1 - x0) / width + x0) - shift[0]) / scale
        rows, columns = np.floor(rows).astype(np.int64), np.floor(columns).astype(np.int64)
        inside = [(index >= 0) & (index < length) for index, length in zip((rows, columns), values.shape, strict=True)]
        taken = values[np.ix_(rows.clip(0, values.shape[0] - 1), columns.clip(0, values.shape[1] - 1))]
        return np.where(inside[0][:, None] & inside[1][None], taken, values.dtype.type(0))

    def densepose(self, iuv: IUV, scale: float = 1.0, shift: tuple[float, float] = (0.0, 0.0)) -> IUV:
        """DensePose, as `map` takes labels."""
        return IUV(*(self.map(values, scale, shift) for values in (iuv.part, iuv.u, iuv.v)))


def box_about(layout: Layout, body: Body, shown: list[Body], photo: tuple[int, int]) -> tuple[int, int, int, int]:
    """The box of the frame in a photo of (H, W) pixels.

    body: the person. shown: the bodies that are to be made in its place, which the frame holds as well. A person who stands
    is framed as tall as in training; where the photo's lower edge cuts a person off, it is the frame's lower edge too. A
    photo that is framed so already stays whole.
    """
    height, width = photo
    aspect = layout.size[1] / layout.size[0]
    cut = body.sole > height + 0.02 * body.size
    left = min(body.box[0], *(other.box[0] for other in shown), body.box[2])
    right = max(body.box[2], *(other.box[2] for other in shown), body.box[0])
    top = min(body.box[1], *(other.box[1] for other in shown), body.box[3])
    wide = (right - left) / (1 - 2 * SIDE) / aspect
    if cut:
        tall = max((height - top) / (1 - CLOSE_TOP), wide)
        upper = height - tall
    else:
        bottom = max(body.sole, *(other.box[3] for other in shown), body.box[3])
        tall = max((bottom - top) / (1 - TOP - BOTTOM), wide, body.size / STANDING)
        upper = (top + bottom) / 2 - tall * (0.5 + (TOP - BOTTOM) / 2)
    if (abs(width / height / aspect - 1) < WHOLE_SHAPE and tall >= WHOLE_HEIGHT * height and left >= 0 and right <= width
            and top >= 0 and (cut or bottom <= height) and abs((left + right) / 2 / width - 0.5) < WHOLE_SHIFT):
        return 0, 0, width, height
    tall = max(1, math.ceil(tall))
    across = max(1, round(tall * aspect))
    x0, y0 = round((left + right) / 2 - across / 2), height - tall if cut else round(upper)
    return x0, y0, x0 + across, y0 + tall
