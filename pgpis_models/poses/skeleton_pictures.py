"""Joints read back out of OpenPose pictures: discs and limbs in 18 colours on black, of any width, drawn by anybody.

Every joint and every limb has a colour of its own, 20 degrees of hue apart; discs are bright, limbs at about 60 %. Discs say
where joints are; limbs, which discs belong to each other, and where a joint is whose disc others cover. Which of red and
blue comes first is what makes the limbs join: the colours themselves are the same set in either order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from .drawing import LIMBS
from .formats import to_pose_keypoint
from .keypoints import Keypoints

ORDERS = ("auto", "rgb", "bgr")
LARGEST = 640            # pixels of the longer side that are looked at; larger pictures are made smaller
MARGIN = 24              # pixels around what is coloured
HUES = 18                # colours of joints; limb i has that of joint i
LIT, GREY = 0.16, 0.35   # brightness (largest channel, 0..1) below which a pixel is ground; saturation of a colour
BRIGHT = (0.66, 0.96)    # where discs begin and are certain; limbs lie below
DIM = 0.3                # brightness that a limb has at least
HUE_REACH = (0.4, 0.85)  # steps of hue within which a pixel certainly has a colour, and beyond which it has another
LEAST_COVER = 0.22       # share of a disc that has to be seen
SURE_RADIUS, MOST_TRUST = 1.5, 2.0   # pixels of a disc's radius at which it says as much as a limb; and of larger ones
ALONE = 1.2              # what a disc without any limb has to say
LEAST_PIXELS = 6         # of a limb whose end no disc shows
LEAST_LIMB = 0.6         # share of a limb's line that is its colour
MEETING = 0.5            # what a limb that ends in a joint says for it, where its whole disc says 1
HIDDEN = 0.35            # what a covered pixel of that line counts against it, where one of the ground counts 1
TOUCHING = 5             # radii of discs within which others may hide a whole limb
MOST_TOUCHING = 8        # discs of one colour in one part
LEAST_JOINTS, LEAST_WEIGHT = 2, 1.0   # of a person: joints, and how sure all of them together are
MEAN_WEIGHT = 0.6        # the same of each joint, of people beside the surest one


@dataclass(frozen=True)
class _Candidate:
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
class _Seen:
    """What a picture shows, by colours, whatever these mean. lit: (H, W) bool, coloured at all; limbs: per colour (H, W)
    uint8, 1 where a limb of it is, one pixel wider; discs, ends: per colour, where discs are, and the ends of limbs; radius:
    of discs in pixels."""

    lit: np.ndarray
    limbs: list[np.ndarray]
    discs: list[list[_Candidate]]
    ends: list[list[_Candidate]]
    radius: float


def read_skeletons(picture: np.ndarray, order: str = ORDERS[0]) -> dict:
    """An OpenPose picture -> one POSE_KEYPOINT frame with everybody in it, in pixels of the picture.

    picture: (H, W, 3) uint8, coloured limbs and joints on black. order: of its channels, "rgb", "bgr", or "auto": the one in
    which more joints hang together, rgb among equals. Joints that were not drawn have confidence 0; a picture without
    skeletons has no people. Joints are where their discs have their middle, so up to a pixel above and left of what was
    drawn truncated. Raises ValueError for another array and another order. Needs OpenCV.
    """
    if order not in ORDERS:
        raise ValueError(f"order is {order!r}; expected one of {', '.join(ORDERS)}")
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8 or 0 in picture.shape:
        raise ValueError(f"a skeleton picture came as {picture.dtype} of shape {picture.shape}; expected (H, W, 3) uint8")
    small, scale, corner = _working_size(picture)
    frame = {"people": [], "canvas_height": picture.shape[0], "canvas_width": picture.shape[1]}
    if small is None:
        return frame
    seen = _look(small)
    found = [_people(seen, name == "bgr") for name in (ORDERS[1:] if order == "auto" else (order,))]
    best = max(found, key=lambda people: sum(len(person) ** 2 for person in people))
    poses = []
    for person in best:
        xy, present = np.zeros((18, 2)), np.zeros(18, bool)
        for joint, one in person.items():
            xy[joint], present[joint] = (np.array((one.x, one.y)) + 0.5) * scale - 0.5 + corner, True
        poses.append(Keypoints(xy, present, picture.shape[:2]))
    return frame | {"people": [one["people"][0] for one in to_pose_keypoint(poses)]}


def _working_size(picture: np.ndarray) -> tuple[np.ndarray | None, float, np.ndarray]:
    """(the coloured part with a margin, smaller where it is large; pixels of the picture per pixel of it; its corner)."""
    import cv2
    rows, columns = (np.flatnonzero((picture.max(axis=2) > LIT * 255).any(axis=axis)) for axis in (1, 0))
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

def _look(picture: np.ndarray) -> _Seen:
    import cv2
    high, low = picture.max(axis=2).astype(np.float32), picture.min(axis=2).astype(np.float32)
    value = high / 255
    lit = (value > LIT) & (high - low > GREY * high)
    red, green, blue = (picture[..., channel].astype(np.float32) for channel in range(3))
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
    return _Seen(lit, limbs, discs, [_ends(one * dim > 0.5, radius) for one in likeness], radius)


def _parts(mask: np.ndarray) -> Iterator[tuple[tuple[int, int, int, int], int, np.ndarray]]:
    """Connected parts of a mask: box (x, y, width, height), number of pixels, the part's mask inside of the box."""
    import cv2
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    for label in range(1, count):
        x, y, width, height, area = stats[label].tolist()
        yield (x, y, width, height), area, labels[y:y + height, x:x + width] == label


def _discs(maps: list[np.ndarray], lit: np.ndarray) -> tuple[float, list[list[_Candidate]]]:
    """The radius of discs and, per colour, where that colour fills one best, without ground inside of it."""
    import cv2
    areas = [max((area for _, area, _ in _parts(one > 0.5)), default=0) for one in maps]
    known = sorted(area for area in areas if area >= 3)
    # Discs are more or less covered; those that are not give the radius. A stray part is larger than any disc at times.
    radius = max(1.0, math.sqrt(known[(len(known) * 3) // 4] / math.pi)) if known else 1.0
    reach = math.ceil(radius)
    y, x = np.mgrid[-reach:reach + 1, -reach:reach + 1]
    disc = (np.hypot(x, y) <= radius + 0.3).astype(np.float32)
    whole, margin = float(disc.sum()), disc.shape[0]
    ground, found = (~lit).astype(np.float32), []
    for one in maps:
        found.append([])
        for (x, y, width, height), area, _ in _parts(one > 0.5):
            if area < LEAST_COVER * whole:
                continue
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
                found[-1].append(_Candidate(cx + x0, cy + y0, share))
                yy, xx = np.mgrid[:local.shape[0], :local.shape[1]]
                local[np.hypot(xx - cx, yy - cy) <= radius + 1.5] = 0
    return radius, found


def _ends(mask: np.ndarray, radius: float) -> list[_Candidate]:
    """Both ends of every part of a mask that is long enough for a limb, where the middles of discs would be."""
    found = []
    for (x, y, _, _), area, part in _parts(mask):
        if area < LEAST_PIXELS:
            continue
        rows, columns = np.nonzero(part)
        points = np.stack([columns + x, rows + y], axis=1).astype(np.float64)
        centre = points.mean(axis=0)
        axis = np.linalg.eigh(np.cov((points - centre).T) + np.eye(2) * 1e-9)[1][:, 1]
        along, across = (points - centre) @ axis, (points - centre) @ (-axis[1], axis[0])
        if np.ptp(along) < max(2 * radius, 1.5 * np.ptp(across)):
            continue   # the edge of a disc
        for sign in (-1, 1):
            end = centre + axis * sign * ((along * sign).max() + 0.7 * radius)
            found.append(_Candidate(float(end[0]), float(end[1]), 0.0))
    return found


# --- who they belong to -------------------------------------------------------------------------------------

def _candidates(seen: _Seen, colours: list[int]) -> list[list[_Candidate]]:
    """Per joint: its discs, and the ends of its limbs where none of its discs is. colours: of each joint and limb."""
    trust = min(MOST_TRUST, seen.radius / SURE_RADIUS)
    found = [[replace(one, cover=one.cover * trust) for one in seen.discs[colours[joint]]] for joint in range(HUES)]
    for limb, joints in enumerate(LIMBS):
        for end in seen.ends[colours[limb]]:
            for joint in joints:
                if not any(_near(one, end, seen.radius) for one in found[joint]):
                    found[joint].append(end)
    for joint, places in enumerate(found):
        ends = [seen.ends[colours[limb]] for limb, joints in enumerate(LIMBS) if joint in joints]
        found[joint] = [replace(one, meets=sum(any(_near(one, end, seen.radius) for end in of) for of in ends) - 1)
                        for one in places]
    return found


def _near(a: _Candidate, b: _Candidate, radius: float) -> bool:
    return math.hypot(a.x - b.x, a.y - b.y) <= 1.5 * radius + 2


def _on_line(seen: _Seen, limb: np.ndarray, a: _Candidate, b: _Candidate) -> tuple[int, int, int]:
    """Of the pixels between two discs: how many there are, how many are the limb's, how many the ground's."""
    length = math.hypot(b.x - a.x, b.y - a.y)
    inside = min(seen.radius, 0.3 * length) / max(length, 1)
    steps = np.linspace(inside, 1 - inside, max(3, round(length)))
    height, width = seen.lit.shape
    columns = np.round(a.x + (b.x - a.x) * steps).astype(int)
    rows = np.round(a.y + (b.y - a.y) * steps).astype(int)
    there = (columns >= 0) & (rows >= 0) & (columns < width) & (rows < height)
    rows, columns = rows[there], columns[there]
    good = limb[rows, columns] > 0
    return len(good), int(good.sum()), int((~seen.lit[rows, columns] & ~good).sum())


def _limb(seen: _Seen, limb: np.ndarray, a: _Candidate, b: _Candidate) -> tuple[float, float]:
    """(share of the line from a to b that is the limb, where what others cover counts less against it; its pixels).

    limb: (H, W) uint8, 1 where its colour is.
    """
    length = math.hypot(b.x - a.x, b.y - a.y)
    count, own, bare = _on_line(seen, limb, a, b)
    if length < 1 or not own:
        return 0.0, 0.0
    pixels = length * own / count
    if not (a.cover and b.cover) and pixels < max(2.5 * seen.radius, LEAST_PIXELS):
        return 0.0, 0.0   # the edge of something, which ends where no disc is
    return own / (own + bare + HIDDEN * (count - own - bare)), pixels


def _people(seen: _Seen, swapped: bool) -> list[dict[int, _Candidate]]:
    """Candidates joined by the limbs between them, the best first, each once: joint -> place, per person."""
    import cv2
    # Red and blue swapped turn a hue of h degrees into 240 - h.
    colours = [(12 - index) % HUES if swapped else index for index in range(HUES)]
    candidates = _candidates(seen, colours)
    owner: dict[tuple[int, int], int] = {}        # (joint, candidate) -> person
    people: dict[int, dict[int, int]] = {}        # person -> joint -> candidate
    for limb, (first, second) in enumerate(LIMBS):
        mask = seen.limbs[colours[limb]].copy()
        pairs = []
        for i, a in enumerate(candidates[first]):
            for j, b in enumerate(candidates[second]):
                share, pixels = _limb(seen, mask, a, b)
                if share >= LEAST_LIMB:
                    # Of lines of one colour the longest is the whole limb; one that hangs on somebody is better than a new
                    # one.
                    known = ((first, i) in owner) + ((second, j) in owner)
                    pairs.append((2 * share + (a.weight + b.weight) + 0.6 * known, pixels, i, j))
        longest = max([1.0, *(pixels for _, pixels, _, _ in pairs)])
        for _, _, i, j in sorted(pairs, key=lambda pair, longest=longest: -(pair[0] + pair[1] / longest)):
            a, b = candidates[first][i], candidates[second][j]
            # Less than before, where a better limb took its pixels.
            if _limb(seen, mask, a, b)[0] >= LEAST_LIMB and _join(owner, people, ((first, i), (second, j))):
                ends = [(round(one.x), round(one.y)) for one in (a, b)]
                cv2.line(mask, *ends, 0, max(3, 2 * round(seen.radius) + 3))
    _join_touching(seen, candidates, people, owner)
    _add_alone(candidates, people, owner)
    found = [{joint: candidates[joint][index] for joint, index in joints.items()} for joints in people.values()]
    sure = [sum(max(one.weight, 0) for one in person.values()) for person in found]
    return [person for person, weight in zip(found, sure, strict=True) if len(person) >= LEAST_JOINTS
            and weight >= LEAST_WEIGHT and (weight >= MEAN_WEIGHT * len(person) or weight == max(sure))]


def _join(owner: dict, people: dict, ends: tuple) -> bool:
    """Puts both ends into one person; False where that would have a joint twice."""
    known = sorted({owner[end] for end in ends if end in owner})
    merged: dict[int, int] = {}
    for joint, index in [*(item for person in known for item in people[person].items()), *ends]:
        if merged.setdefault(joint, index) != index:
            return False
    number = known[0] if known else max(people, default=-1) + 1
    for person in known:
        del people[person]
    people[number] = merged
    owner |= dict.fromkeys(merged.items(), number)
    return True


def _join_touching(seen: _Seen, candidates: list[list[_Candidate]], people: dict, owner: dict) -> None:
    """Discs so near to each other that they, or other limbs, hide the limb between them: nothing of the ground lies there."""
    for first, second in LIMBS:
        for i, a in enumerate(candidates[first]):
            for j, b in enumerate(candidates[second]):
                near = math.hypot(b.x - a.x, b.y - a.y) <= TOUCHING * seen.radius
                known = (owner.get((first, i)), owner.get((second, j)))
                if near and (a.cover or b.cover) and known[0] != known[1] \
                        and not _on_line(seen, seen.limbs[0], a, b)[2]:
                    _join(owner, people, ((first, i), (second, j)))


def _add_alone(candidates: list[list[_Candidate]], people: dict, owner: dict) -> None:
    """Discs without a limb, such as an ear whose eye was not found, go to the nearest person that lacks them."""
    for joint, places in enumerate(candidates):
        for index, one in enumerate(places):
            if one.cover < ALONE or (joint, index) in owner:
                continue

            def away(person: int, one: _Candidate = one) -> float:
                return min(math.hypot(candidates[other][k].x - one.x, candidates[other][k].y - one.y)
                           for other, k in people[person].items())
            lacking = [person for person in people if joint not in people[person]]
            if lacking:
                nearest = min(lacking, key=away)
                people[nearest][joint] = index
                owner[joint, index] = nearest
