"""One person followed through the frames of several, by place and by the lengths of the limbs.

All people are followed at once: where two cross, each frame's people are given to the tracks so that the sum of what does
not fit is least. A track expects its joints where its speed takes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from .drawing import LIMBS
from .formats import MIN_CONFIDENCE, listed_people
from .keypoints import Keypoints, standing_height

FARTHEST = 0.8     # body sizes from where it was expected that a person may be found; doubled while it is not seen
LENGTHS = 1.5      # weight of limbs that differ, against distance in body sizes
STANCE = 2.0       # weight of joints that lie otherwise about the middle, in body sizes
CLOSE = 0.35       # of two people whose fit differs by less, it is not sure who is who
PATIENCE = 24      # frames that a track waits for its person
MEMORY = 0.25      # share of a new frame in speed
FEW = 3            # tracks up to which all ways to give people to them are tried; of more the best fits come first
LONGER = 0.08      # logarithm by which a limb may seem longer than it was seen before
SHOWN = 12         # unsure frames that a report lists
_FROM, _TO = np.array(LIMBS).T


@dataclass(frozen=True)
class Track:
    """chosen: number of the followed person among the people of each frame, None where it is not seen. unsure: frame number
    from 0 -> why it is not sure that it is the same person."""

    chosen: tuple[int | None, ...]
    unsure: dict[int, str]

    def report(self) -> str:
        """What following came to, in words; frames are counted from 1."""
        lost = sum(one is None for one in self.chosen)
        said = [f"Followed through {len(self.chosen) - lost} of {len(self.chosen)} frames."]
        named = [f"{number + 1} ({why})" for number, why in sorted(self.unsure.items())]
        if named:
            more = f" and {len(named) - SHOWN} more" if len(named) > SHOWN else ""
            said.append(f"Unsure in frames {', '.join(named[:SHOWN])}{more}: look whether it is the same person after them.")
        return " ".join(said)


class _Seen:
    """A pose with its limbs' lengths (17,) in pixels, 0 where one is not seen, and its standing height."""

    def __init__(self, pose: Keypoints) -> None:
        self.xy, self.present = pose.xy, pose.present
        both = self.present[_FROM] & self.present[_TO]
        self.limbs = np.hypot(*(self.xy[_FROM] - self.xy[_TO]).T) * both
        self.size = standing_height([pose])


class _Person:
    """What is known of one track: where its joints were seen last and how fast they moved, its size and limbs."""

    def __init__(self, pose: _Seen) -> None:
        self.xy, self.known, self.speed = pose.xy.copy(), pose.present.copy(), np.zeros(2)
        self.limbs, self.size = pose.limbs, pose.size
        self.missed, self.age = 0, 1

    def expected(self) -> np.ndarray:
        """Joints (18, 2) one frame on; a person who is not seen slows down in what is known of it."""
        return self.xy + self.speed * 0.97 ** self.missed

    def misfit(self, pose: _Seen) -> float:
        """How badly a found pose fits, in body sizes; inf where it cannot be this person."""
        common = self.known & pose.present
        if not common.any():
            return np.inf
        away = (pose.xy - self.expected())[common]
        place = float(_median(np.hypot(*away.T))) / self.size
        if place > FARTHEST * (1 + min(self.missed, 4) / 4):
            return np.inf
        both = (self.limbs > 0) & (pose.limbs > 0)
        # from the side a limb looks shorter, never longer, so only longer ones speak against a person
        ratio = np.log(pose.limbs[both] / self.limbs[both])
        longer = float(np.clip(ratio - LONGER, 0, 0.5).mean()) if both.any() else 0.0
        stance = float(_median(np.hypot(*(away - _median(away)).T))) / self.size
        return place + STANCE * stance + LENGTHS * (longer + min(abs(float(np.log(pose.size / self.size))), 0.5))

    def move(self, pose: _Seen) -> None:
        """Takes a found pose for its own."""
        common = self.known & pose.present
        if common.any():
            step = _median((pose.xy - self.xy)[common]) / (self.missed + 1)
            share = max(MEMORY, 1.0 / self.age)
            self.speed = self.speed + share * (step - self.speed)
            self.xy = self.xy + step * (self.missed + 1)   # joints that are hidden go along
        self.xy[pose.present] = pose.xy[pose.present]
        self.known |= pose.present
        self.size += max(0.1, 1.0 / (self.age + 1)) * (pose.size - self.size)
        self.limbs = np.maximum(self.limbs * 0.98, pose.limbs)
        self.missed, self.age = 0, self.age + 1

    def miss(self) -> None:
        """Goes on unseen."""
        self.xy, self.missed = self.expected(), self.missed + 1


def follow(frames: Sequence[dict], person: int | str = "largest", min_confidence: float = MIN_CONFIDENCE) -> Track:
    """Who the person is in every POSE_KEYPOINT frame, that is `person` in the first frame where it is seen: an index or
    "largest". Raises ValueError for frames that are no poses, and when there is no such person in any."""
    seen = [listed_people(frame, f"frame {number} of {len(frames)}", min_confidence)
            for number, frame in enumerate(frames, start=1)]
    first = next((number for number, people in enumerate(seen) if _start(people, person) is not None), None)
    if first is None:
        raise ValueError(f"person {person} is in none of {len(frames)} frames; expected one to follow. Choose another "
                         "number, or -1 for the largest")
    tracks = {index: _Person(_Seen(pose)) for index, pose in enumerate(seen[first]) if pose.present.any()}
    mine, fresh = _start(seen[first], person), len(seen[first])
    chosen: list[int | None] = [None] * first + [mine]
    unsure: dict[int, str] = {}
    for number in range(first + 1, len(seen)):
        people = [(index, _Seen(pose)) for index, pose in enumerate(seen[number]) if pose.present.any()]
        names = list(tracks)
        costs = np.array([[tracks[name].misfit(pose) for _, pose in people] for name in names]).reshape(len(names), -1)
        given = _assigned(costs)
        reason = _doubt(names.index(mine), costs, given, tracks[mine], people)
        if reason:
            unsure[number] = reason
        chosen.append(None if given[names.index(mine)] is None else people[given[names.index(mine)]][0])
        for row, name in enumerate(names):
            if given[row] is None:
                tracks[name].miss()
            else:
                tracks[name].move(people[given[row]][1])
        tracks = {name: one for name, one in tracks.items() if one.missed <= PATIENCE or name == mine}
        for column, (_, pose) in enumerate(people):
            if column not in given:
                tracks[fresh], fresh = _Person(pose), fresh + 1
    return Track(tuple(chosen), unsure)


def followed(frames: Sequence[dict], person: int | str = "largest",
             min_confidence: float = MIN_CONFIDENCE) -> tuple[list[dict], Track | None]:
    """POSE_KEYPOINT frames of a movement with the followed person alone, nobody where it is not seen, and how it was
    followed. Where no frame shows several people they come back as they are, with None. Raises ValueError as `follow`."""
    seen = [listed_people(frame, f"frame {number} of {len(frames)}", min_confidence)
            for number, frame in enumerate(frames, start=1)]
    if all(sum(bool(pose.present.any()) for pose in people) < 2 for people in seen):
        return list(frames), None
    track = follow(frames, person, min_confidence)
    return [frame | {"people": [] if index is None else [frame["people"][index]]}
            for frame, index in zip(frames, track.chosen, strict=True)], track


def _median(values: np.ndarray) -> np.ndarray:
    """The upper median along the first axis, many times as fast as numpy's for so few."""
    return np.partition(values, len(values) // 2, axis=0)[len(values) // 2]


def _start(people: list[Keypoints], person: int | str) -> int | None:
    there = [index for index, pose in enumerate(people) if pose.present.any()]
    if person == "largest":
        def area(index: int) -> float:
            x0, y0, x1, y1 = people[index].bounds
            return (x1 - x0) * (y1 - y0)
        return max(there, key=area, default=None)
    return person if person in there else None


def _doubt(row: int, costs: np.ndarray, given: list[int | None], track: _Person, people: list) -> str:
    """Why it is not sure that the followed person is who was found; empty where it is."""
    if given[row] is None:
        return "not seen" if not people else "nobody where the person was expected"
    own = costs[row, given[row]]
    others = np.delete(costs[row], given[row])
    if len(others) and others.min() - own < CLOSE:
        return "another person as near"
    rivals = np.delete(costs[:, given[row]], row)
    if len(rivals) and rivals.min() - own < CLOSE:
        return "another person may stand there"
    return f"seen again after {track.missed} frames" if track.missed else ""


def _assigned(costs: np.ndarray) -> list[int | None]:
    """For each row its column, or None, such that the sum is least; a row without one costs as much as the farthest fit."""
    rows, columns = costs.shape
    alone = FARTHEST + 0.5 * LENGTHS
    if 0 < rows <= FEW and columns <= 2 * FEW:
        padded = np.hstack([np.where(np.isfinite(costs), costs, 1e3), np.full((rows, rows), alone)])
        table = padded.tolist()
        best = min(permutations(range(columns + rows), rows),
                   key=lambda order: sum(line[column] for line, column in zip(table, order, strict=True)))
        return [column if column < columns else None for column in best]
    given: list[int | None] = [None] * rows
    for row, column in sorted(np.ndindex(rows, columns), key=lambda at: costs[at]):
        if given[row] is None and column not in given and costs[row, column] < alone:
            given[row] = column
    return given
