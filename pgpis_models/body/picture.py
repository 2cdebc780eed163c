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
from .raster import View, trace
from .shading import covered, shade, surroundings
from .skeleton import EYE_ANGLE, EYE_HEIGHT, Skeleton, build_skeleton
from .state import State
from .visibility import FACE, uncovered

GROUND, CLAY, DARK = (0.90, 0.90, 0.91), (0.80, 0.72, 0.65), (0.16, 0.14, 0.14)   # RGB
FINE = 2   # points per pixel and direction of the shaded picture
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
    points = view.project(mesh.points)
    seen, around = _seen(skeleton, mesh, points, view, size)
    return Drawn(seen.depth, seen.pose, seen.iuv, *_shaded(mesh, points, view, around))


def see(state: State, size: tuple[int, int], proportions: Proportions | None = None) -> Seen:
    """The same without its picture, in a fraction of the time."""
    skeleton, mesh = _posed(state, proportions)
    view = state.camera.view(size)
    return _seen(skeleton, mesh, view.project(mesh.points), view, size)[0]


def surface_points(state: State, proportions: Proportions | None = None) -> np.ndarray:
    """Points (N, 3) of the posed surface, in body heights from the hips."""
    return _posed(state, proportions)[1].points


def _posed(state: State, proportions: Proportions | None) -> tuple[Skeleton, Mesh]:
    proportions = proportions or Proportions()
    skeleton = build_skeleton(proportions.build, state.pose(), proportions.lengths)
    return skeleton, build_figure(proportions.build, skeleton, _BARE)


def _seen(skeleton: Skeleton, mesh: Mesh, points: np.ndarray, view: View, size: tuple[int, int]) -> tuple[Seen, np.ndarray]:
    """What shows at the pixels' centres, and the mean depth (H, W) around each."""
    height, width = size
    hits = trace(mesh.triangles, points, mesh.chart.T, height, width)
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
    seen = Seen(depth.reshape(height, width), Keypoints(joints[:, :2], shown, size),
                IUV(*(one.reshape(height, width) for one in maps)))
    return seen, surroundings(hits, height, width, 0.022 * view.scale).reshape(height, width)


def _shaded(mesh: Mesh, points: np.ndarray, view: View, around: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Picture (H, W, 3) and mask (H, W), each pixel the mean of FINE x FINE points."""
    (height, width), fine = around.shape, points * np.array([FINE, FINE, 1], np.float32)
    light = shade(mesh.normals @ view.rotation.T.astype(np.float32))
    hits = trace(mesh.triangles, fine, np.concatenate([mesh.chart.T, light[None]]), height * FINE, width * FINE)
    colour = np.broadcast_to(np.array(CLAY, np.float32), (len(hits.sample), 3)).copy()
    colour[_on_eyes(mesh.segment[hits.triangle], *hits.values[:2])] = DARK
    row, column = np.divmod(hits.sample, width * FINE)
    colour *= (hits.values[2] * (1 - covered(hits.depth, around[row // FINE, column // FINE])))[:, None]
    pixel, points_each = row // FINE * width + column // FINE, FINE * FINE
    share = np.bincount(pixel, minlength=height * width) / points_each
    mean = np.empty((height * width, 3), np.float32)
    for channel, ground in enumerate(GROUND):   # sums over the body's points alone, of which there are few
        own = np.bincount(pixel, colour[:, channel], height * width) / points_each
        mean[:, channel] = (own + ground * (1 - share)).clip(0, 1)
    return mean.reshape(height, width, 3), share.astype(np.float32).reshape(height, width)


def _on_eyes(segment: np.ndarray, angle: np.ndarray, v: np.ndarray) -> np.ndarray:
    """(K,) bool: points of the surface that an eye's dark spot covers; a body without eyes does not show where it looks."""
    height = HEAD_SPAN[1] - v * (HEAD_SPAN[1] - HEAD_SPAN[0]) - EYE_HEIGHT
    aside = (np.abs((angle + 0.5) % 2.0 - 1.0) * np.pi - EYE_ANGLE) * 0.056   # from an eye, around the face
    return (segment == HEAD) & (np.hypot(aside / 1.25, height) < 0.0068)
