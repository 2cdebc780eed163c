"""What each pixel of a person shows: skin, hair, garments or shoes, from where it lies and from the picture's own colours.

Colours are sorted into a palette; what a colour means is learnt from the picture itself: labels begin as the body's zones
suggest, each label learns its colours, and both are repeated until they agree (expectation maximisation). The costs of the
labels are then smoothed along the picture's edges before the best is taken (Rhemann et al. 2011, "Fast cost-volume
filtering"; He et al. 2010, "Guided image filtering").
"""

from __future__ import annotations

import numpy as np

from .zones import FOOT, HAND, HEAD, LOWER_ARM, SHANK, THIGH, TORSO, UPPER_ARM, ZONES, Body

SKIN, HAIR, UPPER, LOWER, SHOE = range(5)
LABELS = 5
COLOURS = 40       # of the palette
ROUNDS = 12
LIGHTNESS = 0.5    # weight of L against a and b: shading changes L most
WAIST, SOFT = 0.69, 0.07   # where upper garments end unless colours say otherwise, in lengths of the trunk

#                      skin  hair  upper lower shoe
_PRIOR = {TORSO:      (0.06, 0.02, 0.46, 0.46, 0.00),
          UPPER_ARM:  (0.40, 0.02, 0.58, 0.00, 0.00),
          LOWER_ARM:  (0.55, 0.00, 0.45, 0.00, 0.00),
          HAND:       (0.97, 0.00, 0.03, 0.00, 0.00),
          THIGH:      (0.25, 0.00, 0.05, 0.70, 0.00),
          SHANK:      (0.40, 0.00, 0.00, 0.45, 0.15),
          FOOT:       (0.15, 0.00, 0.00, 0.05, 0.80),
          HEAD:       (0.50, 0.50, 0.02, 0.00, 0.00)}


def labels_of(photo: np.ndarray, body: Body) -> np.ndarray:
    """Photo (H, W, 3) uint8 and where the body is in it -> (H, W) int8: SKIN ... SHOE, -1 outside of the person."""
    at = np.flatnonzero(body.zone.ravel())
    result = np.full(body.zone.size, -1, np.int8)
    if not len(at):
        return result.reshape(body.zone.shape)
    nearness = _palette(photo, at)                              # (N, K), rows add up to 1
    prior = _prior(body).reshape(-1, LABELS)[at]                # (N, LABELS)
    share = prior
    for _ in range(ROUNDS):
        colours = nearness.T @ share + 1e-3                     # (K, LABELS): how much of each colour each label has
        colours /= colours.sum(0)
        likely = nearness @ colours
        share = prior * likely
        share /= share.sum(1, keepdims=True) + 1e-12
    cost = np.zeros((body.zone.size, LABELS), np.float32)
    cost[at] = np.log(np.maximum(prior * likely, 1e-9))
    cost[at] -= cost[at].max(1, keepdims=True)
    cost = np.maximum(cost, -8)
    result = result.reshape(body.zone.shape)
    box = tuple(slice(where.min(), where.max() + 1) for where in np.unravel_index(at, body.zone.shape))
    inside = body.zone[box] > 0   # nothing outside of the person is looked at
    smooth = _guided(photo[box], cost.reshape(*body.zone.shape, LABELS)[box], inside, max(2, round(len(photo) / 100)))
    result[box][inside] = smooth[inside].argmax(1)
    return result


def _prior(body: Body) -> np.ndarray:
    """(H, W, LABELS) float32: what a pixel shows, by its place alone."""
    table = np.zeros((ZONES, LABELS), np.float32)
    for zone, row in _PRIOR.items():
        table[zone] = row
    prior = table[body.zone]
    torso = body.zone == TORSO
    below = 1 / (1 + np.exp(-(body.down[torso] - WAIST) / SOFT))
    prior[torso, UPPER], prior[torso, LOWER] = 0.92 * (1 - below), 0.92 * below
    prior[torso, SKIN] = np.interp(body.down[torso], (0.0, 0.35, 0.5), (0.30, 0.06, 0.02))
    head = body.zone == HEAD
    above, aside = body.above[head], np.abs(body.aside[head])
    # the face: an ellipse from the chin to the hairline; hair: what lies above and beside it
    face = 1 / (1 + np.exp(6 * (np.hypot(aside / 1.02, (above - 0.36) / 0.42) - 1)))
    neck = np.where(aside < 0.8, 0.75, 0.45)
    if body.front is False:   # what shows of the face lies at one side, nobody knows which; hair may hang over the neck
        face, neck = np.where(above < 0.6, 0.35, 0.1), 0.5
    skin = np.where(above > 0, face, np.where(above > -0.5, neck, 0.15))
    prior[head, SKIN], prior[head, HAIR] = 0.02 + 0.94 * skin, 0.96 - 0.94 * skin
    prior[head, UPPER] = np.interp(above, (-0.1, 0.15), (0.30, 0.0))   # a collar
    return prior


def _palette(photo: np.ndarray, at: np.ndarray) -> np.ndarray:
    """(N, K) float32: how near the N pixels `at` are to each colour of the person's palette, rows adding up to 1."""
    import cv2  # no cost when the host starts
    lab = cv2.cvtColor(photo.astype(np.float32) / 255, cv2.COLOR_RGB2LAB).reshape(-1, 3)[at]
    lab = lab * np.array((LIGHTNESS, 1, 1), np.float32)
    cv2.setRNGSeed(0)
    count = min(COLOURS, len(at))
    sample = lab[:: max(1, len(at) // 20000)]
    _, _, centres = cv2.kmeans(np.ascontiguousarray(sample), min(count, len(sample)), None,
                               (cv2.TERM_CRITERIA_MAX_ITER + cv2.TERM_CRITERIA_EPS, 12, 0.1), 1, cv2.KMEANS_PP_CENTERS)
    away = sum(np.square(lab[:, None, channel] - centres[:, channel]) for channel in range(3))
    away -= away.min(1, keepdims=True)
    near = np.exp(-away / (2 * 3.0 ** 2))
    return near / near.sum(1, keepdims=True)


def _guided(photo: np.ndarray, values: np.ndarray, inside: np.ndarray, radius: int, flat: float = 0.02 ** 2) -> np.ndarray:
    """values (H, W, C) smoothed within `inside` (H, W) by windows in which they are linear in the photo's colour."""
    import cv2  # no cost when the host starts
    window = (2 * radius + 1, 2 * radius + 1)
    weight = inside.astype(np.float32)

    def blur(value):
        return cv2.blur(value, window, borderType=cv2.BORDER_CONSTANT)
    total = np.maximum(blur(weight), 1e-6)

    def mean(value):
        return blur(np.ascontiguousarray(value * weight)) / total
    guide = photo.astype(np.float32) / 255
    centre = np.stack([mean(guide[..., i]) for i in range(3)], -1)
    def spread(i: int, j: int) -> np.ndarray:
        return (mean(guide[..., i] * guide[..., j]) - centre[..., i] * centre[..., j]).astype(np.float64) + flat * (i == j)
    (a, b, c), (d, e), f = (spread(0, j) for j in range(3)), (spread(1, j) for j in (1, 2)), spread(2, 2)
    # the inverse of the symmetric matrices (a b c, b d e, c e f) by their cofactors
    first, second, third = d * f - e * e, c * e - b * f, b * e - c * d
    inverse = np.stack([first, second, third, second, a * f - c * c, b * c - a * e, third, b * c - a * e, a * d - b * b], -1)
    inverse = (inverse / (a * first + b * second + c * third)[..., None]).astype(np.float32).reshape(*centre.shape, 3)
    out = np.empty_like(values)
    for channel in range(values.shape[-1]):
        value = values[..., channel]
        level = mean(value)
        slope = np.stack([mean(guide[..., i] * value) - centre[..., i] * level for i in range(3)], -1)
        slope = np.einsum("hwij,hwj->hwi", inverse, slope)
        shift = level - (slope * centre).sum(-1)
        out[..., channel] = sum(mean(slope[..., i]) * guide[..., i] for i in range(3)) + mean(shift)
    return out
