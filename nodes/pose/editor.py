"""Poses made by hand: the editor that is drawn by web/pose_editor."""

from __future__ import annotations

import json

import numpy as np
import torch
from comfy_api.latest import io, ui
from comfy_execution.graph_utils import ExecutionBlocker

from ...pgpis_models.poses.by_hand import draw_people, edited_frames, finished, one_standing
from ...pgpis_models.poses.formats import NOBODY, from_pose_keypoint, people_seen
from ..inputs import pixels, too_many, watched
from ..schema import aliases
from ..types import PoseKeypointType

BACKGROUNDS = 64            # pictures that are sent to the page, one per frame


class PoseEditor(io.ComfyNode):
    """Text that the page's editor writes -> POSE_KEYPOINT, IMAGE."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PGPISPoseEditor", display_name="Pose Editor (OpenPose)", category="PGPIS/pose", is_output_node=True,
            **aliases("skeleton", "keypoints", "draw pose", "edit joints", "pose studio"),
            description="Poses made or corrected by hand. Drag a joint: limbs keep their lengths, hold Shift to stretch. "
                        "Double click a joint or press H to hide it. Drag a limb or the neck to move the person. Several "
                        "people and frames, mirroring, copies from frame to frame, undo. The pose is kept in the text, so "
                        "it is saved with the workflow.",
            inputs=[io.String.Input("text", multiline=True, default="", socketless=True, tooltip="The edited pose as "
                                    "POSE_KEYPOINT JSON, in pixels of its canvas; the editor writes it. JSON of other "
                                    "editors can be pasted here. Empty: the input pose as it comes, or a standing person."),
                    io.Int.Input("width", default=512, min=16, max=16384, tooltip="Width of the canvas in pixels. Another "
                                 "value fits the pose to the new canvas. Not used by poses and pictures that come in while "
                                 "nothing was edited: they bring their own."),
                    io.Int.Input("height", default=768, min=16, max=16384, tooltip="Height of the canvas in pixels, "
                                 "likewise."),
                    PoseKeypointType.Input("pose", optional=True, tooltip="Pose(s) to edit, such as a detector "
                                           "found. Run the workflow once to see them in the editor. As long as nothing is "
                                           "edited they pass unchanged; after that the edited pose stays, and the button "
                                           "with the arrow takes the input anew."),
                    io.Image.Input("image", optional=True, tooltip="Picture(s) to show dimmed behind the pose, one or one "
                                   "per frame. That of Load Image is there at once, others after a run.")],
            outputs=[PoseKeypointType.Output(display_name="pose", tooltip="The edited pose(s) with all people, one entry "
                                             "per frame, in pixels of its canvas."),
                     io.Image.Output(display_name="image", tooltip="Skeletons of all people on black, one picture per "
                                     "frame, of the first frame's canvas; frames of another canvas are fitted into it.")])

    @classmethod
    def execute(cls, text, width, height, pose=None, image=None) -> io.NodeOutput:
        pictures = None if image is None else pixels(image, "the IMAGE")
        canvas = (height, width) if pictures is None else pictures.shape[1:3]
        given = None if pose is None else _checked(pose)
        if text.strip():
            frames = edited_frames(text, (height, width))
        else:
            frames = one_standing(canvas) if given is None else given
        shown = given if given is not None else frames
        said = {"pgpis_pose": [json.dumps(shown, default=lambda value: value.tolist())]}
        if pictures is not None:
            behind = torch.from_numpy(pictures[:min(len(frames), BACKGROUNDS)]).float() / 255
            said["pgpis_background"] = ui.PreviewImage(behind).values
        return io.NodeOutput(frames, _drawn(frames), ui=said)


def _checked(pose) -> list[dict]:
    """The input's frames, finished. Raises ValueError for other forms."""
    from_pose_keypoint(pose, empty=NOBODY)
    return [finished(frame) for frame in ([pose] if isinstance(pose, dict) else pose)]


def _drawn(frames: list[dict]):
    """IMAGE of all frames; blocked, with words, where that would be too large to hold."""
    height, width = int(frames[0]["canvas_height"]), int(frames[0]["canvas_width"])
    if said := too_many(len(frames), (height, width)):
        return ExecutionBlocker(f"{said}. Use the pose output, and draw some of its frames or a smaller size with Draw Pose")
    drawn = np.stack([draw_people(people_seen(frame), (height, width)) for frame in watched(frames)])
    return torch.from_numpy(drawn).float() / 255


NODES = [PoseEditor]
