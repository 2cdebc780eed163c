"""Poses in words and degrees: arms, legs and whole bodies."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from pgpis_models.body.camera import Camera
from pgpis_models.body.skeleton import Arm, Leg, Limb
from pgpis_models.body.state import State

Triple = tuple[float, float, float]


def arm(lift: float, swing: float = 0.0, bend: float = 10.0, toward: Triple = (-0.15, 0.25, 1.0)) -> Limb:
    """lift: from hanging to up; swing: 0 sideways, 90 forwards; bend: of the elbow; toward: of the forearm (outwards, up,
    forward)."""
    return Arm(math.radians(lift), math.radians(swing), math.radians(bend), toward).limb()


def leg(
    side: float = 4.0, flex: float = 0.0, knee: float = 3.0, shin: float | None = None, foot: float | None = None
) -> Limb:
    """side: outwards; flex: forwards; knee: bent; shin: outwards of the shank; foot: toes up from level."""
    made = Leg(*(math.radians(value) for value in (side, flex, knee)), None if shin is None else math.radians(shin)).limb()
    return made if foot is None else replace(made, foot=math.radians(foot))


def bone(upper: Triple, lower: Triple, foot: float | None = None) -> Limb:
    """A limb by its directions (outwards, up, forward), of any length."""
    upper, lower = (tuple(np.array(one, float) / np.linalg.norm(one)) for one in (upper, lower))
    return Limb(upper, lower, None if foot is None else math.radians(foot))


def swinging(ahead: float, bend: float, out: float = 8.0) -> Limb:
    """An arm that swings beside the body, `ahead` degrees forwards of hanging."""
    a, b, o = (math.radians(value) for value in (ahead, ahead + bend, out))
    return bone(
        (math.sin(o), -math.cos(o) * math.cos(a), math.cos(o) * math.sin(a)), (math.sin(o) * 0.2, -math.cos(b), math.sin(b))
    )


HANG, STAND = arm(13, 10, 16), leg()
AKIMBO = arm(53, -24, 92, (-1.0, 0.02, 0.34))


@dataclass(frozen=True)
class Entry:
    """A pose of the library. words: what else a search finds it by; yaw, pitch: from where it is looked at."""

    name: str
    group: str
    words: str = ""
    arms: tuple[Limb, Limb] = (HANG, HANG)  # right, left
    legs: tuple[Limb, Limb] = (STAND, STAND)
    torso: Triple = (0.0, 0.0, 0.0)  # lean, tilt, twist
    head: Triple = (0.0, 0.0, 0.0)  # turn, nod, roll
    root: Triple = (0.0, 0.0, 0.0)  # turn, tip, roll
    yaw: float = 0.0
    pitch: float = 5.0

    def state(self) -> State:
        """The body with a camera that is not fitted yet."""
        return State(self.root, self.torso, self.head, self.arms, self.legs, Camera(self.yaw, self.pitch))
