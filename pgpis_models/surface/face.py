"""Faces: the identity embedding of a photo by insightface (the pack's `face` extra), and the crop around a face.

As in MCLD's authors' code: the raw 512 numbers of the largest face, not normalised; zeros where there is no face.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..files.reading import read_numbers
from .densepose import check_picture

LENGTH = 512
MODELS = ("antelopev2", "buffalo_l", "buffalo_s")


@dataclass(frozen=True, eq=False)
class Face:
    """A detected face: embedding (512,) float32, not normalised (norm about 20); box x0, y0, x1, y1 in pixels."""

    embedding: np.ndarray
    box: tuple[float, float, float, float]


def load_app(root: str | Path, name: str = "antelopev2", providers: Sequence[str] = ("CPUExecutionProvider",),
             size: tuple[int, int] = (640, 640)):
    """insightface's detector and recogniser, from root/models/name with .onnx files (the host's models/insightface).

    size: width and height at which faces are looked for. Nothing is downloaded. Raises ValueError naming the package, or
    the folder, that is missing.
    """
    try:
        from insightface.app import FaceAnalysis
    except ImportError:
        raise ValueError("face embeddings need the packages insightface and onnxruntime, which are not installed; run "
                         "`pip install insightface onnxruntime`, or load an embedding from an .npy file") from None
    folder = Path(root) / "models" / name
    if not any(folder.glob("*.onnx")):  # insightface would start a download
        raise ValueError(f"no face model in {folder}; expected the .onnx files of {name} (of {', '.join(MODELS)}). Unpack "
                         f"{name}.zip from insightface's model zoo there, without a folder of its own inside.")
    try:
        app = FaceAnalysis(name=name, root=str(root), providers=list(providers))
    except AssertionError:   # what it raises, without a word, when the detector is missing
        raise ValueError(f"{folder} holds {sorted(path.name for path in folder.glob('*.onnx'))} but no face detector; "
                         f"expected all .onnx files of {name}. Unpack {name}.zip there again") from None
    app.prepare(ctx_id=0, det_size=size)
    return app


def find_faces(app, image: np.ndarray) -> list[Face]:
    """All faces of a photo (H, W, 3) uint8 RGB, the largest box first.

    app: from `load_app` (insightface 0.7 to 2.1), or anything with get(BGR image) -> objects with `bbox` (4,) and
    `embedding` (512,). Raises ValueError when its files find faces but embed none.
    """
    check_picture(image, "the photo")
    found = app.get(np.ascontiguousarray(image[..., ::-1]))  # insightface takes BGR
    if any(face.embedding is None for face in found):   # so it is without a recogniser's file
        raise ValueError("the face model finds faces but has no recogniser, so they have no embedding; expected all .onnx "
                         f"files of one of {', '.join(MODELS)}. Unpack its zip again")
    faces = [Face(check_embedding(face.embedding), tuple(float(c) for c in face.bbox[:4])) for face in found]
    return sorted(faces, key=lambda face: -(face.box[2] - face.box[0]) * (face.box[3] - face.box[1]))


def find_face(app, image: np.ndarray, index: int = 0) -> Face | None:
    """A photo (H, W, 3) uint8 -> the face with this index, 0 the largest; None with a warning when the photo shows no face.

    Raises ValueError when there are faces, but not so many.
    """
    faces = find_faces(app, image)
    if not faces:
        warnings.warn(f"no face found in a photo of {image.shape[1]}x{image.shape[0]} pixels: the method's zero input is "
                      f"used. Crop the photo around the head for one.", stacklevel=2)
        return None
    if not 0 <= index < len(faces):
        raise ValueError(f"face {index} was asked for, but the photo shows {len(faces)}; expected an index from 0 (the "
                         f"largest) to {len(faces) - 1}.")
    return faces[index]


def check_embedding(embedding: np.ndarray, name: str = "the face embedding") -> np.ndarray:
    """512 finite numbers, in any shape that holds no more -> (512,) float32. Raises ValueError otherwise."""
    array = np.asarray(embedding)
    if array.size != LENGTH or array.dtype.kind not in "fiu":
        raise ValueError(f"{name} came as {array.dtype} {array.shape}; expected {LENGTH} numbers. Use an embedding of "
                         f"insightface's antelopev2 or buffalo models, one face per file.")
    array = np.ascontiguousarray(array.reshape(LENGTH), np.float32)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds {int((~np.isfinite(array)).sum())} numbers that are not finite; expected none. Make "
                         f"it again.")
    return array


def load_embedding(path: str | Path) -> np.ndarray:
    """An .npy file with one embedding -> (512,) float32. Raises ValueError naming the file; pickled objects are refused."""
    path = Path(path)
    try:
        array = read_numbers(path, f"{LENGTH} numbers, by numpy.save")
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error}); expected {LENGTH} numbers, by numpy.save.") from error
    return check_embedding(array, str(path))


def expanded_box(box: Sequence[float], factor: float = 1.5) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 of a box enlarged by `factor` about its centre and made square by its longer side, in whole pixels
    (truncated); it may reach out of the picture. Raises ValueError for an empty box."""
    x0, y0, x1, y1 = (float(c) for c in box)
    if not (x1 > x0 and y1 > y0):
        raise ValueError(f"the box is {tuple(box)}; expected x0, y0, x1, y1 with x1 > x0 and y1 > y0.")
    half = max(x1 - x0, y1 - y0) * factor / 2
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    return int(x - half), int(y - half), int(x + half), int(y + half)


def crop(image: np.ndarray, box: Sequence[float], size: int | None = None, factor: float = 1.5) -> np.ndarray:
    """The `expanded_box` of a photo (H, W, 3) uint8 -> (side, side, 3), black outside of the photo.

    size: side in pixels to resize to, bicubic (224 in the authors' demo; their pipeline uses the embedding alone).
    Sides may differ by one pixel where truncation falls so. Resizing needs OpenCV.
    """
    check_picture(image, "the photo")
    x0, y0, x1, y1 = expanded_box(box, factor)
    out = np.zeros((y1 - y0, x1 - x0, 3), np.uint8)
    top, left, bottom, right = max(y0, 0), max(x0, 0), min(y1, image.shape[0]), min(x1, image.shape[1])
    if top < bottom and left < right:
        out[top - y0 : bottom - y0, left - x0 : right - x0] = image[top:bottom, left:right]
    if size is None:
        return out
    import cv2

    return cv2.resize(out, (size, size), interpolation=cv2.INTER_CUBIC)
