"""Noise that is carried along by what moves: each cell of a frame names the draw that it takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Carried:
    """Which draw each cell of F frames takes. index: (F, h, w) int64; 0 .. h w - 1 are the cells of a plain picture's noise,
    row by row, h w .. h w + more - 1 are draws beside. No frame takes a draw twice, so that noise which is independent from
    cell to cell stays so, with mean 0 and variance 1: nothing is interpolated."""

    index: Tensor
    more: int

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) in cells of the latents."""
        return tuple(self.index.shape[-2:])

    def frames(self, numbers: Sequence[int] | slice) -> Carried:
        """The same for some of the frames, by number."""
        return Carried(self.index[numbers], self.more)

    def spread(self, plain: Tensor, beside: Tensor) -> Tensor:
        """plain (..., h, w) the noise of one picture and beside (..., more), both unit normal -> (F, ..., h, w).

        Raises ValueError for noise of another size.
        """
        if tuple(plain.shape[-2:]) != self.size or beside.shape[-1] != self.more:
            raise ValueError(f"the noise is {tuple(plain.shape[-2:])} with {beside.shape[-1]} draws beside; expected "
                             f"{self.size} with {self.more}, as the frames were read for")
        draws = torch.cat([plain.flatten(-2), beside], -1)
        return draws[..., self.index].movedim(-3, 0)
