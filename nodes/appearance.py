"""Nodes that make PGPIS_COND: what a method sees of the source person and the target pose."""

from __future__ import annotations

from dataclasses import replace

import torch
from comfy_api.latest import io

from ..pgpis_models.cfld.model import CFLD
from ..pgpis_models.fpdm.model import FPDM
from .embedding import EACH, PERSON_TOOLTIP, encoded_pairs, one_person, photos_inputs, shown_poses, views_of, warn_of_limits
from .notice import notice
from .schema import aliases
from .types import CondType, MethodType, PoseKeypointType, on_cpu


class AppearanceEmbedding(io.ComfyNode):
    """CFLD: source IMAGE and target POSE_KEYPOINT -> PGPIS_COND."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PGPISAppearanceEmbedding", display_name="CFLD Appearance Embedding", category="PGPIS/conditioning",
            **aliases("pose transfer", "person", "encode"),
            description="Encodes a source person and a target pose with a CFLD checkpoint. One source with many poses, many "
                        "sources with one pose, or equal numbers of both make a batch.",
            inputs=[MethodType.Input("method", tooltip="A CFLD checkpoint from Load PGPIS Checkpoint."),
                    io.Image.Input("source", tooltip="Photo(s) of the person. Resized to the checkpoint's own size without "
                                   "keeping the aspect ratio, as in training; transparent parts become white "
                                   "where the IMAGE has alpha (Load Image drops it)."),
                    PoseKeypointType.Input("pose", tooltip="Target pose(s), one frame per picture, from Load Pose, Extract "
                                           "Pose or any node that gives POSE_KEYPOINT."),
                    io.Int.Input("person", default=-1, min=-1, max=99, tooltip=PERSON_TOOLTIP), *photos_inputs()],
            outputs=[CondType.Output(display_name="cond", tooltip="For Apply PGPIS, PGPIS Guider or Blend Appearance.")])

    @classmethod
    def execute(cls, method, source, pose, person, photos=EACH, source_pose=None) -> io.NodeOutput:
        module = method.checkpoint.method
        if not isinstance(module, CFLD):
            raise ValueError(f"the checkpoint is {method.name}; CFLD Appearance Embedding expects one of method cfld. Load "
                             "another file, or use the embedding node of that method")
        poses, views = shown_poses(pose, person), views_of(source_pose)
        weights = one_person(photos, source, poses, views)
        warn_of_limits(method, poses, photos, source, views)
        return io.NodeOutput(encoded_pairs(method, source, poses, weights=weights))


class BlendAppearance(io.ComfyNode):
    """Two PGPIS_COND and a weight, or a row of weights -> PGPIS_COND."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PGPISBlendAppearance", display_name="Blend Appearance", category="PGPIS/conditioning",
            **aliases("two people", "person", "interpolate", "mix", "style"),
            description="Mixes the appearance of two people: CFLD's coarse prompt and all query biases (style "
                        "interpolation, section 4.6 of its paper), QEN's query tokens, MCLD's tokens and reference "
                        "features, each linearly; FPDM's source tokens linearly and its fusion embedding along the circle. "
                        "The pose stays that of the first; with FPDM give both the same pose. With steps, a row from the "
                        "first person to the second in one batch.",
            inputs=[CondType.Input("first", tooltip="The person at weight 0; its pose is used."),
                    CondType.Input("second", tooltip="The person at weight 1; must come from the same checkpoint."),
                    io.Float.Input("weight", default=0.5, min=0.0, max=1.0, step=0.01,
                                   tooltip="0 gives the first person, 1 the second. Not used with more than one step."),
                    io.Int.Input("steps", default=1, min=1, max=64, optional=True, tooltip="Pictures per pair of people: 1 "
                                 "at the weight; more in equal steps from the first person to the second, both with them. "
                                 "With several poses the row of each pose stands together.")],
            outputs=[CondType.Output(display_name="cond", tooltip="The mixed appearance, in the first one's pose.")])

    @classmethod
    def execute(cls, first, second, weight, steps=1) -> io.NodeOutput:
        if first.method.checkpoint is not second.method.checkpoint:
            raise ValueError(f"one appearance is of {first.method.name}, the other of {second.method.name}; expected both "
                             "of one checkpoint: connect one Load PGPIS Checkpoint to both embeddings")
        module = first.method.checkpoint.method
        if not hasattr(module, "blended"):
            raise ValueError(f"{first.method.name} has no appearance to blend; expected an embedding of CFLD, FPDM, MCLD or "
                             "QEN")
        weights = torch.tensor([weight]) if steps == 1 else torch.linspace(0, 1, steps)
        with torch.no_grad():
            mixed = on_cpu(module.blended(first.encoded, second.encoded, weights))
        if isinstance(module, FPDM) and _apart(first.encoded.pose_map, second.encoded.pose_map):
            notice("the two FPDM embeddings are of different poses, and what is mixed foresees the pose as well: the person "
                   "fades towards the second one's pose. Give both FPDM Fusion Embeddings the same pose.")
        sizes = set().union(*(term.injections.batch_sizes() for term in module.guidance(mixed).terms))
        return io.NodeOutput(replace(first, encoded=mixed, batch=max(sizes)))


def _apart(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two maps differ by more than rounding does, which batches of other numbers round otherwise."""
    return bool((one - other).abs().max() > 1e-2 * one.abs().max())


NODES = [AppearanceEmbedding, BlendAppearance]
