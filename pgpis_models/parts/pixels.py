"""Pictures as networks read them: the one resize of photos, and means and deviations that published networks want taken off.

Means and deviations are per channel of RGB in 0..1.
"""

from __future__ import annotations

import numpy as np

from ..poses.keypoints import checked_size

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


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


def cropped(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8 -> (*size, 3): the shorter side `resized` to that of `size`, the rest cut off evenly. As CLIP's
    processor, which truncates the longer side. Raises ValueError where the picture is too narrow for a size that is not
    square."""
    height, width = picture.shape[:2]
    edge = min(size)
    longer = int(edge * max(height, width) / min(height, width))
    picture = resized(picture, (edge, longer) if height <= width else (longer, edge))
    top, left = ((have - want) // 2 for have, want in zip(picture.shape[:2], size, strict=True))
    if top < 0 or left < 0:
        raise ValueError(f"a crop of {size} does not fit a picture resized to {picture.shape[:2]}; expected a square size")
    return picture[top:top + size[0], left:left + size[1]]
