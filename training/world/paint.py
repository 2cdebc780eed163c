"""The colour of every point of the 24 charts: cloth, skin and shoes here, head and hair in paint_head.py.

The colour is a function of (identity, part, u, v) alone, so a picture is this function times shading. Around a limb or the
torso both halves share one coordinate, hence cloth runs on from front to back.
"""

from __future__ import annotations

import math

import numpy as np

from pgpis_models.body.figure import TORSO_WIDE, chart_spans
from pgpis_models.body.skeleton import LOWER_ARM, SHANK, THIGH, TORSO_RINGS, UPPER_ARM

from .emblems import inside_emblem
from .paint_head import paint_head
from .wardrobe import COLLARS, EMBLEMS, Identity, clear

# Kind of segment and whether the part is the back half, for each DensePose part 0..24.
KINDS = ("background", "torso", "torso", "hand", "hand", "foot", "foot", *["thigh"] * 4, *["shank"] * 4, *["upper_arm"] * 4,
         *["lower_arm"] * 4, "head", "head")
BACK_PARTS = (1, 7, 8, 11, 12, 15, 16, 19, 20)
_KIND_ORDER = ("torso", "head", "upper_arm", "lower_arm", "hand", "thigh", "shank", "foot")
_KIND_OF_PART = np.array([0] + [1 + _KIND_ORDER.index(k) for k in KINDS[1:]], np.uint8)
_IS_BACK = np.isin(np.arange(25), BACK_PARTS)
_IS_BACK[24] = True   # of the head's two parts, the flag says left
HEM = 0.0075          # breadth of hems and cuffs, body heights
_TORSO_V = (TORSO_RINGS[-1] - np.array(TORSO_RINGS[::-1])) / (TORSO_RINGS[-1] - TORSO_RINGS[0])

# way around the trunk, as a share of its girth, at angles from the left over the front to the right: an ellipse's arc, so
# that dots stay round and stripes equally wide
_HALF = np.linspace(0, 1, 65)
_STEPS = np.hypot(np.diff(0.088 * np.cos(np.pi * _HALF)), np.diff(0.058 * np.sin(np.pi * _HALF)))
_ARC = np.concatenate([[0.0], np.cumsum(_STEPS)])
_ARC *= 0.5 / _ARC[-1]


def _fabric(pattern: int, period: float, girth: float, around: np.ndarray, along: np.ndarray, shift: float) -> np.ndarray:
    """True where the second colour shows.

    around: share of the way round, 0.25 = middle of the front; along: body heights; shift: of dots, in repeats.
    """
    n = max(2, round(girth / period))  # whole repeats, so that the cloth has no seam
    x, y = (around - 0.25) * n, along / period
    if pattern == 1:
        return (y % 1.0) >= 0.5
    if pattern == 2:
        return ((x + 0.25) % 1.0) >= 0.5
    if pattern == 3:
        return (((x + 0.25) % 1.0) >= 0.5) != ((y % 1.0) >= 0.5)
    dx, dy = ((x + 0.5 + shift) % 1.0 - 0.5) * girth / n, (y % 1.0 - 0.5) * period
    return dx * dx + dy * dy < (0.30 * min(period, girth / n)) ** 2


class _Painter:
    """Colours of the charts of one person, kind by kind; u, v, back are flat arrays of the same length."""

    def __init__(self, who: Identity):
        self.who, self.spans = who, chart_spans(who.build)
        self.skin = np.array(who.skin, np.float32)

    def _dye(self, out, where, bottom: bool, girth, around, along, shift=0.0):
        who = self.who
        first, second, pattern, period = (
            (who.bottom, who.bottom_second, who.bottom_pattern, who.bottom_period) if bottom else
            (who.top, who.top_second, who.top_pattern, who.top_period))
        out[where] = first
        if pattern:
            out[where & _fabric(pattern, period, girth, around, along, shift)] = second

    def _distance(self, kind: str, v):  # from the joint, in body heights
        low, high = self.spans[kind]
        return low + v * (high - low)

    def torso(self, out, u, v, back):
        who, around = self.who, np.interp(u, _HALF, _ARC)
        around = np.where(back, 1.0 - around, around)
        low, high = self.spans["torso"]
        depth = v * (high - low)  # below the collar
        above = v < who.waistline
        self._dye(out, above, False, 0.52, around, depth)
        # a dress runs on; other cloth starts at the waist
        dress = who.bottom_kind == 4
        self._dye(out, ~above, True, 0.52, around, depth - (0.0 if dress else who.waistline * (high - low)), shift=0.5)
        x = np.cos(np.pi * u) * np.interp(v, _TORSO_V, TORSO_WIDE[::-1])
        if who.letter >= 0:
            # letters keep their size around the chest: its breadth is that of the charts at the nipples
            middle = 0.44 if COLLARS[who.collar] == "vee" else 0.40
            inside = inside_emblem(EMBLEMS[who.letter], np.cos(np.pi * u) / 0.66, (middle - v) / 0.150)
            out[~back & above & inside] = who.letter_rgb
        if dress:
            out[np.abs(v - who.waistline) < 0.012] *= np.float32(0.78)
        else:
            out[above & (v > who.waistline - 0.018)] *= np.float32(0.82)
            if who.belt is not None:
                worn = ~above & (v < who.waistline + 0.042)
                out[worn] = who.belt
                buckle = worn & ~back & (np.abs(x) < 0.011)
                out[buckle] = clear((0.80, 0.66, 0.34))
                out[buckle & (np.abs(x) < 0.006) & (np.abs(v - who.waistline - 0.021) < 0.011)] = who.belt
            elif who.bottom_kind < 4:
                out[~above & (v < who.waistline + 0.030)] *= np.float32(0.86)
            if who.bottom_kind < 3:   # the fly
                out[~back & ~above & (np.abs(x - 0.004) < 0.0014) & (v < who.waistline + 0.20)] *= np.float32(0.74)
        self._neckline(out, x, depth / (high - low) * 0.382, back)

    def _neckline(self, out, x, depth, back):
        """The collar: depth below the base of the neck, x from the middle, body heights."""
        who, side = self.who, np.abs(x)
        kind = COLLARS[who.collar]
        deep = 1.25 if who.sleeve == 0 else 1.0
        if kind == "roll":
            out[depth < 0.020] *= np.float32(0.88)
            return
        behind = np.hypot(x / 0.046, depth / 0.024)
        if kind == "round":
            edge = np.hypot(x / 0.047, depth / (0.047 * deep))
        elif kind == "vee":
            edge = side / 0.045 + depth / (0.098 * deep)
        elif kind == "jacket":
            edge = np.hypot(x / 0.046, depth / 0.050)
        else:
            edge = side / 0.034 + depth / 0.050
        edge = np.where(back, behind, edge)
        if who.sleeve == 0:   # straps: bare shoulders
            hole = np.hypot((side - 0.112) / 0.044, (depth - 0.030) / 0.090) - 1
            out[hole < 0.10] *= np.float32(0.80)
            out[hole < 0] = self.skin
        if kind == "shirt":
            front = ~back
            placket = front & (side < 0.0085) & (edge > 1) & (depth < who.waistline * 0.382)
            out[placket] *= np.float32(0.92)
            buttons = placket & (np.hypot(x, (depth - 0.062 + 0.018) % 0.036 - 0.018) < 0.0036)
            dark = sum(who.top) > 1.2
            out[buttons] = (0.22, 0.20, 0.20) if dark else clear((0.92, 0.86, 0.74))
            leaf = front & (edge > 1) & (depth < 0.062 - 0.55 * np.abs(side - 0.026)) & (side < 0.052)
            leaf |= back & (depth < 0.034) & (side < 0.048)
            inner = front & (edge > 1) & (depth < 0.056 - 0.55 * np.abs(side - 0.026)) & (side < 0.047)
            inner |= back & (depth < 0.030) & (side < 0.045)
            out[leaf] *= np.float32(0.62)
            tone = np.array(who.top if who.top_pattern == 0 else who.top_second, np.float32)
            out[inner] = tone * np.float32(0.95)
        elif kind == "jacket":
            self._jacket(out, x, depth, edge, back)
        else:
            out[(edge >= 1) & (edge < 1.17)] *= np.float32(0.78)
        out[edge < 1] = self.skin

    def _jacket(self, out, x, depth, edge, back):
        """Two fronts with lapels; between them the second colour."""
        who, side = self.who, np.abs(x)
        worn = ~back & (depth < who.waistline * 0.382)
        gap = 0.030 + 0.10 * np.maximum(depth - 0.13, 0)   # half of the opening
        lapel = worn & (side > gap) & (side < gap + 0.026 * np.clip(1.35 - depth / 0.125, 0, 1)) & (depth < 0.125)
        rim = worn & (side > gap) & (side < gap + 0.004 + 0.026 * np.clip(1.35 - depth / 0.125, 0, 1))
        out[rim] *= np.float32(0.62)
        out[lapel] = np.array(who.top, np.float32) * np.float32(0.90)
        inner = worn & (side <= gap)
        out[inner] = who.top_second
        out[inner & (edge < 1.16)] *= np.float32(0.80)
        out[inner & (side > gap - 0.005)] *= np.float32(0.82)   # the jacket's shadow
        out[back & (edge >= 1) & (edge < 1.5)] *= np.float32(0.80)

    def head(self, out, u, v, back):
        out[:] = paint_head(self.who, u, v, back)

    def _arm(self, out, u, v, back, kind, done):
        who, h = self.who, self.who.build.height
        reach, along = who.sleeve * (UPPER_ARM + LOWER_ARM) * h, self._distance(kind, v) + done
        out[:] = self.skin
        if who.sleeve > 0:
            worn = along < reach
            self._dye(out, worn, False, 0.20, np.where(back, 1.0 - 0.5 * u, 0.5 * u), along + 0.05)
            out[worn & (along > reach - (HEM if who.sleeve < 0.9 else 1.6 * HEM))] *= np.float32(0.80)

    def upper_arm(self, out, u, v, back):
        self._arm(out, u, v, back, "upper_arm", 0.0)

    def lower_arm(self, out, u, v, back):
        self._arm(out, u, v, back, "lower_arm", UPPER_ARM * self.who.build.height)

    def hand(self, out, u, v, back):
        out[:] = self.skin

    def thigh(self, out, u, v, back):
        self._leg(out, u, v, back, "thigh", 0.0)

    def shank(self, out, u, v, back):
        self._leg(out, u, v, back, "shank", THIGH * self.who.build.height)

    def _leg(self, out, u, v, back, kind, done):
        who, h = self.who, self.who.build.height
        along = self._distance(kind, v) + done
        reach = who.skirt * THIGH * h if who.skirt else who.leg * (THIGH + SHANK) * h
        if who.leg >= 1.0:
            reach = (THIGH + SHANK) * h + 0.006
        out[:] = self.skin
        if who.sock is not None:
            out[along > (THIGH + SHANK * (1.0 - who.sock_length)) * h] = who.sock
            out[np.abs(along - (THIGH + SHANK * (1.0 - who.sock_length)) * h - 0.004) < 0.004] *= np.float32(0.84)
        low, high = self.spans["torso"]  # the pattern goes on from the torso
        before = -low if who.bottom_kind == 4 else -low - who.waistline * (high - low)
        worn = along <= reach + 0.0015
        self._dye(out, worn, True, 0.34, np.where(back, 1.0 - 0.5 * u, 0.5 * u), along + before)
        out[worn & (along > reach - HEM)] *= np.float32(0.80)

    def foot(self, out, u, v, back):
        who, angle = self.who, 2 * math.pi * u - math.pi   # 0 left, pi / 2 up
        rise = np.sin(angle)
        out[:] = who.shoe
        rise = np.sign(rise) * np.abs(rise) ** 0.72
        out[(rise > 0.80) & (v > 0.42) & (v < 0.72)] *= np.float32(0.80)   # tongue
        out[rise < np.interp(v, (0, 0.3, 0.55, 1), (-0.66, -0.72, -0.45, -0.2))] = who.sole


def albedo(identity: Identity, part: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Colour without shading. part (N,) 1..24, u and v (N,) 0..1 -> (N, 3) float32 RGB 0..1."""
    out = np.empty((part.size, 3), np.float32)
    painter, kinds, is_back = _Painter(identity), _KIND_OF_PART[part], _IS_BACK[part]
    for index, kind in enumerate(_KIND_ORDER, 1):
        at = np.flatnonzero(kinds == index)
        if at.size:
            colours = np.empty((at.size, 3), np.float32)
            getattr(painter, kind)(colours, u[at], v[at], is_back[at])
            out[at] = colours
    return out


def texture_atlas(identity: Identity, texels: int = 64) -> np.ndarray:
    """Albedo of all charts at texel centres, (24, texels, texels, 3) float32 0..1, index [part - 1, row = v, column = u]."""
    centres = (np.arange(texels, dtype=np.float32) + 0.5) / texels
    part, v, u = np.meshgrid(np.arange(1, 25, dtype=np.uint8), centres, centres, indexing="ij")
    return albedo(identity, part.ravel(), u.ravel(), v.ravel()).reshape(24, texels, texels, 3)
