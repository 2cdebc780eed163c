"""Pose detection in photos by rtmlib (RTMPose and RTMW of OpenMMLab on onnxruntime), with hands and face.

rtmlib fetches the networks that it is given by address; here it is only ever given files, so that nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from .wholebody import POINTS, wholebody_to_pose_keypoint

PAGE = "download.openmmlab.com/mmpose/v1/projects"
# What finds people and what finds their joints: name of the published archive, its place on PAGE, the network's input in
# pixels (width, height). The first of each that is there is taken.
PEOPLE = (("yolox_m_8xb8-300e_humanart-c2c7a14a", "rtmposev1/onnx_sdk", (640, 640)),
          ("yolox_x_8xb8-300e_humanart-a39d44ed", "rtmposev1/onnx_sdk", (640, 640)),
          ("yolox_tiny_8xb8-300e_humanart-6f3252f9", "rtmposev1/onnx_sdk", (416, 416)))
JOINTS = (("rtmw-dw-x-l_simcc-cocktail14_270e-384x288_20231122", "rtmw/onnx_sdk", (288, 384)),
          ("rtmw-dw-x-l_simcc-cocktail14_270e-256x192_20231122", "rtmw/onnx_sdk", (192, 256)),
          ("rtmw-dw-l-m_simcc-cocktail14_270e-256x192_20231122", "rtmw/onnx_sdk", (192, 256)))


def file_names() -> list[str]:
    """The files that any of the networks may be in, the first of each kind first."""
    return [f"{name}.onnx" for kind in (PEOPLE, JOINTS) for name, _, _ in kind]


def load_detector(files: Iterable[Path], folder: str, device: str = "cpu"):
    """rtmlib's `Wholebody` on two of these files, known by their names; device "cpu" or "cuda".

    folder: where they belong, for the error. Raises ValueError that names the package and the command, or each file that is
    missing with its page.
    """
    by_name = {path.stem: path for path in files if path.is_file()}   # rtmlib takes what is no file for an address
    chosen = [next(((by_name[name], size) for name, _, size in kind if name in by_name), None) for kind in (PEOPLE, JOINTS)]
    if None in chosen:
        lacking = [f"{kind[0][0]}.onnx (the file end2end.onnx in {PAGE}/{kind[0][1]}/{kind[0][0]}.zip, renamed)"
                   for kind, one in zip((PEOPLE, JOINTS), chosen, strict=True) if one is None]
        raise ValueError(f"rtmlib needs {' and '.join(lacking)} in {folder}; nothing is downloaded by itself. Download "
                         f"{'it' if len(lacking) == 1 else 'them'} and put {'it' if len(lacking) == 1 else 'them'} there")
    try:
        from rtmlib import Wholebody
    except ImportError as error:
        raise ValueError(f"the detector rtmlib cannot be imported ({error}); run `pip install rtmlib onnxruntime`, or "
                         "choose another detector") from error
    (people, people_size), (joints, joints_size) = chosen
    return Wholebody(det=str(people), det_input_size=people_size, pose=str(joints), pose_input_size=joints_size,
                     to_openpose=False, backend="onnxruntime", device=device)


def frame_by_rtm(detector, image: np.ndarray) -> dict:
    """Everybody in a photo (H, W, 3) uint8 RGB -> one POSE_KEYPOINT frame in pixels, with hands and face.

    detector: of `load_detector`, or anything with det_model(BGR) -> boxes (N, 4) and pose_model(BGR, bboxes) -> points
    (N, 133, 2) in pixels and scores (N, 133). Raises ValueError when it gives another form.
    """
    size, turned = image.shape[:2], np.ascontiguousarray(image[..., ::-1])   # it was made for what OpenCV reads
    boxes = np.asarray(detector.det_model(turned))
    people: list[dict] = []
    if len(boxes):   # without boxes rtmlib takes the whole photo for a person
        points, scores = (np.asarray(each, np.float64) for each in detector.pose_model(turned, bboxes=boxes))
        if points.shape != (len(boxes), POINTS, 2) or scores.shape != points.shape[:2]:
            raise ValueError(f"rtmlib gave points of shape {points.shape} and scores of shape {scores.shape} for "
                             f"{len(boxes)} people; expected {(len(boxes), POINTS, 2)} and {(len(boxes), POINTS)}. Use a "
                             "whole-body network")
        frames = wholebody_to_pose_keypoint(points, size, np.clip(scores, 0, 1))
        people = [person for frame in frames for person in frame["people"]]
    return {"people": people, "canvas_height": size[0], "canvas_width": size[1]}
