"""Poses as pictures and tensors: CFLD's 21-channel raster, and the ordinary OpenPose drawing for display.

The joints are in `keypoints.py`, the formats that they come in in `formats.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from .factored import FactoredRasters
from .keypoints import Keypoints, checked_size

# The 17 limbs that OpenPose pictures show, in drawing order (from joint, to joint).
LIMBS = (
    (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13),
    (1, 0), (0, 14), (14, 16), (0, 15), (15, 17),
)

# OpenPose's rainbow, RGB, one colour per joint; limb i takes 60 % of colour i.
JOINT_COLOURS = (
    (255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0), (0, 255, 0), (0, 255, 85),
    (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255), (0, 0, 255), (85, 0, 255), (170, 0, 255),
    (255, 0, 255), (255, 0, 170), (255, 0, 85),
)
LIMB_COLOURS = tuple(tuple(value * 6 // 10 for value in colour) for colour in JOINT_COLOURS[: len(LIMBS)])

# OpenCV keeps drawing coordinates in 16.16 fixed point; joints farther out than this would wrap around.
_FARTHEST = 16383


def _opencv():
    try:
        import cv2
    except ImportError as error:
        raise ImportError(
            "Drawing a pose needs OpenCV (package opencv-python-headless), which is not installed. "
            "Install it with: python -m pip install opencv-python-headless"
        ) from error
    return cv2


def _whole_pixels(keypoints: Keypoints, size: tuple[int, int]) -> np.ndarray:
    """(18, 2) int64 x, y on a canvas of `size`: scaled, then truncated (CFLD's authors' code)."""
    return np.clip(np.trunc(keypoints.scaled_to(size).xy), -_FARTHEST, _FARTHEST).astype(np.int64)


def draw_cfld(
    keypoints: Keypoints, size: tuple[int, int] = (256, 256), thickness: int = 2, radius: int = 3
) -> np.ndarray:
    """CFLD's drawing of a pose -> (3, H, W) uint8, RGB on black (CFLD's authors' code).

    size:      (H, W) of the drawing; the pose is scaled to it, its joints truncated to whole pixels.
    thickness: width of the limbs, radius: of the joints, both in pixels whatever the size. The authors tie them:
               radius = thickness + 1.

    17 anti-aliased limbs, then 18 anti-aliased filled joints; later ones cover earlier ones. A limb is left out when
    either end is missing. Joints off the canvas are clipped. Needs OpenCV.
    """
    size = checked_size(size, "size")
    picture = _drawing(keypoints, _whole_pixels(keypoints, size), size, thickness, radius)
    return np.ascontiguousarray(picture.transpose(2, 0, 1))


def _drawing(
    keypoints: Keypoints, pixels: np.ndarray, size: tuple[int, int], thickness: int, radius: int
) -> np.ndarray:
    """(H, W, 3) uint8 with the joints at `pixels`."""
    cv2 = _opencv()
    picture = np.zeros((*size, 3), dtype=np.uint8)
    points, present = pixels.tolist(), keypoints.present.tolist()  # plain lists: OpenCV converts them faster
    for (a, b), colour in zip(LIMBS, LIMB_COLOURS, strict=True):
        if present[a] and present[b]:
            cv2.line(picture, points[a], points[b], colour, thickness, cv2.LINE_AA)
    for point, seen, colour in zip(points, present, JOINT_COLOURS, strict=True):
        if seen:
            cv2.circle(picture, point, radius, colour, -1, cv2.LINE_AA)
    return picture


def heatmaps(keypoints: Keypoints, size: tuple[int, int] = (256, 256), sigma: float = 6.0) -> torch.Tensor:
    """One Gaussian of peak 1 per joint -> (18, H, W) float32; missing joints give zeros (CFLD's authors' code).

    size: (H, W). sigma: pixels of this canvas, not scaled with it; the joint is truncated to a whole pixel.
    """
    size = checked_size(size, "size")
    out = torch.empty(1, 18, *size)
    _fill_heatmaps(out, [keypoints], _whole_pixels(keypoints, size)[None], sigma)
    return out[0]


def _fill_heatmaps(out: torch.Tensor, poses: Sequence[Keypoints], pixels: np.ndarray, sigma: float) -> None:
    """out (B, 18, H, W) <- exp(-(dy^2 + dx^2) / (2 sigma^2)). The exponential separates, so a map is the outer product
    of a column and a row, far cheaper than an exponential per pixel."""
    height, width = out.shape[-2:]
    column, row = _factors(poses, pixels, (height, width), sigma)
    torch.mul(column[..., None], row[..., None, :], out=out)


def _factors(poses: Sequence[Keypoints], pixels: np.ndarray, size: tuple[int, int],
             sigma: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Columns (B, 18, H) and rows (B, 18, W) float32 whose outer products are the heat maps."""
    height, width = size
    present = np.stack([pose.present for pose in poses])  # (B, 18)
    dx = np.arange(width) - pixels[..., 0, None]  # (B, 18, W)
    dy = np.arange(height) - pixels[..., 1, None]  # (B, 18, H)
    row = np.exp(dx**2 / (-2.0 * sigma**2)) * present[..., None]
    column = np.exp(dy**2 / (-2.0 * sigma**2))
    return torch.from_numpy(column).float(), torch.from_numpy(row).float()


def cfld_rasters(
    poses: Sequence[Keypoints],
    size: tuple[int, int] = (256, 256),
    sigma: float = 6.0,  # pixels
    thickness: int = 2,  # pixels
    radius: int = 3,  # pixels
) -> torch.Tensor:
    """CFLD's pose input for a batch of poses -> (B, 21, H, W) float32 in [0, 1]: red, green, blue of `draw_cfld` / 255,
    then the 18 `heatmaps`. Not normalised to [-1, 1] (CFLD's authors' code).

    sigma, thickness and radius are in pixels whatever the size: a smaller raster has relatively fatter lines, as in
    training at that size. Raises ValueError without poses. Needs OpenCV.
    """
    size = checked_size(size, "size")
    if not poses:
        raise ValueError("cfld_rasters got no poses; expected one or more Keypoints.")
    out = torch.empty(len(poses), 21, *size)
    pixels = np.stack([_whole_pixels(pose, size) for pose in poses])  # (B, 18, 2)
    for raster, pose, points in zip(out, poses, pixels, strict=True):
        picture = torch.from_numpy(_drawing(pose, points, size, thickness, radius))  # (H, W, 3)
        torch.div(picture.permute(2, 0, 1), 255.0, out=raster[:3])
    _fill_heatmaps(out[:, 3:], poses, pixels, sigma)
    return out


def cfld_factored(poses: Sequence[Keypoints], size: tuple[int, int] = (256, 256), sigma: float = 6.0,
                  thickness: int = 2, radius: int = 3) -> FactoredRasters:
    """`cfld_rasters` without making the 18 maps: the same numbers in factored form, for the adapter in training."""
    size = checked_size(size, "size")
    if not poses:
        raise ValueError("cfld_factored got no poses; expected one or more Keypoints.")
    pixels = np.stack([_whole_pixels(pose, size) for pose in poses])
    drawn = np.stack([_drawing(pose, points, size, thickness, radius)
                      for pose, points in zip(poses, pixels, strict=True)])
    column, row = _factors(poses, pixels, size, sigma)
    return FactoredRasters(torch.from_numpy(drawn).permute(0, 3, 1, 2), column, row)


def cfld_raster(
    keypoints: Keypoints,
    size: tuple[int, int] = (256, 256),
    sigma: float = 6.0,  # pixels
    thickness: int = 2,  # pixels
    radius: int = 3,  # pixels
) -> torch.Tensor:
    """CFLD's pose input for one pose -> (21, H, W) float32 in [0, 1]; see `cfld_rasters`."""
    return cfld_rasters([keypoints], size, sigma, thickness, radius)[0]


def draw_openpose(
    keypoints: Keypoints, size: tuple[int, int] | None = None, stick_width: int | None = None
) -> np.ndarray:
    """The OpenPose picture that ControlNet users know -> (H, W, 3) uint8, RGB on black, for display.

    size:        (H, W), by default the pose's own canvas.
    stick_width: half width of the limbs and radius of the joints in pixels; by default 4 at 512 pixels of the shorter
                 side, in proportion at other sizes, at least 1.

    Elliptic limbs at 60 % brightness, then round joints. Needs OpenCV.
    """
    cv2 = _opencv()
    size = checked_size(keypoints.canvas if size is None else size, "size")
    if stick_width is None:
        stick_width = max(1, round(4 * min(size) / 512))
    picture = np.zeros((*size, 3), dtype=np.uint8)
    xy = np.clip(keypoints.scaled_to(size).xy, -_FARTHEST, _FARTHEST)
    for (a, b), colour in zip(LIMBS, LIMB_COLOURS, strict=True):
        if keypoints.present[a] and keypoints.present[b]:
            (dx, dy), middle = xy[a] - xy[b], (xy[a] + xy[b]) / 2
            half_axes = (int(math.hypot(dx, dy) / 2), stick_width)
            angle = int(math.degrees(math.atan2(dy, dx)))
            outline = cv2.ellipse2Poly(tuple(middle.astype(int).tolist()), half_axes, angle, 0, 360, 1)
            cv2.fillConvexPoly(picture, outline, colour)
    for (x, y), seen, colour in zip(xy.tolist(), keypoints.present, JOINT_COLOURS, strict=True):
        if seen:
            cv2.circle(picture, (int(x), int(y)), stick_width, colour, -1)
    return picture
