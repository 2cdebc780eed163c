"""Pose files of 18 lines 'x y' in a frame that is padded to a square, as FPDM's authors keep them."""

from __future__ import annotations

import math

import numpy as np

from .keypoints import Keypoints

FRAME = (256, 176)            # (H, W) of the pictures that the authors' keypoints refer to
FRAME_OFFSET = 40             # their x counts from 40 pixels left of the picture: 176 padded to 256


def parse_fpdm_txt(text: str, what: str = "the pose text") -> Keypoints:
    """The authors' pose file -> Keypoints on the (256, 176) picture (FPDM's authors' code).

    text: 18 lines "x y" in OpenPose-COCO order, in pixels of a 256x256 frame that is the 176x256 picture padded by 40
    pixels left and right; commas for spaces are fine. A joint with -1 as x or y is missing. Raises ValueError, beginning
    with `what`, for another number of lines or a line that is not two numbers.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) != 18:
        raise ValueError(f"{what} has {len(lines)} lines; expected 18, 'x y' for each OpenPose-COCO joint, with '-1 -1' "
                         "for a missing one")
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            x, y = (float(value) for value in line.replace(",", " ").split())
        except ValueError:
            raise ValueError(f"{what}: line {number} is {line[:60]!r}; expected 'x y', two numbers") from None
        if not (math.isfinite(x) and math.isfinite(y)):
            raise ValueError(f"{what}: line {number} is {line[:60]!r}; expected finite numbers, or '-1 -1' for a missing "
                             "joint")
        rows.append((x, y))
    return from_frame(np.array(rows))


def from_frame(xy: np.ndarray) -> Keypoints:
    """(18, 2) x, y in the 256x256 frame, -1 where missing -> Keypoints on the (256, 176) picture."""
    xy = np.asarray(xy, dtype=np.float64)
    if xy.shape != (18, 2):
        raise ValueError(f"FPDM keypoints have shape {xy.shape}; expected (18, 2), x and y of each OpenPose-COCO joint")
    return Keypoints(xy - (FRAME_OFFSET, 0), (xy != -1).all(1), FRAME)
