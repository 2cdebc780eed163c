"""FPDM's pose picture.

The drawing differs from ordinary OpenPose pictures: red and blue are swapped, limbs are blended over the discs, and
line widths are in pixels whatever the canvas, so that the canvas decides how bold the pose looks (FPDM's authors' code).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..poses.drawing import JOINT_COLOURS, LIMBS, _opencv
from ..poses.keypoints import MIRROR, Keypoints, checked_size
from ..poses.wholebody import MIRROR_POINTS, WholeBody

CANVAS = (550, 375)           # (H, W) that poses are drawn on in the training of stage 2
PHOTO_CANVAS = (1101, 750)    # the photos' size: stage 1, and the authors' test script
RADIUS = 4                    # of discs, and half the width of limbs, in pixels of any canvas
LIMB_SHARE = 0.6              # of a limb's colour in what it covers
# Listed as RGB, drawn as BGR by the authors, which swaps red and blue in the picture.
COLOURS = tuple(colour[::-1] for colour in JOINT_COLOURS)
Colour = tuple[int, int, int]   # RGB, 0..255
_FARTHEST = 16383  # OpenCV keeps coordinates in 16.16 fixed point; joints farther out would wrap around


def on_canvas(keypoints: Keypoints, size: tuple[int, int] = CANVAS) -> Keypoints:
    """The pose on a canvas of `size` = (H, W), as the authors scale it.

    They compute the factor first, (1 / 176) W; `Keypoints.scaled_to` multiplies first. The drawing truncates to whole
    pixels, so the other order moves discs by a pixel.
    """
    size = checked_size(size, "size")
    if keypoints.canvas == size:
        return keypoints
    height, width = keypoints.canvas
    return keypoints.moved(lambda xy: xy * (1.0 / width * size[1], 1.0 / height * size[0]), size)


def augmented(keypoints: Keypoints, noise: np.ndarray | None = None, flip: bool = False) -> Keypoints:
    """A training pose (FPDM's authors' code): every joint moved by `noise`, then mirrored if `flip`.

    keypoints: on the canvas that they will be drawn on (`on_canvas`). noise: (18, 2), of a `WholeBody` (133, 2), pixels of
    this canvas, standard normal in the authors' training. A joint that leaves the canvas to the left or the top counts as
    missing; right and below it is kept at the border. Mirroring is x -> W - x, not W - 1 - x.
    """
    whole = isinstance(keypoints, WholeBody)
    xy, present, mirror = (keypoints.points, keypoints.seen, MIRROR_POINTS) if whole else \
        (keypoints.xy, keypoints.present, MIRROR)
    (height, width), xy = keypoints.canvas, xy.copy()
    if noise is not None:
        noise = np.asarray(noise, dtype=np.float64)
        if noise.shape != xy.shape:
            raise ValueError(f"joint noise has shape {noise.shape}; expected {xy.shape} pixels")
        xy += noise
        # Either coordinate being -1 keeps a joint from being drawn, so one negative coordinate makes it missing.
        present = present & (xy >= 0).all(1)
        xy[:, 0][xy[:, 0] > width] = width - 1
        xy[:, 1][xy[:, 1] > height] = height - 1
    if flip:
        xy, present = xy[list(mirror)], present[list(mirror)]
        xy[:, 0] = width - xy[:, 0]
    return (WholeBody.of if whole else Keypoints)(xy, present, keypoints.canvas)


def draw_fpdm(keypoints: Keypoints, size: tuple[int, int] = CANVAS) -> np.ndarray:
    """FPDM's drawing of a pose -> (H, W, 3) uint8, RGB on black, red and blue swapped against OpenPose's rainbow.

    size: (H, W) to draw on. Discs and limbs are 4 pixels in radius and half width on any canvas, so this also sets how
    bold the pose is: (550, 375) is the training of stage 2, (1101, 750) stage 1 and the authors' test pictures.

    18 filled discs at truncated coordinates, then 17 filled ellipses, each blended over the picture by 60 %. Limbs with
    a missing end are left out. Needs OpenCV.
    """
    size = checked_size(size, "size")
    pose = on_canvas(keypoints, size)
    limbs = [(a, b, colour) for (a, b), colour in zip(LIMBS, COLOURS[:len(LIMBS)], strict=True)]
    return painted(pose.xy, pose.present, size, COLOURS, limbs, RADIUS)


def painted(xy: np.ndarray, present: np.ndarray, size: tuple[int, int], colours: Sequence[Colour],
            limbs: Sequence[tuple[int, int, Colour]], radius: int) -> np.ndarray:
    """(H, W, 3) uint8: a disc per point that is present, then limbs (point, point, colour), each blended over the picture.

    xy: (N, 2) pixels of a canvas of `size`, truncated for discs. radius: of discs, and half the width of limbs, pixels.
    """
    cv2 = _opencv()
    xy = np.clip(xy, -_FARTHEST, _FARTHEST)
    picture = np.zeros((*size, 3), dtype=np.uint8)
    for (x, y), seen, colour in zip(xy.tolist(), present, colours, strict=True):
        if seen:
            cv2.circle(picture, (int(x), int(y)), radius, colour, -1)
    for a, b, colour in limbs:
        if not (present[a] and present[b]):
            continue
        (ax, ay), (bx, by) = xy[a].tolist(), xy[b].tolist()
        angle = int(math.degrees(math.atan2(ay - by, ax - bx)))
        half_axes = (int(math.hypot(ax - bx, ay - by) / 2), radius)
        outline = cv2.ellipse2Poly((int((ax + bx) / 2), int((ay + by) / 2)), half_axes, angle, 0, 360, 1)
        _blend(cv2, picture, outline, colour)
    return picture


def _blend(cv2, picture: np.ndarray, outline: np.ndarray, colour: tuple[int, int, int]) -> None:
    """picture <- 40 % picture + 60 % picture with the filled outline, rounded. In place.

    Only inside the outline's box: elsewhere the sum of the two shares gives every value back unchanged.
    """
    x0, y0 = np.maximum(outline.min(0) - 1, 0).tolist()
    x1, y1 = (outline.max(0) + 2).tolist()
    box = picture[y0:max(y1, 0), x0:max(x1, 0)]
    if box.size == 0:
        return
    covered = box.copy()
    cv2.fillConvexPoly(covered, outline - (x0, y0), colour)
    box[...] = cv2.addWeighted(np.ascontiguousarray(box), 1.0 - LIMB_SHARE, covered, LIMB_SHARE, 0)
