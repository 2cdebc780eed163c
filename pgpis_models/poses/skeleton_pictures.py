"""Joints read back out of OpenPose pictures: discs and limbs in 18 colours on black, of any width, drawn by anybody.

Every joint and every limb has a colour of its own, 20 degrees of hue apart; discs are bright, limbs at about 60 %. Discs say where
joints are; limbs, which discs belong to each other, and where a joint is whose disc others cover. Which of red and blue comes
first is what makes the limbs join: the colours themselves are the same set in either order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from .drawing import LIMBS
from .formats import to_pose_keypoint
from .keypoints import Keypoints

ORDERS = ("auto", "rgb", "bgr")
HUES = 18                # colours of joints; limb i has that of joint i
LIT, GREY = 0.16, 0.35   # brightness (largest channel, 0..1) below which a pixel is ground, saturation below which it is no colour
BRIGHT = (0.64, 0.84)    # where discs begin and are certain; limbs lie below
HUE_REACH = (0.4, 0.85)  # steps of hue within which a pixel certainly has a colour, and beyond which it has another
LEAST_COVER = 0.22       # share of a disc that has to be seen
ALONE_COVER = 0.7        # the same of a joint without any limb
LEAST_LIMB = 0.75        # share of a limb's line that is its colour, of what is not hidden by others
LEAST_JOINTS = 2         # of a person


@dataclass
class _Candidate:
    """A place where a joint may be: x, y in pixels, cover: the share of its disc that is seen, 0 for the end of a limb."""

    x: float
    y: float
    cover: float


@dataclass
class _Seen:
    """What a picture shows. hue: (H, W) in steps of 20 degrees, value: brightness 0..1, lit: whether it is coloured at all."""

    hue: np.ndarray
    value: np.ndarray
    lit: np.ndarray
    radius: float = 1.0
    candidates: list[list[_Candidate]] = field(default_factory=list)   # per joint

    def likeness(self, colour: int) -> np.ndarray:
        """(H, W) float32 in 0..1: how much each pixel has this colour."""
        away = np.abs(self.hue - colour)
        away = np.minimum(away, HUES - away)
        near, far = HUE_REACH
        return np.clip((far - away) / (far - near), 0, 1) * self.lit

    @property
    def brightness(self) -> np.ndarray:
        """(H, W) float32: 0 as dark as a limb, 1 as bright as a disc."""
        low, high = BRIGHT
        return np.clip((self.value - low) / (high - low), 0, 1)


def read_skeletons(picture: np.ndarray, order: str = ORDERS[0]) -> dict:
    """An OpenPose picture -> one POSE_KEYPOINT frame with everybody in it, in pixels of the picture.

    picture: (H, W, 3) uint8, coloured limbs and joints on black. order: of its channels, "rgb", "bgr", or "auto": the one in which
    more of the picture is limbs between their joints, rgb among equals. Joints that were not drawn have confidence 0; a picture
    without skeletons has no people. Pixel index i covers [i, i + 1), so that joints read are those that were drawn truncated.
    Raises ValueError for another array and another order. Needs OpenCV.
    """
    if order not in ORDERS:
        raise ValueError(f"order is {order!r}; expected one of {', '.join(ORDERS)}")
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8 or 0 in picture.shape:
        raise ValueError(f"a skeleton picture came as {picture.dtype} of shape {picture.shape}; expected (H, W, 3) uint8")
    orders = ORDERS[1:] if order == "auto" else (order,)
    found = [_read(picture if name == "rgb" else picture[..., ::-1]) for name in orders]
    people, _ = max(found, key=lambda one: one[1])
    frames = to_pose_keypoint(people)
    return {"people": [frame["people"][0] for frame in frames], "canvas_height": picture.shape[0],
            "canvas_width": picture.shape[1]}


def _read(picture: np.ndarray) -> tuple[list[Keypoints], float]:
    """People, and the pixels of limbs' lengths that join them."""
    seen = _colours(picture)
    if seen is None:
        return [], 0.0
    _find_discs(seen)
    _find_ends(seen)
    return _people(seen, picture.shape[:2])


def _colours(picture: np.ndarray) -> _Seen | None:
    high, low = picture.max(axis=2).astype(np.float32), picture.min(axis=2).astype(np.float32)
    value = high / 255
    lit = (value > LIT) & (high - low > GREY * high)
    if not lit.any():
        return None
    red, green, blue = (picture[..., channel].astype(np.float32) for channel in range(3))
    span = np.where(lit, high - low, 1)
    hue = np.where(high == red, (green - blue) / span, np.where(high == green, 2 + (blue - red) / span,
                                                               4 + (red - green) / span))   # in steps of 60 degrees
    return _Seen((hue * 3) % HUES, value, lit)


# --- where joints may be ------------------------------------------------------------------------------------

def _parts(mask: np.ndarray) -> Iterator[tuple[tuple[int, int, int, int], int, np.ndarray]]:
    """Connected parts of a mask: box (x, y, width, height), number of pixels, the part's mask inside of the box."""
    import cv2
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    for label in range(1, count):
        x, y, width, height, area = stats[label].tolist()
        yield (x, y, width, height), area, labels[y:y + height, x:x + width] == label


def _disc(radius: float) -> np.ndarray:
    reach = math.ceil(radius)
    y, x = np.mgrid[-reach:reach + 1, -reach:reach + 1]
    return (np.hypot(x, y) <= radius + 0.3).astype(np.float32)


def _find_discs(seen: _Seen) -> None:
    """The radius of discs and, per joint, where its colour fills one best, without ground inside of it."""
    import cv2
    bright = seen.brightness
    maps = [seen.likeness(joint) * bright for joint in range(HUES)]
    areas = [max((area for _, area, _ in _parts(one > 0.5)), default=0) for one in maps]
    known = sorted(area for area in areas if area >= 3)
    # Discs are more or less covered; those that are not give the radius. A stray part is larger than any disc at times.
    seen.radius = max(1.0, math.sqrt(known[(len(known) * 3) // 4] / math.pi)) if known else 1.0
    disc = _disc(seen.radius)
    whole, margin = float(disc.sum()), disc.shape[0]
    ground = (~seen.lit).astype(np.float32)
    for one in maps:
        seen.candidates.append([])
        for (x, y, width, height), area, _ in _parts(one > 0.5):
            if area < LEAST_COVER * whole:
                continue
            x0, y0 = max(x - margin, 0), max(y - margin, 0)
            window = np.s_[y0:y + height + margin, x0:x + width + margin]
            local = one[window].copy()
            empty = cv2.filter2D(ground[window], -1, disc, borderType=cv2.BORDER_CONSTANT)
            for _ in range(8):   # discs of several people may touch
                cover = cv2.filter2D(local, -1, disc, borderType=cv2.BORDER_CONSTANT)
                fit = cover - empty
                rows, columns = np.nonzero(fit >= fit.max() - 0.02 * whole)
                cy, cx = float(rows.mean()), float(columns.mean())
                share = float(cover[round(cy), round(cx)]) / whole
                if share < LEAST_COVER:
                    break
                seen.candidates[-1].append(_Candidate(cx + x0, cy + y0, share))
                yy, xx = np.mgrid[:local.shape[0], :local.shape[1]]
                local[np.hypot(xx - cx, yy - cy) <= seen.radius + 1.5] = 0


def _find_ends(seen: _Seen) -> None:
    """Ends of limbs where no disc of their joints is, as candidates for these."""
    dim = (1 - seen.brightness) * (seen.value > 0.3)
    for limb, joints in enumerate(LIMBS):
        for (x, y, _, _), area, part in _parts(seen.likeness(limb) * dim > 0.5):
            if area < 4:
                continue
            rows, columns = np.nonzero(part)
            points = np.stack([columns + x, rows + y], axis=1).astype(np.float64)
            centre = points.mean(axis=0)
            axis = np.linalg.eigh(np.cov((points - centre).T) + np.eye(2) * 1e-9)[1][:, 1]
            along = (points - centre) @ axis
            across = (points - centre) @ (-axis[1], axis[0])
            if np.ptp(along) < max(2 * seen.radius, 1.5 * np.ptp(across)):
                continue   # the edge of a disc
            for sign in (-1, 1):
                end = centre + axis * sign * ((along * sign).max() + 0.7 * seen.radius)
                for joint in joints:
                    if all(math.hypot(one.x - end[0], one.y - end[1]) > 2.5 * seen.radius + 1
                           for one in seen.candidates[joint]):
                        seen.candidates[joint].append(_Candidate(float(end[0]), float(end[1]), 0.0))


# --- who they belong to -------------------------------------------------------------------------------------

def _limb(seen: _Seen, support: np.ndarray, a: _Candidate, b: _Candidate) -> tuple[float, float]:
    """(share of the line from a to b that has the limb's colour, of what is not covered by others; its length in pixels).

    support: (H, W) bool, where that colour is, one pixel wider.
    """
    length = math.hypot(b.x - a.x, b.y - a.y)
    if length < 1:
        return 0.0, 0.0
    inside = min(seen.radius, 0.3 * length) / length
    steps = np.linspace(inside, 1 - inside, max(3, round(length)))
    height, width = seen.lit.shape
    columns = np.round(a.x + (b.x - a.x) * steps).astype(int)
    rows = np.round(a.y + (b.y - a.y) * steps).astype(int)
    there = (columns >= 0) & (rows >= 0) & (columns < width) & (rows < height)
    columns, rows = columns[there], rows[there]
    good = support[rows, columns]
    bare = ~seen.lit[rows, columns] & ~good
    if not good.any():
        return 0.0, length
    return float(good.sum() / (good.sum() + bare.sum())) * min(1.0, 4 * float(good.mean())), length * float(good.mean())


def _people(seen: _Seen, size: tuple[int, int]) -> tuple[list[Keypoints], float]:
    """Candidates joined by the limbs between them, the best first, each once."""
    import cv2
    owner: dict[tuple[int, int], int] = {}        # (joint, candidate) -> person
    people: dict[int, dict[int, int]] = {}        # person -> joint -> candidate
    explained = 0.0
    for limb, (first, second) in enumerate(LIMBS):
        support = cv2.dilate((seen.likeness(limb) * (1 - seen.brightness) > 0.3).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        pairs = []
        for i, a in enumerate(seen.candidates[first]):
            for j, b in enumerate(seen.candidates[second]):
                share, length = _limb(seen, support, a, b)
                if share >= LEAST_LIMB:
                    # A longer line of the same colour is the whole limb; a disc at an end is better than none.
                    pairs.append((share + 0.5 * (a.cover + b.cover), length, i, j))
        longest = max((length for _, length, _, _ in pairs), default=1.0)
        used: set[tuple[int, int]] = set()
        for _, length, i, j in sorted(pairs, key=lambda pair: -(pair[0] + pair[1] / longest)):
            ends = ((first, i), (second, j))
            if used & set(ends):
                continue
            if _join(owner, people, ends):
                used |= set(ends)
                explained += length
    _add_alone(seen, people, owner)
    made = []
    for joints in people.values():
        if len(joints) < LEAST_JOINTS:
            continue
        xy, present = np.zeros((18, 2)), np.zeros(18, bool)
        for joint, index in joints.items():
            one = seen.candidates[joint][index]
            xy[joint], present[joint] = (one.x, one.y), True
        made.append(Keypoints(xy, present, size))
    return made, explained


def _join(owner: dict, people: dict, ends: tuple) -> bool:
    """Puts both ends into one person; False where one of them would get a joint twice."""
    (first, i), (second, j) = ends
    mine, other = owner.get(ends[0]), owner.get(ends[1])
    if mine is None and other is None:
        mine = len(owner)   # a number that nobody has, since owners are only added
        people[mine] = {}
    elif mine is None:
        mine = other
    elif other is not None and other != mine:
        if people[mine].keys() & people[other].keys():
            return False
        people[mine] |= people.pop(other)
        owner |= dict.fromkeys(((joint, index) for joint, index in people[mine].items()), mine)
    for joint, index in ((first, i), (second, j)):
        if people[mine].get(joint, index) != index:
            return False
    for joint, index in ((first, i), (second, j)):
        people[mine][joint] = index
        owner[joint, index] = mine
    return True


def _add_alone(seen: _Seen, people: dict, owner: dict) -> None:
    """Discs without a limb, such as an ear whose eye was not found, go to the nearest person that lacks them."""
    for joint, candidates in enumerate(seen.candidates):
        for index, one in enumerate(candidates):
            if one.cover < ALONE_COVER or (joint, index) in owner:
                continue
            def away(person: int, x: float = one.x, y: float = one.y) -> float:
                return min(math.hypot(seen.candidates[other][k].x - x, seen.candidates[other][k].y - y)
                           for other, k in people[person].items())
            lacking = [person for person in people if joint not in people[person]]
            if lacking:
                nearest = min(lacking, key=away)
                people[nearest][joint] = index
                owner[joint, index] = nearest
