"""What of a target's body a photo does not show, from the DensePose of both."""

from __future__ import annotations

import numpy as np

from .densepose import IUV

CELLS = 12   # per side of a part's chart; between texels of one cell a photo is not far from showing


def share_seen(source: IUV, target: IUV) -> float | None:
    """Share of the target's pixels, 0 to 1, whose place on the body the source shows too; None without a person in it."""
    seen = np.zeros(25 * CELLS * CELLS, bool)
    seen[_cells(source)] = True
    wanted = _cells(target)
    return float(seen[wanted].mean()) if len(wanted) else None


def _cells(iuv: IUV) -> np.ndarray:
    """Of every pixel of the person, the cell of the body's surface that it shows."""
    body = iuv.part > 0
    across, down = (np.minimum((chart[body] * CELLS).astype(int), CELLS - 1) for chart in (iuv.u, iuv.v))
    return (iuv.part[body].astype(int) * CELLS + down) * CELLS + across
