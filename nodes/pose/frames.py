"""Frames of poses: one person followed, trembling and gaps taken out, and poses between key poses."""

from __future__ import annotations

import logging

from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from ...pgpis_models.body.between import tweened
from ...pgpis_models.body.frames import figure_of
from ...pgpis_models.poses.formats import MIN_CONFIDENCE, NOBODY, from_pose_keypoint, to_pose_keypoint
from ...pgpis_models.poses.smoothing import filled, smoothed
from ...pgpis_models.poses.tracking import follow, followed
from ...pgpis_models.poses.tween import EASINGS
from ..embedding import PERSON_TOOLTIP, person_choice
from ..notice import notice
from ..schema import aliases
from ..types import PoseKeypointType
from .mannequin import drawn_outputs, figure_outputs

FRAMES_AT_MOST = 4096
FOLLOW_TOOLTIP = ("Whom to follow: the number among the people of the first frame that has it, from 0; -1 the largest "
                  "there.")


def as_frames(pose) -> list:
    """POSE_KEYPOINT as a list of frames."""
    return [pose] if isinstance(pose, dict) else pose


def followed_frames(pose, person: int) -> tuple[list[dict], int]:
    """POSE_KEYPOINT of a movement with the person of the `person` widget alone, as of `tracking.followed`, and what the
    widget then is; what following came to is shown at the node."""
    frames = as_frames(pose)
    from_pose_keypoint(frames, empty=NOBODY)   # the form
    frames, track = followed(frames, person_choice(person))
    if track is None:
        return frames, person
    notice(track.report(), logging.WARNING if track.unsure else logging.INFO)
    return frames, -1


class FollowPerson(io.ComfyNode):
    """POSE_KEYPOINT of several people -> that of one."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PGPISFollowPerson", display_name="Follow Person", category="PGPIS/pose",
            **aliases("track", "tracking", "video", "openpose", "person"),
            description="Follows one person through the frames of a video with several: by place, speed and size, rather "
                        "than by the number or the size that each frame gives, which jump from one to another. Says in "
                        "which frames it is not sure. Hands and face stay.",
            inputs=[PoseKeypointType.Input("pose", tooltip="Frames of a video, in order, with all people."),
                    io.Int.Input("person", default=-1, min=-1, max=99, tooltip=FOLLOW_TOOLTIP),
                    io.Float.Input("min_confidence", default=MIN_CONFIDENCE, min=0.0, max=1.0, step=0.01, optional=True,
                                   tooltip="Joints that were found with less confidence do not count.")],
            outputs=[PoseKeypointType.Output(display_name="pose", tooltip="The same number of frames with this person "
                                             "alone; those where it is not seen have nobody (Smooth Poses fills them)."),
                     io.String.Output(display_name="report", tooltip="How many frames show the person, and where it is not "
                                      "sure that it is the same.")])

    @classmethod
    def execute(cls, pose, person, min_confidence=MIN_CONFIDENCE) -> io.NodeOutput:
        frames = as_frames(pose)
        from_pose_keypoint(frames, empty=NOBODY)   # the form
        track = follow(frames, person_choice(person), min_confidence)
        made = [frame | {"people": [] if index is None else [frame["people"][index]]}
                for frame, index in zip(frames, track.chosen, strict=True)]
        said = track.report()
        notice(said, logging.WARNING if track.unsure else logging.INFO)
        return io.NodeOutput(made, said)


class SmoothPoses(io.ComfyNode):
    """POSE_KEYPOINT frames of one person without trembling and gaps."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PGPISSmoothPoses", display_name="Smooth Poses", category="PGPIS/pose",
            **aliases("filter", "jitter", "one euro", "video", "fill gaps", "openpose"),
            description="Takes the trembling out of found poses (One-Euro filter, forwards and backwards: motion stays "
                        "where it is, starts and stops by less than one frame) and fills short gaps. Hands and faces are "
                        "left out. Take Follow Person first where frames show several people.",
            inputs=[PoseKeypointType.Input("pose", tooltip="Frames of one person, in order, on one canvas."),
                    io.Float.Input("strength", default=0.5, min=0.0, max=1.0, step=0.05, tooltip="0 leaves places as they "
                                   "are, 1 smooths most."),
                    io.Int.Input("gap", default=6, min=0, max=FRAMES_AT_MOST, tooltip="Joints that are missing for up to as "
                                 "many frames are put between those before and after; 0 fills none."),
                    io.Int.Input("person", default=-1, min=-1, max=99, optional=True, tooltip=FOLLOW_TOOLTIP)],
            outputs=[PoseKeypointType.Output(display_name="pose", tooltip="The same number of frames.")])

    @classmethod
    def execute(cls, pose, strength, gap, person=-1) -> io.NodeOutput:
        frames, person = followed_frames(pose, person)
        poses = from_pose_keypoint(frames, person_choice(person), empty=NOBODY)
        if len({one.canvas for one in poses}) > 1:
            raise ValueError(f"frames have canvases of {sorted({one.canvas for one in poses})} (height, width); expected "
                             "one size. Detect them on pictures of one size")
        whole, count = filled(poses, gap)
        if count:
            notice(f"{count} missing joints were filled over {len(poses)} frames.", logging.INFO)
        return io.NodeOutput(to_pose_keypoint(smoothed(whole, strength)))


class PoseTween(io.ComfyNode):
    """Key poses -> frames between them."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PGPISPoseTween", display_name="Pose Tween", category="PGPIS/pose",
            **aliases("interpolate", "animate", "in between", "keyframes", "video", "openpose"),
            description="Makes the frames between key poses. Poses of Pose Mannequin and Pose Library move in 3D, camera "
                        "included, and give DensePose; others in the picture, limb by limb, where their lengths stay.",
            inputs=[PoseKeypointType.Input("first", tooltip="Key pose(s); all frames of all inputs are keys, in order."),
                    PoseKeypointType.Input("second", optional=True, tooltip="More key pose(s), on the same canvas."),
                    PoseKeypointType.Input("third", optional=True, tooltip="More key pose(s), on the same canvas."),
                    PoseKeypointType.Input("fourth", optional=True, tooltip="More key pose(s), on the same canvas."),
                    io.Int.Input("frames", default=7, min=0, max=FRAMES_AT_MOST, tooltip="New frames between each two keys; "
                                 "the keys themselves stay as they are."),
                    io.Combo.Input("easing", options=list(EASINGS), default="ease in and out", tooltip="How time runs "
                                   "between two keys."),
                    io.Boolean.Input("loop", default=False, tooltip="Also from the last key to the first, for a film that "
                                     "repeats."),
                    io.Int.Input("person", default=-1, min=-1, max=99, optional=True, tooltip=PERSON_TOOLTIP)],
            outputs=figure_outputs())

    @classmethod
    def execute(cls, first, frames, easing, loop, second=None, third=None, fourth=None, person=-1) -> io.NodeOutput:
        keys = [frame for pose in (first, second, third, fourth) if pose is not None for frame in as_frames(pose)]
        poses = from_pose_keypoint(keys, person_choice(person))
        if len(poses) < 2:
            raise ValueError("one key pose came; expected two or more, in one input or in several")
        if len(poses) * (frames + 1) > FRAMES_AT_MOST:
            raise ValueError(f"{len(poses)} keys with {frames} frames between make {len(poses) * (frames + 1)}; expected "
                             f"{FRAMES_AT_MOST} at most. Make fewer between, or the sequence in pieces")
        sizes = {pose.canvas for pose in poses}
        if len(sizes) > 1:
            raise ValueError(f"the key poses have canvases of {sorted(sizes)} (height, width); expected one size. Draw or "
                             "load them at the same")
        figures = [figure_of(frame, f"key {number}") for number, frame in enumerate(keys, start=1)]
        if None not in figures:
            made, *pictures = drawn_outputs(tweened(figures, frames, easing, loop), sizes.pop())
            made[::frames + 1] = keys   # as they came, to the last digit
            return io.NodeOutput(made, *pictures)
        blocked = (ExecutionBlocker(f"the frames between poses without a body have no {what}; take key poses of Pose "
                                    "Mannequin or Pose Library") for what in ("DensePose", "picture", "mask", "depth"))
        return io.NodeOutput(to_pose_keypoint(tweened(poses, frames, easing, loop)), *blocked)


NODES = [FollowPerson, SmoothPoses, PoseTween]
