"""What a pose is here: the 18 OpenPose-COCO joints of one person on a canvas of known size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

JOINTS = (
    "nose", "neck",
    "right shoulder", "right elbow", "right wrist", "left shoulder", "left elbow", "left wrist",
    "right hip", "right knee", "right ankle", "left hip", "left knee", "left ankle",
    "right eye", "left eye", "right ear", "left ear",
)

TORSO = 0.253   # from neck to hip, in standing heights; mean of drawn people, as of DeepFashion's photos

# Joint i of the mirrored person is joint MIRROR[i] of the original.
MIRROR = (0, 1, 5, 6, 7, 2, 3, 4, 11, 12, 13, 8, 9, 10, 15, 14, 17, 16)


@dataclass(frozen=True, eq=False)
class Keypoints:
    """The 18 OpenPose-COCO joints of one person.

    xy:      (18, 2) float64, x and y in pixels of the canvas; pixel index i covers [i, i + 1). Joints may lie off the
             canvas. Rows of missing joints are 0 and mean nothing.
    present: (18,) bool, whether the joint was seen.
    canvas:  (H, W) in pixels.

    Arrays are copied and read-only, so that one pose can be shared by many. Raises ValueError on other shapes, on
    coordinates of present joints that are not finite, and on a canvas that is not two positive numbers.
    """

    xy: np.ndarray
    present: np.ndarray
    canvas: tuple[int, int]

    def __post_init__(self):
        xy = np.array(self.xy, dtype=np.float64)
        present = np.array(self.present, dtype=bool)
        if xy.shape != (18, 2) or present.shape != (18,):
            raise ValueError(
                f"Keypoints got xy of shape {xy.shape} and present of shape {present.shape}; expected (18, 2) "
                f"and (18,): one row per OpenPose-COCO joint. Convert other joint sets first; from_pose_keypoint reads "
                f"BODY_25."
            )
        if not np.isfinite(xy[present]).all():
            bad = [JOINTS[i] for i in np.flatnonzero(present & ~np.isfinite(xy).all(1))]
            raise ValueError(f"Keypoints got non-finite coordinates for {', '.join(bad)}; expected pixels. "
                             f"Mark joints without a position as not present.")
        xy[~present] = 0.0
        xy.setflags(write=False)
        present.setflags(write=False)
        object.__setattr__(self, "xy", xy)
        object.__setattr__(self, "present", present)
        object.__setattr__(self, "canvas", checked_size(self.canvas, "canvas"))

    @property
    def on_canvas(self) -> np.ndarray:
        """(18,) bool: present and inside the canvas. Joints off the canvas stay present: drawing clips them, and a limb
        that leaves the picture still shows where it leaves."""
        height, width = self.canvas
        return self.present & (self.xy >= 0).all(1) & (self.xy < (width, height)).all(1)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """(x0, y0, x1, y1) of the present joints in pixels; four zeros when there is none."""
        if not self.present.any():
            return (0.0, 0.0, 0.0, 0.0)
        seen = self.xy[self.present]
        return (*map(float, seen.min(0)), *map(float, seen.max(0)))

    def moved(self, change: Callable[[np.ndarray], np.ndarray], canvas: tuple[int, int] | None = None) -> Keypoints:
        """The pose with all its points moved alike, on the same canvas or another (H, W). change: of (N, 2) pixels."""
        return Keypoints(change(self.xy), self.present, canvas or self.canvas)

    def with_joints(self, xy: np.ndarray) -> Keypoints:
        """The same joints at other places, (18, 2) pixels of the canvas."""
        return Keypoints(xy, self.present, self.canvas)

    def scaled_to(self, size: tuple[int, int]) -> Keypoints:
        """The same pose on a canvas of `size` = (H, W); the aspect ratio is not kept, as when a photo is squashed."""
        height, width = checked_size(size, "size")
        # Multiply first, then divide: x * W / 176 hits whole pixels exactly, which truncation in drawing depends on.
        return self.moved(lambda xy: xy * (width, height) / (self.canvas[1], self.canvas[0]), (height, width))

    def mirrored(self) -> Keypoints:
        """The pose in a horizontally flipped picture: x -> W - 1 - x, left and right joints swapped."""
        xy = self.xy[list(MIRROR)].copy()
        xy[:, 0] = self.canvas[1] - 1 - xy[:, 0]
        return Keypoints(xy, self.present[list(MIRROR)], self.canvas)

    def shifted(self, dx: float, dy: float) -> Keypoints:
        """Every joint moved by (dx, dy) pixels; the canvas stays."""
        return self.moved(lambda xy: xy + (dx, dy))

    def scaled(self, factor: float, about: tuple[float, float] | None = None) -> Keypoints:
        """The person made `factor` times as large about the point `about` = (x, y), by default the middle of `bounds`;
        the canvas stays."""
        x0, y0, x1, y1 = self.bounds
        centre = np.array(about if about is not None else ((x0 + x1) / 2, (y0 + y1) / 2))
        return self.moved(lambda xy: centre + (xy - centre) * factor)


def standing_height(poses: Sequence[Keypoints]) -> float:
    """Of one person, in pixels, by the longest torso that any of the poses shows, else by the largest box; 1 at least."""
    torsos = [float(np.linalg.norm(pose.xy[1] - pose.xy[hip])) for pose in poses for hip in (8, 11)
              if pose.present[[1, hip]].all()]
    boxes = [max(x1 - x0, y1 - y0) for x0, y0, x1, y1 in (pose.bounds for pose in poses)]
    return max(max(torsos, default=0.0) / TORSO or max(boxes), 1.0)


def read_size(text: str, name: str) -> tuple[int, int]:
    """`HEIGHTxWIDTH` in pixels -> (H, W). Raises ValueError that names the argument for anything else."""
    height, _, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal()):
        raise ValueError(f"{name} is {text!r}; expected HEIGHTxWIDTH in pixels, such as 1101x750")
    return checked_size((height, width), name)


def checked_size(size, name: str) -> tuple[int, int]:
    """`size` as (H, W) of two positive ints, or a ValueError that names the argument."""
    try:
        height, width = (int(value) for value in size)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} is {size!r}; expected (H, W): two whole numbers of pixels.") from error
    if height < 1 or width < 1:
        raise ValueError(f"{name} is {size!r}; expected (H, W), each 1 pixel or more.")
    return height, width
