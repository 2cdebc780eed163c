"""Several photos of one person: their tensors joined to those of one."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

SLOTS = 4   # places that attention has for each photo, by which it tells how much each weighs


def one_row(tokens: Tensor) -> Tensor:
    """Tokens (N, T, C) of N photos side by side, (1, N T, C): attention over all of them, whatever their order."""
    return tokens.flatten(0, 1)[None]


def weighted_row(tokens: Tensor, weights: Tensor) -> Tensor:
    """Tokens (N, T, C) of N photos, weights (B, N) that sum to 1 in each row -> (B, P T, C), P at most SLOTS N: each photo's
    as often as it weighs, rounded to one in SLOTS N, below half of which it is left out; once each where all weigh the same.
    A token that comes k times takes k times its weight in a softmax, without a mask, which another pack's attention would
    not take."""
    places = SLOTS * len(tokens)
    share = weights.double() * places
    count = share.floor()
    rank = (share - count).argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    count = count + (rank < places - count.sum(1, keepdim=True))
    count = count.long() // math.gcd(*count.long().flatten().tolist())
    return torch.stack([tokens.repeat_interleave(row.to(tokens.device), 0).flatten(0, 1) for row in count])


def weighted(values: Tensor, weights: Tensor) -> Tensor:
    """(N, ...) of N photos, weights (B, N) that sum to 1 in each row -> (B, ...)."""
    return torch.einsum("bn,n...->b...", weights.to(values), values)


def mean_direction(directions: Tensor, weights: Tensor) -> Tensor:
    """Directions (B, N, E) of length 1, weights (B, N) -> (B, E) of length 1: the mean on the sphere, which for two of equal
    weight is the middle of their arc."""
    return F.normalize(torch.einsum("bn,bne->be", weights.to(directions), directions), dim=-1)
