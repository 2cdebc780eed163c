"""Extract Pose: joints of the people in pictures, by detectors that are installed apart."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import comfy.model_management
import comfy.model_patcher
import comfy.utils
import folder_paths
import numpy as np
import torch
from comfy_api.latest import io

from ...pgpis_models.poses.detection import DETECTORS, detector_sized, joints_of
from ...pgpis_models.poses.drawing import draw_openpose
from ...pgpis_models.poses.formats import NOBODY, from_pose_keypoint
from ...pgpis_models.poses.full_lists import with_full_lists
from ...pgpis_models.poses.rtm import file_names, frame_by_rtm, load_detector
from ..inputs import rgb
from ..schema import aliases
from ..types import PoseKeypointType

FOLDER = "pgpis"
DETECTOR_FILE = "body_pose_model.pth"


class ExtractPose(io.ComfyNode):
    """IMAGE -> POSE_KEYPOINT, IMAGE with controlnet_aux's OpenPose or with rtmlib, where that package is installed."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PGPISExtractPose", display_name="Extract Pose (OpenPose)", category="PGPIS/pose",
            **aliases("skeleton", "keypoints", "dwpose", "rtmpose", "detect person", "pose estimation"),
            description="Finds the people's joints in pictures. Needs the Python package controlnet-aux and its file "
                        f"{DETECTOR_FILE} in models/pgpis, or the package rtmlib (RTMPose, with hands and face) and its two "
                        "networks there; nothing is downloaded by itself. Other nodes that give POSE_KEYPOINT (the host's "
                        "SDPose, DWPose of comfyui_controlnet_aux) do as well.",
            inputs=[io.Image.Input("image", tooltip="Picture(s) of people."),
                    io.Combo.Input("detector", options=list(DETECTORS), default=DETECTORS[0], optional=True,
                                   tooltip="controlnet-aux: OpenPose's body. rtmlib: RTMPose's body, hands and face, on "
                                   "onnxruntime.")],
            outputs=[PoseKeypointType.Output(display_name="pose", tooltip="One frame per picture, with all people found."),
                     io.Image.Output(display_name="image", tooltip="Skeleton of the largest person, on black; black where "
                                     "nobody is seen.")])

    @classmethod
    def execute(cls, image, detector=DETECTORS[0]) -> io.NodeOutput:
        pictures = (rgb(image, "the IMAGE").movedim(1, -1) * 255).round().byte().cpu().numpy()
        found = _openpose() if detector == DETECTORS[0] else _rtm()
        bar = comfy.utils.ProgressBar(len(pictures))
        frames = []
        for picture in pictures:
            comfy.model_management.throw_exception_if_processing_interrupted()
            frames.append(found(picture))
            bar.update(1)
        drawn = np.stack([draw_openpose(one) for one in from_pose_keypoint(frames, empty=NOBODY)])
        return io.NodeOutput(with_full_lists(frames), torch.from_numpy(drawn).float() / 255)


def frame_of(people: list, size: tuple[int, int]) -> dict:
    """controlnet_aux's results for one picture of (H, W) pixels -> a POSE_KEYPOINT frame in pixels."""
    height, width = size
    joints = [joints_of(person, size).ravel().tolist() for person in people]
    return {"people": [{"pose_keypoints_2d": flat} for flat in joints], "canvas_height": height, "canvas_width": width}


def _openpose() -> Callable[[np.ndarray], dict]:
    """Picture (H, W, 3) uint8 -> POSE_KEYPOINT frame, by controlnet_aux's OpenPose on the host's device."""
    try:
        from controlnet_aux.open_pose import OpenposeDetector
        from controlnet_aux.open_pose.body import Body
    except ImportError as error:
        raise ImportError(
            f"Extract Pose needs the Python package controlnet-aux, which cannot be imported ({error}). Install it with: "
            f"python -m pip install controlnet-aux. Without it, set detector to {DETECTORS[1]}, or connect another node "
            "that gives POSE_KEYPOINT: the host's SDPose Keypoint Extractor, DWPose Estimator of comfyui_controlnet_aux, or "
            "Load Pose") from error
    path = folder_paths.get_full_path(FOLDER, DETECTOR_FILE)
    if path is None:
        raise FileNotFoundError(f"no file {DETECTOR_FILE} in {', '.join(folder_paths.get_folder_paths(FOLDER))}. Download "
                                "it from huggingface.co/lllyasviel/Annotators (199 MB) and put it there")
    body = Body(path)
    patcher = comfy.model_patcher.ModelPatcher(body.model, comfy.model_management.get_torch_device(),
                                               comfy.model_management.unet_offload_device())
    comfy.model_management.load_models_gpu([patcher], force_full_load=True)
    detector = OpenposeDetector(body)
    return lambda picture: frame_of(detector.detect_poses(detector_sized(picture)), picture.shape[:2])


def _rtm() -> Callable[[np.ndarray], dict]:
    """The same by rtmlib."""
    paths = [folder_paths.get_full_path(FOLDER, name) for name in file_names()]
    detector = _loaded_rtm(tuple(path for path in paths if path))
    return lambda picture: frame_by_rtm(detector, picture)


@lru_cache(maxsize=1)
def _loaded_rtm(paths: tuple[str, ...]):
    """onnxruntime keeps its networks apart from the host's memory, so they stay loaded."""
    return load_detector([Path(path) for path in paths], ", ".join(folder_paths.get_folder_paths(FOLDER)), _device())


def _device() -> str:
    """"cuda" where the host computes there and onnxruntime can, else "cpu"."""
    if comfy.model_management.get_torch_device().type != "cuda":
        return "cpu"
    try:
        from onnxruntime import get_available_providers
    except ImportError:   # rtmlib says so with what to do
        return "cpu"
    return "cuda" if "CUDAExecutionProvider" in get_available_providers() else "cpu"


NODES = [ExtractPose]
