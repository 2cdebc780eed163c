"""The node that makes PGPIS_COND with FPDM, and shows how well its fusion embedding foresees a target."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from comfy_api.latest import io

from ..pgpis_models.fpdm.inputs import embed_photos
from ..pgpis_models.fpdm.model import FPDM
from ..pgpis_models.fpdm.pictures import draw_poses
from ..pgpis_models.poses.formats import EMPTY
from .embedding import EACH, PERSON_TOOLTIP, encoded_pairs, one_person, photos_inputs, shown_poses, views_of, warn_of_limits
from .inputs import matched, matching, rgb
from .schema import ADVANCED, aliases
from .types import CondType, MethodType, PoseKeypointType, on_cpu

EMPTY_TOOLTIP = ("What a frame without a person, or with a person off its canvas, is. error: stops and names the frame. "
                 "hold: it gets the pose of the frame before it; frames before the first pose get that one.")


class FusionEmbedding(io.ComfyNode):
    """FPDM: source IMAGE and target POSE_KEYPOINT -> PGPIS_COND, and how near it comes to a target."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PGPISFusionEmbedding", display_name="FPDM Fusion Embedding", category="PGPIS/conditioning",
            **aliases("pose transfer", "person", "encode"),
            description="Encodes a source person and a target pose with an FPDM checkpoint. One source with many poses, "
                        "many sources with one pose, or equal numbers of both make a batch; for the frames of a video take "
                        "Pose Sequence Sampler. With a target picture it says how near the fusion embedding comes to it.",
            inputs=[MethodType.Input("method", tooltip="An FPDM checkpoint from Load PGPIS Checkpoint."),
                    io.Image.Input("source", tooltip="Photo(s) of the person. Squashed to the checkpoint's own size, as in "
                                   "training; transparent parts become white "
                                   "where the IMAGE has alpha (Load Image drops it)."),
                    PoseKeypointType.Input("pose", tooltip="Target pose(s), one frame per picture, on a canvas of any size. "
                                           "They are drawn as the method was trained: its own canvas, line width and "
                                           "colours."),
                    io.Int.Input("person", default=-1, min=-1, max=99, tooltip=PERSON_TOOLTIP),
                    io.Combo.Input("empty_frames", **ADVANCED, options=list(EMPTY), default="error", tooltip=EMPTY_TOOLTIP),
                    io.Image.Input("target", optional=True, tooltip="True picture(s) of the person in the pose, to compare "
                                   "the embedding with; one, or one per pose."), *photos_inputs()],
            outputs=[CondType.Output(display_name="cond", tooltip="For Apply PGPIS or PGPIS Guider."),
                     io.Float.Output(display_name="similarity", tooltip="Mean cosine similarity of fusion embedding and "
                                     "target, -1 to 1; 0 without a target."),
                     io.String.Output(display_name="similarities", tooltip="The cosine similarity of each pair, one per "
                                      "line; empty without a target."),
                     io.Image.Output(display_name="pose_image", tooltip="The pose pictures as the method sees them, red and "
                                     "blue swapped against OpenPose's.")])

    @classmethod
    def execute(cls, method, source, pose, person, empty_frames, target=None, photos=EACH,
                source_pose=None) -> io.NodeOutput:
        module = method.checkpoint.method
        if not isinstance(module, FPDM):
            raise ValueError(f"the checkpoint is {method.name}; FPDM Fusion Embedding expects one of method fpdm. Load "
                             "another file, or use the embedding node of that method")
        poses, near = shown_poses(pose, person, empty_frames, module.config.whole), torch.zeros(0)
        views, pictures = views_of(source_pose), None
        weights = one_person(photos, source, poses, views)
        if target is not None:
            people = len(rgb(source, "the source IMAGE")) if weights is None else 1
            count = matching(sources=people, poses=len(poses))
            pictures = matched(count, rgb(target, "the target IMAGE"), "the target IMAGE")
        warn_of_limits(method, poses, photos, source, views)
        cond = encoded_pairs(method, source, poses, weights=weights)
        fusion = cond.encoded.fusion
        if pictures is not None:
            with torch.no_grad():
                near = F.cosine_similarity(fusion, on_cpu(embed_photos(module.fusion, pictures * 2 - 1, method.load())),
                                           dim=-1)
        drawn = torch.from_numpy(draw_poses(poses, module.config.pose_canvas, module.config.fusion)).float() / 255
        return io.NodeOutput(cond, float(near.mean()) if len(near) else 0.0,
                             "\n".join(f"{value:.4f}" for value in near.tolist()), drawn)


NODES = [FusionEmbedding]
