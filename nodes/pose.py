"""Nodes that give poses: from files, from pictures, and back to pictures."""

from __future__ import annotations

from pathlib import Path

import comfy.model_management
import comfy.model_patcher
import comfy.utils
import folder_paths
import numpy as np
import torch
from comfy_api.latest import io

from ..pgpis_models.poses.detection import detector_sized, joints_of
from ..pgpis_models.poses.drawing import draw_openpose
from ..pgpis_models.poses.editing import edit
from ..pgpis_models.poses.files import KINDS, POSE_SUFFIXES, checked, load_poses, parse_poses
from ..pgpis_models.poses.formats import MIN_CONFIDENCE, NOBODY, confident, from_pose_keypoint
from .embedding import PERSON_TOOLTIP, person_choice
from .inputs import rgb
from .schema import ADVANCED, aliases
from .types import PoseKeypointType

FROM_TEXT = "(the text below)"
DETECTOR_FILE = "body_pose_model.pth"


def _pose_files() -> list[str]:
    folder = Path(folder_paths.get_input_directory())
    return sorted(path.name for path in folder.iterdir() if path.suffix.lower() in POSE_SUFFIXES) \
        if folder.is_dir() else []


def _input_file(name: str) -> Path:
    """A file of the listing, so that no other path can be read through the widget."""
    if name not in _pose_files():
        raise ValueError(f"no pose file {name!r} in {folder_paths.get_input_directory()}; expected one of "
                         f"{_pose_files()[:10]}. Put the file into ComfyUI's input folder and press R")
    return Path(folder_paths.get_input_directory()) / name


def poses_from_text(text: str, canvas: tuple[int, int] | None) -> list[dict]:
    """POSE_KEYPOINT frames from text of any kind that `parse_poses` reads.

    canvas: (H, W), for frames that do not say their own; None when it is not known. Raises ValueError when the text is none
    of them.
    """
    if not text.strip():
        raise ValueError(f"the pose text is empty; expected {KINDS}. Paste one, or choose a file")
    return parse_poses(text, canvas)


class LoadPose(io.ComfyNode):
    """A pose file or pose text of any known kind -> POSE_KEYPOINT."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PGPISLoadPose", display_name="Load Pose (OpenPose JSON)", category="PGPIS/pose",
            **aliases("keypoints", "skeleton", "deepfashion", "whole body", "coco", "pose_keypoint"),
            description="Reads poses from a file in the input folder, or from text. JSON: OpenPose's own, or a saved "
                        "POSE_KEYPOINT. Text: 18 lines 'x y' (FPDM), rows 'name: [18 y]: [18 x]' of a DeepFashion "
                        "annotation file, or 133 whole-body points. .npy: frames of 133 whole-body points, as for sign "
                        "language (PHOENIX); hands and face are kept.",
            inputs=[io.Combo.Input("file", options=[FROM_TEXT, *_pose_files()], default=FROM_TEXT,
                                   tooltip="A .json, .txt, .csv or .npy file in ComfyUI's input folder, or the text "
                                   "below."),
                    io.String.Input("text", multiline=True, default="", tooltip="Used when no file is chosen: pose JSON, 18 "
                                    "lines 'x y', or annotation rows, one person per line."),
                    io.Int.Input("canvas_width", default=0, min=0, max=16384, tooltip="Width in pixels that the coordinates "
                                 "refer to, where the pose does not say it: OpenPose's own JSON and 133 points do not. 0: "
                                 "not given."),
                    io.Int.Input("canvas_height", default=0, min=0, max=16384, tooltip="Height in pixels, likewise. 0: not "
                                 "given."),
                    io.Float.Input("min_confidence", **ADVANCED, default=MIN_CONFIDENCE, min=0.0, max=1.0, step=0.01,
                                   optional=True,
                                   tooltip="Joints that their file gives less confidence count as missing. Lower it for "
                                   "faint detections; 0 takes all that were found.")],
            outputs=[PoseKeypointType.Output(display_name="pose", tooltip="One frame per pose, in pixels of its canvas.")])

    @classmethod
    def fingerprint_inputs(cls, file: str, text: str, canvas_width: int, canvas_height: int,
                           min_confidence: float = MIN_CONFIDENCE) -> tuple:
        changed = None if file in (None, FROM_TEXT) else _input_file(file).stat().st_mtime_ns
        return file, changed, text, canvas_width, canvas_height, min_confidence

    @classmethod
    def execute(cls, file, text, canvas_width, canvas_height, min_confidence=MIN_CONFIDENCE) -> io.NodeOutput:
        if bool(canvas_width) != bool(canvas_height):
            raise ValueError(f"canvas_width is {canvas_width} and canvas_height {canvas_height}; expected both, or 0 for "
                             "both")
        canvas = (canvas_height, canvas_width) if canvas_width else None
        frames = poses_from_text(text, canvas) if file == FROM_TEXT else load_poses(_input_file(file), canvas)
        return io.NodeOutput(confident(checked(frames, min_confidence), min_confidence))


class DrawPose(io.ComfyNode):
    """POSE_KEYPOINT -> IMAGE."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PGPISDrawPose", display_name="Draw Pose (OpenPose Skeleton)", category="PGPIS/pose",
            **aliases("keypoints", "render pose", "controlnet", "pose_keypoint"),
            description="Draws poses as the OpenPose picture that ControlNets know.",
            inputs=[PoseKeypointType.Input("pose", tooltip="Pose(s) to draw, one picture per frame."),
                    io.Int.Input("width", default=0, min=0, max=16384, tooltip="Width of the picture in pixels; 0 takes the "
                                 "pose's own canvas."),
                    io.Int.Input("height", default=0, min=0, max=16384, tooltip="Height of the picture in pixels; 0 takes "
                                 "the pose's own canvas."),
                    io.Int.Input("person", default=-1, min=-1, max=99, tooltip=PERSON_TOOLTIP)],
            outputs=[io.Image.Output(display_name="image", tooltip="Skeletons on black, one per frame; a frame "
                                     "without a person is black.")])

    @classmethod
    def execute(cls, pose, width, height, person) -> io.NodeOutput:
        poses = from_pose_keypoint(pose, person_choice(person), empty=NOBODY)
        sizes = {(height or one.canvas[0], width or one.canvas[1]) for one in poses}
        if len(sizes) > 1:
            raise ValueError(f"frames have canvases of {sorted(sizes)} (height, width), which make no batch; expected one "
                             "size. Set width and height")
        size = sizes.pop()
        drawn = np.stack([draw_openpose(one, size) for one in poses])
        return io.NodeOutput(torch.from_numpy(drawn).float() / 255)


class EditPose(io.ComfyNode):
    """POSE_KEYPOINT -> POSE_KEYPOINT."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PGPISEditPose", display_name="Edit Pose (Retarget, Mirror)", category="PGPIS/pose",
            **aliases("skeleton", "openpose", "limb lengths", "flip", "scale", "body proportions"),
            description="Fits a pose to a person and a picture: another person's limb lengths, mirroring, size and place, "
                        "in this order. Hands and faces are left out; empty frames of a sequence stay empty.",
            inputs=[PoseKeypointType.Input("pose", tooltip="Pose(s) to edit, one person per frame."),
                    io.Boolean.Input("mirror", default=False, tooltip="Flip left to right: the left arm becomes the right "
                                     "one."),
                    io.Float.Input("scale", default=1.0, min=0.05, max=20.0, step=0.01,
                                   tooltip="Size of the person as a factor, about the middle of the skeleton."),
                    io.Float.Input("shift_right", default=0.0, min=-2.0, max=2.0, step=0.01,
                                   tooltip="To the right, as a share of the canvas's width; negative to the left."),
                    io.Float.Input("shift_down", default=0.0, min=-2.0, max=2.0, step=0.01,
                                   tooltip="Down, as a share of the canvas's height; negative up."),
                    io.Int.Input("person", default=-1, min=-1, max=99, tooltip=PERSON_TOOLTIP),
                    PoseKeypointType.Input("retarget_to", optional=True, tooltip="Pose(s) of the person whose limb lengths "
                                           "the edited pose takes, usually the source photo's. Not connected: the lengths "
                                           "stay.")],
            outputs=[PoseKeypointType.Output(display_name="pose", tooltip="The edited pose(s) on the same canvas.")])

    @classmethod
    def execute(cls, pose, mirror, scale, shift_right, shift_down, person, retarget_to=None) -> io.NodeOutput:
        return io.NodeOutput(edit(pose, mirror, scale, (shift_right, shift_down), person_choice(person), retarget_to))


class ExtractPose(io.ComfyNode):
    """IMAGE -> POSE_KEYPOINT, IMAGE with controlnet_aux's OpenPose, where that package is installed."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PGPISExtractPose", display_name="Extract Pose (OpenPose)", category="PGPIS/pose",
            **aliases("skeleton", "keypoints", "dwpose", "detect person", "pose estimation"),
            description="Finds the people's joints in pictures with OpenPose. Needs the Python package controlnet-aux and "
                        f"its file {DETECTOR_FILE} in models/pgpis. Other nodes that give POSE_KEYPOINT (the host's SDPose, "
                        "DWPose of comfyui_controlnet_aux) do as well.",
            inputs=[io.Image.Input("image", tooltip="Picture(s) of people.")],
            outputs=[PoseKeypointType.Output(display_name="pose", tooltip="One frame per picture, with all people found."),
                     io.Image.Output(display_name="image", tooltip="Skeleton of the largest person, on black; black where "
                                     "nobody is seen.")])

    @classmethod
    def execute(cls, image) -> io.NodeOutput:
        pictures = (rgb(image, "the IMAGE").movedim(1, -1) * 255).round().byte().cpu().numpy()
        detector = _detector()
        bar = comfy.utils.ProgressBar(len(pictures))
        frames = []
        for picture in pictures:
            comfy.model_management.throw_exception_if_processing_interrupted()
            frames.append(frame_of(detector.detect_poses(detector_sized(picture)), picture.shape[:2]))
            bar.update(1)
        drawn = np.stack([draw_openpose(one) for one in from_pose_keypoint(frames, empty=NOBODY)])
        return io.NodeOutput(frames, torch.from_numpy(drawn).float() / 255)


def frame_of(people: list, size: tuple[int, int]) -> dict:
    """controlnet_aux's results for one picture of (H, W) pixels -> a POSE_KEYPOINT frame in pixels."""
    height, width = size
    joints = [joints_of(person, size).ravel().tolist() for person in people]
    return {"people": [{"pose_keypoints_2d": flat} for flat in joints], "canvas_height": height, "canvas_width": width}


def _detector():
    try:
        from controlnet_aux.open_pose import OpenposeDetector
        from controlnet_aux.open_pose.body import Body
    except ImportError as error:
        raise ImportError(
            f"Extract Pose needs the Python package controlnet-aux, which cannot be imported ({error}). Install it with: "
            "python -m pip install controlnet-aux. Without it, connect another node that gives POSE_KEYPOINT: the host's "
            "SDPose Keypoint Extractor, DWPose Estimator of comfyui_controlnet_aux, or Load Pose") from error
    path = folder_paths.get_full_path("pgpis", DETECTOR_FILE)
    if path is None:
        raise FileNotFoundError(f"no file {DETECTOR_FILE} in {', '.join(folder_paths.get_folder_paths('pgpis'))}. Download "
                                "it from huggingface.co/lllyasviel/Annotators (199 MB) and put it there")
    body = Body(path)
    patcher = comfy.model_patcher.ModelPatcher(body.model, comfy.model_management.get_torch_device(),
                                               comfy.model_management.unet_offload_device())
    comfy.model_management.load_models_gpu([patcher], force_full_load=True)
    return OpenposeDetector(body)


NODES = [LoadPose, DrawPose, EditPose, ExtractPose]
