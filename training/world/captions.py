"""The caption of a drawn person: what the demo base is told, as text is to Stable Diffusion.

A caption lists the person part by part (skin, hair, cloth on torso, arms and legs, shoes, letter, build) as 16 tokens of
64 numbers, by a fixed rule that is never trained. It knows nothing of pose, camera or picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .wardrobe import COLLARS, Identity

TOKENS = 16
WIDTH = 64
COLOURS = slice(16, 22)   # columns of a token that hold its two colours
BUILD = (11, slice(28, 35))   # token and columns of the build's seven numbers
_SLOT_GAIN = 3.0     # size of the one-hot that says which part a token speaks of
_COLOUR_GAIN = 3.0   # colours 0..1 become about -1.5..1.5


@dataclass(frozen=True)
class Kind:
    """token, columns: where a caption says it, one column per kind. size: of the number there. only: column of the same
    token that says whether there is one at all, None where there always is."""

    token: int
    columns: slice
    size: float = 1.0
    only: int | None = None


KINDS = {
    "hair": Kind(1, slice(28, 36)),
    "top": Kind(2, slice(22, 27), size=2.0),
    "collar": Kind(2, slice(29, 34)),
    "bottom": Kind(3, slice(22, 27), size=2.0),
    "cut": Kind(3, slice(29, 34)),                 # of the bottom: trousers, skirt, ...
    "letter": Kind(10, slice(29, 41), only=28),
}


def caption(identity: Identity) -> np.ndarray:
    """Tokens (16, 64) float32 of a person.

    Columns of a token: 0..15 which part; 16..18 main colour; 19..21 second colour; 22..26 pattern; 27 period;
    28.. other numbers of that part (coverage, style, letter, build).
    """
    who = identity
    skin = _colour(who.skin)
    pattern_top = _pattern(who.top, who.top_second, who.top_pattern, who.top_period)
    torso = pattern_top.copy()
    if COLLARS[who.collar] in ("shirt", "jacket"):   # there the second colour shows without a pattern
        torso[3:6] = _colour(who.top_second)
    pattern_bottom = _pattern(who.bottom, who.bottom_second, who.bottom_pattern, who.bottom_period)
    sleeve = 2.0 * who.sleeve  # of the upper arm, then of the lower arm
    leg = 2.0 * who.leg
    ease, fit, waistline = 2.0 * who.ease - 1.0, 2.0 * who.fit - 1.0, 20.0 * (who.waistline - 0.645)
    socks = _colour(who.sock or who.skin)
    hair_style, bottom_kind = _one_hot(who.hair_style, 8), _one_hot(who.bottom_kind, 5)
    letter = np.concatenate([[float(who.letter >= 0)], _one_hot(who.letter, 12)]) if who.letter >= 0 else np.zeros(13)
    build = 8.0 * (np.array([getattr(who.build, name) for name in sorted(vars(who.build))]) - 1.0)
    belted = float(who.belt is not None)
    rows = [
        (skin, []),                                                       # 0 skin
        (_colour(who.hair), hair_style),                                  # 1 hair
        (torso, [waistline, *_one_hot(who.collar, 5)]),             # 2 upper torso
        (pattern_bottom, [waistline, *bottom_kind, belted]),              # 3 lower torso
        (_worn(pattern_top, skin, sleeve), [sleeve, ease]),               # 4 upper arm
        (_worn(pattern_top, skin, sleeve - 1.0), [sleeve - 1.0, ease]),   # 5 lower arm
        (skin, []),                                                       # 6 hand
        (_worn(pattern_bottom, skin, leg), [leg, *bottom_kind, fit]),     # 7 upper leg
        (_worn(pattern_bottom, skin, leg - 1.0), [leg - 1.0, fit]),       # 8 lower leg
        (np.concatenate([_colour(who.shoe), socks]), [2.0 * who.sock_length, *_colour(who.sole)]),   # 9 foot and sock
        (np.concatenate([_colour(who.letter_rgb), _colour(who.top)]), letter),      # 10 letter
        (np.zeros(0), build),                                             # 11 build
        (np.concatenate([_colour(who.hair), skin]), hair_style),          # 12 head from behind
        (np.concatenate([skin, _colour(who.eyes)]), [2.0 * who.beard, *_colour(who.lips)]),   # 13 face
        (np.concatenate([_colour(who.top), _colour(who.bottom)]), []),    # 14 the two cloths together
        (_colour(who.belt or who.bottom), [1.0, belted]),                 # 15 belt; its 1 is the same for everybody
    ]
    tokens = np.zeros((TOKENS, WIDTH), np.float32)
    for slot, (colours, rest) in enumerate(rows):
        tokens[slot, slot] = _SLOT_GAIN
        tokens[slot, TOKENS:TOKENS + len(colours)] = colours
        tokens[slot, 28:28 + len(rest)] = rest
    return tokens


def _colour(rgb: tuple[float, float, float]) -> np.ndarray:
    return _COLOUR_GAIN * (np.asarray(rgb, np.float32) - 0.5)


def _one_hot(index: int, count: int) -> np.ndarray:
    return np.eye(count, dtype=np.float32)[index]


def _pattern(main: tuple, second: tuple, pattern: int, period: float) -> np.ndarray:
    """Main colour, second colour (the main one again when plain), pattern, period (0 when plain): 12 numbers."""
    return np.concatenate([_colour(main), _colour(second if pattern else main), 2.0 * _one_hot(pattern, 5),
                           [30.0 * (period - 0.082) if pattern else 0.0]]).astype(np.float32)


def _worn(cloth: np.ndarray, skin: np.ndarray, cover: float) -> np.ndarray:
    """Cloth on a limb segment that it covers by `cover` (1 or more: all, 0 or less: bare)."""
    if cover <= 0.0:
        return np.concatenate([skin, skin, cloth[6:] * 0])
    return cloth if cover >= 1.0 else np.concatenate([cloth[:3], skin, cloth[6:]])
