"""Who a mannequin is: build, skin, hair and clothes, and the colour of every point of the 24 charts.

The colour is a function of (identity, part, u, v) alone, so a picture is this function times shading. Around a limb or the
torso both halves share one coordinate, hence cloth runs on from front to back; only face and letter are on one side.
"""

from __future__ import annotations

import colorsys
import dataclasses
import math
from dataclasses import dataclass

import numpy as np

from training.world.body import EYE_ANGLE, EYE_HEIGHT, HEAD_WIDTH, LOWER_ARM, SHANK, THIGH, UPPER_ARM, Build, chart_spans

PATTERNS = ("plain", "horizontal stripes", "vertical stripes", "checks", "dots")
HAIR_STYLES = ("cropped", "short", "bun", "bob", "long", "afro")
BOTTOMS = ("shorts", "knee", "trousers", "skirt", "dress")
EMBLEMS = ("A", "E", "H", "K", "N", "T", "X", "Z", "heart", "star", "ring", "cross")

# Kind of segment and whether the part is the back half, for each DensePose part 0..24.
KINDS = ("background", "torso", "torso", "hand", "hand", "foot", "foot", *["thigh"] * 4, *["shank"] * 4, *["upper_arm"] * 4,
         *["lower_arm"] * 4, "head", "head")
BACK_PARTS = (1, 7, 8, 11, 12, 15, 16, 19, 20)
_KIND_ORDER = ("torso", "head", "upper_arm", "lower_arm", "hand", "thigh", "shank", "foot")
_KIND_OF_PART = np.array([0] + [1 + _KIND_ORDER.index(k) for k in KINDS[1:]], np.uint8)
_IS_BACK = np.isin(np.arange(25), BACK_PARTS)

_SKINS = ((0.98, 0.86, 0.78), (0.94, 0.78, 0.66), (0.87, 0.68, 0.53), (0.76, 0.56, 0.40), (0.60, 0.41, 0.28),
          (0.44, 0.29, 0.20), (0.30, 0.19, 0.14))
_HAIRS = ((0.06, 0.05, 0.05), (0.20, 0.12, 0.07), (0.38, 0.22, 0.11), (0.55, 0.34, 0.16), (0.86, 0.68, 0.34),
          (0.93, 0.84, 0.58), (0.68, 0.24, 0.08), (0.62, 0.62, 0.64))
_DYES = ((0.85, 0.18, 0.55), (0.15, 0.45, 0.85), (0.10, 0.62, 0.45), (0.52, 0.22, 0.75))

# Letters as strokes in the square -1..1, y up
_STROKES = {
    "A": ((-0.78, -1, 0, 1), (0.78, -1, 0, 1), (-0.5, -0.3, 0.5, -0.3)), "E": ((-0.6, -1, -0.6, 1), (-0.6, 1, 0.7, 1),
          (-0.6, 0, 0.5, 0), (-0.6, -1, 0.7, -1)), "H": ((-0.7, -1, -0.7, 1), (0.7, -1, 0.7, 1), (-0.7, 0, 0.7, 0)),
    "K": ((-0.65, -1, -0.65, 1), (-0.6, -0.1, 0.7, 1), (-0.2, 0.2, 0.75, -1)), "N": ((-0.7, -1, -0.7, 1), (0.7, -1, 0.7, 1),
          (-0.7, 1, 0.7, -1)), "T": ((-0.8, 1, 0.8, 1), (0, -1, 0, 1)), "X": ((-0.75, -1, 0.75, 1), (-0.75, 1, 0.75, -1)),
    "Z": ((-0.7, 1, 0.7, 1), (0.7, 1, -0.7, -1), (-0.7, -1, 0.7, -1)),
}

# Lowest hair above the neck, in body heights, at these u from the middle of the face to the middle of the back of the head
_HAIRLINE_AT = (0.0, 0.22, 0.34, 0.46, 0.56, 0.66, 1.0)
_HAIRLINE = {
    "cropped": (0.168, 0.168, 0.150, 0.122, 0.128, 0.085, 0.072), "short": (0.162, 0.166, 0.150, 0.108, 0.115, 0.070, 0.060),
    "bun": (0.168, 0.164, 0.150, 0.120, 0.122, 0.080, 0.068), "bob": (0.164, 0.160, 0.140, 0.045, 0.036, 0.034, 0.034),
    "long": (0.168, 0.162, 0.142, 0.020, -0.2, -0.2, -0.2), "afro": (0.160, 0.158, 0.130, 0.085, 0.075, 0.065, 0.060),
}

RGB = tuple[float, float, float]


@dataclass(frozen=True)
class Identity:
    """One person. Colours are RGB in 0..1; lengths without a unit are shares 0..1; periods are in body heights."""

    seed: int
    build: Build
    skin: RGB
    eyes: RGB
    hair: RGB
    hair_style: int  # index into HAIR_STYLES
    top: RGB
    top_second: RGB
    top_pattern: int  # index into PATTERNS
    top_period: float
    sleeve: float  # share of shoulder to wrist
    bottom_kind: int  # index into BOTTOMS
    bottom: RGB
    bottom_second: RGB
    bottom_pattern: int
    bottom_period: float
    leg: float  # share of hip to ankle
    waistline: float  # where the top ends, as v of the torso charts
    shoe: RGB
    sock: RGB | None
    sock_length: float  # share of ankle to knee, 0 without socks
    letter: int  # index into EMBLEMS or -1
    letter_rgb: RGB

    @property
    def skirt(self) -> float:
        """Share of the thigh under a skirt, 0 for none."""
        return min(0.92, self.leg * (THIGH + SHANK) / THIGH) if self.bottom_kind >= 3 else 0.0

    @property
    def leg_cloth(self) -> float:
        """How far trousers widen the shank, 0..1."""
        return 1.0 if self.leg > 0.9 else 0.0

    def describe(self) -> dict:
        """Ground truth attributes as plain numbers and tuples; see the fields for units."""
        truth = dataclasses.asdict(self)
        truth["build"] = {k: float(v) for k, v in truth["build"].items()}
        truth["hair_length"] = (0.0, 0.2, 0.35, 0.6, 1.0, 0.3)[self.hair_style]
        # 0 = stripes run around the body, 1 = along it, -1 = no direction
        for cloth in ("top", "bottom"):
            truth[cloth + "_orientation"] = {1: 0, 2: 1}.get(truth[cloth + "_pattern"], -1)
        truth.update(patterns=PATTERNS, hair_styles=HAIR_STYLES, bottom_kinds=BOTTOMS, emblems=EMBLEMS)
        return truth


def _hsv(h: float, s: float, v: float) -> RGB:
    return tuple(round(float(c), 4) for c in colorsys.hsv_to_rgb(h % 1.0, s, v))


def _second(rng, hue: float, value: float) -> RGB:
    """A partner that differs clearly in lightness or hue."""
    pick = rng.integers(3)
    if pick == 0:
        return (0.97, 0.97, 0.95) if value < 0.85 or rng.random() < 0.5 else (0.12, 0.12, 0.15)
    if pick == 1:
        return _hsv(hue, 0.75, 0.28) if value > 0.65 else _hsv(hue, 0.25, 1.0)
    return _hsv(hue + rng.uniform(0.33, 0.67), rng.uniform(0.65, 0.95), rng.uniform(0.75, 1.0))


def sample_identity(seed: int) -> Identity:
    """The person of this seed; every seed >= 0 gives another one."""
    rng = np.random.default_rng((seed, 7001))

    def uniform(low, high):
        return round(float(rng.uniform(low, high)), 4)

    build = Build(height=uniform(0.95, 1.05), shoulders=uniform(0.90, 1.10), hips=uniform(0.92, 1.10),
                  waist=uniform(0.88, 1.16), limbs=uniform(0.88, 1.15), head=uniform(1.02, 1.16), bust=uniform(0.0, 0.45))
    tone = uniform(0, len(_SKINS) - 1.001)
    low, mix = int(tone), tone - int(tone)
    skin = tuple(round(a + mix * (b - a), 4) for a, b in zip(_SKINS[low], _SKINS[low + 1], strict=True))
    dyed = rng.random() < 0.10
    table = _DYES if dyed else _HAIRS
    hair = table[rng.integers(len(table))]
    style = int(rng.choice(len(HAIR_STYLES), p=(0.12, 0.24, 0.12, 0.20, 0.24, 0.08)))
    eyes = ((0.10, 0.07, 0.06), (0.10, 0.22, 0.40), (0.12, 0.28, 0.16))[rng.integers(3)]

    hue, value = uniform(0, 1), uniform(0.55, 1.0)
    top, top_second = _hsv(hue, uniform(0.62, 0.98), value), _second(rng, hue, value)
    bottom_hue, bottom_value = hue + uniform(0.22, 0.78), uniform(0.40, 0.98)
    bottom = _hsv(bottom_hue, uniform(0.60, 0.95), bottom_value)
    bottom_second = _second(rng, bottom_hue, bottom_value)
    top_pattern, bottom_pattern = (int(p) for p in rng.choice(len(PATTERNS), 2, p=(0.80, 0.08, 0.05, 0.035, 0.035)))
    top_period, bottom_period = uniform(0.16, 0.24), uniform(0.16, 0.24)
    kind = int(rng.choice(5, p=(0.20, 0.14, 0.36, 0.15, 0.15)))
    leg = (uniform(0.28, 0.36), uniform(0.60, 0.66), 1.0, uniform(0.30, 0.45), uniform(0.32, 0.46))[kind]
    sleeve = float(rng.choice((0.0, 0.34, 0.64, 1.0), p=(0.18, 0.40, 0.10, 0.32)))
    waistline = uniform(0.62, 0.71)
    if kind == 4:
        bottom, bottom_second, bottom_pattern, bottom_period = top, top_second, top_pattern, top_period
    letter, letter_rgb = -1, (1.0, 1.0, 1.0)
    if top_pattern == 0 and rng.random() < 0.35:
        letter = int(rng.integers(len(EMBLEMS)))
        bright = 0.3 * top[0] + 0.59 * top[1] + 0.11 * top[2]
        letter_rgb = ((0.98, 0.98, 0.96), (0.98, 0.90, 0.25))[rng.integers(2)] if bright < 0.55 else \
            ((0.08, 0.08, 0.12), (0.10, 0.12, 0.45))[rng.integers(2)]
    shoe = ((0.10, 0.10, 0.12), (0.95, 0.95, 0.95), (0.45, 0.26, 0.13), _hsv(uniform(0, 1), 0.85, 0.85))[rng.integers(4)]
    sock, sock_length = None, 0.0
    if leg < 0.9 and rng.random() < 0.35:
        sock = ((0.96, 0.96, 0.96), (0.15, 0.15, 0.18), _hsv(uniform(0, 1), 0.8, 0.9))[rng.integers(3)]
        sock_length = uniform(0.25, 0.6)
    return Identity(int(seed), build, skin, eyes, hair, style, top, top_second, top_pattern, top_period, sleeve, kind,
                    bottom, bottom_second, bottom_pattern, bottom_period, leg, waistline, shoe, sock, sock_length, letter,
                    letter_rgb)


def _fabric(pattern: int, period: float, girth: float, around: np.ndarray, along: np.ndarray, shift: float) -> np.ndarray:
    """True where the second colour shows.

    around: share of the way round, 0.25 = middle of the front; along: body heights; shift: of dots, in repeats.
    """
    n = max(2, round(girth / period))  # whole repeats, so that the cloth has no seam
    x = (around - 0.25) * n
    y = along / period
    if pattern == 1:
        return (y % 1.0) >= 0.5
    if pattern == 2:
        return ((x + 0.25) % 1.0) >= 0.5
    if pattern == 3:
        return (((x + 0.25) % 1.0) >= 0.5) != ((y % 1.0) >= 0.5)
    dx, dy = ((x + 0.5 + shift) % 1.0 - 0.5) * girth / n, (y % 1.0 - 0.5) * period
    return dx * dx + dy * dy < (0.32 * min(period, girth / n)) ** 2


def _emblem(name: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Inside of a letter or sign in the square -1..1, y up."""
    if name in _STROKES:
        inside = np.zeros(x.shape, bool)
        for x0, y0, x1, y1 in _STROKES[name]:
            dx, dy = 0.85 * (x1 - x0), 0.80 * (y1 - y0)  # room for half the width of the stroke
            along = np.clip(((x - 0.85 * x0) * dx + (y - 0.80 * y0) * dy) / (dx * dx + dy * dy), 0, 1)
            inside |= (x - 0.85 * x0 - along * dx) ** 2 + (y - 0.80 * y0 - along * dy) ** 2 < 0.21 ** 2
        return inside
    r, angle = np.hypot(x, y), np.arctan2(x, y)
    if name == "heart":
        a, b = np.abs(x) * 1.15, y * 1.15 - 0.15
        return (a * a + b * b - 1) ** 3 < 1.6 * a * a * b ** 3
    if name == "star":
        sector = np.abs((angle / (2 * math.pi / 5) + 0.5) % 1.0 - 0.5) * 2  # 0 at a tip, 1 between two
        return r < 1.0 - 0.55 * np.sqrt(sector)
    if name == "ring":
        return (r < 1.0) & (r > 0.52)
    return ((np.abs(x) < 0.32) | (np.abs(y) < 0.32)) & (np.maximum(np.abs(x), np.abs(y)) < 1.0)


class _Painter:
    """Colours of the charts of one person, kind by kind; u, v, back are flat arrays of the same length."""

    def __init__(self, identity: Identity):
        self.who = identity
        self.spans = chart_spans(identity.build, identity.leg_cloth)

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
        who, around, girth = self.who, np.where(back, 1.0 - 0.5 * u, 0.5 * u), 0.52
        low, high = self.spans["torso"]
        depth = v * (high - low)  # below the collar
        above = v < who.waistline
        self._dye(out, above, False, girth, around, depth)
        # a dress runs on; other cloth starts at the waist
        start = 0.0 if who.bottom_kind == 4 else who.waistline * (high - low)
        self._dye(out, ~above, True, girth, around, depth - start, shift=0.5)
        neckline = np.where(back, 0.055, 0.105) * (1.4 if who.sleeve == 0 else 1.0)
        hole = np.hypot(np.cos(np.pi * u) * 0.97, v / neckline) < 1.0
        if who.sleeve == 0:  # straps: bare shoulders
            hole |= (np.abs(np.cos(np.pi * u)) > 0.93) & (v < 0.26)
        out[hole] = who.skin
        if who.letter >= 0:
            x, y = np.cos(np.pi * u) / 0.82, (0.41 - v) / 0.205
            out[~back & above & _emblem(EMBLEMS[who.letter], x, y)] = who.letter_rgb

    def head(self, out, u, v, back):
        who = self.who
        height, angle = -self._distance("head", v) / who.build.head, np.pi * u
        x, front = HEAD_WIDTH * np.sin(angle), u < 0.5
        out[:] = who.skin
        skin = np.array(who.skin, np.float32)
        out[front & ((x / 0.011) ** 2 + ((height - 0.101) / 0.018) ** 2 < 1)] = skin * np.float32(0.88)
        lips = skin * np.array((0.80, 0.42, 0.42), np.float32) + np.array((0.08, 0.0, 0.02), np.float32)
        out[front & ((x / 0.021) ** 2 + ((height - 0.077) / 0.0065) ** 2 < 1)] = lips
        arc = (angle - EYE_ANGLE) * 0.055  # along the skull, body heights
        out[(arc / 0.0125) ** 2 + ((height - EYE_HEIGHT) / 0.0090) ** 2 < 1] = (0.97, 0.97, 0.97)
        out[(arc / 0.0070) ** 2 + ((height - EYE_HEIGHT) / 0.0085) ** 2 < 1] = who.eyes
        brow = np.array(who.hair, np.float32) * np.float32(0.7)
        out[(np.abs(arc) < 0.0145) & (np.abs(height - EYE_HEIGHT - 0.0185 + 4.0 * arc * arc / 0.05) < 0.0035)] = brow
        out[height > np.interp(u, _HAIRLINE_AT, _HAIRLINE[HAIR_STYLES[who.hair_style]])] = who.hair

    def _arm(self, out, u, v, back, kind, done):
        who, h = self.who, self.who.build.height
        reach, along = who.sleeve * (UPPER_ARM + LOWER_ARM) * h, self._distance(kind, v) + done
        out[:] = who.skin
        if who.sleeve > 0:
            self._dye(out, along < reach, False, 0.20, np.where(back, 1.0 - 0.5 * u, 0.5 * u), along + 0.05)

    def upper_arm(self, out, u, v, back):
        self._arm(out, u, v, back, "upper_arm", 0.0)

    def lower_arm(self, out, u, v, back):
        self._arm(out, u, v, back, "lower_arm", UPPER_ARM * self.who.build.height)

    def hand(self, out, u, v, back):
        out[:] = self.who.skin

    def thigh(self, out, u, v, back):
        self._leg(out, u, v, back, "thigh", 0.0)

    def shank(self, out, u, v, back):
        self._leg(out, u, v, back, "shank", THIGH * self.who.build.height)

    def _leg(self, out, u, v, back, kind, done):
        who, h = self.who, self.who.build.height
        along = self._distance(kind, v) + done
        reach = who.skirt * THIGH * h if who.skirt else who.leg * (THIGH + SHANK) * h
        if who.leg >= 1.0:
            reach = 1.0
        out[:] = who.skin
        if who.sock is not None:
            out[along > (THIGH + SHANK * (1.0 - who.sock_length)) * h] = who.sock
        low, high = self.spans["torso"]  # the pattern goes on from the torso
        before = -low if who.bottom_kind == 4 else -low - who.waistline * (high - low)
        self._dye(out, along <= reach + 0.003, True, 0.34, np.where(back, 1.0 - 0.5 * u, 0.5 * u), along + before)

    def foot(self, out, u, v, back):
        out[:] = self.who.shoe


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
