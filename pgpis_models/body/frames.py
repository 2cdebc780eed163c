"""POSE_KEYPOINT frames that remember the body they were drawn of, so that it can be posed, drawn and moved in 3D again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np

from ..poses.formats import NOBODY, from_pose_keypoint, to_pose_keypoint
from .camera import fitted
from .measured import Proportions
from .picture import Drawn, Seen, draw, surface_points
from .skeleton import Build, Lengths, build_skeleton
from .state import State, from_dict

LARGEST = 0.86            # picture heights per body height: one who crouches is not larger than one who stands
KEY = "pgpis_mannequin"   # of a frame; other readers of POSE_KEYPOINT leave it alone
FACTORS = (0.2, 5.0)      # of build and limbs
NEAR = 0.001              # canvas heights by which joints may differ from those of their body: its text is rounded
FARTHEST = 0.2            # share of a depth picture's range that is kept below the farthest point of a body


@dataclass(frozen=True)
class Figure:
    """A posed body and its proportions."""

    state: State
    proportions: Proportions = Proportions()

    def draw(self, size: tuple[int, int]) -> Drawn:
        """Its picture with truth on a canvas of (H, W) pixels."""
        return draw(self.state, size, self.proportions)


def seen_whole(figure: Figure, size: tuple[int, int]) -> Figure:
    """The figure with its camera moved so that it fits a canvas of (H, W) pixels."""
    camera = fitted(figure.state.camera, surface_points(figure.state, figure.proportions), size)
    if camera.zoom > LARGEST:
        share = LARGEST / camera.zoom
        camera = replace(camera, zoom=LARGEST, x=camera.x * share, y=camera.y * share)
    return Figure(replace(figure.state, camera=camera), figure.proportions)


def to_frames(figures: Sequence[Figure], drawn: Sequence[Seen]) -> list[dict]:
    """POSE_KEYPOINT frames of what was drawn of the figures, each with its figure beside the people."""
    frames = to_pose_keypoint([one.pose for one in drawn])
    for frame, figure in zip(frames, figures, strict=True):
        frame[KEY] = {"state": figure.state.to_dict(), "build": asdict(figure.proportions.build),
                      "lengths": asdict(figure.proportions.lengths)}
    return frames


def figure_of(frame: Any, what: str = "the frame") -> Figure | None:
    """The figure that a frame of `to_frames` remembers; None for other frames, and where somebody has moved a joint since,
    which no body then shows. Raises ValueError that begins with what is wrong for one that does not hold a body."""
    found = frame.get(KEY) if isinstance(frame, dict) else None
    if found is None:
        return None
    if not isinstance(found, dict):
        raise ValueError(f"{KEY} of {what} is {type(found).__name__}; expected an object with state, build and lengths")
    build, lengths = (_factors(kind, found.get(name, {}), f"{name} of {KEY} of {what}")
                      for kind, name in ((Build, "build"), (Lengths, "lengths")))
    figure = Figure(from_dict(found.get("state", {}), f"the state of {KEY} of {what}"), Proportions(build, lengths))
    return figure if _shows(frame, figure) else None


def _shows(frame: dict, figure: Figure) -> bool:
    """Whether the joints of a frame are those of the figure; also without people, of whom nothing can differ."""
    if not frame.get("people"):
        return True
    pose = from_pose_keypoint([frame], empty=NOBODY)[0]
    joints = build_skeleton(figure.proportions.build, figure.state.pose(), figure.proportions.lengths).joints
    away = np.abs(figure.state.camera.view(pose.canvas).project(joints)[:, :2] - pose.xy)[pose.present]
    return bool((away <= NEAR * pose.canvas[0]).all())


def _factors(kind: type, given: Any, what: str):
    names = {one.name for one in fields(kind)}
    if not isinstance(given, dict) or not given.keys() <= names:
        raise ValueError(f"{what} is {str(given)[:60]}; expected an object with some of {', '.join(sorted(names))}")
    for name, value in given.items():
        low = 0.0 if name == "bust" else FACTORS[0]
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= FACTORS[1]:
            raise ValueError(f"{name} in {what} is {str(value)[:60]}; expected a factor of {low:g} to {FACTORS[1]:g}")
    return kind(**{name: float(value) for name, value in given.items()})


def depth_pictures(drawn: Sequence[Seen]) -> np.ndarray:
    """(B, H, W) float32: 1 at the nearest point of all the pictures, FARTHEST at the farthest, 0 off the body."""
    depth = np.stack([one.depth for one in drawn])
    on = np.isfinite(depth)
    if not on.any():
        return np.zeros(depth.shape, np.float32)
    low, high = float(depth[on].min()), float(depth[on].max())
    near = (np.where(on, depth, low) - low) / max(high - low, 1e-6)
    return np.where(on, FARTHEST + (1 - FARTHEST) * near, 0).astype(np.float32)
