"""Pose Mannequin: a body that is posed by hand in the node, as joints, DensePose, picture, mask and depth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import comfy.model_management
import comfy.utils
import numpy as np
import torch
from comfy_api.latest import io

from ...pgpis_models.body.camera import walked_around
from ...pgpis_models.body.frames import Figure, depth_pictures, to_frames
from ...pgpis_models.body.measured import Proportions, of_person
from ...pgpis_models.body.state import from_text
from ...pgpis_models.poses.formats import from_pose_keypoint
from ..embedding import PERSON_TOOLTIP, person_choice
from ..inputs import too_many
from ..schema import aliases
from ..types import DenseposeType, PoseKeypointType

CHANNELS = 10   # of a picture with its truth: colours, depth as IMAGE, mask, part, U and V
STATE_TOOLTIP = ("The posed body as JSON, which the node's canvas writes: whole body, torso, head, arms, legs and camera. "
                 "It travels in the workflow; empty is a body that stands.")


def figure_outputs() -> list:
    """Outputs of a node that draws bodies."""
    return [PoseKeypointType.Output(display_name="pose", tooltip="The 18 joints, one frame per picture, in pixels. It "
                                    "remembers the body, so that Pose Tween can move it in 3D."),
            DenseposeType.Output(display_name="densepose", tooltip="Part, U and V of every pixel, exact; what other parts "
                                 "hide is left out. One per picture."),
            io.Image.Output(display_name="image", tooltip="The body in plain clay, (B, height, width, 3)."),
            io.Mask.Output(display_name="mask", tooltip="White where the body is, (B, height, width), soft at the edges."),
            io.Image.Output(display_name="depth", tooltip="Near is white, far dark grey, off the body black; one range for "
                            "all pictures of the batch.")]


def drawn_outputs(figures: Sequence[Figure], size: tuple[int, int]) -> tuple:
    """Values of `figure_outputs` of bodies on a canvas of (H, W) pixels. Raises ValueError for more than can be held."""
    if said := too_many(len(figures), size, CHANNELS):
        raise ValueError(f"{said}. Make fewer or smaller ones")
    bar, drawn = comfy.utils.ProgressBar(len(figures)), []
    for figure in figures:
        comfy.model_management.throw_exception_if_processing_interrupted()
        drawn.append(figure.draw(size))
        bar.update(1)
    depth = torch.from_numpy(depth_pictures(drawn))
    return (to_frames(figures, drawn), tuple(one.iuv for one in drawn),
            *(torch.from_numpy(np.stack([getattr(one, name) for one in drawn])) for name in ("image", "mask")),
            depth[..., None].expand(-1, -1, -1, 3).contiguous())


def size_inputs() -> list:
    """Widgets for the size of a drawn picture."""
    return [io.Int.Input("width", default=352, min=64, max=4096, step=8, tooltip="Width of the pictures in pixels."),
            io.Int.Input("height", default=512, min=64, max=4096, step=8, tooltip="Height of the pictures in pixels.")]


def built(proportions: Proportions, stature: float, shoulders: float, hips: float, arms: float, legs: float) -> Proportions:
    """Proportions times the factors of a node's sliders."""
    build, lengths = proportions.build, proportions.lengths
    return Proportions(
        replace(build, height=build.height * stature, shoulders=build.shoulders * shoulders, hips=build.hips * hips),
        replace(lengths, upper_arm=lengths.upper_arm * arms, lower_arm=lengths.lower_arm * arms,
                thigh=lengths.thigh * legs, shank=lengths.shank * legs))


def _slider(name: str, what: str) -> io.Float.Input:
    return io.Float.Input(name, default=1.0, min=0.5, max=1.6, step=0.01, display_mode=io.NumberDisplay.slider,
                          tooltip=f"{what}, as a factor on the average body's, or on those of as_person.")


class PoseMannequin(io.ComfyNode):
    """A posed body -> POSE_KEYPOINT, DENSEPOSE, IMAGE, MASK, depth IMAGE and its own text."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PGPISPoseMannequin", display_name="Pose Mannequin (3D)", category="PGPIS/pose",
            **aliases("person", "openpose", "skeleton", "3d pose", "pose editor", "depth", "densepose"),
            description="A body to pose by hand: drag a joint to move it, drag beside the body to walk around it, turn the "
                        "wheel to zoom. Gives the pose as joints, and as exact DensePose, which MCLD takes, without any "
                        "detector. U and V are those of this body's own charts, on which the demo's MCLD was trained.",
            inputs=[io.String.Input("state", default="", multiline=False, tooltip=STATE_TOOLTIP),
                    *size_inputs(),
                    _slider("stature", "Length of torso and limbs against the head"),
                    _slider("shoulders", "Breadth of the shoulders"), _slider("hips", "Breadth of the hips"),
                    _slider("arms", "Length of the arms"), _slider("legs", "Length of the legs"),
                    io.Int.Input("views", default=1, min=1, max=360, tooltip="Pictures at equal angles all around the body, "
                                 "starting from the camera's own; 1 is that one alone."),
                    PoseKeypointType.Input("as_person", optional=True, tooltip="The pose found in a photo: the body takes "
                                           "this person's proportions, as far as the photo shows them."),
                    io.Int.Input("person", default=-1, min=-1, max=99, optional=True, tooltip=PERSON_TOOLTIP)],
            outputs=[*figure_outputs(), io.String.Output(display_name="state", tooltip="The text of the posed body.")])

    @classmethod
    def execute(cls, state, width, height, stature, shoulders, hips, arms, legs, views, as_person=None,
                person=-1) -> io.NodeOutput:
        posed = from_text(state, "the mannequin's state")
        proportions = Proportions() if as_person is None else of_person(
            from_pose_keypoint(as_person, person_choice(person), empty="hold"))
        proportions = built(proportions, stature, shoulders, hips, arms, legs)
        figures = [Figure(replace(posed, camera=camera), proportions) for camera in walked_around(posed.camera, views)]
        return io.NodeOutput(*drawn_outputs(figures, (height, width)), posed.to_text())


NODES = [PoseMannequin]
