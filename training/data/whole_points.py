"""133 whole-body points of photos, a file for each: {train,test}_wholebody/STEM.npy beside {train,test}_highres.

(133, 3) float32: x, y in pixels of the photo, and 1 where the point is seen, else 0; COCO-WholeBody's order.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pgpis_models.files.reading import read_numbers
from pgpis_models.poses.wholebody import POINTS, WholeBody
from training.data.placing import write_array

FOLDER = "{}_wholebody"   # of a split


def points_file(root: Path, split: str, name: str) -> Path:
    """Where the points of a photo are. name: of the photo."""
    return root / FOLDER.format(split) / f"{Path(name).stem}.npy"


def write_points(path: Path, pose: WholeBody) -> None:
    """Points and whether each is seen, as `read_points` reads them."""
    write_array(path, np.concatenate([pose.points, pose.seen[:, None]], axis=1).astype(np.float32))


def read_points(path: Path, canvas: tuple[int, int]) -> WholeBody:
    """canvas: (H, W) of the photo. Raises ValueError naming the file when it holds something else, OSError without it."""
    rows = read_numbers(path, "133 points: x, y and whether each is seen")
    if rows.shape != (POINTS, 3):
        raise ValueError(f"{path} holds an array of shape {rows.shape}; expected (133, 3): x, y and whether it is seen. "
                         "Prepare the data set again")
    return from_rows(rows, canvas)


def from_rows(rows: np.ndarray, canvas: tuple[int, int]) -> WholeBody:
    """(133, 2 or 3) x, y and perhaps a confidence; points at (0, 0) or (-1, -1), not finite or of confidence 0 are
    missing."""
    xy = np.asarray(rows[:, :2], dtype=np.float64)
    seen = np.isfinite(xy).all(1) & ~(xy == 0).all(1) & ~(xy == -1).all(1)
    if rows.shape[1] == 3:
        seen &= rows[:, 2] > 0
    return WholeBody.of(np.where(seen[:, None], xy, 0.0), seen, canvas)
