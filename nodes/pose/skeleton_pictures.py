"""Poses out of pictures of skeletons."""

from __future__ import annotations

import logging

import comfy.model_management
import comfy.utils
from comfy_api.latest import io

from ...pgpis_models.poses.skeleton_pictures import ORDERS, read_skeletons
from ..inputs import pixels
from ..schema import aliases
from ..types import PoseKeypointType

log = logging.getLogger(__name__)


class ReadSkeleton(io.ComfyNode):
    """IMAGE of OpenPose skeletons -> POSE_KEYPOINT."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PGPISReadSkeleton", display_name="Read Skeleton Picture", category="PGPIS/pose",
            **aliases("openpose to keypoints", "image to pose", "dwpose", "controlnet"),
            description="Reads the joints back out of OpenPose pictures, as ControlNets are given: coloured limbs and "
                        "joints on black, drawn by Draw Pose, OpenPose or DWPose, with lines of any width. For photos of "
                        "people use Extract Pose.",
            inputs=[io.Image.Input("image", tooltip="Skeleton picture(s) on black."),
                    io.Combo.Input("channels", options=list(ORDERS), default=ORDERS[0], tooltip="Order of the colours: auto "
                                   "takes the one in which the limbs make a body. bgr is that of pictures whose red and "
                                   "blue are swapped, such as FPDM's.")],
            outputs=[PoseKeypointType.Output(display_name="pose", tooltip="One frame per picture with all people, in pixels "
                                             "of the picture; joints that were not drawn are missing.")])

    @classmethod
    def execute(cls, image, channels) -> io.NodeOutput:
        pictures = pixels(image, "the IMAGE", ground=0.0)
        bar, frames = comfy.utils.ProgressBar(len(pictures)), []
        for number, picture in enumerate(pictures, start=1):
            comfy.model_management.throw_exception_if_processing_interrupted()
            frames.append(read_skeletons(picture, channels))
            if not frames[-1]["people"]:
                log.warning("picture %d of %d shows no skeleton in OpenPose's colours: its frame is empty", number,
                            len(pictures))
            bar.update(1)
        return io.NodeOutput(frames)


NODES = [ReadSkeleton]
