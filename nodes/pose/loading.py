"""Nodes that give poses: from files, from pictures, and back to pictures."""

from __future__ import annotations

from pathlib import Path

import folder_paths
import numpy as np
import torch
from comfy_api.latest import io

from ...pgpis_models.poses.drawing import draw_openpose
from ...pgpis_models.poses.editing import edit
from ...pgpis_models.poses.files import KINDS, POSE_SUFFIXES, checked, load_poses, parse_poses
from ...pgpis_models.poses.formats import MIN_CONFIDENCE, NOBODY, confident, from_pose_keypoint
from ...pgpis_models.poses.full_lists import with_full_lists
from ..embedding import PERSON_TOOLTIP, person_choice
from ..inputs import too_many, watched
from ..schema import ADVANCED, aliases
from ..types import PoseKeypointType

FROM_TEXT = "(the text below)"
SAVED = "[output]"   # how the host marks names of files in its output folder


def _pose_files() -> dict[str, Path]:
    """Pose files of the input folder and, marked as the host marks them, of the output folder, with their sub-folders."""
    found = {}
    for root, kinds, mark in ((folder_paths.get_input_directory(), POSE_SUFFIXES, ""),
                              (folder_paths.get_output_directory(), (".json",), f" {SAVED}")):
        names = folder_paths.recursive_search(root, excluded_dir_names=[".git"])[0]
        found |= {f"{Path(name).as_posix()}{mark}": Path(root) / name for name in sorted(names)
                  if Path(name).suffix.lower() in kinds and (Path(root) / name).is_file()}   # no links that lead nowhere
    return found


def _pose_file(name: str) -> Path:
    """A file of the listing, so that no other path can be read through the widget."""
    files = _pose_files()
    if name not in files:
        raise ValueError(f"no pose file {name!r} in {folder_paths.get_input_directory()} or, with {SAVED} behind the name, "
                         f"in {folder_paths.get_output_directory()}; expected {_listed(list(files))}. Upload it with "
                         "the node's button, or put it into ComfyUI's input folder and press R")
    return files[name]


def _listed(names: list[str]) -> str:
    """Pose files in words, ten at most."""
    return f"one of {', '.join(names[:10])}" if names else "a pose file, and there is none yet"


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
            node_id="PGPISLoadPose", display_name="Load Pose (OpenPose)", category="PGPIS/pose",
            **aliases("keypoints", "skeleton", "deepfashion", "whole body", "coco", "pose_keypoint"),
            description="Reads poses from a file in the input or output folder, or from text. JSON: OpenPose's own, or a "
                        "saved POSE_KEYPOINT. Text: 18 lines 'x y' (FPDM), rows 'name: [18 y]: [18 x]' of a DeepFashion "
                        "annotation file, or 133 whole-body points. .npy: frames of 133 whole-body points, as for sign "
                        "language (PHOENIX); hands and face are kept.",
            inputs=[io.Combo.Input("file", options=[FROM_TEXT, *_pose_files()], default=FROM_TEXT,
                                   tooltip="A .json, .txt, .csv or .npy file in ComfyUI's input folder or a .json "
                                   f"file in its output folder ({SAVED}), sub-folders included; or the text below. The "
                                   "button uploads one."),
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
    def validate_inputs(cls, file: str | None) -> bool | str:
        """Here, so that a file that is gone gets a sentence; None where a link gives the name."""
        try:
            return file in (None, FROM_TEXT) or bool(_pose_file(file))
        except ValueError as error:
            return str(error)

    @classmethod
    def fingerprint_inputs(cls, file: str, text: str, canvas_width: int, canvas_height: int,
                           min_confidence: float = MIN_CONFIDENCE) -> tuple:
        changed = None if file in (None, FROM_TEXT) else _pose_file(file).stat().st_mtime_ns
        return file, changed, text, canvas_width, canvas_height, min_confidence

    @classmethod
    def execute(cls, file, text, canvas_width, canvas_height, min_confidence=MIN_CONFIDENCE) -> io.NodeOutput:
        if bool(canvas_width) != bool(canvas_height):
            raise ValueError(f"canvas_width is {canvas_width} and canvas_height {canvas_height}; expected both, or 0 for "
                             "both")
        canvas = (canvas_height, canvas_width) if canvas_width else None
        frames = poses_from_text(text, canvas) if file == FROM_TEXT else load_poses(_pose_file(file), canvas)
        return io.NodeOutput(with_full_lists(confident(checked(frames, min_confidence), min_confidence)))


class DrawPose(io.ComfyNode):
    """POSE_KEYPOINT -> IMAGE."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PGPISDrawPose", display_name="Draw Pose (Skeleton)", category="PGPIS/pose",
            **aliases("openpose", "keypoints", "render pose", "controlnet", "pose_keypoint"),
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
        if said := too_many(len(poses), size):
            raise ValueError(f"{said}. Set width and height to less, or draw the frames in pieces")
        drawn = np.stack([draw_openpose(one, size) for one in watched(poses)])
        return io.NodeOutput(torch.from_numpy(drawn).float() / 255)


class EditPose(io.ComfyNode):
    """POSE_KEYPOINT -> POSE_KEYPOINT."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PGPISEditPose", display_name="Edit Pose (Retarget)", category="PGPIS/pose",
            **aliases("mirror", "skeleton", "openpose", "limb lengths", "flip", "scale", "body proportions"),
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


NODES = [LoadPose, DrawPose, EditPose]
