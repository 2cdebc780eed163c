"""Who a person is: build, skin, face, hair and clothes, drawn from a seed."""

from __future__ import annotations

import colorsys
import dataclasses
from dataclasses import dataclass

import numpy as np

from pgpis_models.body.figure import Cut
from pgpis_models.body.head import HAIR_STYLES
from pgpis_models.body.skeleton import SHANK, THIGH, TORSO_RINGS, Build

PATTERNS = ("plain", "horizontal stripes", "vertical stripes", "checks", "dots")
BOTTOMS = ("shorts", "knee", "trousers", "skirt", "dress")
COLLARS = ("round", "vee", "shirt", "roll", "jacket")   # a jacket is open and shows the second colour beneath
EMBLEMS = ("A", "E", "H", "K", "N", "T", "X", "Z", "heart", "star", "ring", "cross")
BACKGROUND = (0.86, 0.86, 0.88)
CLEARANCE = 0.125   # RGB distance that every colour keeps from the ground, however it is shaded

_SKINS = ((0.99, 0.86, 0.77), (0.96, 0.78, 0.66), (0.89, 0.68, 0.53), (0.78, 0.57, 0.41), (0.62, 0.42, 0.29),
          (0.48, 0.32, 0.23), (0.38, 0.25, 0.18))
_HAIRS = ((0.09, 0.08, 0.08), (0.22, 0.14, 0.09), (0.38, 0.23, 0.13), (0.55, 0.35, 0.18), (0.84, 0.66, 0.36),
          (0.93, 0.82, 0.56), (0.68, 0.28, 0.11), (0.60, 0.60, 0.62))
_DYES = ((0.85, 0.30, 0.55), (0.20, 0.42, 0.75), (0.15, 0.55, 0.45), (0.50, 0.28, 0.68))
_IRISES = ((0.22, 0.12, 0.07), (0.40, 0.24, 0.10), (0.18, 0.38, 0.62), (0.20, 0.42, 0.28), (0.36, 0.40, 0.44))

RGB = tuple[float, float, float]


@dataclass(frozen=True)
class Identity:
    """One person. Colours are RGB in 0..1; lengths without a unit are shares 0..1; periods are in body heights."""

    seed: int
    build: Build
    skin: RGB
    eyes: RGB
    lips: RGB
    beard: float  # how dense, 0 for none
    hair: RGB
    hair_style: int  # index into HAIR_STYLES
    top: RGB
    top_second: RGB
    top_pattern: int  # index into PATTERNS
    top_period: float
    sleeve: float  # share of shoulder to wrist
    ease: float  # how far sleeves stand off
    collar: int  # index into COLLARS
    bottom_kind: int  # index into BOTTOMS
    bottom: RGB
    bottom_second: RGB
    bottom_pattern: int
    bottom_period: float
    leg: float  # share of hip to ankle
    fit: float  # how wide legs are cut, of a skirt its flare
    waistline: float  # where the top ends, as v of the torso charts
    belt: RGB | None
    shoe: RGB
    sole: RGB
    sock: RGB | None
    sock_length: float  # share of ankle to knee, 0 without socks
    letter: int  # index into EMBLEMS or -1
    letter_rgb: RGB

    @property
    def skirt(self) -> float:
        """Share of the thigh under a skirt, 0 for none."""
        return min(0.95, self.leg * (THIGH + SHANK) / THIGH) if self.bottom_kind >= 3 else 0.0

    @property
    def cut(self) -> Cut:
        """The shape of clothes and hair."""
        under = 0.007 if self.belt is None else 0.020   # what stays free below the top's hem
        waist = TORSO_RINGS[-1] - self.waistline * (TORSO_RINGS[-1] - TORSO_RINGS[0]) - under
        return Cut(self.sleeve, self.ease, 0.0 if self.skirt else self.leg, self.fit, self.skirt, self.fit, waist,
                   HAIR_STYLES[self.hair_style])

    def describe(self) -> dict:
        """Ground truth attributes as plain numbers and tuples; see the fields for units."""
        truth = dataclasses.asdict(self)
        truth["build"] = {k: float(v) for k, v in truth["build"].items()}
        truth["hair_length"] = (0.0, 0.2, 0.25, 0.35, 0.8, 0.6, 1.0, 0.3)[self.hair_style]
        # 0 = stripes run around the body, 1 = along it, -1 = no direction
        for cloth in ("top", "bottom"):
            truth[cloth + "_orientation"] = {1: 0, 2: 1}.get(truth[cloth + "_pattern"], -1)
        truth.update(patterns=PATTERNS, hair_styles=HAIR_STYLES, bottom_kinds=BOTTOMS, emblems=EMBLEMS, collars=COLLARS)
        return truth


def distance_to_ground(rgb: np.ndarray) -> np.ndarray:
    """(...,) least RGB distance between the ground and colours (..., 3) under any shade, that is any factor 0..1."""
    ground, rgb = np.array(BACKGROUND), np.asarray(rgb, np.float64)
    share = np.clip((rgb @ ground) / np.maximum((rgb * rgb).sum(-1), 1e-9), 0, 1)
    return np.sqrt(((rgb * share[..., None] - ground) ** 2).sum(-1))


def clear(rgb: RGB) -> RGB:
    """The colour, or the nearest warmer one that no shade takes to the ground: white becomes cream."""
    r, g, b = rgb
    while distance_to_ground(np.array((r, g, b))) < CLEARANCE:
        if b > r and b > g + 0.02:   # a cool one becomes cooler
            r, g = r * 0.98, g * 0.992
        else:
            g, b = g * 0.996, b * 0.98
    return (round(float(r), 4), round(float(g), 4), round(float(b), 4))


def _hsv(h: float, s: float, v: float) -> RGB:
    return clear(colorsys.hsv_to_rgb(h % 1.0, s, v))


def _hue(share: float) -> float:
    """Hues as clothes have them: much red, ochre, teal and blue, little lime and violet."""
    return float(np.interp(share, (0, 0.24, 0.36, 0.58, 0.84, 0.91, 1), (0, 0.09, 0.17, 0.42, 0.65, 0.86, 1)))


def _second(rng, hue: float, value: float) -> RGB:
    """A partner that differs clearly in lightness or hue."""
    pick = rng.integers(3)
    if pick == 0:
        return clear((1.0, 0.97, 0.90)) if value < 0.85 or rng.random() < 0.5 else (0.13, 0.13, 0.17)
    if pick == 1:
        return _hsv(hue, 0.70, 0.28) if value > 0.65 else _hsv(hue, 0.30, 1.0)
    return _hsv(hue + rng.uniform(0.33, 0.67), rng.uniform(0.50, 0.85), rng.uniform(0.75, 1.0))


def _cloth(rng, hue: float) -> tuple[RGB, float]:
    """Colour of a garment and its value: half of them muted, as most wardrobes are, the rest bright."""
    kind = rng.random()
    if kind < 0.10:
        return clear((1.0, 0.97, 0.91)), 1.0
    if kind < 0.20:
        grey = rng.uniform(0.10, 0.45)
        return clear((grey, grey, grey * 1.06)), grey
    value = rng.uniform(0.42, 0.92)
    saturation = rng.uniform(0.32, 0.58) if kind < 0.50 else rng.uniform(0.58, 0.88)
    # between yellow and cyan, pure hues glare
    glare = max(0.0, 1 - abs(hue % 1.0 - 0.33) / 0.20)
    return _hsv(hue, saturation * (1 - 0.34 * glare), value * (1 - 0.25 * glare)), value


def sample_identity(seed: int) -> Identity:
    """The person of this seed; every seed >= 0 gives another one."""
    rng = np.random.default_rng((seed, 7101))

    def uniform(low, high):
        return round(float(rng.uniform(low, high)), 4)

    def pick(table):
        return table[rng.integers(len(table))]

    womanly = rng.random() < 0.55
    build = Build(height=uniform(0.96, 1.04), shoulders=uniform(0.90, 1.00) if womanly else uniform(1.02, 1.14),
                  hips=uniform(0.95, 1.06) if womanly else uniform(0.92, 1.02),
                  waist=uniform(0.88, 1.06) if womanly else uniform(1.00, 1.18), limbs=uniform(0.88, 1.12),
                  head=uniform(1.04, 1.14), bust=uniform(0.35, 0.80) if womanly else uniform(0.0, 0.2))
    tone = uniform(0, len(_SKINS) - 1.001)
    low, mix = int(tone), tone - int(tone)
    skin = clear(tuple(a + mix * (b - a) for a, b in zip(_SKINS[low], _SKINS[low + 1], strict=True)))
    # the darker the skin, the rarer is fair or red hair (indices 4 to 6)
    fair = 0.45 * max(0.12, 1 - tone / 4)
    natural = rng.choice(len(_HAIRS), p=[*[(0.9 - fair) / 4] * 4, *[fair / 3] * 3, 0.10])
    dyed = rng.random() < 0.08
    hair = clear(pick(_DYES) if dyed else _HAIRS[natural])
    odds = (0.05, 0.08, 0.07, 0.18, 0.18, 0.17, 0.22, 0.05) if womanly else (0.24, 0.32, 0.24, 0.03, 0.02, 0.02, 0.03, 0.10)
    style = int(rng.choice(len(HAIR_STYLES), p=odds))
    eyes = pick(_IRISES)
    red = np.array(((0.80, 0.20, 0.26), (0.86, 0.42, 0.44), (0.62, 0.16, 0.28))[rng.integers(3)])
    made_up = uniform(0.45, 0.75) if womanly and rng.random() < 0.5 else uniform(0.18, 0.32)
    lips = tuple(round(float(c), 4) for c in (1 - made_up) * np.array(skin) * (0.90, 0.66, 0.66) + made_up * red)
    beard = uniform(0.35, 0.9) if not womanly and not dyed and rng.random() < 0.35 else 0.0

    hue = _hue(uniform(0, 1))
    top, value = _cloth(rng, hue)
    top_second = _second(rng, hue, value)
    bottom_hue = _hue((hue + uniform(0.22, 0.78)) % 1.0)
    bottom, bottom_value = ((0.20, 0.28, 0.46), 0.46) if rng.random() < 0.16 else _cloth(rng, bottom_hue)   # or blue jeans
    bottom_second = _second(rng, bottom_hue, bottom_value)
    top_pattern = int(rng.choice(len(PATTERNS), p=(0.66, 0.13, 0.07, 0.07, 0.07)))
    bottom_pattern = int(rng.choice(len(PATTERNS), p=(0.84, 0.04, 0.04, 0.04, 0.04)))
    top_period, bottom_period = uniform(0.055, 0.11), uniform(0.055, 0.11)
    kind = int(rng.choice(5, p=(0.10, 0.08, 0.40, 0.20, 0.22) if womanly else (0.26, 0.14, 0.60, 0.0, 0.0)))
    leg = (uniform(0.26, 0.36), uniform(0.56, 0.66), 1.0, uniform(0.32, 0.48), uniform(0.34, 0.48))[kind]
    fit = (uniform(0.5, 1.0), uniform(0.2, 0.8), uniform(0.0, 1.0), uniform(0.0, 1.0), uniform(0.1, 1.0))[kind]
    sleeve = float(rng.choice((0.0, 0.34, 0.64, 1.0), p=(0.16, 0.38, 0.10, 0.36)))
    collar = int(rng.choice(4, p=(0.50, 0.22, 0.20, 0.08))) if sleeve > 0 else int(rng.choice(2, p=(0.7, 0.3)))
    if sleeve > 0.6 and kind < 4 and top_pattern == 0 and rng.random() < 0.35:
        collar = 4
    waistline = uniform(0.60, 0.69)
    belt = None
    if kind < 4 and rng.random() < 0.40:
        belt = pick(((0.16, 0.11, 0.08), (0.42, 0.25, 0.13), (0.10, 0.10, 0.12), (0.62, 0.42, 0.24)))
    if kind == 4:
        bottom, bottom_second, bottom_pattern, bottom_period = top, top_second, top_pattern, top_period
    letter, letter_rgb = -1, (1.0, 1.0, 1.0)
    if top_pattern == 0 and collar not in (2, 4) and rng.random() < 0.35:
        letter = int(rng.integers(len(EMBLEMS)))
        bright = 0.3 * top[0] + 0.59 * top[1] + 0.11 * top[2]
        letter_rgb = clear(pick(((1.0, 0.97, 0.90), (0.98, 0.88, 0.30)))) if bright < 0.55 else \
            pick(((0.08, 0.08, 0.12), (0.12, 0.15, 0.45), (0.62, 0.10, 0.14)))
    shoe = pick(((0.11, 0.11, 0.13), clear((1.0, 0.97, 0.91)), (0.45, 0.27, 0.15), _hsv(uniform(0, 1), 0.75, 0.80)))
    sole = clear((1.0, 0.97, 0.90)) if rng.random() < 0.5 else tuple(round(0.55 * c, 4) for c in shoe)
    sock, sock_length = None, 0.0
    if leg < 0.9 and rng.random() < 0.40:
        sock = pick((clear((1.0, 0.97, 0.91)), (0.16, 0.16, 0.19), _hsv(uniform(0, 1), 0.7, 0.85), shoe))
        sock_length = uniform(0.20, 0.65)
    return Identity(int(seed), build, skin, eyes, lips, beard, hair, style, top, top_second, top_pattern, top_period, sleeve,
                    uniform(0, 1), collar, kind, bottom, bottom_second, bottom_pattern, bottom_period, leg, fit,
                    waistline, belt, shoe, sole, sock, sock_length, letter, letter_rgb)
