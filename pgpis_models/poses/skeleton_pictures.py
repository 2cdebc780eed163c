"""Joints read back out of OpenPose pictures: discs and limbs in 18 colours on black, of any width, drawn by anybody.

Every joint and every limb has a colour of its own, 20 degrees of hue apart; discs are bright, limbs at about 60 %. Discs say
where joints are; limbs, which discs belong to each other, and where a joint is whose disc others cover. Which of red and
blue comes first is what makes the limbs join: the colours themselves are the same set in either order.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from .drawing import LIMBS
from .formats import to_pose_keypoint
from .keypoints import JOINTS, Keypoints
from .skeleton_colours import HUES, LEAST_PIXELS, Candidate, Seen, lit_share, look, working_size

NECK = JOINTS.index("neck")
ORDERS = ("auto", "rgb", "bgr")
SURE_RADIUS, MOST_TRUST = 1.5, 2.0   # pixels of a disc's radius at which it says as much as a limb; and of larger ones
CLEAR, CLEAR_RADIUS = 0.5, 1.8   # share of a disc that is believed without any limb, in discs of this radius or more
LEAST_LIMB = 0.6         # share of a limb's line that is its colour
HIDDEN = 0.35            # what a covered pixel of that line counts against it, where one of the ground counts 1
OVERLAPPING, TOUCHING = 2.5, 5   # radii between discs that hide the limb between them, and where others may hide it
LEAST_JOINTS, LEAST_WEIGHT = 2, 1.0   # of a person: joints, and how sure all of them together are
MOST_LIT = 0.6           # share of the coloured part of a picture that skeletons cover at most, however thick
PARTS_APART = 0.6        # farthest that a part of a person is from the rest, in shares of the larger one's size
LEAST_OUTER = 0.1        # the same of a joint on which no other hangs
MEAN_WEIGHT = 0.6        # the same of each joint, of people beside the surest one


def read_skeletons(picture: np.ndarray, order: str = ORDERS[0]) -> dict:
    """An OpenPose picture -> one POSE_KEYPOINT frame with everybody in it, in pixels of the picture.

    picture: (H, W, 3) uint8, coloured limbs and joints on black. order: of its channels, "rgb", "bgr", or "auto": the one in
    which more joints hang together, rgb among equals. Joints that were not drawn have confidence 0; a picture without
    skeletons has no people. Joints are in the middle of the pixel that is the middle of their disc. Raises ValueError for
    another array and another order. Needs OpenCV.
    """
    if order not in ORDERS:
        raise ValueError(f"order is {order!r}; expected one of {', '.join(ORDERS)}")
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8 or 0 in picture.shape:
        raise ValueError(f"a skeleton picture came as {picture.dtype} of shape {picture.shape}; expected (H, W, 3) uint8")
    small, scale, corner = working_size(picture)
    frame = {"people": [], "canvas_height": picture.shape[0], "canvas_width": picture.shape[1]}
    if small is None:
        return frame
    if lit_share(small) > MOST_LIT:
        return frame   # noise looks like discs all over, which would be joined for ever
    seen = look(small)
    found = [_people(seen, name == "bgr") for name in (ORDERS[1:] if order == "auto" else (order,))]
    best, _ = max(found, key=lambda one: one[1])
    poses = []
    for person in best:
        xy, present = np.zeros((18, 2)), np.zeros(18, bool)
        for joint, one in person.items():
            xy[joint], present[joint] = (np.array((one.x, one.y)) + 0.5) * scale + corner, True
        poses.append(Keypoints(xy, present, picture.shape[:2]))
    return frame | {"people": [one["people"][0] for one in to_pose_keypoint(poses)]}


# --- who they belong to -------------------------------------------------------------------------------------

def _candidates(seen: Seen, colours: list[int]) -> list[list[Candidate]]:
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


def _near(a: Candidate, b: Candidate, radius: float) -> bool:
    return math.hypot(a.x - b.x, a.y - b.y) <= 1.5 * radius + 2


def _on_line(seen: Seen, limb: np.ndarray, a: Candidate, b: Candidate) -> tuple[int, int, int]:
    """Of the pixels between two discs: how many there are, how many are the limb's, how many the ground's."""
    length = math.hypot(b.x - a.x, b.y - a.y)
    inside = min(seen.radius, 0.3 * length) / max(length, 1)
    count = max(3, round(length))
    # np.linspace and np.round cost more than all else here, and a busy picture has thousands of lines
    steps = np.arange(count) * ((1 - 2 * inside) / (count - 1)) + inside
    height, width = seen.lit.shape
    columns = np.rint(a.x + (b.x - a.x) * steps).astype(int)
    rows = np.rint(a.y + (b.y - a.y) * steps).astype(int)
    place = rows * width + columns
    if min(columns[0], columns[-1], rows[0], rows[-1]) < 0 or max(columns[0], columns[-1]) >= width \
            or max(rows[0], rows[-1]) >= height:
        place = place[(columns >= 0) & (rows >= 0) & (columns < width) & (rows < height)]
    good = limb.ravel()[place] > 0
    return len(good), np.count_nonzero(good), len(good) - np.count_nonzero(good | seen.lit.ravel()[place])


def _limb(seen: Seen, limb: np.ndarray, a: Candidate, b: Candidate) -> tuple[float, float]:
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


def _people(seen: Seen, swapped: bool) -> tuple[list[dict[int, Candidate]], float]:
    """Candidates joined by the limbs between them, the best first, each once: joint -> place, per person; and how well they
    hang together by limbs that are seen."""
    import cv2
    # Red and blue swapped turn a hue of h degrees into 240 - h.
    colours = [(12 - index) % HUES if swapped else index for index in range(HUES)]
    candidates = _candidates(seen, colours)
    owner: dict[tuple[int, int], int] = {}        # (joint, candidate) -> person
    people: dict[int, dict[int, int]] = {}        # person -> joint -> candidate
    _join_touching(seen, candidates, people, owner, OVERLAPPING, _clear(seen))
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
    together = float(sum(len(person) ** 2 for person in people.values()))
    _join_touching(seen, candidates, people, owner, TOUCHING, 0.0)
    _join_parts(candidates, people)
    _add_alone(candidates, people, owner, _clear(seen))
    found = [_without_noise(seen, {joint: candidates[joint][index] for joint, index in joints.items()})
             for joints in people.values()]
    sure = [sum(max(one.weight, 0) for one in person.values()) for person in found]
    return [person for person, weight in zip(found, sure, strict=True) if len(person) >= LEAST_JOINTS
            and weight >= LEAST_WEIGHT and (weight >= MEAN_WEIGHT * len(person) or weight == max(sure))], together


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


def _without_noise(seen: Seen, person: dict[int, Candidate]) -> dict[int, Candidate]:
    """The person without outermost joints that no disc shows, where discs show most of the others: what JPEG leaves beside a
    limb looks like a limb of the next colour. A joint in the place of another's disc may be under it."""
    if 2 * sum(one.cover > 0 for one in person.values()) < len(person):
        return person
    person = dict(person)
    while True:
        inner = {parent for parent, child in LIMBS if child in person}
        noise = [joint for joint, one in person.items() if joint not in inner
                 and (one.weight <= LEAST_OUTER or (one.cover == 0 and not _covered(seen, one)))]
        if not noise:
            return person
        for joint in noise:
            del person[joint]


def _covered(seen: Seen, one: Candidate) -> bool:
    reach, x, y = round(seen.radius), round(one.x), round(one.y)
    return bool(seen.bright[max(y - reach, 0):y + reach + 1, max(x - reach, 0):x + reach + 1].mean() > 0.25)


def _join_touching(seen: Seen, candidates: list[list[Candidate]], people: dict, owner: dict, reach: float,
                   least: float) -> None:
    """Discs so near to each other that they, or other limbs, hide the limb between them: no ground lies there."""
    for first, second in LIMBS:
        for i, a in enumerate(candidates[first]):
            for j, b in enumerate(candidates[second]):
                near = math.hypot(b.x - a.x, b.y - a.y) <= reach * seen.radius and min(a.cover, b.cover) >= least
                known = (owner.get((first, i)), owner.get((second, j)))
                if near and (a.cover or b.cover) and (known[0] is None or known[0] != known[1]) \
                        and not _on_line(seen, seen.limbs[0], a, b)[2]:
                    _join(owner, people, ((first, i), (second, j)))


def _join_parts(candidates: list[list[Candidate]], people: dict) -> None:
    """Arms and legs without the neck that would join them go to the nearest person, or part of one, that lacks them; all of
    them to one where no part has a neck and no joint is there twice."""
    joints = [joint for part in people.values() for joint in part]
    if NECK not in joints and len(set(joints)) == len(joints):
        parts = [people.pop(part) for part in list(people)]
        people.update({0: {joint: index for part in parts for joint, index in part.items()}} if parts else {})
        return

    def places(person: int) -> np.ndarray:
        return np.array([(candidates[joint][index].x, candidates[joint][index].y)
                         for joint, index in people[person].items()])

    def away(a: int, b: int) -> float:
        """In shares of the larger one's size."""
        one, other = places(a), places(b)
        size = max(float(np.linalg.norm(np.ptp(part, axis=0))) for part in (one, other))
        return float(np.linalg.norm(one[:, None] - other[None], axis=2).min()) / max(size, 1)
    while True:
        pairs = [(away(part, other), part, other) for part in people for other in people if part != other
                 and NECK not in people[part] and not people[part].keys() & people[other].keys()]
        nearest = min(pairs, default=(math.inf, 0, 0))
        if nearest[0] > PARTS_APART:
            return
        people[nearest[2]] |= people.pop(nearest[1])


def _clear(seen: Seen) -> float:
    """The cover of a disc that needs no limb to be believed; infinite where discs are too small for that."""
    return CLEAR * min(MOST_TRUST, seen.radius / SURE_RADIUS) if seen.radius >= CLEAR_RADIUS else math.inf


def _add_alone(candidates: list[list[Candidate]], people: dict, owner: dict, least: float) -> None:
    """Discs without a limb, such as an ear whose eye was not found, go to the nearest person that lacks them."""
    for joint, places in enumerate(candidates):
        for index, one in enumerate(places):
            if one.cover < least or (joint, index) in owner:
                continue

            def away(person: int, one: Candidate = one) -> float:
                return min(math.hypot(candidates[other][k].x - one.x, candidates[other][k].y - one.y)
                           for other, k in people[person].items())
            lacking = [person for person in people if joint not in people[person]]
            if lacking:
                nearest = min(lacking, key=away)
                people[nearest][joint] = index
                owner[joint, index] = nearest
