"""Which surface shows where: triangles in, the nearest one per sample out, with numpy alone.

Every triangle is cut into the rows that it crosses and every row into the samples that it covers, so no sample outside of a
triangle is ever looked at.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .mesh import Mesh


@dataclass(frozen=True)
class Hits:
    """Nearest surfaces: sample (K,) flat index; segment (K,); depth (K,) body heights towards the camera; normal (K, 3) unit
    and towards the camera; angle (K,) -1..1, v (K,) 0..1."""

    sample: np.ndarray
    segment: np.ndarray
    depth: np.ndarray
    normal: np.ndarray
    angle: np.ndarray
    v: np.ndarray


def _spread(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For items that have `counts` members: the item of each member, and the member's number within it."""
    item = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    return item, np.arange(len(item), dtype=np.int32) - np.repeat((np.cumsum(counts) - counts).astype(np.int32), counts)


def trace(mesh: Mesh, points: np.ndarray, height: int, width: int, wanted: np.ndarray | None = None) -> Hits:
    """The surfaces at sample centres (+0.5) of a canvas.

    points (N, 3) float32: the mesh's points as column and row in samples and depth. wanted (height, width) bool: look only
    there, everywhere if None.
    """
    a, b, c = (points[mesh.triangles[:, i]] for i in range(3))
    area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    low, high = np.minimum(np.minimum(a, b), c), np.maximum(np.maximum(a, b), c)
    # rows go down, so a triangle that faces the camera has negative area
    shown = np.flatnonzero((area < -1e-9) & (high[:, 0] > 0) & (low[:, 0] < width) & (high[:, 1] > 0) & (low[:, 1] < height))
    a, b, c, area = a[shown], b[shown], c[shown], area[shown]
    first = np.maximum(np.ceil(low[shown, 1] - 0.5), 0).astype(np.int32)
    last = np.minimum(np.floor(high[shown, 1] - 0.5), height - 1).astype(np.int32)
    face, row = _spread(np.maximum(last - first + 1, 0))
    row += first[face]

    # weight of b and c at (x, y) from the corner a: linear, so each edge bounds x from one side
    ab, ac = (b - a), (c - a)
    inverse = 1 / area
    slopes = (np.stack([ac[:, 1], -ac[:, 0]], 1) * inverse[:, None], np.stack([-ab[:, 1], ab[:, 0]], 1) * inverse[:, None])
    y = row.astype(np.float32) + np.float32(0.5) - a[face, 1]
    left, right = np.full(len(face), -1e9, np.float32), np.full(len(face), 1e9, np.float32)
    slack = np.float32(1e-4)
    edges = [(slopes[0][:, 0], slopes[0][:, 1], 0.0), (slopes[1][:, 0], slopes[1][:, 1], 0.0),
             (-slopes[0][:, 0] - slopes[1][:, 0], -slopes[0][:, 1] - slopes[1][:, 1], 1.0)]
    for across, down, start in edges:
        across, value = across[face], start + down[face] * y + slack
        bound = -value / np.where(np.abs(across) < 1e-9, np.float32(1e-9), across)
        np.maximum(left, bound, out=left, where=across > 0)
        np.minimum(right, bound, out=right, where=across <= 0)
    begin = np.maximum(np.ceil(left + a[face, 0] - 0.5), 0).astype(np.int32)
    end = np.minimum(np.floor(right + a[face, 0] - 0.5), width - 1).astype(np.int32)
    strip, column = _spread(np.maximum(end - begin + 1, 0))
    column += begin[strip]
    sample = row[strip] * np.int32(width) + column
    if wanted is not None:
        kept = np.flatnonzero(wanted.ravel()[sample])
        strip, column, sample = strip[kept], column[kept], sample[kept]
    # depth is linear in the column within a strip
    sloped = (slopes[0][:, 0] * ab[:, 2] + slopes[1][:, 0] * ac[:, 2])[face]
    start = a[face, 2] + (slopes[0][:, 1] * ab[:, 2] + slopes[1][:, 1] * ac[:, 2])[face] * y \
        + sloped * (np.float32(0.5) - a[face, 0])
    depth = start[strip] + sloped[strip] * column.astype(np.float32)
    nearest = np.full(height * width, -np.inf, np.float32)
    np.maximum.at(nearest, sample, depth)
    best = np.flatnonzero(depth == nearest[sample])
    owner = np.full(height * width, -1, np.int32)
    owner[sample[best]] = best
    sample = np.flatnonzero(owner >= 0)
    owner = owner[sample]
    strip = strip[owner]
    face = face[strip]
    x, y = column[owner].astype(np.float32) + np.float32(0.5) - a[face, 0], y[strip]
    weights = [slope[face, 0] * x + slope[face, 1] * y for slope in slopes]
    weights.insert(0, 1 - weights[0] - weights[1])
    face = shown[face]
    data = np.concatenate([mesh.normals, mesh.chart], axis=1)
    corners = mesh.triangles[face]
    mixed = sum(data[corners[:, i]] * weights[i][:, None] for i in range(3))
    normal = mixed[:, :3]
    normal /= np.sqrt(np.einsum("ki,ki->k", normal, normal))[:, None] + np.float32(1e-9)
    return Hits(sample, mesh.segment[face], depth[owner], normal, np.clip(mixed[:, 3], -1, 1), np.clip(mixed[:, 4], 0, 1))
