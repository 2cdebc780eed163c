"""A posed body with its camera as one JSON text, as the mannequin's widget, workflows and pose files hold it.

{"root": [turn, tip, roll], "torso": [lean, tilt, twist], "head": [turn, nod, roll],
 "arms": [{"upper": [outwards, up, forward], "lower": [...]}, ...], "legs": [{..., "foot": degrees or null}, ...],
 "camera": [yaw, pitch, zoom, x, y]}: angles in degrees, arms and legs right then left, directions of any length.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Any

from .camera import Camera
from .skeleton import Arm, Leg, Limb, Pose

_EXPECTED = "expected the text that a Pose Mannequin or a Pose Library writes"
_ARM, _LEG = Arm(0.22, 0.1, 0.25, (-0.15, 0.25, 1.0)).limb(), Leg(0.06, 0.0, 0.02).limb()
FARTHEST = 10.0   # picture heights that the hips may lie off the picture's middle


@dataclass(frozen=True)
class State:
    """A body and who looks at it. root: turn, tip, roll of the whole body; torso: lean, tilt, twist; head: turn, nod, roll;
    in degrees, as of `Pose`. arms, legs: right, left."""

    root: tuple[float, float, float] = (0.0, 0.0, 0.0)
    torso: tuple[float, float, float] = (0.0, 0.0, 0.0)
    head: tuple[float, float, float] = (0.0, 0.0, 0.0)
    arms: tuple[Limb, Limb] = (_ARM, _ARM)
    legs: tuple[Limb, Limb] = (_LEG, _LEG)
    camera: Camera = field(default_factory=Camera)

    def pose(self) -> Pose:
        """The pose that the skeleton takes."""
        (heading, tip, roll), (lean, tilt, twist), (turned, nod, bent) = (
            tuple(map(math.radians, angles)) for angles in (self.root, self.torso, self.head))
        return Pose(heading, lean, tilt, turned, nod, self.arms, self.legs, twist=twist, head_roll=bent, tip=tip, roll=roll)

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it: angles to a tenth of a degree, directions and places to four decimals."""
        def limb(one: Limb) -> dict[str, Any]:
            made = {"upper": _rounded(one.upper, 4), "lower": _rounded(one.lower, 4)}
            return made if one.foot is None else made | {"foot": round(math.degrees(one.foot), 1)}
        camera = self.camera
        return {"root": _rounded(self.root, 1), "torso": _rounded(self.torso, 1), "head": _rounded(self.head, 1),
                "arms": [limb(one) for one in self.arms], "legs": [limb(one) for one in self.legs],
                "camera": [round(camera.yaw, 1), round(camera.pitch, 1), *_rounded((camera.zoom, camera.x, camera.y), 4)]}

    def to_text(self) -> str:
        """As one line of JSON."""
        return json.dumps(self.to_dict(), separators=(",", ":"))


def from_text(text: str, what: str = "the mannequin's state") -> State:
    """JSON text -> State; an empty text is a body that stands. Raises ValueError that begins with `what`."""
    if not text.strip():
        return State()
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{what} is not JSON ({error}); {_EXPECTED}") from error
    return from_dict(found, what)


def from_dict(found: Any, what: str = "the mannequin's state") -> State:
    """What JSON held -> State; keys that are missing are those of a body that stands. Raises ValueError as `from_text`."""
    if not isinstance(found, dict):
        raise ValueError(f"{what} is {type(found).__name__}; {_EXPECTED}, an object with root, torso, head, arms, legs and "
                         "camera")
    plain = State()
    triples = {name: _numbers(found.get(name, getattr(plain, name)), 3, f"{name} of {what}")
               for name in ("root", "torso", "head")}
    limbs = {}
    for name in ("arms", "legs"):
        given = found.get(name, [{}, {}])
        if not isinstance(given, list) or len(given) != 2 or not all(isinstance(one, dict) for one in given):
            raise ValueError(f"{name} of {what} is {str(given)[:60]}; expected two objects, right and left")
        limbs[name] = tuple(_limb(one, usual, f"{name} of {what}")
                            for one, usual in zip(given, getattr(plain, name), strict=True))
    camera = plain.camera
    yaw, pitch, zoom, x, y = _numbers(found.get("camera", (camera.yaw, camera.pitch, camera.zoom, camera.x, camera.y)), 5,
                                      f"camera of {what}")
    if not 0.02 <= zoom <= 50 or max(abs(x), abs(y)) > FARTHEST:
        raise ValueError(f"camera of {what} has zoom {zoom:g} and place {x:g}, {y:g}; expected a zoom of 0.02 to 50 and a "
                         f"place within {FARTHEST:g} picture heights")
    return State(**triples, **limbs, camera=Camera(yaw, pitch, zoom, x, y))


def _limb(given: dict[str, Any], usual: Limb, what: str) -> Limb:
    upper, lower = (_unit(given.get(name, getattr(usual, name)), f"{name} in {what}") for name in ("upper", "lower"))
    if "foot" not in given:
        return Limb(upper, lower, None if "lower" in given else usual.foot)
    foot = given["foot"]
    return Limb(upper, lower, None if foot is None else math.radians(_numbers([foot], 1, f"foot in {what}")[0]))


def _unit(given: Any, what: str) -> tuple[float, float, float]:
    x, y, z = _numbers(given, 3, what)
    length = math.sqrt(x * x + y * y + z * z)
    if length < 1e-6:
        raise ValueError(f"{what} is {given}; expected a direction (outwards, up, forward) that is not 0")
    return x / length, y / length, z / length


def _numbers(given: Any, count: int, what: str) -> tuple[float, ...]:
    numbers = list(given) if isinstance(given, (list, tuple)) else []
    if len(numbers) != count or not all(isinstance(one, (int, float)) and not isinstance(one, bool) and
                                        -1e6 < one < 1e6 for one in numbers):
        raise ValueError(f"{what} is {str(given)[:60]}; expected {count} number{'s' * (count > 1)}")
    return tuple(float(one) for one in numbers)


def _rounded(values, digits: int) -> list[float]:
    return [round(float(value), digits) + 0.0 for value in values]
