"""Which surface shows where: triangles in, the nearest one per sample out, with numpy alone.

Every triangle is cut into the rows that it crosses and every row into the samples that it covers, so no sample outside of a
triangle is ever looked at.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BAND = 2 ** 19   # samples that are traced at a time: what lies in a cache is fast, and memory does not grow with the canvas


@dataclass(frozen=True)
class View:
    """The camera: a rotation (3, 3), pixels per body height, and the picture's upper left corner in body heights."""

    rotation: np.ndarray
    scale: float
    left: float
    top: float

    def project(self, points: np.ndarray) -> np.ndarray:
        """Column, row in pixels and depth in body heights, (N, 3), of points (N, 3)."""
        seen = points @ self.rotation.T.astype(points.dtype)
        seen[:, 0] = (seen[:, 0] - self.left) * self.scale
        seen[:, 1] = (self.top - seen[:, 1]) * self.scale
        return seen


@dataclass(frozen=True)
class Hits:
    """Nearest surfaces: sample (K,) flat index, or number of the wanted cell times its samples plus the place in it;
    triangle (K,); depth (K,) towards the camera; values (A, K): what was given per point, interpolated."""

    sample: np.ndarray
    triangle: np.ndarray
    depth: np.ndarray
    values: np.ndarray


def _spread(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For items that have `counts` members: the item of each member, and the member's number within it."""
    item = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    return item, np.arange(len(item), dtype=np.int32) - np.repeat((np.cumsum(counts) - counts).astype(np.int32), counts)


def _touches(total: np.ndarray, low_x, high_x, low_y, high_y, fine: int) -> np.ndarray:
    """(T,) bool: the box from low to high, columns and rows of samples, meets a wanted cell; total: their integral image."""
    height, width = total.shape[0] - 1, total.shape[1] - 1
    scale = np.float32(1 / fine)
    x0, x1, y0, y1 = ((bound * scale + shift).clip(0, most).astype(np.int32) for bound, shift, most in (
        (low_x, 0, width), (high_x, 1, width), (low_y, 0, height), (high_y, 1, height)))
    return total[y1, x1] - total[y0, x1] - total[y1, x0] + total[y0, x0] > 0


def trace(triangles: np.ndarray, points: np.ndarray, values: np.ndarray, height: int, width: int,
          wanted: np.ndarray | None = None, fine: int = 1) -> Hits:
    """The surfaces at sample centres (+0.5) of a canvas.

    triangles (T, 3): point numbers, counter-clockwise from outside. points (N, 3) float32: column and row in samples, and
    depth. values (A, N) float32. wanted (height / fine, width / fine) bool: look only at samples of these cells, each fine
    x fine samples; everywhere if None.
    """
    half = np.float32(0.5)
    px, py, pz = np.ascontiguousarray(points.T)
    ta, tb, tc = triangles.T
    ax, ay, bx, by, cx, cy = px[ta], py[ta], px[tb], py[tb], px[tc], py[tc]
    abx, aby, acx, acy = bx - ax, by - ay, cx - ax, cy - ay
    area = abx * acy - aby * acx
    low_x, high_x = np.minimum(np.minimum(ax, bx), cx), np.maximum(np.maximum(ax, bx), cx)
    low_y, high_y = np.minimum(np.minimum(ay, by), cy), np.maximum(np.maximum(ay, by), cy)
    # rows go down, so a triangle that faces the camera has negative area; most small ones lie between sample centres
    shown = np.flatnonzero((area < -1e-9) & (high_x > 0) & (low_x < width) & (high_y > 0) & (low_y < height)
                           & (np.floor(high_y - half) >= np.ceil(low_y - half))
                           & (np.floor(high_x - half) >= np.ceil(low_x - half)))
    if wanted is not None:
        total = np.zeros((wanted.shape[0] + 1, wanted.shape[1] + 1), np.int32)
        np.cumsum(np.cumsum(wanted, axis=0, dtype=np.int32), axis=1, out=total[1:, 1:])
        shown = shown[_touches(total, low_x[shown], high_x[shown], low_y[shown], high_y[shown], fine)]
    ax, ay, abx, aby, acx, acy = (value[shown] for value in (ax, ay, abx, aby, acx, acy))
    az = pz[ta[shown]]
    abz, acz = pz[tb[shown]] - az, pz[tc[shown]] - az
    inverse = 1 / area[shown]
    first = np.maximum(np.ceil(low_y[shown] - half), 0).astype(np.int32)
    last = np.minimum(np.floor(high_y[shown] - half), height - 1).astype(np.int32)
    # weights of b and c at (x, y) from the corner a are linear, so each edge bounds x from one side
    bx, by, cx, cy = acy * inverse, -acx * inverse, -aby * inverse, abx * inverse
    sloped, risen = bx * abz + cx * acz, by * abz + cy * acz
    edges = [(np.where(np.abs(across) < 1e-9, np.float32(1e-9), across), down, np.float32(start + 1e-4))
             for across, down, start in ((bx, by, 0.0), (cx, cy, 0.0), (-bx - cx, -by - cy, 1.0))]
    corners = [(value[ta[shown]], value[tb[shown]], value[tc[shown]]) for value in values]
    if wanted is not None:   # samples are numbered cell by cell
        number = (np.cumsum(wanted.ravel(), dtype=np.int32) - 1).reshape(wanted.shape)

    def band(top: int, bottom: int) -> Hits:
        """The same for rows top to bottom alone; samples count from the first of them."""
        here = np.flatnonzero((first < bottom) & (last >= top))
        begin = np.maximum(first[here], top)
        face, row = _spread(np.maximum(np.minimum(last[here], bottom - 1) - begin + 1, 0))
        row += begin[face]
        face = here[face]
        if wanted is not None:   # strips far from any wanted cell are dropped early
            y = row.astype(np.float32)
            kept = np.flatnonzero(_touches(total, low_x[shown][face], high_x[shown][face], y, y, fine))
            face, row = face[kept], row[kept]
        y = row.astype(np.float32) + half - ay[face]
        left, right = np.full(len(face), -1e9, np.float32), np.full(len(face), 1e9, np.float32)
        for across, down, start in edges:
            bound = down[face] * y + start
            across = across[face]
            bound /= -across
            rising = across > 0
            np.maximum(left, bound, out=left, where=rising)
            np.minimum(right, bound, out=right, where=~rising)
        x = ax[face] - half
        begin = np.maximum(np.ceil(left + x), 0).astype(np.int32)
        end = np.minimum(np.floor(right + x), width - 1).astype(np.int32)
        strip, column = _spread(np.maximum(end - begin + 1, 0))
        column += begin[strip]
        if wanted is None:
            sample, count = ((row - top) * np.int32(width))[strip] + column, (bottom - top) * width
        else:
            cell_row, inner_row = np.divmod(row, np.int32(fine))
            cell_column = column // np.int32(fine)
            kept = np.flatnonzero(wanted[cell_row[strip], cell_column])
            strip, column, cell_column = strip[kept], column[kept], cell_column[kept]
            inner = inner_row[strip] * np.int32(fine) + column - cell_column * np.int32(fine)
            before, after = (number[at - 1, -1] + 1 if at else 0 for at in (top // fine, -(-bottom // fine)))
            sample = (number[cell_row[strip], cell_column] - before) * np.int32(fine * fine) + inner
            count = (after - before) * fine * fine
        # depth is linear in the column within a strip
        slope = sloped[face]
        start = az[face] + risen[face] * y - slope * x
        depth = slope[strip]
        depth *= column.astype(np.float32)
        depth += start[strip]
        nearest = np.full(count, -np.inf, np.float32)
        np.maximum.at(nearest, sample, depth)
        best = np.flatnonzero(depth == nearest[sample])
        owner = np.full(count, -1, np.int32)
        owner[sample[best]] = best
        sample = np.flatnonzero(owner >= 0)
        owner = owner[sample]
        strip = strip[owner]
        face = face[strip]
        x, y = column[owner].astype(np.float32) - x[strip], y[strip]
        second, third = bx[face] * x + by[face] * y, cx[face] * x + cy[face] * y
        mixed = np.empty((len(values), len(owner)), np.float32)
        for (base, one, other), out in zip(corners, mixed, strict=True):
            np.multiply((one - base)[face], second, out=out)
            out += base[face]
            out += (other - base)[face] * third
        return Hits(sample + (top * width if wanted is None else before * fine * fine), shown[face], depth[owner], mixed)

    step = max(1, BAND // (width * fine)) * fine
    found = [band(top, min(top + step, height)) for top in range(0, height, step)]
    return Hits(*(np.concatenate([getattr(one, name) for one in found], axis=-1)
                  for name in ("sample", "triangle", "depth", "values")))
