"""Which noise the cells of a frame take so that the noise follows the body: texels of the surface hold it.

The first frame has the noise of a plain picture, and the texels that its cells show keep the cell's draw. In later frames
a cell takes the draw that most of its texels hold, each draw going to one cell alone; what comes into view gets draws of its
own, which its texels then hold. The ground keeps the draw of its place. Ours, and coarser than Chang et al. 2024, "How I
Warped Your Noise", who sum over fractions of pixels a noise that is finer than the latents.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from ..noise.carried import Carried
from .densepose import IUV, PARTS

TEXELS = 64    # of a part's side
REACH = 4      # texels that lie between those of neighbouring pixels, as far as a draw is held
BODY = 0.5     # share of a cell's pixels that show the body, from which on the cell is the body's
LEAST = 0.25   # share of those whose texels hold a draw, from which on the cell takes it


def carried_by(frames: Iterable[IUV], size: tuple[int, int]) -> Carried:
    """DensePose of F frames, of any size in pixels -> which draw each cell of latents of `size` = (h, w) takes. Frames are
    read one by one, so a generator never holds them all.

    Frames in which nobody shows have the ground's noise. Raises ValueError without frames, and for one that has fewer pixels
    than the latents have cells.
    """
    height, width = size
    surface, cells = _Surface(height * width), []
    for iuv in frames:
        if iuv.size[0] < height or iuv.size[1] < width:
            raise _too_small(size, f"DensePose of {iuv.size[1]}x{iuv.size[0]} pixels")
        cells.append(surface.cells(iuv, size))
    if not cells:
        raise _too_small(size, "no frames")
    return Carried(torch.from_numpy(np.stack(cells)), surface.draws - height * width)


def _too_small(size: tuple[int, int], came: str) -> ValueError:
    return ValueError(f"noise for latents of {size[1]}x{size[0]} was asked for with {came}; expected DensePose of the "
                      "pictures' own size, one or more")


class _Surface:
    """The texels and the draws that they hold, frame after frame."""

    def __init__(self, cells: int) -> None:
        self.held = np.full((PARTS, TEXELS, TEXELS), -1, np.int64)
        self.ground: np.ndarray | None = None   # (cells,) the draw of each place where no body is
        self.draws = cells

    def new(self, count: int) -> np.ndarray:
        """So many draws that nothing has yet."""
        self.draws += count
        return np.arange(self.draws - count, self.draws)

    def cells(self, iuv: IUV, size: tuple[int, int]) -> np.ndarray:
        """One frame -> (h, w) int64."""
        cell, texel, body = _seen(iuv, size)
        if self.ground is None:
            plain = np.arange(len(body))
            self.ground = plain.copy()
            self.ground[body] = self.new(int(body.sum()))   # what the body uncovers later
            self._hold(texel, cell, plain)
            return plain.reshape(size)
        near = _near(self.held).reshape(-1)[texel]
        taken = _matched(cell, near)
        result = np.where(body, -1, self.ground)
        result[list(taken)] = list(taken.values())
        free = np.flatnonzero(result < 0)
        result[free] = self.new(len(free))
        fresh = np.isin(cell, free)   # a draw that another cell won leaves the texels of this one
        grows = ~fresh & (near < 0)
        for some in (grows, fresh):
            self._hold(texel[some], cell[some], result)
        return result.reshape(size)

    def _hold(self, texel: np.ndarray, cell: np.ndarray, draw: np.ndarray) -> None:
        self.held.reshape(-1)[texel] = draw[cell]


def _matched(cell: np.ndarray, draw: np.ndarray) -> dict[int, int]:
    """Cell and draw of each pixel, -1 for none -> cell: draw, one to one, what most pixels say first."""
    pixels = np.bincount(cell, minlength=int(cell.max(initial=0)) + 1)
    span = int(draw.max(initial=0)) + 1
    pairs, count = np.unique((cell * span + draw)[draw >= 0], return_counts=True)   # numbers are sorted faster than columns
    pairs = np.stack(np.divmod(pairs, span))
    enough = count >= LEAST * pixels[pairs[0]]
    pairs, count = pairs[:, enough], count[enough]
    taken: dict[int, int] = {}
    gone: set[int] = set()
    for place in np.argsort(-count, kind="stable"):
        one, what = int(pairs[0, place]), int(pairs[1, place])
        if one not in taken and what not in gone:
            taken[one] = what
            gone.add(what)
    return taken


def _seen(iuv: IUV, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the pixels that show the body, in cells that are the body's: cell and texel, flat; and (h w,) bool, those cells."""
    (height, width), (rows, columns) = size, iuv.size
    row, column = np.arange(rows) * height // rows, np.arange(columns) * width // columns
    pixel = np.flatnonzero(iuv.part)
    cell = row[pixel // columns] * width + column[pixel % columns]
    shown, pixels = np.bincount(cell, minlength=height * width), np.outer(np.bincount(row), np.bincount(column)).ravel()
    body = (shown > 0) & (shown >= BODY * pixels)
    kept = body[cell]
    pixel, cell = pixel[kept], cell[kept]
    part, along, across = (value.ravel()[pixel] for value in (iuv.part, iuv.v, iuv.u))
    along, across = (np.minimum((value * TEXELS).astype(np.int64), TEXELS - 1) for value in (along, across))
    return cell, ((part.astype(np.int64) - 1) * TEXELS + along) * TEXELS + across, body


def _near(held: np.ndarray) -> np.ndarray:
    """Texels that hold nothing take the draw of the nearest of their part that does, up to REACH texels away."""
    near = held.copy()
    for _ in range(REACH):
        before = near.copy()
        for axis, step in ((1, 1), (1, -1), (2, 1), (2, -1)):
            shifted = np.roll(before, step, axis)
            np.moveaxis(shifted, axis, 0)[0 if step == 1 else -1] = -1   # what came in from the other side
            near = np.where((near < 0) & (shifted >= 0), shifted, near)
    return near
