"""Whether an IUV picture was resized by a filter that mixes pixels: part numbers between two parts are other parts."""

from __future__ import annotations

import numpy as np

NEAR = 12      # 8-bit steps by which U and V of a mixture of its two neighbours may differ from what the mixture has
FEWEST = 100   # borders between parts in a row or column: of fewer nothing can be said
LIMIT = 0.05   # drawn people have up to 0.02, resized by nearest too; by filters that mix 0.18 and more


def mixed_share(picture: np.ndarray) -> float:
    """Of the borders between parts in rows and columns of (H, W, 3) uint8 part, U, V, the share at which a single pixel lies
    between its two neighbours in all three channels alike: as their mixture, and as no third part does but by chance.

    0 where there are fewer than FEWEST borders.
    """
    mixed = borders = 0
    for values in (picture.astype(np.float32), picture.transpose(1, 0, 2).astype(np.float32)):
        part = values[..., 0]
        borders += int((part[:, 1:] != part[:, :-1]).sum())
        step, across = part[:, 1:-1] - part[:, :-2], part[:, 2:] - part[:, :-2]
        rows, columns = np.nonzero(step * (across - step) > 0)   # strictly between
        before, here, after = (values[rows, columns + k, 1:] for k in range(3))
        weight = (step[rows, columns] / across[rows, columns])[:, None]
        mixed += int((np.abs(before + weight * (after - before) - here).max(1, initial=0) < NEAR).sum())
    return mixed / borders if borders >= FEWEST else 0.0
