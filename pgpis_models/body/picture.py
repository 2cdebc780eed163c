"""Pictures of the bare body with their truth: joints, DensePose, mask and depth of one State."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..poses.keypoints import Keypoints
from ..surface.densepose import IUV
from .charts import charts
from .figure import HEAD, Cut, build_figure
from .head import HEAD_SPAN
from .measured import Proportions
from .mesh import Mesh
from .raster import Hits, View, trace
from .shading import covered, shade, surroundings
from .skeleton import EYE_ANGLE, EYE_HEIGHT, Skeleton, build_skeleton
from .state import State
from .visibility import FACE, uncovered

GROUND, CLAY, DARK = (0.90, 0.90, 0.91), (0.80, 0.72, 0.65), (0.16, 0.14, 0.14)   # RGB
FINE = 2   # points per pixel and direction of the shaded picture where edges are
STEP, CREASE = 0.01, 0.03   # in body heights and of the light: between neighbours this far apart may be an edge
REACH = 2   # pixels around an edge: what is thinner than one may lie between the centres
FARTHEST_OFF = 100.0   # body heights, farther than any point of a body
_BARE = Cut(hair="none")


@dataclass(frozen=True)
class Seen:
    """depth (H, W) float32, body heights towards the camera from the hips, -inf off the body; pose: what a detector would
    report; iuv: what the camera sees of the 24 parts."""

    depth: np.ndarray
    pose: Keypoints
    iuv: IUV


@dataclass(frozen=True)
class Drawn(Seen):
    """And image (H, W, 3) float32 RGB 0..1; mask (H, W) float32 0..1."""

    image: np.ndarray
    mask: np.ndarray


def draw(state: State, size: tuple[int, int], proportions: Proportions | None = None) -> Drawn:
    """The body as its camera sees it on a canvas of (H, W) pixels."""
    skeleton, mesh = _posed(state, proportions)
    view = state.camera.view(size)
    points, light = view.project(mesh.points), shade(mesh.normals @ view.rotation.T.astype(np.float32))
    hits = trace(mesh.triangles, points, np.concatenate([mesh.chart.T, light[None]]), *size)
    around = surroundings(hits, *size, 0.022 * view.scale)
    seen = _seen(skeleton, mesh, view, hits, size)
    return Drawn(seen.depth, seen.pose, seen.iuv, *_shaded(mesh, points, light, hits, seen, around))


def see(state: State, size: tuple[int, int], proportions: Proportions | None = None) -> Seen:
    """The same without its picture, in a fraction of the time."""
    skeleton, mesh = _posed(state, proportions)
    view = state.camera.view(size)
    return _seen(skeleton, mesh, view, trace(mesh.triangles, view.project(mesh.points), mesh.chart.T, *size), size)


def surface_points(state: State, proportions: Proportions | None = None) -> np.ndarray:
    """Points (N, 3) of the posed surface, in body heights from the hips."""
    return _posed(state, proportions)[1].points


def _posed(state: State, proportions: Proportions | None) -> tuple[Skeleton, Mesh]:
    proportions = proportions or Proportions()
    skeleton = build_skeleton(proportions.build, state.pose(), proportions.lengths)
    return skeleton, build_figure(proportions.build, skeleton, _BARE)


def _seen(skeleton: Skeleton, mesh: Mesh, view: View, hits: Hits, size: tuple[int, int]) -> Seen:
    """What shows at the pixels' centres, of which hits are; their first two values are the mesh's charts."""
    height, width = size
    segment = mesh.segment[hits.triangle]
    part, u = charts(segment, hits.values[0])
    maps = [np.zeros(height * width, kind) for kind in (np.uint8, np.float32, np.float32)]
    for target, chart in zip(maps, (part, u, np.clip(hits.values[1], 0, 1)), strict=True):
        target[hits.sample] = chart
    depth = np.full(height * width, -np.inf, np.float32)
    depth[hits.sample] = hits.depth
    joints, eyes = view.project(skeleton.joints), view.project(skeleton.eyes)
    visible, _ = uncovered(skeleton, view, hits, segment, joints, eyes, height, width)
    shown = np.all((joints[:, :2] >= 0) & (joints[:, :2] < (width, height)), axis=1)
    shown[list(FACE)] = visible[list(FACE)]
    return Seen(depth.reshape(height, width), Keypoints(joints[:, :2], shown, size),
                IUV(*(one.reshape(height, width) for one in maps)))


def _shaded(mesh: Mesh, points: np.ndarray, light: np.ndarray, hits: Hits, seen: Seen,
            around: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Picture (H, W, 3) and mask (H, W): colours of the pixels' centres, and where an edge may run through a pixel the mean
    of FINE x FINE points. hits: of the centres, with light as the third value; around (H * W,): mean depth nearby."""
    height, width = seen.depth.shape
    colour = np.empty((height * width, 3), np.float32)
    colour[:] = GROUND
    colour[hits.sample] = _colours(mesh, hits, around[hits.sample])
    share = np.isfinite(seen.depth).ravel().astype(np.float32)
    edges = _edges(mesh, points, hits, seen.depth)
    cells, cell_points = np.flatnonzero(edges), FINE * FINE
    finer = trace(mesh.triangles, points * np.array([FINE, FINE, 1], np.float32), np.concatenate(
        [mesh.chart.T, light[None]]), height * FINE, width * FINE, edges, FINE)
    cell = finer.sample // cell_points
    share[cells] = np.bincount(cell, minlength=len(cells)) / cell_points
    shades = _colours(mesh, finer, around[cells[cell]])
    for channel, ground in enumerate(GROUND):
        own = np.bincount(cell, shades[:, channel], len(cells)) / cell_points
        colour[cells, channel] = (own + ground * (1 - share[cells])).clip(0, 1)
    return colour.reshape(height, width, 3), share.reshape(height, width)


def _colours(mesh: Mesh, hits: Hits, around: np.ndarray) -> np.ndarray:
    """(K, 3) float32 of points whose values are angle, v and light; around (K,): mean depth nearby."""
    light = (hits.values[2] * (1 - covered(hits.depth, around)))[:, None]
    colour, eyes = light * np.array(CLAY, np.float32), _on_eyes(mesh.segment[hits.triangle], *hits.values[:2])
    colour[eyes] = light[eyes] * np.array(DARK, np.float32)
    return colour


def _edges(mesh: Mesh, points: np.ndarray, hits: Hits, depth: np.ndarray) -> np.ndarray:
    """(H, W) bool: pixels near which the centres show the ground and the body, two of its segments, an eye and what is
    around it, or a step in depth (H, W) or light, and those at the picture's border, beyond which nothing is known.
    points: of the mesh, in pixels."""
    import cv2

    low, high = np.floor(points[:, :2].min(0)) - REACH, np.ceil(points[:, :2].max(0)) + REACH
    x0, y0, x1, y1 = (int(value) for value in np.concatenate([low, high]).clip(0, depth.shape[::-1] * 2))
    box = slice(y0, y1), slice(x0, x1)
    kind, light = np.zeros(depth.size, np.uint8), np.zeros(depth.size, np.float32)
    segment = mesh.segment[hits.triangle]
    kind[hits.sample] = segment + 1 + 32 * _on_eyes(segment, *hits.values[:2]).astype(np.uint8)
    light[hits.sample] = hits.values[2]
    near = np.ones((2 * REACH + 1, 2 * REACH + 1), np.uint8)
    edges = np.ones(depth.shape, bool)
    edges[1:-1, 1:-1] = False
    for values, step in ((kind.reshape(depth.shape), 0), (np.maximum(depth, -FARTHEST_OFF), STEP),
                         (light.reshape(depth.shape), CREASE)):
        values = np.ascontiguousarray(values[box])
        if values.size:
            edges[box] |= cv2.dilate(values, near) - cv2.erode(values, near) > step
    return edges


def _on_eyes(segment: np.ndarray, angle: np.ndarray, v: np.ndarray) -> np.ndarray:
    """(K,) bool: points of the surface that an eye's dark spot covers; a body without eyes does not show where it looks."""
    result, head = np.zeros(len(segment), bool), np.flatnonzero(segment == HEAD)
    height = HEAD_SPAN[1] - v[head] * (HEAD_SPAN[1] - HEAD_SPAN[0]) - EYE_HEIGHT
    aside = (np.abs((angle[head] + 0.5) % 2.0 - 1.0) * np.pi - EYE_ANGLE) * 0.056   # from an eye, around the face
    result[head] = np.hypot(aside / 1.25, height) < 0.0068
    return result
