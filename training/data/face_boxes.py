"""Where a face is, by OpenCV's single shot detector: the one that MCLD's paper names (section 4)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

SIDE, MEAN, SURE = 300, (104.0, 177.0, 123.0), 0.5   # pixels, BGR and confidence of OpenCV's own sample of it

Box = tuple[float, float, float, float]   # x0, y0, x1, y1 in pixels


def single_shot(weights: Path, layers: Path) -> Callable[[np.ndarray], Box | None]:
    """A function of a photo (H, W, 3) uint8 RGB to its largest face's box, None where it finds none.

    weights, layers: res10_300x300_ssd_iter_140000.caffemodel and deploy.prototxt of OpenCV's samples/dnn/face_detector.
    Raises ValueError where OpenCV reads no such files: 5.0 and later have no reader of Caffe's.
    """
    import cv2

    if not hasattr(cv2.dnn, "readNetFromCaffe"):
        raise ValueError(f"OpenCV {cv2.__version__} does not read Caffe's files; expected OpenCV 4, in an environment of "
                         'its own: pip install "opencv-python-headless<5"')
    try:
        network = cv2.dnn.readNetFromCaffe(str(layers), str(weights))
    except cv2.error as error:
        raise ValueError(f"{weights} and {layers} are no Caffe network ({error}); expected a .caffemodel and its "
                         ".prototxt") from error

    def find(photo: np.ndarray) -> Box | None:
        height, width = photo.shape[:2]
        network.setInput(cv2.dnn.blobFromImage(np.ascontiguousarray(photo[..., ::-1]), 1.0, (SIDE, SIDE), MEAN))
        found = network.forward()[0, 0]   # (N, 7): picture, class, confidence, then the box in shares of the picture
        boxes = found[found[:, 2] > SURE, 3:] * (width, height, width, height)
        sizes = (boxes[:, 2:] - boxes[:, :2]).clip(0).prod(1)
        return tuple(map(float, boxes[sizes.argmax()])) if sizes.any() else None
    return find
