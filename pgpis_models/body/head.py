"""Head, neck and hair: one grid for skull and face that swells where hair grows, ears, and what hangs or is tied behind.

Hair is where the chart of the head says so (`hairline`): its shape stands here, its colour with who paints it.
"""

from __future__ import annotations

import functools

import numpy as np

from .mesh import Grids, columns, grid_normals, ring, smooth, tube
from .skeleton import EAR_HEIGHT, HEAD_WIDTH, Build, Skeleton, turn, unit

HAIR_STYLES = ("cropped", "short", "swept", "bun", "ponytail", "bob", "long", "afro")
HEAD_SPAN = (-0.030, 0.212)   # heights of the head's chart above the neck joint, at head size 1

# Lowest hair above the neck joint, at these angles from the middle of the face, in units of pi, towards one side
_HAIRLINE_AT = (0.0, 0.12, 0.22, 0.30, 0.36, 0.42, 0.50, 0.58, 0.66, 1.0)
_HAIRLINE = {
    "none": (0.30,) * 10,
    "cropped": (0.170, 0.171, 0.173, 0.162, 0.140, 0.122, 0.128, 0.108, 0.085, 0.074),
    "short": (0.163, 0.165, 0.169, 0.158, 0.136, 0.114, 0.128, 0.100, 0.074, 0.064),
    "swept": (0.158, 0.158, 0.160, 0.154, 0.134, 0.118, 0.128, 0.100, 0.074, 0.064),
    "bun": (0.175, 0.173, 0.166, 0.156, 0.138, 0.122, 0.127, 0.106, 0.080, 0.072),
    "ponytail": (0.174, 0.172, 0.165, 0.154, 0.136, 0.119, 0.126, 0.104, 0.078, 0.068),
    "bob": (0.151, 0.151, 0.150, 0.146, 0.120, 0.070, 0.062, 0.056, 0.046, 0.042),
    "long": (0.170, 0.166, 0.158, 0.146, 0.118, 0.072, 0.062, 0.054, 0.040, 0.026),
    "afro": (0.163, 0.163, 0.160, 0.154, 0.134, 0.112, 0.116, 0.096, 0.074, 0.066),
}
_THICK = {"none": 0.0, "cropped": 0.003, "short": 0.009, "swept": 0.011, "bun": 0.007, "ponytail": 0.007, "bob": 0.012,
          "long": 0.010, "afro": 0.030}
_SWEEP = {"short": 0.10, "swept": 0.30, "long": -0.14, "ponytail": 0.06, "bun": -0.05}   # slope of the hairline, a parting
# how ragged the edge above the forehead is
_TUFT = {"none": 0.0, "cropped": 0.0012, "bun": 0.0008, "ponytail": 0.0008, "short": 0.0028}
COVERS_EARS = ("bob", "long")
TIED = 0.165   # height whose chart the hair behind the head shares: there the skull has hair in every style

# Columns are close together on the face, where nose and lips are; angles in units of pi from the left over the front
_ANGLES = np.concatenate([np.linspace(-1, 0, 13)[:-1], np.linspace(0, 0.26, 5)[:-1], np.linspace(0.26, 0.74, 23),
                          np.linspace(0.74, 1, 5)[1:]])
_HEIGHTS = (0.212, 0.2115, 0.2095, 0.205, 0.199, 0.191, 0.182, 0.173, 0.165, 0.158, 0.151, 0.144, 0.138, 0.132, 0.126,
            0.120, 0.114, 0.109, 0.104, 0.100, 0.0965, 0.093, 0.089, 0.085, 0.081, 0.077, 0.073, 0.068, 0.063,
            0.058, 0.053, 0.050, 0.048)


def hairline(style: str, angle: np.ndarray) -> np.ndarray:
    """Lowest hair above the neck joint, body heights at head size 1; angle as in charts: 0 left, 0.5 front, +-1 right."""
    table = _hairline_table(style)
    at = (angle + 1.0).astype(np.float32) % np.float32(2.0) * np.float32((len(table) - 2) / 2)
    n = at.astype(np.int32)
    at -= n
    low = table[n]
    return low + at * (table[n + 1] - low)


@functools.lru_cache(maxsize=16)
def _hairline_table(style: str) -> np.ndarray:
    """The hairline at 1024 equal steps of the angle from -1 to 1, and one more."""
    angle = np.linspace(-1, 1 + 2 / 1024, 1026)
    aside = np.abs((angle - 0.5 + 1.0) % 2.0 - 1.0)   # from the middle of the face, 0..1
    line = np.interp(aside, _HAIRLINE_AT, _HAIRLINE[style])
    # tufts: no hairline is a clean cut
    ragged = _TUFT.get(style, 0.0022) * np.clip((0.30 - aside) * 16, 0, 1)
    line += ragged * (np.sin(angle * 71) + 0.7 * np.sin(angle * 123 + 1.3))
    signed = np.sin(np.pi * (angle - 0.5))   # negative on the person's left
    line += np.where(aside < 0.30, _SWEEP.get(style, 0.0) * HEAD_WIDTH * signed * np.cos(aside * (np.pi / 0.60)), 0)
    return line.astype(np.float32)


@functools.lru_cache(maxsize=32)
def _skull(style: str) -> list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Grids (points, normals, angle, v) in the head's axes (left, up, forward) from the neck joint, at head size 1."""
    y = np.array(_HEIGHTS)
    c, s = ring(_ANGLES)
    wide = smooth(y, (0.048, 0.052, 0.060, 0.070, 0.084, 0.100, 0.120, 0.140, 0.160, 0.178, 0.194, 0.205, 0.212),
                  (0.003, 0.017, 0.0290, 0.0385, 0.0458, 0.0505, 0.0538, 0.0552, 0.0540, 0.0485, 0.0370, 0.0235, 0.0005))
    front = smooth(y, (0.048, 0.052, 0.058, 0.064, 0.071, 0.080, 0.092, 0.105, 0.120, 0.135, 0.150, 0.165, 0.180, 0.195,
                       0.205, 0.212),
                   (0.012, 0.040, 0.0525, 0.0560, 0.0550, 0.0560, 0.0565, 0.0570, 0.0565, 0.0595, 0.0590, 0.0550, 0.0465,
                    0.0320, 0.0190, 0.0005))
    back = smooth(y, (0.048, 0.060, 0.075, 0.095, 0.120, 0.145, 0.165, 0.182, 0.197, 0.207, 0.212),
                  (0.010, 0.024, 0.0400, 0.0560, 0.0690, 0.0735, 0.0710, 0.0600, 0.0420, 0.0240, 0.0005))
    across = wide[:, None] * c
    ahead = np.where(s >= 0, front[:, None] * s, back[:, None] * s)
    # nose: a ridge that ends in a round tip; sockets: eyes lie a little deeper than brow and cheek
    height = np.broadcast_to(y[:, None], across.shape)
    ridge = np.interp(y, (0.090, 0.0935, 0.0985, 0.104, 0.126, 0.136), (0.0, 0.005, 0.0098, 0.0088, 0.0022, 0.0))
    spread = np.interp(y, (0.094, 0.100, 0.110, 0.130), (0.0085, 0.0080, 0.0058, 0.0052))
    faced = s > 0
    ahead = ahead + faced * ridge[:, None] * np.exp(-(across / spread[:, None]) ** 2)
    for side in (-1, 1):
        ahead = ahead - faced * 0.0035 * np.exp(-((across - side * 0.0225) / 0.012) ** 2 - ((height - 0.121) / 0.011) ** 2)
        ahead = ahead + faced * 0.0020 * np.exp(-((across - side * 0.026) / 0.014) ** 2 - ((height - 0.098) / 0.012) ** 2)
    ahead = ahead + faced * 0.0022 * np.exp(-(across / 0.016) ** 2 - ((height - 0.0775) / 0.006) ** 2)
    points = np.stack([across, height, ahead], axis=2)
    chart_v = (HEAD_SPAN[1] - y) / (HEAD_SPAN[1] - HEAD_SPAN[0])

    # hair: outwards and up from the middle of the skull, thickest on top, thin at its edge
    above = height - hairline(style, np.broadcast_to(_ANGLES, height.shape))
    full = np.clip(above / (0.016 + 0.020 * np.clip(s, 0, 1)), 0, 1)   # thinner above the forehead, or it would be a visor
    thick = _THICK[style] * (full * full * (3 - 2 * full)) + 0.0025 * (above > 0)
    if style in ("short", "swept", "bob", "long"):
        thick = thick * (1 + 0.5 * np.clip((height - 0.16) / 0.04, 0, 1))
    if style == "swept":   # a quiff to one side
        thick = thick + 0.012 * np.exp(-((height - 0.185) / 0.018) ** 2) * np.clip(s, 0, 1) * (above > 0)
    if style == "afro":
        curls = np.sin(26 * np.pi * _ANGLES) * np.sin(height * 420)
        thick = thick + 0.0022 * curls * (full > 0.5)
    outward = points - np.array([0.0, 0.130, -0.006])
    outward /= np.sqrt((outward * outward).sum(2, keepdims=True)) + 1e-9
    points = points + outward * thick[..., None]
    grids = [(points, grid_normals(points), _ANGLES, chart_v)]
    if style not in COVERS_EARS:
        for side in (-1.0, 1.0):
            grids.append(_ear(side))
    behind = {"bun": _bun, "ponytail": _tail, "bob": _bob, "long": _long}.get(style)
    if behind:
        grids.append(_hair_grid(*behind(), style not in COVERS_EARS))
    return grids


def _ear(side: float):
    """An ear: a flat ellipsoid that stands off to the back."""
    t = np.array([0.03, 0.25, 0.6, 1.0, 1.4, 1.75, 1.97]) * np.pi / 2
    centres = np.array([side * 0.0555, EAR_HEIGHT, -0.010]) + np.stack([0 * t, 0.0185 * np.cos(t), 0 * t], axis=1)
    deep = unit(np.array([side * 0.55, 0.0, -0.83]))
    left = np.cross(deep, np.array([0, -1.0, 0]))   # left x front = along
    points = tube(centres, left, deep, 0.0055 * np.sin(t), 0.0125 * np.sin(t) * (0.85 + 0.15 * np.cos(t)), ring(columns(10)))
    # its chart lies on the skin before the ear, which no hair covers
    angle = np.broadcast_to(0.5 - side * 0.30 + 0.02 * columns(10), points.shape[:2])
    return points, grid_normals(points), angle, np.full(len(t), (HEAD_SPAN[1] - 0.105) / (HEAD_SPAN[1] - HEAD_SPAN[0]))


def _hair_grid(points: np.ndarray, strands: float, tied: bool):
    """Hair behind the head: its chart runs around at the height TIED, so it is hair; `strands`: how wide it spreads."""
    rings, count = points.shape[:2]
    angle = np.broadcast_to(-0.5 + 0.5 * strands * columns(count - 1), (rings, count))
    tip = np.linspace(0, 1, rings)
    v = (HEAD_SPAN[1] - (TIED - 0.02 * tip)) / (HEAD_SPAN[1] - HEAD_SPAN[0])
    normals = grid_normals(points)
    if not tied:   # it comes out of the hair on the skull: no edge should show there
        outward = points - np.array([0.0, 0.115, -0.006])
        outward /= np.sqrt((outward * outward).sum(2, keepdims=True))
        normals = normals + np.clip((points[..., 1:2] - 0.075) / 0.06, 0, 0.9) * (outward - normals)
        normals /= np.sqrt((normals * normals).sum(2, keepdims=True))
    return points, normals, angle, v


def _lathe(heights, wide, deep, ahead, power=1.0, jaw=1.0):
    """Points of a mass of hair, rings downwards; heights and values: controls. jaw: how far its front half reaches forwards
    below the cheeks, as a share of the back half: hair stays behind the jaw."""
    y = np.linspace(heights[0], heights[-1], 14)
    places, flip = tuple(-h for h in heights), -y
    w, d, z = (smooth(flip, places, values) for values in (wide, deep, ahead))
    centres = np.stack([0 * y, y, z], axis=1)
    points = tube(centres, np.array([1.0, 0, 0]), np.array([0, 0, 1.0]), w, d, ring(columns(20), power))
    share = smooth(y, (0.060, 0.105), (jaw, 1.0))[:, None]
    forward = points[..., 2] - z[:, None]
    points[..., 2] = z[:, None] + np.where(forward > 0, share * forward, forward)
    return points


def _bun():
    return _lathe((0.222, 0.214, 0.198, 0.182, 0.168, 0.160), (0.001, 0.020, 0.031, 0.031, 0.020, 0.001),
                  (0.001, 0.020, 0.030, 0.030, 0.020, 0.001), (-0.060,) * 6), 0.9


def _tail():
    return _lathe((0.186, 0.176, 0.150, 0.110, 0.060, 0.010, -0.020), (0.001, 0.014, 0.019, 0.025, 0.025, 0.016, 0.001),
                  (0.001, 0.013, 0.016, 0.020, 0.019, 0.012, 0.001),
                  (-0.072, -0.084, -0.097, -0.098, -0.093, -0.089, -0.089)), 0.8


def _bob():
    return _lathe((0.195, 0.175, 0.145, 0.110, 0.070, 0.044, 0.036, 0.034),
                  (0.010, 0.042, 0.063, 0.069, 0.072, 0.070, 0.060, 0.001),
                  (0.010, 0.040, 0.0545, 0.057, 0.057, 0.052, 0.042, 0.001),
                  (-0.025, -0.028, -0.029, -0.029, -0.027, -0.024, -0.023, -0.023), 0.9, 0.3), 0.9


def _long():
    return _lathe((0.195, 0.175, 0.145, 0.110, 0.060, 0.0, -0.060, -0.098, -0.108),
                  (0.010, 0.042, 0.063, 0.069, 0.074, 0.082, 0.084, 0.060, 0.001),
                  (0.010, 0.040, 0.0545, 0.055, 0.049, 0.037, 0.030, 0.020, 0.001),
                  (-0.025, -0.028, -0.029, -0.031, -0.036, -0.047, -0.056, -0.060, -0.060), 0.9, 0.4), 0.9


def add_head(grids: Grids, segment: int, build: Build, skeleton: Skeleton, style: str) -> None:
    """Head, neck and hair of a posed person."""
    for points, normals, angle, v in _skull(style):
        grids.add(segment, skeleton.neck + points @ skeleton.head.T * build.head, normals @ skeleton.head.T, angle, v)
    # the neck leans from the chest's axis to the head's
    up = unit(skeleton.chest[:, 1] + skeleton.head[:, 1])
    frame = turn(skeleton.chest[:, 1], up) @ skeleton.chest
    y = np.array([0.092, 0.075, 0.055, 0.035, 0.015, -0.005, -0.018, -0.030]) * build.head
    wide = np.array([0.026, 0.027, 0.0275, 0.028, 0.030, 0.034, 0.040, 0.050])
    ahead = np.array([-0.010, -0.010, -0.008, -0.006, -0.004, -0.002, -0.002, -0.003])
    angle = columns(18)
    points = tube(skeleton.neck + y[:, None] * frame[:, 1] + ahead[:, None] * frame[:, 2], frame[:, 0], frame[:, 2], wide,
                  wide * np.array([1.05, 1.05, 1.05, 1.05, 1.02, 0.98, 0.9, 0.8]), ring(angle))
    # the neck's chart lies below the lowest hair of every style, squeezed where the skull has the same heights
    v = (HEAD_SPAN[1] - np.interp(y / build.head, (-0.030, 0.092), (-0.030, 0.024))) / (HEAD_SPAN[1] - HEAD_SPAN[0])
    grids.add(segment, points, grid_normals(points), angle, v)
