"""How large a body is and where it stands, read from joints, from DensePose or from a mask; and one body in another's place.

Shares are of the height of a person who stands. They are means of drawn people and agree with those of DeepFashion's photos.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..poses.keypoints import TORSO, Keypoints
from ..surface.densepose import IUV

Box = tuple[float, float, float, float]   # x0, y0, x1, y1 in pixels

NOSE, NECK, HIPS, ANKLES, FACE = 0, 1, (8, 11), (10, 13), (0, 14, 15, 16, 17)
LEG, FOOT = 0.53, 0.048   # hip to sole; ankle to sole
# Other lengths that tell the size where the torso is hidden or points at the camera: joints and share.
LENGTHS = (((8, 9), 0.244), ((11, 12), 0.244), ((9, 10), 0.235), ((12, 13), 0.235), ((2, 5), 0.165), ((0, 1), 0.131))
DISCOUNT = 0.85   # of those, since they differ more between people than the torso does
# How far the body reaches about each joint: nose, neck, right arm, left arm, right leg, left leg, eyes, ears.
REACH = (0.135, 0.05, 0.05, 0.05, 0.09, 0.05, 0.05, 0.09, 0.09, 0.06, 0.055, 0.09, 0.06, 0.055, 0.115, 0.115, 0.115, 0.115)
NECK_TO_TOP = 0.27
TOP_TO_MIDDLE = 0.395   # from the top of the head down to between neck and hips
TORSO_PARTS = 0.314     # height of the torso's parts in DensePose
HALF = 0.55             # of the standing height, what photos show of people whom they cut off


@dataclass(frozen=True)
class Body:
    """One person in a picture, in its pixels.

    box: what is seen of it, with hair, hands and soles. size: the height that it has or would have upright. middle: x, y
    between neck and hips. feet: y of the lower ankle, None where feet are not seen. sole: y where it ends, or would end
    were its legs not hidden.
    """

    box: Box
    size: float
    middle: tuple[float, float]
    feet: float | None
    sole: float

    def moved(self, scale: float, shift: tuple[float, float]) -> Body:
        """The body in a picture that is enlarged and then shifted."""
        dx, dy = shift
        x0, y0, x1, y1 = self.box
        return Body((x0 * scale + dx, y0 * scale + dy, x1 * scale + dx, y1 * scale + dy), self.size * scale,
                    (self.middle[0] * scale + dx, self.middle[1] * scale + dy),
                    None if self.feet is None else self.feet * scale + dy, self.sole * scale + dy)


def body_of_pose(pose: Keypoints) -> Body:
    """From joints, of which one at least is present."""
    seen, xy = pose.present, pose.xy
    size = size_of_pose(pose)
    reach = np.array(REACH) * size
    low, high = (xy - reach[:, None])[seen].min(0), (xy + reach[:, None])[seen].max(0)
    if seen[NECK] and not seen[list(FACE)].any():
        low[1] = min(low[1], xy[NECK, 1] - NECK_TO_TOP * size)
    hips = [xy[joint] for joint in HIPS if seen[joint]]
    hip = np.mean(hips, axis=0) if hips else None
    if seen[NECK]:
        middle = (xy[NECK] + hip) / 2 if hips else xy[NECK] + (0, TORSO / 2 * size)
    else:
        middle = hip - (0, TORSO / 2 * size) if hips else np.mean(xy[seen], axis=0)
    ankles = [xy[joint, 1] for joint in ANKLES if seen[joint]]
    feet = float(max(ankles)) if ankles else None
    knees = [xy[joint, 1] + (0.235 + FOOT) * size for joint in (9, 12) if seen[joint]]
    sole = feet + FOOT * size if ankles else max([*knees, middle[1] + (TORSO / 2 + LEG) * size * (not knees)])
    return Body((*map(float, low), *map(float, high)), size, tuple(map(float, middle)), feet, float(max(sole, high[1])))


def size_of_pose(pose: Keypoints) -> float:
    """Standing height. Limbs that point at the camera look short, so the longest that is seen counts."""
    def length(a: int, b: int) -> float:
        return float(np.linalg.norm(pose.xy[a] - pose.xy[b])) if pose.present[a] and pose.present[b] else 0.0

    torso = max(length(NECK, hip) for hip in HIPS) / TORSO
    others = max(length(*joints) / share for joints, share in LENGTHS)
    size = max(torso, others * (DISCOUNT if torso else 1.0))
    x0, y0, x1, y1 = pose.bounds
    return size or max(x1 - x0, y1 - y0, 1.0)


def body_of_mask(mask: np.ndarray) -> Body:
    """From the pixels (H, W) bool that show it, some at least. A person whom the picture's lower edge cuts off is taken for
    one seen to the hips: a pose tells the size of such better."""
    box, height = bounds(mask), mask.shape[0]
    cut = box[3] >= height
    tall = box[3] - box[1]
    size = tall / HALF if cut else max(tall, 0.6 * (box[2] - box[0]))
    middle_y = box[1] + min(TOP_TO_MIDDLE * size, tall)
    rows = mask[int(box[1] + 0.15 * tall):int(middle_y + 0.1 * tall) + 1]
    columns = np.nonzero(rows)[1]
    x = float(np.median(columns)) + 0.5 if len(columns) else (box[0] + box[2]) / 2
    sole = box[1] + size if cut else box[3]
    return Body(box, size, (x, middle_y), None if cut else box[3] - FOOT * size, sole)


def body_of_densepose(iuv: IUV) -> Body:
    """From the parts that are seen, one pixel at least."""
    whole = body_of_mask(iuv.part_mask())
    torso = np.nonzero(iuv.part_mask("torso"))
    if not len(torso[0]):
        return whole
    low, high = np.percentile(torso[0], (2, 98))
    size = max(float(high - low) / TORSO_PARTS, 1.0)
    if iuv.part_mask("feet").any() and iuv.part_mask("head").any():   # arms may cover the torso, or rise above the head
        size = max(size, whole.box[3] - bounds(iuv.part_mask("head"))[1])
    middle = (float(torso[1].min() + torso[1].max() + 1) / 2, float(low + high + 1) / 2)
    feet = whole.box[3] - FOOT * size if iuv.part_mask("feet").any() and whole.box[3] < iuv.size[0] else None
    sole = max(whole.box[3], middle[1] + (TORSO / 2 + LEG) * size) if feet is None else whole.box[3]
    return Body(whole.box, size, middle, feet, sole)


def bounds(mask: np.ndarray) -> Box:
    """The box about the pixels of a mask (H, W) that are set, some at least."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


# --- one body in another's place ----------------------------------------------------------------------------

@dataclass(frozen=True)
class Move:
    """Enlarged `scale` times about the origin, then shifted by x, y pixels."""

    scale: float
    shift: tuple[float, float]

    def pose(self, pose: Keypoints, canvas: tuple[int, int]) -> Keypoints:
        """A pose, on a canvas of its own."""
        return pose.moved(lambda xy: xy * self.scale + self.shift, canvas)

    def body(self, body: Body) -> Body:
        """A body."""
        return body.moved(self.scale, self.shift)


def into_place(body: Body, place: Body) -> Move:
    """Brings a body to the size of another and to where it stands: the lower ankles on one height and the torsos above
    each other where both show feet, else the torsos in one place."""
    scale = place.size / body.size
    dx = place.middle[0] - body.middle[0] * scale
    if body.feet is not None and place.feet is not None:
        return Move(scale, (dx, place.feet - body.feet * scale))
    return Move(scale, (dx, place.middle[1] - body.middle[1] * scale))


def seen_in(body: Body, size: tuple[int, int]) -> Body:
    """The body with the box cut to a picture of (H, W) pixels."""
    x0, y0, x1, y1 = body.box
    return replace(body, box=(max(x0, 0.0), max(y0, 0.0), min(x1, float(size[1])), min(y1, float(size[0]))))
