"""What a picture of skeletons shows, by colours: where discs are, where limbs are and end. Whose they are says
`skeleton_pictures.py`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce

import numpy as np

LARGEST = 640            # pixels of the longer side that are looked at; larger pictures are made smaller
MARGIN = 24              # pixels around what is coloured
HUES = 18                # colours of joints; limb i has that of joint i
LIT, GREY = 0.16, 0.35   # brightness (largest channel, 0..1) below which a pixel is ground; saturation of a colour
BRIGHT = (0.66, 0.96)    # where discs begin and are certain; limbs lie below
DIM = 0.3                # brightness that a limb has at least
HUE_REACH = (0.4, 0.85)  # steps of hue within which a pixel certainly has a colour, and beyond which it has another
LEAST_COVER = 0.22       # share of a disc that has to be seen
LEAST_PIXELS = 6         # of a limb whose end no disc shows
MEETING = 0.5            # what a limb that ends in a joint says for it, where its whole disc says 1
MOST_TOUCHING = 8        # discs of one colour in one part


@dataclass(frozen=True)
class Candidate:
    """A place where a joint may be: x, y in pixels; cover: the share of its disc that is seen, 0 for the end of a limb;
    meets: how many of the joint's limbs end there beside one, -1 for none."""

    x: float
    y: float
    cover: float
    meets: int = 0

    @property
    def weight(self) -> float:
        """How sure this is the joint: limbs that meet where no disc is to be seen count too."""
        return self.cover + MEETING * self.meets


@dataclass(frozen=True)
class Seen:
    """What a picture shows, by colours, whatever these mean. lit, bright: (H, W) bool, coloured at all, and as bright as a
    disc; limbs: per colour (H, W) uint8, 1 where a limb of it is, one pixel wider; discs, ends: per colour, where discs are,
    and the ends of limbs; radius: of discs in pixels."""

    lit: np.ndarray
    bright: np.ndarray
    limbs: list[np.ndarray]
    discs: list[list[Candidate]]
    ends: list[list[Candidate]]
    radius: float


def working_size(picture: np.ndarray) -> tuple[np.ndarray | None, float, np.ndarray]:
    """(the coloured part with a margin, smaller where it is large; pixels of the picture per pixel of it; its corner)."""
    import cv2
    shown = picture > LIT * 255
    rows, columns = np.flatnonzero(shown.any(axis=(1, 2))), np.flatnonzero(shown.any(axis=0).any(axis=-1))
    if not len(rows):
        return None, 1.0, np.zeros(2)
    y0, x0 = max(int(rows[0]) - MARGIN, 0), max(int(columns[0]) - MARGIN, 0)
    part = picture[y0:rows[-1] + MARGIN + 1, x0:columns[-1] + MARGIN + 1]
    scale = max(1.0, max(picture.shape[:2]) / LARGEST)
    if scale > 1:
        sides = [max(1, round(side / scale)) for side in part.shape[1::-1]]
        part = cv2.resize(part, sides, interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(part), scale, np.array([x0, y0], np.float64)


# --- what is there ------------------------------------------------------------------------------------------

def _coloured(picture: np.ndarray) -> tuple[list[np.ndarray], np.ndarray, np.ndarray, np.ndarray]:
    """The three channels, the largest and the smallest of them, float32, and where a colour is, bool; (H, W) each."""
    channels = [picture[..., channel].astype(np.float32) for channel in range(3)]
    high, low = reduce(np.maximum, channels), reduce(np.minimum, channels)
    return channels, high, low, (high / 255 > LIT) & (high - low > GREY * high)


def lit_share(picture: np.ndarray) -> float:
    """Of a picture (H, W, 3) uint8, the share that is coloured."""
    return float(_coloured(picture)[-1].mean())


def look(picture: np.ndarray) -> Seen:
    """What is there in a picture (H, W, 3) uint8 that has a coloured pixel at least. Needs OpenCV."""
    import cv2
    (red, green, blue), high, low, lit = _coloured(picture)
    value = high / 255
    span = np.where(lit, high - low, 1)
    hue = np.where(high == red, (green - blue) / span, np.where(high == green, 2 + (blue - red) / span,
                                                               4 + (red - green) / span)) * 3   # in steps of 20 degrees
    bright = np.clip((value - BRIGHT[0]) / (BRIGHT[1] - BRIGHT[0]), 0, 1)
    near, far = HUE_REACH
    likeness = []
    for colour in range(HUES):
        away = np.abs((hue - colour + HUES / 2) % HUES - HUES / 2)
        likeness.append(np.clip((far - away) / (far - near), 0, 1) * lit)
    radius, discs = _discs([one * bright for one in likeness], lit)
    dim = (1 - bright) * (value > DIM)
    limbs = [cv2.dilate((one * (1 - bright) > 0.3).astype(np.uint8), np.ones((3, 3), np.uint8)) for one in likeness]
    return Seen(lit, lit & (bright > 0.3), limbs, discs, [_ends(one * dim > 0.5, radius) for one in likeness], radius)


def _parts(mask: np.ndarray, least: float) -> Iterator[tuple[tuple[int, int, int, int], np.ndarray]]:
    """Connected parts of a mask of `least` pixels or more: box (x, y, width, height), the part's mask inside of the box."""
    import cv2
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    for label in np.flatnonzero(stats[1:, cv2.CC_STAT_AREA] >= least) + 1:
        x, y, width, height, _ = stats[label].tolist()
        yield (x, y, width, height), labels[y:y + height, x:x + width] == label


def _discs(maps: list[np.ndarray], lit: np.ndarray) -> tuple[float, list[list[Candidate]]]:
    """The radius of discs and, per colour, where that colour fills one best, without ground inside of it."""
    import cv2
    stats = (cv2.connectedComponentsWithStats((one > 0.5).astype(np.uint8), connectivity=8)[2] for one in maps)
    known = sorted(area for area in (int(each[1:, cv2.CC_STAT_AREA].max(initial=0)) for each in stats) if area >= 3)
    # Discs are more or less covered; those that are not give the radius. A stray part is larger than any disc at times.
    radius = max(1.0, math.sqrt(known[(len(known) * 3) // 4] / math.pi)) if known else 1.0
    reach = math.ceil(radius)
    y, x = np.mgrid[-reach:reach + 1, -reach:reach + 1]
    disc = (np.hypot(x, y) <= radius + 0.3).astype(np.float32)
    whole, margin = float(disc.sum()), disc.shape[0]
    ground, found = (~lit).astype(np.float32), []
    for one in maps:
        found.append([])
        for (x, y, width, height), _ in _parts(one > 0.5, LEAST_COVER * whole):
            x0, y0 = max(x - margin, 0), max(y - margin, 0)
            window = np.s_[y0:y + height + margin, x0:x + width + margin]
            local = one[window].copy()
            empty = cv2.filter2D(ground[window], -1, disc, borderType=cv2.BORDER_CONSTANT)
            for _ in range(MOST_TOUCHING):
                cover = cv2.filter2D(local, -1, disc, borderType=cv2.BORDER_CONSTANT)
                fit = cover - empty
                rows, columns = np.nonzero(fit >= fit.max() - 0.02 * whole)
                cy, cx = float(rows.mean()), float(columns.mean())
                share = float(cover[round(cy), round(cx)]) / whole
                if share < LEAST_COVER:
                    break
                found[-1].append(Candidate(cx + x0, cy + y0, share))
                yy, xx = np.mgrid[:local.shape[0], :local.shape[1]]
                local[np.hypot(xx - cx, yy - cy) <= radius + 1.5] = 0
    return radius, found


def _ends(mask: np.ndarray, radius: float) -> list[Candidate]:
    """Both ends of every part of a mask that is long enough for a limb, where the middles of discs would be."""
    found = []
    for (x, y, _, _), part in _parts(mask, LEAST_PIXELS):
        rows, columns = np.nonzero(part)
        points = np.stack([columns + x, rows + y], axis=1).astype(np.float64)
        centre = points.mean(axis=0)
        axis = np.linalg.eigh(np.cov((points - centre).T) + np.eye(2) * 1e-9)[1][:, 1]
        along, across = (points - centre) @ axis, (points - centre) @ (-axis[1], axis[0])
        if np.ptp(along) < max(2 * radius, 1.5 * np.ptp(across)):
            continue   # the edge of a disc
        for sign in (-1, 1):
            end = centre + axis * sign * ((along * sign).max() + 0.7 * radius)
            found.append(Candidate(float(end[0]), float(end[1]), 0.0))
    return found
