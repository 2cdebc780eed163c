"""Two people mixed: tensors of two encoded appearances at one weight, or in a row of several."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

NEAR = 1e-4   # sine of the angle between two directions, below which the arc between them is their chord


@dataclass(frozen=True, eq=False)
class Mixing:
    """(1 - weight) first + weight second for each of N weights (N,) in 0..1, of `pairs` pairs of people and poses.

    The row of a pair stands together: (pairs, N) flattened. With one weight whatever is 1 for all pairs stays 1.
    """

    weights: Tensor
    pairs: int

    @classmethod
    def of(cls, weights: Tensor, first: Tensor, second: Tensor, poses: int) -> Mixing:
        """first, second: (B, ...) of the two people, who go with that many poses. Raises ValueError for weights outside of
        0..1 and for numbers that do not go together."""
        if weights.ndim != 1 or not len(weights) or not bool(((weights >= 0) & (weights <= 1)).all()):
            raise ValueError(f"the weights are {weights.tolist()}; expected one or more of 0 to 1")
        counts = {len(first), len(second), poses} - {1}
        if len(counts) > 1:
            raise ValueError(f"cannot blend appearances of {len(first)} and {len(second)} sources for {poses} poses; "
                             "expected equal numbers, or one of each that differs")
        return cls(weights, counts.pop() if counts else 1)

    def linear(self, first: Tensor, second: Tensor) -> Tensor:
        """(B, ...) and (B, ...) -> (B N, ...)."""
        return self._mixed(first, second, torch.lerp)

    def spherical(self, first: Tensor, second: Tensor) -> Tensor:
        """Directions (B, E) of length 1, along the great circle between them: equal steps turn by equal angles."""
        return self._mixed(first, second, _along_arc)

    def kept(self, pose: Tensor) -> Tensor:
        """What stays the first one's, (B, ...) -> (B N, ...), or (1, ...) where it is one for all."""
        return pose if len(pose) == 1 else pose.repeat_interleave(len(self.weights), dim=0)

    def _mixed(self, first: Tensor, second: Tensor, how) -> Tensor:
        if first.shape[1:] != second.shape[1:]:
            raise ValueError(f"cannot blend {tuple(first.shape)} and {tuple(second.shape)}; expected two appearances of one "
                             "checkpoint")
        pairs = max(len(first), len(second)) if len(self.weights) == 1 else self.pairs
        first, second = (each.expand(pairs, *each.shape[1:])[:, None] for each in (first, second))
        weights = self.weights.to(first).view(1, -1, *(1,) * (first.ndim - 2))
        return how(first, second, weights).flatten(0, 1)


def _along_arc(first: Tensor, second: Tensor, weight: Tensor) -> Tensor:
    a, b = first.double(), second.double()
    angle = 2 * torch.atan2((a - b).norm(dim=-1, keepdim=True), (a + b).norm(dim=-1, keepdim=True))
    sine, weight = angle.sin(), weight.double()
    arc = (((1 - weight) * angle).sin() * a + (weight * angle).sin() * b) / sine.clamp_min(NEAR)
    return torch.where(sine < NEAR, torch.lerp(a, b, weight), arc).to(first.dtype)
