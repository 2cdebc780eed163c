"""Nodes of QEN: its embedding, the pose mask of its attention, and what learnable queries look at."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch
from comfy_api.latest import io

from ..pgpis_models.parts.query_maps import KINDS, chosen_queries, over, query_maps
from ..pgpis_models.poses.drawing import draw_openpose
from ..pgpis_models.poses.formats import NOBODY, from_pose_keypoint
from ..pgpis_models.poses.keypoints import Keypoints
from ..pgpis_models.poses.region import skeleton_region
from ..pgpis_models.qen.model import QEN
from .binding.span import check_span
from .embedding import (
    EACH,
    PERSON_TOOLTIP,
    encoded_pairs,
    one_person,
    person_choice,
    photos_inputs,
    views_of,
    warn_of_limits,
)
from .inputs import as_image, resized, rgb, too_many, watched
from .notice import notice
from .schema import ADVANCED, aliases
from .types import Cond, CondType, Method, MethodType, PoseKeypointType

INSIDE = 0.5        # of a mask, from which a pixel is inside of the region
NEARLY_ALL = 0.95   # share of a picture inside the region at which a drawing on a light ground is likely

log = logging.getLogger(__name__)


def mask_tensor(mask: Any, what: str) -> torch.Tensor:
    """MASK (B, H, W) or (H, W) -> (B, 1, H, W). Raises ValueError for anything else."""
    if not isinstance(mask, torch.Tensor) or mask.ndim not in (2, 3) or 0 in mask.shape:
        found = tuple(mask.shape) if isinstance(mask, torch.Tensor) else type(mask).__name__
        raise ValueError(f"{what} is {found}; expected a MASK (batch, height, width). Connect a MASK output, such as "
                         "that of Pose Mask")
    return mask.reshape(-1, 1, *mask.shape[-2:]).float()


class QueryEmbedding(io.ComfyNode):
    """QEN: source IMAGE and target POSE_KEYPOINT -> PGPIS_COND."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PGPISQueryEmbedding", display_name="QEN Query Embedding", category="PGPIS/conditioning",
            **aliases("pose transfer", "person", "controlnet", "encode"),
            description="Encodes a source person and a target pose with a QEN checkpoint. The pose enters through the "
                        "checkpoint's own ControlNet, whose attention to local queries is masked to the pose's region. "
                        "One source with many poses, many sources with one pose, or equal numbers of both make a batch.",
            inputs=[MethodType.Input("method", tooltip="A QEN checkpoint from Load PGPIS Checkpoint."),
                    io.Image.Input("source", tooltip="Photo(s) of the person. Resized to the checkpoint's own size without "
                                   "keeping the aspect ratio, as in training; transparent parts become white "
                                   "where the IMAGE has alpha (Load Image drops it)."),
                    PoseKeypointType.Input("pose", tooltip="Target pose(s), one frame per picture, from Load Pose, Extract "
                                           "Pose or any node that gives POSE_KEYPOINT."),
                    io.Int.Input("person", default=-1, min=-1, max=99, tooltip=PERSON_TOOLTIP),
                    io.Float.Input("strength", default=1.0, min=0.0, max=10.0, step=0.01,
                                   tooltip="Strength of the pose's ControlNet."),
                    io.Float.Input("start_percent", **ADVANCED, default=0.0, min=0.0, max=1.0, step=0.001,
                                   tooltip="Share of the sampling from which the pose's ControlNet runs."),
                    io.Float.Input("end_percent", **ADVANCED, default=1.0, min=0.0, max=1.0, step=0.001,
                                   tooltip="Share of the sampling up to which the pose's ControlNet runs."),
                    io.Mask.Input("mask", optional=True, tooltip="Region(s) in which patches see the local queries, of any "
                                  "size, in place of the pose's own. An all black one masks nothing."), *photos_inputs()],
            outputs=[CondType.Output(display_name="cond", tooltip="For Apply PGPIS or PGPIS Guider."),
                     io.Mask.Output(display_name="mask", tooltip="The region to which the attention is masked, one per pose "
                                    "or MASK, at the size of the pictures; white everywhere where nobody is seen, and with "
                                    "a checkpoint that masks nothing.")])

    @classmethod
    def execute(cls, method, source, pose, person, strength, start_percent, end_percent, mask=None, photos=EACH,
                source_pose=None) -> io.NodeOutput:
        module = method.checkpoint.method
        if not isinstance(module, QEN):
            raise ValueError(f"the checkpoint is {method.name}; QEN Query Embedding expects one of method qen. Load another "
                             "file, or use the embedding node of that method")
        check_span(start_percent, end_percent)
        poses = from_pose_keypoint(pose, person_choice(person), empty=NOBODY)   # who is not there has no region
        views = views_of(source_pose)
        weights = one_person(photos, source, poses, views)
        warn_of_limits(method, poses, photos, source, views)
        cond = query_cond(method, source, poses, mask, strength, start_percent, end_percent, weights)
        seen = cond.encoded.region[:, 0].float()
        return io.NodeOutput(cond, torch.ones_like(seen) if module.config.mask == "none" else seen)


def query_cond(method: Method, source: torch.Tensor, poses: list[Keypoints], mask: torch.Tensor | None, strength: float,
               start: float = 0.0, end: float = 1.0, weights: torch.Tensor | None = None) -> Cond:
    """Source IMAGE, poses and, if there is one, a MASK through QEN; strength, start and end of its control branch; weights
    of photos of one person."""
    region = None if mask is None else mask_tensor(mask, "the MASK")
    if region is not None and method.checkpoint.method.config.mask == "none":
        notice(f"{method.name} was trained without a mask (mask: none), so the MASK changes nothing.")
    elif region is not None and not bool((region > INSIDE).flatten(1).any(1).all()):
        black = [number for number, one in enumerate(region, start=1) if not bool((one > INSIDE).any())]
        notice(f"MASK {', '.join(map(str, black))} of {len(region)} is all black, which masks nothing: the person is looked "
               "for everywhere. Leave the mask out for the pose's own region, or invert it.")
    return encoded_pairs(method, source, poses, region, weights, strength=strength, start=start, end=end)


class PoseMask(io.ComfyNode):
    """POSE_KEYPOINT or a skeleton IMAGE -> MASK."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PGPISPoseMask", display_name="Pose Mask (Skeleton)", category="PGPIS/pose",
            **aliases("openpose", "person mask", "body mask"),
            description="The dilated region of a pose: the skeleton is drawn, blurred, and cut at a threshold (QEN section "
                        "3.2). Connect a pose, or a picture of skeletons on black. What QEN itself masks is the output "
                        "mask of QEN Query Embedding.",
            inputs=[io.Int.Input("width", default=0, min=0, max=16384, tooltip="Width of the mask in pixels; 0 takes that "
                                 "of the pose's canvas or the picture."),
                    io.Int.Input("height", default=0, min=0, max=16384, tooltip="Height of the mask in pixels; 0 takes that "
                                 "of the pose's canvas or the picture."),
                    io.Float.Input("blur", default=8.0, min=0.0, max=256.0, step=0.5,
                                   tooltip="Standard deviation of the blur in pixels of a picture 512 high; a larger one "
                                   "widens the region. 0 takes the skeleton."),
                    io.Float.Input("threshold", default=0.004, min=0.0001, max=0.99, step=0.0001, round=0.0001,
                                   tooltip="Share of the blurred peak at which the region ends; QEN's own is 1/255."),
                    io.Int.Input("person", default=-1, min=-1, max=99, tooltip=PERSON_TOOLTIP),
                    PoseKeypointType.Input("pose", optional=True, tooltip="Pose(s), one mask per frame."),
                    io.Image.Input("image", optional=True, tooltip="Skeleton picture(s) on black, when no pose is "
                                   "connected.")],
            outputs=[io.Mask.Output(display_name="mask", tooltip="White inside the region, for QEN Query Embedding or "
                                    "Masked Sampler.")])

    @classmethod
    def execute(cls, width, height, blur, threshold, person, pose=None, image=None) -> io.NodeOutput:
        if (pose is None) == (image is None):
            raise ValueError(f"Pose Mask has {'both a pose and an image' if pose is not None else 'nothing'} connected; "
                             "expected one of them. Connect the one or the other")
        if pose is None:
            drawn = rgb(image, "the skeleton IMAGE", ground=0.0)
            size = (height or drawn.shape[-2], width or drawn.shape[-1])
        else:
            poses = from_pose_keypoint(pose, person_choice(person), empty=NOBODY)
            sizes = {(height or one.canvas[0], width or one.canvas[1]) for one in poses}
            if len(sizes) > 1:
                raise ValueError(f"frames have canvases of {sorted(sizes)} (height, width), which make no batch; expected "
                                 "one size. Set width and height")
            size = sizes.pop()
            if said := too_many(len(poses), size):
                raise ValueError(f"{said}. Set width and height to less, or take the frames in pieces")
            drawn = torch.from_numpy(np.stack([draw_openpose(one, size) for one in watched(poses)])).movedim(-1, 1)
        # one by one: what a blur takes beside its picture is many times as large
        region = torch.cat([skeleton_region(one[None], size, blur, threshold)[:, 0] for one in watched(drawn)])
        if pose is None and float(region.mean()) > NEARLY_ALL:
            log.warning("Pose Mask: %.0f %% of the skeleton picture lies inside the region, so next to nothing is masked. "
                        "Expected skeletons on black.", 100 * float(region.mean()))
        return io.NodeOutput(region)


class AttentionMaps(io.ComfyNode):
    """What chosen queries of a QEN or CFLD checkpoint look at in a source."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PGPISAttentionMaps", display_name="Query Attention Maps", category="PGPIS/tools",
            **aliases("heatmap", "qen", "cfld", "explain"),
            description="Shows what learnable queries look at, as a picture over the source: QEN's local queries, its "
                        "global ones (through the local ones that they read), or the queries of CFLD's decoder.",
            inputs=[MethodType.Input("method", tooltip="A QEN or CFLD checkpoint from Load PGPIS Checkpoint."),
                    io.Image.Input("source", tooltip="Photo(s) of the person, resized to the checkpoint's own size."),
                    io.Combo.Input("kind", options=list(KINDS), default="local", tooltip="Which queries; CFLD's count as "
                                   "local."),
                    io.String.Input("queries", default="0-3", tooltip="Their numbers from 0, such as 0-3, 7; empty "
                                    "for all."),
                    io.Int.Input("block", **ADVANCED, default=-1, min=-1, max=99,
                                 tooltip="Which block of the transformer, from 0; -1 "
                                 "is the last.")],
            outputs=[io.Image.Output(display_name="image", tooltip="One picture per query, source after source.")])

    @classmethod
    def execute(cls, method, source, kind, queries, block) -> io.NodeOutput:
        module = method.checkpoint.method
        if not hasattr(module, "query_maps"):
            raise ValueError(f"the checkpoint is {method.name}; Query Attention Maps expects one of method qen or cfld. "
                             "Load another file")
        picture = resized(rgb(source, "the source IMAGE"), module.config.image_size)
        device = method.load()
        with torch.no_grad():
            maps = query_maps(module, (picture * 2 - 1).to(device), kind).cpu()
        if block >= maps.shape[1]:
            raise ValueError(f"block is {block}; {method.name} has {maps.shape[1]}. Choose 0 to {maps.shape[1] - 1}, or -1")
        return io.NodeOutput(as_image(over(picture, maps[:, block, chosen_queries(queries, maps.shape[2])])))


NODES = [QueryEmbedding, PoseMask, AttentionMaps]
