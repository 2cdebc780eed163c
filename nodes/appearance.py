"""Nodes that make PGPIS_COND: what a method sees of the source person and the target pose."""

from __future__ import annotations

from dataclasses import replace

from comfy_api.latest import io

from ..pgpis_models.cfld.model import CFLD, Encoded, blend
from ..pgpis_models.qen import model as qen
from .embedding import PERSON_TOOLTIP, encoded_pairs, shown_poses
from .schema import aliases
from .types import CondType, MethodType, PoseKeypointType


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
                    io.Int.Input("person", default=-1, min=-1, max=99, tooltip=PERSON_TOOLTIP)],
            outputs=[CondType.Output(display_name="cond", tooltip="For Apply PGPIS, PGPIS Guider or Blend Appearance.")])

    @classmethod
    def execute(cls, method, source, pose, person) -> io.NodeOutput:
        module = method.checkpoint.method
        if not isinstance(module, CFLD):
            raise ValueError(f"the checkpoint is {method.name}; CFLD Appearance Embedding expects one of method cfld. Load "
                             "another file, or use the embedding node of that method")
        return io.NodeOutput(encoded_pairs(method, source, shown_poses(pose, person)))


class BlendAppearance(io.ComfyNode):
    """Two PGPIS_COND and a weight -> PGPIS_COND."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PGPISBlendAppearance", display_name="Blend Appearance", category="PGPIS/conditioning",
            **aliases("two people", "person", "interpolate", "mix", "style"),
            description="Mixes the appearance of two people, linearly: CFLD's coarse prompt and all query biases (style "
                        "interpolation, section 4.6 of its paper), or QEN's query tokens. The pose stays that of the first.",
            inputs=[CondType.Input("first", tooltip="The person at weight 0; its pose is used."),
                    CondType.Input("second", tooltip="The person at weight 1; must come from the same checkpoint."),
                    io.Float.Input("weight", default=0.5, min=0.0, max=1.0, step=0.01,
                                   tooltip="0 gives the first person, 1 the second.")],
            outputs=[CondType.Output(display_name="cond", tooltip="The mixed appearance, in the first one's pose.")])

    @classmethod
    def execute(cls, first, second, weight) -> io.NodeOutput:
        if first.method.checkpoint is not second.method.checkpoint:
            raise ValueError(f"one appearance is of {first.method.name}, the other of {second.method.name}; expected both "
                             "of one checkpoint: connect one Load PGPIS Checkpoint to both embeddings")
        if isinstance(first.encoded, Encoded):
            mixed = blend(first.encoded, second.encoded, weight)
            counts = (mixed.prompt.shape[0], mixed.pose_maps[0].shape[0])
        elif isinstance(first.encoded, qen.Encoded):
            mixed = first.encoded.blended(second.encoded, weight)
            counts = (mixed.tokens.shape[0], max(mixed.region.shape[0], *(value.shape[0] for value in mixed.pose.values())))
        else:
            raise ValueError(f"{first.method.name} has no appearance to blend; expected an embedding of CFLD or QEN")
        if counts[0] != counts[1] and 1 not in counts:
            raise ValueError(f"{counts[0]} blended sources and {counts[1]} poses; expected equal numbers, or one of either")
        return io.NodeOutput(replace(first, encoded=mixed, batch=max(counts)))


NODES = [AppearanceEmbedding, BlendAppearance]
