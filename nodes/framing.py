"""Nodes that take a person out of a photo of any size, framed as a method was trained, and put the result back."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from comfy_api.latest import io, ui
from comfy_execution.graph_utils import ExecutionBlocker
from torch import Tensor

from ..pgpis_models.framing.boxes import Frame, layout_of
from ..pgpis_models.framing.fitting import PADDINGS, Fitted, NobodyTold, fit_person, people_in_photo
from ..pgpis_models.framing.pasting import FEATHER, pasted
from ..pgpis_models.framing.proportions import PROPORTIONS
from ..pgpis_models.poses.files import on_canvas
from ..pgpis_models.poses.formats import from_pose_keypoint, to_pose_keypoint
from ..pgpis_models.poses.keypoints import Keypoints
from .embedding import DEMO, draws_hands, limits_of, person_choice
from .inputs import checked_densepose, checked_views, matching, pixels, rgb, watched
from .notice import notice
from .schema import ADVANCED, aliases
from .types import DenseposeType, FrameType, Method, MethodType, PoseKeypointType


class FitPerson(io.ComfyNode):
    """A photo of any size, and where the person is in it -> everything in the frame that the method was trained with."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PGPISFitPerson", display_name="Fit Person (Crop)", category="PGPIS/image",
            **aliases("frame", "pad", "align", "retarget", "pose transfer"),
            description="Frames the person of a photo of any size and shape as the checkpoint was trained: cropped and "
                        "padded, never squashed. Where the person is say pose, densepose or mask; without them a person "
                        "before a plain ground is found. Target poses from other photos are brought to the person's size "
                        "and place by the body. Paste Back puts the result into the photo again.",
            inputs=[MethodType.Input("method", tooltip="From Load PGPIS Checkpoint: size and framing are its own."),
                    io.Image.Input("image", tooltip="Photo(s) of the person, of any size and shape."),
                    PoseKeypointType.Input("pose", optional=True, tooltip="The pose found in this photo, one frame per "
                                           "photo."),
                    DenseposeType.Input("densepose", optional=True, tooltip="DensePose of the person in this photo."),
                    io.Mask.Input("mask", optional=True, tooltip="White where the person is, of the photo's size."),
                    PoseKeypointType.Input("target_pose", optional=True, tooltip="Pose(s) that the person is to take, from "
                                           "any photo or canvas. Several with one photo share one frame."),
                    DenseposeType.Input("target_densepose", optional=True, tooltip="The same as DensePose, for MCLD."),
                    io.Int.Input("person", default=-1, min=-1, max=99, optional=True, tooltip="Which person of the photo, "
                                 "counted from 0 in the order of its pose, or in a mask from left to right; -1 takes the "
                                 "largest."),
                    io.Combo.Input("padding", **ADVANCED, options=list(PADDINGS), default=PADDINGS[0], optional=True,
                                   tooltip="What "
                                   "lies beyond the photo repeats its border, or is the colour of its ground."),
                    io.Boolean.Input("movement", **ADVANCED, default=False, optional=True,
                                     tooltip="The target poses are frames of one "
                                     "movement: all are brought in as the first one is, so that jumps stay jumps; one that "
                                     "shows nobody takes the pose before it."),
                    io.Combo.Input("proportions", **ADVANCED, options=list(PROPORTIONS), default=PROPORTIONS[0],
                                   optional=True, tooltip="Lengths of the target pose's limbs: of the person, as far as "
                                   "the photo's pose shows them, or as given. What the photo does not show, such as the "
                                   "legs of a portrait, keeps the pose's own.")],
            outputs=[io.Image.Output(display_name="image", tooltip="The framed photo(s)."),
                     PoseKeypointType.Output(display_name="pose", tooltip="The photo's pose in the frame."),
                     DenseposeType.Output(display_name="densepose", tooltip="The photo's DensePose in the frame."),
                     io.Mask.Output(display_name="mask", tooltip="The person in the frame, from mask, densepose or the "
                                    "plain ground."),
                     PoseKeypointType.Output(display_name="target_pose", tooltip="The target pose(s) in the frame."),
                     DenseposeType.Output(display_name="target_densepose", tooltip="The target DensePose in the frame."),
                     FrameType.Output(display_name="frame", tooltip="For Paste Back."),
                     io.String.Output(display_name="info", tooltip="Which person, and which part of the photo.")])

    @classmethod
    def execute(cls, method, image, pose=None, densepose=None, mask=None, target_pose=None, target_densepose=None, person=-1,
                padding=PADDINGS[0], movement=False, proportions=PROPORTIONS[0]) -> io.NodeOutput:
        photos = pixels(image, "the IMAGE")
        empty = "hold" if movement else "error"   # a frame of a movement without the person takes the pose before it
        targets = None if target_pose is None else on_canvas(
            from_pose_keypoint(target_pose, empty=empty, whole=draws_hands(method)), empty)
        iuvs = None if target_densepose is None else checked_densepose(target_densepose)
        fits = fitted(photos, method, pose=pose, densepose=densepose, mask=mask,
                      targets=targets, target_denseposes=iuvs, person=person, padding=padding, together=movement,
                      proportions=proportions)
        info = "\n".join(fit.said for fit in fits)
        made = [target for fit in fits for target in fit.targets]
        if said := limits_of(method, made, source_poses=[fit.pose for fit in fits] if pose is not None else ()):
            notice("\n".join(said))
        return io.NodeOutput(
            torch.from_numpy(np.stack([fit.photo for fit in fits])).float() / 255,
            _or_blocked(to_pose_keypoint([fit.pose for fit in fits]) if pose is not None else None, "pose", "pose"),
            _or_blocked(tuple(fit.densepose for fit in fits) if densepose is not None else None, "densepose", "densepose"),
            _or_blocked(_masks(fits), "mask", "mask or densepose"),
            _or_blocked(to_pose_keypoint(made) if made else None, "target_pose", "target_pose"),
            _or_blocked(tuple(iuv for fit in fits for iuv in fit.target_denseposes) or None, "target_densepose",
                        "target_densepose"),
            tuple(fit.frame for fit in fits), info, ui=ui.PreviewText(info))


def fitted(photos: np.ndarray, method: Method, *, pose=None, densepose=None, mask: Tensor | None = None,
           targets: list[Keypoints] | None = None, target_denseposes=None, person: int = -1, padding: str = PADDINGS[0],
           together: bool = False, proportions: str = PROPORTIONS[0]) -> list[Fitted]:
    """`fit_person` for what users connect: photos (B, H, W, 3) uint8, POSE_KEYPOINT, DENSEPOSE and MASK of these photos, and
    targets. One photo with many targets is one fit that holds them all; else one fit per picture of the batch.

    Raises ValueError as `fit_person` does, and when numbers do not match. Where nothing says where the person is, it says
    first whom a checkpoint of the demo knows.
    """
    layout, people = layout_of(method.checkpoint.method.config), None
    if pose is not None:
        people = [people_in_photo(frame, what=f"the pose of photo {number}")
                  for number, frame in enumerate(_frames(pose), start=1)]
    iuvs = None if densepose is None else checked_densepose(densepose)
    masks = None if mask is None else _checked_mask(mask)
    given = {"poses of the photos": people, "DENSEPOSE of the photos": iuvs, "masks of the photos": masks}
    own = matching(**{"photos": len(photos), **{name: len(value) for name, value in given.items() if value is not None}})
    wanted = {"target poses": targets, "target DENSEPOSE": target_denseposes}
    wanted = {name: list(value) for name, value in wanted.items() if value is not None}
    count = matching(**{"photos": own, **{name: len(value) for name, value in wanted.items()}})
    shared = own == 1   # all targets in one frame

    def of(values, index: int):
        return None if values is None else values[index if len(values) > 1 else 0]

    def goals(name: str, index: int) -> list:
        values = wanted.get(name, [])
        return values if shared or not values else [of(values, index)]
    try:
        return [fit_person(of(photos, index), layout, people=of(people, index), densepose=of(iuvs, index),
                           mask=of(masks, index), targets=goals("target poses", index),
                           target_denseposes=goals("target DENSEPOSE", index), person=person_choice(person),
                           padding=padding, together=together, proportions=proportions)
                for index in watched(range(1 if shared else count))]
    except NobodyTold as error:
        if method.checkpoint.meta.base != DEMO:
            raise
        raise ValueError(f"{method.name} knows drawn people alone, before a plain ground; for a photo choose a preset or "
                         f"weights that were trained on photos. For another drawing: {error}") from error


def framed_inputs(method: Method, image, *, pose=None, densepose=None, source_pose=None, source_densepose=None,
                  source_mask=None, person: int = -1, source_person: int = -1, proportions: str = PROPORTIONS[0],
                  together: bool = False) -> tuple[dict[str, Any], tuple[Frame, ...], str]:
    """What a node for whole transfers is given, in the method's frame: (the same inputs by name, those that were connected;
    PGPIS_FRAME; what was done, in words).

    image, source_pose, source_densepose, source_mask: of the person's photo(s), of any size. pose, densepose: the targets,
    on canvases of their own. person: which of each frame of `pose`; source_person: which of the photo. together:
    the photos show one person, whose targets are brought to the place in the first of them; the frame is that one's. Raises
    ValueError as `fitted` does.
    """
    targets = None if pose is None else on_canvas(
        from_pose_keypoint(pose, person_choice(person), whole=draws_hands(method)))
    iuvs = None if densepose is None else checked_densepose(densepose)
    photos, goals = pixels(image, "the IMAGE"), {"targets": targets, "target_denseposes": iuvs}
    own = {"pose": source_pose, "densepose": source_densepose, "mask": source_mask}
    groups = [(photos, own)]
    if together:
        groups = [(photos[number:number + 1], alone) for number, alone in enumerate(_each(len(photos), own))]
    fits = [fit for number, (some, described) in enumerate(groups) for fit in fitted(
        some, method, **described, person=source_person, proportions=proportions, **({} if number else goals))]
    made: dict[str, Any] = {"image": torch.from_numpy(np.stack([fit.photo for fit in fits])).float() / 255}
    if targets is not None:
        made["pose"] = to_pose_keypoint([target for fit in fits for target in fit.targets])
    if iuvs is not None:
        made["densepose"] = tuple(iuv for fit in fits for iuv in fit.target_denseposes)
    if source_densepose is not None:
        made["source_densepose"] = tuple(fit.densepose for fit in fits)
    frames = tuple(fit.frame for fit in fits)
    return made, frames[:1] if together else frames, "\n".join(fit.said for fit in fits)


def _each(count: int, own: dict[str, Any]) -> list[dict[str, Any]]:
    """What is connected of N photos, by name, for each of them alone. Raises ValueError for other numbers of it."""
    taken = {"pose": _frames, "densepose": checked_densepose, "mask": lambda mask: torch.from_numpy(_checked_mask(mask))}
    there = {name: taken[name](value) for name, value in own.items() if value is not None}
    for name, value in there.items():
        checked_views(count, value, {"pose": "poses of theirs", "densepose": "DENSEPOSE of theirs"}.get(name, "masks"))
    return [{name: value[number:number + 1] for name, value in there.items()} for number in range(count)]


class PasteBack(io.ComfyNode):
    """Result + PGPIS_FRAME + original photo -> the photo with the result in its place."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PGPISPasteBack", display_name="Paste Back (Person)", category="PGPIS/image",
            **aliases("photo", "uncrop", "stitch", "composite", "pose transfer"),
            description="Puts what was made in a frame of Fit Person or Pose Transfer back into the photo, at the photo's "
                        "resolution: faded in at the frame's edge, in the photo's colours. Outside the frame the photo "
                        "stays equal bit for bit.",
            inputs=[io.Image.Input("image", tooltip="The decoded result(s), of any size of the frame's shape."),
                    FrameType.Input("frame", tooltip="From Fit Person or Pose Transfer."),
                    io.Image.Input("original", tooltip="The photo(s) that were framed."),
                    io.Int.Input("feather", default=FEATHER, min=0, max=1024, tooltip="Pixels of the photo over which the "
                                 "result fades in from the frame's edge; at most as many as are free beside the person."),
                    io.Boolean.Input("match_colours", default=True, tooltip="Take off what the result differs by in colour "
                                     "from the photo along the seam."),
                    io.Mask.Input("mask", optional=True, tooltip="Mask(s) in the frame, outside of which the photo stays "
                                  "too.")],
            outputs=[io.Image.Output(display_name="image", tooltip="The photo with the person made anew.")])

    @classmethod
    def execute(cls, image, frame, original, feather=FEATHER, match_colours=True, mask=None) -> io.NodeOutput:
        frames = checked_frames(frame)
        made = rgb(image, "the IMAGE")
        kept = rgb(original, "the original IMAGE") if original.shape[-1] != 3 else original.movedim(-1, 1)
        rgb(original, "the original IMAGE")   # its range alone; it is not clamped, so that it stays equal bit for bit
        masks = None if mask is None else _checked_mask(mask)
        count = matching(results=len(made), frames=len(frames), originals=len(kept),
                         masks=1 if masks is None else len(masks))

        def of(values, index: int):
            return values[index if len(values) > 1 else 0]
        pictures = [pasted(of(made, n).cpu(), of(frames, n), of(kept, n).cpu(), feather=feather, match=match_colours,
                           mask=None if masks is None else torch.from_numpy(of(masks, n))) for n in watched(range(count))]
        return io.NodeOutput(torch.stack(pictures).movedim(1, -1).contiguous())


def checked_frames(frame) -> tuple[Frame, ...]:
    """PGPIS_FRAME as the nodes of this pack give it. Raises ValueError for anything else."""
    if not isinstance(frame, tuple) or not frame or not all(isinstance(one, Frame) for one in frame):
        raise ValueError(f"the PGPIS_FRAME is {type(frame).__name__}; expected that of Fit Person or Pose Transfer")
    return frame


def _frames(pose) -> list:
    from_pose_keypoint(pose, empty="nobody")   # what is no POSE_KEYPOINT at all says so here
    return [pose] if isinstance(pose, dict) else list(pose)


def _checked_mask(mask) -> np.ndarray:
    """MASK (B, H, W) or (H, W) -> (B, H, W) float32."""
    values = mask[None] if isinstance(mask, Tensor) and mask.ndim == 2 else mask
    if not isinstance(values, Tensor) or values.ndim != 3 or 0 in values.shape:
        came = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        raise ValueError(f"the MASK is {came}; expected (batch, height, width). Connect a MASK output")
    return values.float().cpu().numpy()


def _masks(fits: list[Fitted]) -> Tensor | None:
    if any(fit.mask is None for fit in fits):
        return None
    return torch.from_numpy(np.stack([fit.mask for fit in fits])).float()


def _or_blocked(value, output: str, needed: str):
    """The value, or what tells whoever needs it that it was never given."""
    if value is not None:
        return value
    return ExecutionBlocker(f"Fit Person's output {output} is empty, since nothing is connected to its {needed}; connect "
                            "it")


NODES = [FitPerson, PasteBack]
