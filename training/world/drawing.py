"""Pictures of the demo world with their truth: `render(sample_identity(seed), sample_pose(seed))`.

Rays are orthographic; the camera looks a little down. What is drawn follows from the identity and from angles that the
keypoints show, nothing else is random. Every pixel is traced once at its centre, which gives the charts; where colours
change between neighbours it is traced again at several points, so that edges are smooth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pgpis_models.body.charts import charts
from pgpis_models.body.figure import HEAD, build_figure
from pgpis_models.body.mesh import Mesh
from pgpis_models.body.raster import Hits, View, trace
from pgpis_models.body.shading import covered, shade, surroundings
from pgpis_models.body.skeleton import Build, Pose, Skeleton, build_skeleton, on_head
from pgpis_models.body.visibility import FACE, uncovered

from .paint import albedo
from .poses import sample_pose
from .stage import paint_stage
from .wardrobe import Identity, sample_identity

ASPECT = 0.75   # width of the frame per height
MARGIN = 0.014  # of the frame height, kept free on every side of a full figure
PITCH = 0.09    # radians that the camera looks down
FINE = 3        # points per pixel and direction where edges are
EDGE = 0.08     # step of a colour channel between neighbours that counts as an edge



@dataclass(frozen=True)
class Rendering:
    """A picture with its truth; H, W are the canvas. Keypoints are in OpenPose order, "right" is the person's right.

    image (H, W, 3) uint8 RGB; keypoints (18, 2) float32 x, y in pixels with pixel centres at +0.5; visible (18,) bool: in
    the canvas and not hidden by another part of the body; detected (18,) bool: what a detector would report, body
    joints whenever in the canvas, face points only when turned to the camera and not covered; part (H, W) uint8 0..24;
    u, v (H, W) float32 0..1; face_box x0, y0, x1, y1 in pixels or None; identity: the seed of the person; eyes (2, 2)
    float32 x, y in pixels, right and left; eyes_visible (2,) bool: turned to the camera, not covered and in the canvas;
    zoom: 1 for a full figure, more for a closer view.
    """

    image: np.ndarray
    keypoints: np.ndarray
    visible: np.ndarray
    detected: np.ndarray
    part: np.ndarray
    u: np.ndarray
    v: np.ndarray
    face_box: tuple[float, float, float, float] | None
    identity: int
    eyes: np.ndarray
    eyes_visible: np.ndarray
    zoom: float

    def part_mask(self, *parts: int) -> np.ndarray:
        """(H, W) bool, where one of the DensePose parts shows."""
        return np.isin(self.part, parts)

    def iuv(self) -> np.ndarray:
        """(H, W, 3) uint8: part, round(255 u), round(255 v)."""
        return np.stack([self.part, np.rint(self.u * 255).astype(np.uint8), np.rint(self.v * 255).astype(np.uint8)], axis=-1)


def frame_person(points: np.ndarray, head: np.ndarray, skeleton: Skeleton, build: Build, pose: Pose, size) -> View:
    """Where the camera stands. points (N, 3): all of the surface; head (M, 3): that of the head; size (H, W).

    The frame's height fills H; widths other than 0.75 H show more or less at both sides.
    """
    height, width = size
    c, s = math.cos(PITCH), math.sin(PITCH)
    rotation = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    seen = points @ rotation[:2].T.astype(points.dtype)
    (left, low), (right, high) = seen.min(axis=0), seen.max(axis=0)
    if pose.zoom <= 1.0:
        # the whole body stays in the 4:3 frame: shift first, shrink only where that is not enough
        scale = min(pose.scale, (ASPECT - 2 * MARGIN) / (right - left), (1 - 2 * MARGIN) / (high - low))
        x = np.clip(pose.x - scale * (left + right) / 2 * 0.5, MARGIN - ASPECT / 2 - scale * left,
                    ASPECT / 2 - MARGIN - scale * right)
        middle = low + (high - low if pose.seated else 0.20 * build.head + 0.82 * build.height) / 2
        y = np.clip(pose.y - scale * middle, MARGIN - 0.5 - scale * low, 0.5 - MARGIN - scale * high)
    else:
        scale = pose.scale * pose.zoom
        middle = 0.7 * rotation @ skeleton.neck   # between hips, which are the origin, and neck
        x = pose.x - scale * middle[0]
        y = 0.5 - pose.y - scale * (head @ rotation[1].astype(head.dtype)).max()
    scale, x, y = float(scale * height), float(x / scale), float(y / scale)  # pixels per body height; the hips' place
    return View(rotation, scale, -0.5 * width / scale - x, 0.5 * height / scale - y)


def placed(identity: Identity, pose: Pose, size: tuple[int, int]) -> tuple[Skeleton, Mesh, View]:
    """A posed person before the camera of a picture of (H, W) pixels."""
    skeleton = build_skeleton(identity.build, pose)
    mesh = build_figure(identity.build, skeleton, identity.cut)
    head = mesh.points[mesh.triangles[mesh.segment == HEAD, 0]]
    return skeleton, mesh, frame_person(mesh.points, head, skeleton, identity.build, pose, size)


def render(identity: Identity, pose: Pose, size: tuple[int, int] = (256, 192)) -> Rendering:
    """Draw a person; size is (H, W)."""
    height, width = size
    skeleton, mesh, view = placed(identity, pose, size)
    points = view.project(mesh.points)
    values = np.concatenate([mesh.chart.T, shade(mesh.normals @ view.rotation.T.astype(np.float32))[None]])

    hits = trace(mesh.triangles, points, values, height, width)
    segment, v = mesh.segment[hits.triangle], np.clip(hits.values[1], 0, 1)
    part, u = charts(segment, hits.values[0])
    maps = [np.zeros(height * width, kind) for kind in (np.uint8, np.float32, np.float32)]
    for target, chart in zip(maps, (part, u, v), strict=True):
        target[hits.sample] = chart
    around = surroundings(hits, height, width, 0.022 * view.scale)
    canvas = paint_stage(mesh, skeleton, pose, view, size)
    ground = canvas.copy()
    canvas[hits.sample] = _colours(identity, part, u, hits, around[hits.sample])
    edges = _edges(canvas, hits, height, width)
    _smooth_edges(canvas, ground, edges, identity, mesh, points, values, around)
    image = np.rint(canvas * np.float32(255)).clip(0, 255).astype(np.uint8).reshape(height, width, 3)

    keypoints, eyes = view.project(skeleton.joints), view.project(skeleton.eyes)
    visible, eyes_visible = uncovered(skeleton, view, hits, segment, keypoints, eyes, height, width)
    inside = np.all((keypoints[:, :2] >= 0) & (keypoints[:, :2] < (width, height)), axis=1)
    detected = inside.copy()
    detected[list(FACE)] = visible[list(FACE)]
    face_box = None
    if detected[[0, 14, 15]].any():
        outline = [(math.radians(a), y) for a in (-62, 0, 62) for y in (0.085, 0.120, 0.150)] + [(0.0, 0.052), (0.0, 0.170)]
        face = view.project(np.array([on_head(skeleton.neck, skeleton.head, identity.build.head, *at) for at in outline]))
        face_box = tuple(float(c) for c in (*face[:, :2].min(axis=0), *face[:, :2].max(axis=0)))
    return Rendering(image, keypoints[:, :2].astype(np.float32), visible, detected,
                     *(m.reshape(height, width) for m in maps), face_box, identity.seed, eyes[:, :2].astype(np.float32),
                     eyes_visible, float(pose.zoom))


def _colours(identity: Identity, part: np.ndarray, u: np.ndarray, hits: Hits, around: np.ndarray) -> np.ndarray:
    """(K, 3) float32 shaded colours; around (K,): mean depth nearby."""
    light = hits.values[2] * (1 - covered(hits.depth, around))
    return albedo(identity, part, u, np.clip(hits.values[1], 0, 1)) * light[:, None]


def _edges(canvas: np.ndarray, hits: Hits, height: int, width: int) -> np.ndarray:
    """(H, W) bool: pixels whose colour differs from a neighbour's, or that border on the ground."""
    # a fourth channel tells person from ground, far apart
    planes = np.zeros((4, height * width), np.float32)
    planes[:3] = canvas.T
    planes[3, hits.sample] = 1.0
    inside = planes[3].reshape(height, width) > 0
    edges = np.zeros((height, width), bool)
    for axis in (0, 1):
        first, second = ((slice(None, -1), slice(None)), (slice(1, None), slice(None))) if axis == 0 else \
            ((slice(None), slice(None, -1)), (slice(None), slice(1, None)))
        step = inside[first] | inside[second]
        far = np.zeros(step.shape, bool)
        for plane in planes:
            plane = plane.reshape(height, width)
            far |= np.abs(plane[first] - plane[second]) > EDGE
        step &= far
        edges[first] |= step
        edges[second] |= step
    return edges


def _smooth_edges(canvas, ground, edges: np.ndarray, identity: Identity, mesh: Mesh, points, values, around) -> None:
    """Replaces edge pixels of the canvas (H * W, 3) by the mean of FINE x FINE points."""
    at, (height, width) = np.flatnonzero(edges), edges.shape
    finer = points * np.array([FINE, FINE, 1], np.float32)
    hits = trace(mesh.triangles, finer, values, height * FINE, width * FINE, edges, FINE)
    part, u = charts(mesh.segment[hits.triangle], hits.values[0])
    fine = np.repeat(ground[at], FINE ** 2, axis=0)
    fine[hits.sample] = _colours(identity, part, u, hits, around[at[hits.sample // FINE ** 2]])
    canvas[at] = fine.reshape(len(at), FINE ** 2, 3).mean(axis=1)


def contact_sheet(rows: int = 4, columns: int = 10, size: tuple[int, int] = (256, 192), seed: int = 0) -> np.ndarray:
    """A grid of people, RGB uint8, with gaps of 2 pixels: rows of full figures and rows of closer views take turns."""
    height, width = size
    sheet = np.full((rows * (height + 2) - 2, columns * (width + 2) - 2, 3), 255, np.uint8)
    for i in range(rows):
        for j in range(columns):
            person = seed + (i // 2) * columns + j
            number = person * 64
            while (sample_pose(number).zoom > 1) != (i % 2 == 1):
                number += 1
            picture = render(sample_identity(person), sample_pose(number), size).image
            sheet[i * (height + 2):i * (height + 2) + height, j * (width + 2):j * (width + 2) + width] = picture
    return sheet


__all__ = ["Rendering", "View", "contact_sheet", "frame_person", "placed", "render"]
