"""Several photos of one person: their tensors joined to those of one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def one_row(tokens: Tensor) -> Tensor:
    """Tokens (N, T, C) of N photos side by side, (1, N T, C): attention over all of them, whatever their order."""
    return tokens.flatten(0, 1)[None]


def weighted(values: Tensor, weights: Tensor) -> Tensor:
    """(N, ...) of N photos, weights (B, N) that sum to 1 in each row -> (B, ...)."""
    return torch.einsum("bn,n...->b...", weights.to(values), values)


def mean_direction(directions: Tensor, weights: Tensor) -> Tensor:
    """Directions (B, N, E) of length 1, weights (B, N) -> (B, E) of length 1: the mean on the sphere, which for two of equal
    weight is the middle of their arc."""
    return F.normalize(torch.einsum("bn,bne->be", weights.to(directions), directions), dim=-1)
