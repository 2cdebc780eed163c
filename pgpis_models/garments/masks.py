"""Masks by name: upper garment, lower garment, all clothes, hair, skin, face."""

from __future__ import annotations

import numpy as np

from ..poses.keypoints import Keypoints
from ..surface.densepose import IUV
from .labels import HAIR, LABELS, LOWER, SKIN, UPPER, labels_of
from .zones import HEAD, Body, body_of

PARTS = {"upper garment": (UPPER,), "lower garment": (LOWER,), "all clothes": (UPPER, LOWER), "hair": (HAIR,),
         "skin": (SKIN,), "face": (SKIN,)}
LONGEST = 768      # pixels: longer pictures are sorted at this size, and their masks enlarged
SEEN = 0.0002      # of the picture: a part that shows less is not there
SHAPE = 0.03       # by how much the shapes of a picture and of its pose's canvas may differ


def part_mask(photo: np.ndarray, part: str, densepose: IUV | None = None, pose: Keypoints | None = None) -> np.ndarray:
    """Photo (H, W, 3) uint8 RGB -> (H, W) bool, where the part shows. part: one of PARTS; the rest as of `part_masks`.

    Raises ValueError as `part_masks` does, and when the part is not seen.
    """
    if part not in PARTS:
        raise ValueError(f"part is {part!r}; expected one of {', '.join(PARTS)}")
    mask = part_masks(photo, densepose, pose)[part]
    if mask.sum() < max(SEEN * mask.size, 4):
        raise ValueError(f"no {part} is seen in a picture of {photo.shape[1]}x{photo.shape[0]} pixels; expected a person "
                         "who shows it. Choose another part, or check that densepose and pose are of this picture")
    return mask


def part_masks(photo: np.ndarray, densepose: IUV | None = None, pose: Keypoints | None = None) -> dict[str, np.ndarray]:
    """Photo (H, W, 3) uint8 RGB -> (H, W) bool of every part in PARTS.

    densepose: of this photo and its size; pose: of this photo, on a canvas of its shape. One of them is needed; both give
    the best masks, and where the face ends says the pose. With the pose alone the person is what stands out of a plain
    ground, or what GrabCut finds around the skeleton. Garments, hair and skin are told apart by place and colour (see
    labels.py), so garments of one colour part where the trunk does. Raises ValueError for other sizes and without both.
    """
    labels, body, _, _ = sorted_pixels(photo, densepose, pose)
    masks = {name: np.isin(labels, kinds) & (_is_face(body) if name == "face" else True) for name, kinds in PARTS.items()}
    return {name: enlarged(mask, photo.shape[:2]) for name, mask in masks.items()}


def sorted_pixels(photo: np.ndarray, densepose: IUV | None, pose: Keypoints | None):
    """Labels (h, w) as of `labels_of`, cleaned, and the Body, densepose and pose of that size, no longer than LONGEST.
    Arguments and errors as of `part_masks`."""
    height, width = photo.shape[:2]
    if densepose is None and pose is None:
        raise ValueError("a garment mask came without densepose and pose; expected one of them, of the same picture. "
                         "Connect Estimate DensePose, Read IUV, Extract Pose or Load Pose")
    if densepose is not None and densepose.size != (height, width):
        raise ValueError(f"the DENSEPOSE is {densepose.size[1]}x{densepose.size[0]} pixels and the picture {width}x{height}"
                         "; expected one size. Take the DENSEPOSE of this very picture")
    if pose is not None and abs(pose.canvas[1] * height / (pose.canvas[0] * width) - 1) > SHAPE:
        raise ValueError(f"the pose's canvas is {pose.canvas[1]}x{pose.canvas[0]} pixels and the picture {width}x{height}; "
                         "expected one shape. Take the pose of this very picture")
    photo, densepose, pose = _small(photo, densepose, pose)
    body = body_of(photo, densepose, pose)
    return cleaned(labels_of(photo, body), body), body, densepose, pose


def _small(photo: np.ndarray, densepose: IUV | None, pose: Keypoints | None):
    """The same, no longer than LONGEST."""
    import cv2  # no cost when the host starts
    scale = LONGEST / max(photo.shape[:2])
    if scale < 1:
        height, width = (max(1, round(side * scale)) for side in photo.shape[:2])
        photo = cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA)
        if densepose is not None:
            densepose = IUV(*(cv2.resize(each, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
                              for each in (densepose.part, densepose.u, densepose.v)))
    return photo, densepose, None if pose is None else pose.scaled_to(photo.shape[:2])


def enlarged(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(h, w) bool -> (*size) bool."""
    import cv2  # no cost when the host starts
    if mask.shape == size:
        return mask
    return cv2.resize(mask.astype(np.float32), size[::-1], interpolation=cv2.INTER_LINEAR) > 0.5


def _is_face(body: Body) -> np.ndarray:
    """(H, W) bool: on the head and above the jaw, which is the lower half of an ellipse."""
    jaw = 0.36 * (1 - np.sqrt(np.clip(1 - np.square(body.aside / 1.1), 0, 1)))
    return (body.zone == HEAD) & (body.above > jaw)


def cleaned(labels: np.ndarray, body: Body) -> np.ndarray:
    """Labels (H, W) as of `labels_of`, in which specks take the label around them, as brows, eyes and lips that look like
    hair or cloth take the face's."""
    import cv2  # no cost when the host starts
    labels = labels.copy()
    face = np.hypot(body.aside, (body.above - 0.36) / 0.42) < 1 if body.front else np.zeros(labels.shape, bool)
    for label in range(LABELS):
        count, pieces, stats, _ = cv2.connectedComponentsWithStats((labels == label).astype(np.uint8), connectivity=4)
        largest = stats[1:, cv2.CC_STAT_AREA].max(initial=0)
        for piece in range(1, count):
            x, y, width, height, area = stats[piece]
            window = (slice(max(0, y - 1), y + height + 1), slice(max(0, x - 1), x + width + 1))
            own = pieces[window] == piece
            in_face = label != SKIN and area < 0.3 * largest and (face[window] & own).sum() > 0.8 * area
            if area == largest or not (in_face or area <= max(4, 0.004 * largest)):
                continue
            around = labels[window][cv2.dilate(own.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool) & ~own]
            around = around[around >= 0]
            if len(around):
                labels[window][own] = np.bincount(around).argmax()
    return labels
