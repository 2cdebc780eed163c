"""How well a pose obeys another one: PCK, OKS and distances, the best of several, and a picture of both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .by_hand import standing
from .drawing import LIMBS, draw_openpose
from .keypoints import JOINTS, Keypoints

# COCO's sigmas of its joints (cocoeval.py), in OpenPose's order; the neck, which COCO has not, as a shoulder.
SIGMAS = (0.026, 0.079, 0.079, 0.072, 0.062, 0.079, 0.072, 0.062, 0.107, 0.087, 0.089, 0.107, 0.087, 0.089, 0.025, 0.025,
          0.035, 0.035)
AREA_OF_BOX = 0.53   # area of a person in shares of the box, where there is no segmentation (CrowdPose's evaluation)
NEAR, FAR = 0.1, 0.2   # shares of the torso within which a joint counts for PCK
NECK, HIPS, DIAGONALS = JOINTS.index("neck"), (8, 11), ((2, 11), (5, 8))


@dataclass(frozen=True)
class Score:
    """pck_near, pck_far: shares (0..1) of the wanted joints that lie within 0.1 and 0.2 of the torso. oks: object keypoint
    similarity, 0..1. distance: mean in pixels of the wanted pose's canvas over the joints that both have, nan without any.
    torso: in the same pixels. missing: wanted joints that were not found."""

    pck_near: float
    pck_far: float
    oks: float
    distance: float
    torso: float
    joints: int
    missing: tuple[str, ...]


def torso(pose: Keypoints) -> float:
    """Diameter of the torso in pixels, the longer of both diagonals from a shoulder to the other side's hip (as PCK on FLIC
    takes it); without one the neck to a hip. Of a pose without either it is that of a standing person with the pose's limbs
    (by the median of their lengths' ratios), or, without a limb, of one who fills the canvas."""
    rest = standing(pose.canvas)

    def span(one: Keypoints, pairs) -> float:
        return max((float(np.linalg.norm(one.xy[a] - one.xy[b])) for a, b in pairs if pose.present[a] and pose.present[b]),
                   default=0.0)
    found = span(pose, DIAGONALS) or span(pose, ((NECK, hip) for hip in HIPS))
    if found:
        return found
    ratios = [ratio for limb in LIMBS if (ratio := span(pose, [limb]) / float(np.linalg.norm(rest.xy[limb[0]]
                                                                                            - rest.xy[limb[1]])))]
    whole = max(float(np.linalg.norm(rest.xy[a] - rest.xy[b])) for a, b in DIAGONALS)
    return whole * (float(np.median(ratios)) if ratios else 1.0)


def score(wanted: Keypoints, found: Keypoints | None) -> Score:
    """The pose that was found against the one that was wanted; every wanted joint on its canvas counts, and one that was not
    found is wrong. found: on a canvas of its own, which is stretched to the wanted one's; None: nobody.

    OKS as COCO defines it: the mean of exp(-d^2 / (2 s^2 k^2)), k = 2 sigma, s^2 the person's area. Raises ValueError when
    the wanted pose has no joint on its canvas.
    """
    counted = wanted.on_canvas
    if not counted.any():
        raise ValueError("the wanted pose has no joint on its canvas; expected one at least. Check that it shows a person")
    there = counted & found.present if found is not None else np.zeros(18, bool)
    distance = np.full(18, np.inf)
    if found is not None:
        distance[there] = np.linalg.norm(found.scaled_to(wanted.canvas).xy - wanted.xy, axis=1)[there]
    x0, y0, x1, y1 = wanted.bounds
    size = torso(wanted)
    # A person seen edge on, or one limb alone, has a box of no width.
    area = max(AREA_OF_BOX * (x1 - x0) * (y1 - y0), (size / 4) ** 2)
    with np.errstate(over="ignore"):
        likeness = np.exp(-distance ** 2 / (2 * area * (2 * np.array(SIGMAS)) ** 2))
    return Score(float((distance[counted] <= NEAR * size).mean()), float((distance[counted] <= FAR * size).mean()),
                 float(likeness[counted].mean()), float(distance[there].mean()) if there.any() else math.nan, size,
                 int(counted.sum()), tuple(np.array(JOINTS)[counted & ~there].tolist()))


def closest(wanted: Keypoints, people: Sequence[Keypoints]) -> Keypoints | None:
    """Of the people that were found the one of the highest OKS, the first among equals; None without people."""
    return max(people, key=lambda one: score(wanted, one).oks, default=None)


def best_pose(scores: Sequence[Score]) -> int:
    """Index of the highest OKS; among equals that with the smaller distance, then the first."""
    return min(range(len(scores)), key=lambda index: (-scores[index].oks, math.inf if math.isnan(scores[index].distance)
                                                      else scores[index].distance, index))


def similarity(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosines (B,) of embeddings (B or 1, W) and (B, W); 0 where one is zeros, as of a picture without a face."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.divide((a * b).sum(axis=1), lengths, out=np.zeros(len(b)), where=lengths > 0)


def overlay(picture: np.ndarray, wanted: Keypoints, found: Keypoints | None) -> np.ndarray:
    """(H, W, 3) uint8: the picture dimmed, the pose that was found in OpenPose's colours, the wanted one in white, and
    from every wanted joint a line to where it was found: green within 0.1 of the torso, yellow within 0.2, else red. A ring
    marks a joint that was not found. Needs OpenCV."""
    import cv2  # `drawing` says what to do when it is missing, and draws first
    size = picture.shape[:2]
    width = max(1.0, min(size) / 256)
    wanted = wanted.scaled_to(size)
    made = (picture * 0.45).astype(np.uint8)
    if found is not None:
        found = found.scaled_to(size)
        drawn = draw_openpose(found, stick_width=max(1, round(2 * width)))
        made = np.where(drawn.any(axis=-1, keepdims=True), drawn, made)
    made = np.ascontiguousarray(made)
    fixed = [tuple(np.round(np.clip(xy, -1e4, 1e4) * 16).astype(int).tolist()) for xy in wanted.xy]   # 4 bits of subpixels
    line = max(1, round(width))
    for a, b in LIMBS:
        if wanted.present[a] and wanted.present[b]:
            cv2.line(made, fixed[a], fixed[b], (255, 255, 255), line, cv2.LINE_AA, 4)
    limit = torso(wanted)
    for joint in np.flatnonzero(wanted.on_canvas):
        if found is None or not found.present[joint]:
            cv2.circle(made, fixed[joint], round(4 * width * 16), (255, 64, 64), line, cv2.LINE_AA, 4)
            continue
        share = float(np.linalg.norm(found.xy[joint] - wanted.xy[joint])) / limit
        colour = (80, 230, 120) if share <= NEAR else (255, 210, 60) if share <= FAR else (255, 64, 64)
        end = tuple(np.round(np.clip(found.xy[joint], -1e4, 1e4) * 16).astype(int).tolist())
        cv2.line(made, fixed[joint], end, colour, line + 1, cv2.LINE_AA, 4)
        cv2.circle(made, fixed[joint], round(1.6 * width * 16), colour, -1, cv2.LINE_AA, 4)
    return made
