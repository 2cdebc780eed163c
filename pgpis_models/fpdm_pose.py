"""What FPDM looks at: its pose picture, and photos and pose pictures as the tensors of its three encoders.

The drawing differs from ordinary OpenPose pictures: red and blue are swapped, limbs are blended over the discs, and
line widths are in pixels whatever the canvas, so that the canvas decides how bold the pose looks (FPDM's authors' code).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .metrics import IMAGENET_MEAN, IMAGENET_STD
from .pose import JOINT_COLOURS, LIMBS, MIRROR, Keypoints, _opencv, checked_size

FRAME = (256, 176)            # (H, W) of the pictures that the authors' keypoints refer to
FRAME_OFFSET = 40             # their x counts from 40 pixels left of the picture: 176 padded to 256
CANVAS = (550, 375)           # (H, W) that poses are drawn on in the training of stage 2
PHOTO_CANVAS = (1101, 750)    # the photos' size: stage 1, and the authors' test script
RADIUS = 4                    # of discs, and half the width of limbs, in pixels of any canvas
LIMB_SHARE = 0.6              # of a limb's colour in what it covers
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

# Listed as RGB, drawn as BGR by the authors, which swaps red and blue in the picture.
COLOURS = tuple(colour[::-1] for colour in JOINT_COLOURS)
_FARTHEST = 16383  # OpenCV keeps coordinates in 16.16 fixed point; joints farther out would wrap around


# --- keypoints ----------------------------------------------------------------------------------------------

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


def load_fpdm_txt(path: str | Path) -> Keypoints:
    """`parse_fpdm_txt` of a file."""
    path = Path(path)
    try:
        return parse_fpdm_txt(path.read_text(encoding="utf-8-sig"), path.name)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name} is not text ({error}); expected 18 lines 'x y'") from error


def from_frame(xy: np.ndarray) -> Keypoints:
    """(18, 2) x, y in the 256x256 frame, -1 where missing -> Keypoints on the (256, 176) picture."""
    xy = np.asarray(xy, dtype=np.float64)
    if xy.shape != (18, 2):
        raise ValueError(f"FPDM keypoints have shape {xy.shape}; expected (18, 2), x and y of each OpenPose-COCO joint")
    return Keypoints(xy - (FRAME_OFFSET, 0), (xy != -1).all(1), FRAME)


def on_canvas(keypoints: Keypoints, size: tuple[int, int] = CANVAS) -> Keypoints:
    """The pose on a canvas of `size` = (H, W), as the authors scale it.

    They compute the factor first, (1 / 176) W; `Keypoints.scaled_to` multiplies first. The drawing truncates to whole
    pixels, so the other order moves discs by a pixel.
    """
    size = checked_size(size, "size")
    if keypoints.canvas == size:
        return keypoints
    height, width = keypoints.canvas
    return Keypoints(keypoints.xy * (1.0 / width * size[1], 1.0 / height * size[0]), keypoints.present, size)


def augmented(keypoints: Keypoints, noise: np.ndarray | None = None, flip: bool = False) -> Keypoints:
    """A training pose (FPDM's authors' code): every joint moved by `noise`, then mirrored if `flip`.

    keypoints: on the canvas that they will be drawn on (`on_canvas`). noise: (18, 2) pixels of this canvas, standard
    normal in the authors' training. A joint that leaves the canvas to the left or the top counts as missing; right and
    below it is kept at the border. Mirroring is x -> W - x, not W - 1 - x.
    """
    height, width = keypoints.canvas
    xy, present = keypoints.xy.copy(), keypoints.present
    if noise is not None:
        noise = np.asarray(noise, dtype=np.float64)
        if noise.shape != (18, 2):
            raise ValueError(f"joint noise has shape {noise.shape}; expected (18, 2) pixels")
        xy += noise
        # Either coordinate being -1 keeps a joint from being drawn, so one negative coordinate makes it missing.
        present = present & (xy >= 0).all(1)
        xy[:, 0][xy[:, 0] > width] = width - 1
        xy[:, 1][xy[:, 1] > height] = height - 1
    if flip:
        xy, present = xy[list(MIRROR)], present[list(MIRROR)]
        xy[:, 0] = width - xy[:, 0]
    return Keypoints(xy, present, keypoints.canvas)


# --- the drawing --------------------------------------------------------------------------------------------

def draw_fpdm(keypoints: Keypoints, size: tuple[int, int] = CANVAS) -> np.ndarray:
    """FPDM's drawing of a pose -> (H, W, 3) uint8, RGB on black, red and blue swapped against OpenPose's rainbow.

    size: (H, W) to draw on. Discs and limbs are 4 pixels in radius and half width on any canvas, so this also sets how
    bold the pose is: (550, 375) is the training of stage 2, (1101, 750) stage 1 and the authors' test pictures.

    18 filled discs at truncated coordinates, then 17 filled ellipses, each blended over the picture by 60 %. Limbs with
    a missing end are left out. Needs OpenCV.
    """
    cv2 = _opencv()
    size = checked_size(size, "size")
    pose = on_canvas(keypoints, size)
    xy, present = np.clip(pose.xy, -_FARTHEST, _FARTHEST), pose.present
    picture = np.zeros((*size, 3), dtype=np.uint8)
    for (x, y), seen, colour in zip(xy.tolist(), present, COLOURS, strict=True):
        if seen:
            cv2.circle(picture, (int(x), int(y)), RADIUS, colour, -1)
    for (a, b), colour in zip(LIMBS, COLOURS[:len(LIMBS)], strict=True):
        if not (present[a] and present[b]):
            continue
        (ax, ay), (bx, by) = xy[a].tolist(), xy[b].tolist()
        angle = int(math.degrees(math.atan2(ay - by, ax - bx)))
        half_axes = (int(math.hypot(ax - bx, ay - by) / 2), RADIUS)
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


def draw_batch(poses: Sequence[Keypoints], size: tuple[int, int] = CANVAS) -> np.ndarray:
    """`draw_fpdm` of each pose -> (B, H, W, 3) uint8. Poses may come on canvases of different sizes.

    Raises ValueError without poses.
    """
    if not poses:
        raise ValueError("no poses to draw; expected one or more Keypoints")
    return np.stack([draw_fpdm(pose, size) for pose in poses])


# --- tensors for the encoders -------------------------------------------------------------------------------

def resized(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8 -> (*size, 3) uint8 as Pillow's bicubic filter makes it; the aspect ratio is not kept.

    In two steps, width first: Pillow rounds between its two passes, and its versions differ in which comes first.
    """
    from PIL import Image
    picture = np.asarray(picture)
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise ValueError(f"a picture came as {picture.dtype} {picture.shape}; expected uint8 (H, W, 3) in RGB")
    height, width = checked_size(size, "size")
    if picture.shape[:2] == (height, width):
        return picture
    image, bicubic = Image.fromarray(np.ascontiguousarray(picture)), Image.Resampling.BICUBIC
    return np.asarray(image.resize((width, image.height), bicubic).resize((width, height), bicubic))


def unit_tensor(pictures: Sequence[np.ndarray], size: tuple[int, int]) -> Tensor:
    """Pictures (H, W, 3) uint8 -> (B, 3, *size) float32 in [0, 1]: the pose guider's input, not normalised."""
    if not len(pictures):
        raise ValueError("no pictures; expected one or more of (H, W, 3) uint8")
    stacked = np.stack([resized(picture, size) for picture in pictures])
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).float().div_(255.0)


def _normalised(pixels: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    mean, std = (pixels.new_tensor(values).reshape(1, 3, 1, 1) for values in (mean, std))
    return (pixels - mean) / std


def source_pixels(photos: Sequence[np.ndarray], size: tuple[int, int] = (512, 512),
                  read_size: tuple[int, int] = (512, 512)) -> Tensor:
    """Photos (H, W, 3) uint8 -> (B, 3, *size), squashed, with ImageNet's mean and deviation: the source encoder's input.

    read_size: (H, W) that photos are squashed to first; training takes (256, 256) half of the time.
    """
    return _normalised(unit_tensor([resized(p, read_size) for p in photos], size), IMAGENET_MEAN, IMAGENET_STD)


def clip_pixels(pictures: Sequence[np.ndarray], size: tuple[int, int] = (224, 224), crop: bool = False,
                read_size: tuple[int, int] | None = None) -> Tensor:
    """Pictures (H, W, 3) uint8 -> (B, 3, *size) with CLIP's mean and deviation: the fusion model's input.

    crop: shorter side to `size` and the middle of the longer one, as stage 1 reads photos; else squashed, as stage 2
    does and both do with pose pictures (a mismatch of the original, kept). read_size: (H, W) that pictures are squashed
    to first: (512, 512) for the source photos of stage 2, as in `source_pixels`; None for all else.
    """
    if read_size is not None:
        pictures = [resized(picture, read_size) for picture in pictures]
    if crop:
        pictures = [_cropped(picture, checked_size(size, "size")) for picture in pictures]
    return _normalised(unit_tensor(pictures, size), CLIP_MEAN, CLIP_STD)


def _cropped(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The shorter side resized to that of `size`, the rest cut off evenly; CLIP's processor truncates the longer side."""
    height, width = picture.shape[:2]
    edge = min(size)
    longer = int(edge * max(height, width) / min(height, width))
    picture = resized(picture, (edge, longer) if height <= width else (longer, edge))
    top, left = ((have - want) // 2 for have, want in zip(picture.shape[:2], size, strict=True))
    if top < 0 or left < 0:
        raise ValueError(f"a crop of {size} does not fit a picture resized to {picture.shape[:2]}; expected a square size")
    return picture[top:top + size[0], left:left + size[1]]


def target_pixels(photos: Sequence[np.ndarray], size: tuple[int, int] = (512, 352),
                  read_size: tuple[int, int] = (512, 352)) -> Tensor:
    """Photos (H, W, 3) uint8 -> (B, 3, *size) in [-1, 1], squashed: what the autoencoder encodes."""
    return unit_tensor([resized(p, read_size) for p in photos], size) * 2.0 - 1.0
