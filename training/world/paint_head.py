"""The colours of face, neck and hair, as a function of the head's chart."""

from __future__ import annotations

import math

import numpy as np

from pgpis_models.body.head import HAIR_STYLES, HEAD_SPAN, hairline
from pgpis_models.body.skeleton import EYE_ANGLE, EYE_HEIGHT

from .wardrobe import COLLARS, Identity, clear

_WHITE = np.array(clear((0.99, 0.96, 0.90)), np.float32)
_ROUND = 0.056   # radius that turns an angle on the face into a way along the skin


def paint_head(who: Identity, u: np.ndarray, v: np.ndarray, left: np.ndarray) -> np.ndarray:
    """Colours (N, 3) float32. u: from the middle of the face (0) to that of the back (1), v: along, left (N,) bool: side."""
    out = np.empty((u.size, 3), np.float32)
    out[:] = who.skin
    height = HEAD_SPAN[1] - v * np.float32(HEAD_SPAN[1] - HEAD_SPAN[0])
    angle = np.where(left, 0.5 - u, 0.5 + u)
    above = height - hairline(HAIR_STYLES[who.hair_style], angle)
    if COLLARS[who.collar] == "roll":   # on the neck, whose chart ends at 0.024
        rolled = (height < 0.010) & (above <= 0)
        out[rolled] = np.array(who.top, np.float32)
        out[rolled & (height > 0.003)] = np.float32(0.85) * np.array(who.top, np.float32)
    face = np.flatnonzero((u < 0.42) & (height > 0.03) & (above <= 0.004))
    if face.size:
        out[face] = _face(who, np.where(left[face], 1, -1) * u[face] * np.float32(math.pi * _ROUND), height[face])
    hairy = np.flatnonzero(above > 0)
    if hairy.size:
        out[hairy] = _hair(who, angle[hairy], height[hairy], above[hairy])
    return out


def _hair(who: Identity, angle: np.ndarray, height: np.ndarray, above: np.ndarray) -> np.ndarray:
    """Strands of darker and lighter tone, dark roots and a band of gloss."""
    base = np.array(who.hair, np.float32)
    light = np.array(clear(tuple(np.minimum(base * 1.22 + 0.05, 1.0))), np.float32)
    wave = np.sin(height * 70) * 1.2
    strand = 0.5 + 0.25 * np.sin(angle * 62 + wave) + 0.25 * np.sin(angle * 147 + 2.1 * wave + 1.0)
    if HAIR_STYLES[who.hair_style] == "afro":   # curls
        curl = np.sin(angle * 95 + 2.0 * np.sin(height * 260)) * np.sin(height * 380 + 2.0 * np.sin(angle * 60))
        strand = 0.5 + 0.5 * curl
    tone = 0.80 + 0.20 * strand
    tone *= 0.80 + 0.20 * np.clip(above / 0.010, 0, 1)
    gloss = np.exp(-((height - 0.184 - 0.004 * strand) / 0.009) ** 2) * (0.35 + 0.5 * strand)
    out = base * tone.astype(np.float32)[:, None]
    return out + gloss.astype(np.float32)[:, None] * (light - out)


def _blend(out: np.ndarray, weight: np.ndarray, colour) -> None:
    """Moves `out` towards a colour where weight, 0..1, says so."""
    at = np.flatnonzero(weight > 0.004)
    out[at] += weight[at, None].astype(np.float32) * (np.asarray(colour, np.float32) - out[at])


def _edge(distance: np.ndarray, soft: float) -> np.ndarray:
    """1 inside (distance below 0), 0 outside, over `soft`."""
    return np.clip(0.5 - distance / soft, 0, 1)


def _face(who: Identity, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """x: along the skin from the middle of the face towards the person's left, y: height; body heights at head size 1."""
    out = np.empty((x.size, 3), np.float32)
    skin = np.array(who.skin, np.float32)
    out[:] = skin
    side = np.abs(x)
    aside = side - np.float32(EYE_ANGLE * _ROUND)   # from the middle of the eye, outwards
    rise = y - np.float32(EYE_HEIGHT)
    # cheeks
    _blend(out, 0.28 * np.exp(-((side - 0.032) / 0.012) ** 2 - ((y - 0.097) / 0.010) ** 2), skin * (1.0, 0.72, 0.68))
    _blend(out, 0.16 * np.exp(-(aside / 0.017) ** 2 - ((rise - 0.003) / 0.011) ** 2), skin * (0.70, 0.58, 0.56))   # eyelids
    if who.beard:
        line = np.interp(side, (0.0, 0.024, 0.040, 0.056, 0.064), (0.0685, 0.0690, 0.092, 0.108, 0.140))
        jaw = _edge(y - line, 0.009) * np.clip((0.0735 - side) / 0.006, 0, 1)
        lip = _edge(np.hypot(x / 0.024, (y - 0.0875) / 0.0045) - 1, 0.5)
        _blend(out, who.beard * np.maximum(jaw, 0.9 * lip), np.array(who.hair) * 0.55 + skin * 0.20)
    near = np.flatnonzero((side < 0.030) & (y > 0.058) & (y < 0.101))
    if near.size:
        part = out[near]
        _nose_and_mouth(part, who, x[near], y[near])
        out[near] = part
    near = np.flatnonzero((np.abs(aside) < 0.020) & (rise > -0.013) & (rise < 0.031))
    if near.size:
        part = out[near]
        _eye(part, who, np.where(x[near] < 0, -1, 1), aside[near], rise[near])
        out[near] = part
    return out


def _nose_and_mouth(out: np.ndarray, who: Identity, x: np.ndarray, y: np.ndarray) -> None:
    skin, side = np.array(who.skin, np.float32), np.abs(x)
    _blend(out, 0.25 * np.exp(-(x / 0.0100) ** 2 - ((y - 0.0925) / 0.0026) ** 2), skin * 0.55)   # under the nose
    _blend(out, 0.80 * np.exp(-((side - 0.0052) / 0.0021) ** 2 - ((y - 0.0945) / 0.0013) ** 2), skin * (0.50, 0.36, 0.34))
    half, lips = 0.0205, np.array(who.lips, np.float32)
    share = np.clip(np.abs(x) / half, 0, 1)
    middle = 0.0752 + 0.0052 * share * share   # corners up: a faint smile
    inside = np.abs(x) < half
    above = y - middle
    upper = 0.0046 * (1 - share ** 1.6) * (1 - 0.35 * np.exp(-(x / 0.0035) ** 2))   # with the dip below the nose
    lower = 0.0058 * (1 - share ** 2)
    _blend(out, inside * _edge(np.abs(above) - np.where(above > 0, upper, lower), 0.0012), lips)
    _blend(out, inside * 0.35 * np.exp(-(x / 0.007) ** 2 - ((above + 0.003) / 0.0016) ** 2),
           np.minimum(lips * 1.25 + 0.05, 1))
    _blend(out, 0.30 * np.exp(-(x / 0.011) ** 2 - ((above + 0.0078) / 0.0016) ** 2), np.array(who.skin) * 0.66)
    _blend(out, _edge(np.abs(x) - half - 0.001, 0.002) * _edge(np.abs(above) - 0.0009 * (1.2 - share), 0.0009), lips * 0.42)


def _eye(out: np.ndarray, who: Identity, side: np.ndarray, aside: np.ndarray, rise: np.ndarray) -> None:
    """aside: from the middle of the eye, outwards; rise: above it."""
    half, high = 0.0132, 0.0080
    share = np.clip(np.abs(aside) / half, 0, 1)
    lift = rise - 0.0010 * aside / half   # the outer corner is a little higher
    lid, rim = high * (1 - share ** 2.2), 0.85 * high * (1 - share ** 2)
    opening = np.where(lift > 0, lift - lid, -lift - rim)
    open_ = _edge(opening, 0.0010) * (np.abs(aside) < half)
    _blend(out, open_, _WHITE)
    _blend(out, open_ * 0.35 * _edge(high * 0.45 - lift, 0.003), _WHITE * (0.62, 0.60, 0.60))   # shadow of the lid
    r = np.hypot(aside, lift - 0.0004)
    iris = np.array(who.eyes, np.float32)
    _blend(out, open_ * _edge(r - 0.0072, 0.0010), iris * 0.55)
    _blend(out, open_ * _edge(r - 0.0060, 0.0016), iris)
    _blend(out, open_ * _edge(r - 0.0031, 0.0010), (0.03, 0.025, 0.03))
    glint = np.hypot(aside * side + 0.0024, lift - 0.0030)   # on the same side of both eyes
    _blend(out, open_ * _edge(glint - 0.0019, 0.0010), _WHITE)
    lash = np.array(who.hair, np.float32) * 0.25 * np.array((1.0, 0.9, 0.9), np.float32)
    _blend(out, _edge(np.abs(lift - lid - 0.0006) - 0.0013, 0.0010) * (np.abs(aside) < half + 0.0012) * (lift > -0.002),
           lash)
    _blend(out, 0.35 * _edge(np.abs(-lift - rim) - 0.0007, 0.0010) * (np.abs(aside) < half) * (lift < 0),
           np.array(who.skin) * (0.55, 0.42, 0.40))
    _blend(out, 0.35 * _edge(np.abs(lift - lid - 0.0046) - 0.0006, 0.0010) * (np.abs(aside) < half),
           np.array(who.skin) * 0.62)
    along = np.clip((aside + 0.016) / 0.033, 0, 1)   # from the inner to the outer end of the brow
    middle = 0.0182 + 0.0048 * np.sin(np.pi * along ** 0.85) - 0.0012 * along
    thick = 0.0028 * (1 - along) ** 0.5 * (0.65 + 0.35 * np.clip(along * 6, 0, 1)) + 0.0004
    brow = np.array(who.hair, np.float32) * 0.62 + np.array(who.skin, np.float32) * 0.06
    _blend(out, 0.92 * _edge(np.abs(rise - middle) - thick, 0.0012) * ((aside > -0.016) & (aside < 0.017)), brow)
