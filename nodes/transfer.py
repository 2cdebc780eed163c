"""Pose Transfer: a person and a pose onto a MODEL in one node, whatever the method."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from ..pgpis_models.framing.boxes import Frame
from ..pgpis_models.framing.proportions import PROPORTIONS
from ..pgpis_models.mcld.config import FACE_WEIGHT
from ..pgpis_models.mcld.inputs import face_quality, merged_texture, texture_maps
from ..pgpis_models.mcld.joining import mean_face
from ..pgpis_models.pipeline import defaults_of
from ..pgpis_models.poses.keypoints import Keypoints
from ..pgpis_models.unet.lora import lora_sampling
from .applying import applied, around_inputs, outputs, span_inputs
from .embedding import (
    EACH,
    PERSON_TOOLTIP,
    TOGETHER,
    draws_hands,
    encoded_pairs,
    limits_of,
    look_apart,
    one_person,
    photos_inputs,
    shown_poses,
    views_of,
)
from .face import own_faces
from .framing import framed_inputs
from .inputs import checked_densepose, checked_views, needed, pixels
from .multifocal import focal_cond
from .notice import notice
from .queries import query_cond
from .schema import ADVANCED, aliases
from .texture import as_images
from .types import Cond, DenseposeType, FaceEmbeds, FaceEmbedsType, FrameType, Method, MethodType, PoseKeypointType

NODE = "Pose Transfer"


class PoseTransfer(io.ComfyNode):
    """MODEL, PGPIS_METHOD, IMAGE and pose -> MODEL, positive, negative, LATENT for any KSampler."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PGPISPoseTransfer", display_name="Pose Transfer", category="PGPIS/sampling",
            **aliases("pose guided", "person", "repose", "change pose", "openpose", "try on", "virtual try-on", "cfld",
                      "mcld", "fpdm", "qen"),
            description="Makes the person of a photo stand in another pose, with any checkpoint of this pack: it takes the "
                        "place of that method's embedding node and of Apply PGPIS. Connect its outputs to any KSampler, "
                        "whose cfg weighs person and pose; which settings suit the checkpoint is shown here after a run. "
                        "LoRAs, ControlNets and other patches on the MODEL keep working.",
            inputs=[io.Model.Input("model", tooltip="The base model that the checkpoint was trained on, or a finetune or "
                                   "LoRA of it."),
                    *around_inputs(),
                    # method and image are needed, but optional to the host, which would put required inputs before these.
                    MethodType.Input("method", optional=True, tooltip="From Load PGPIS Checkpoint. Needed."),
                    io.Image.Input("image", optional=True, tooltip="Photo(s) of the person, of any size. Needed."),
                    PoseKeypointType.Input("pose", optional=True, tooltip="Target pose(s), one frame per picture: for CFLD, "
                                           "FPDM and QEN. One photo with many poses, many photos with one pose, or equal "
                                           "numbers of both make a batch."),
                    DenseposeType.Input("densepose", optional=True, tooltip="Target pose(s) as DensePose of the person to "
                                        "be drawn: for MCLD."),
                    DenseposeType.Input("source_densepose", optional=True, tooltip="For MCLD: DensePose of the photo "
                                        "itself. Texture map and face are then made of the photo, where they are not "
                                        "connected."),
                    io.Image.Input("texture", optional=True, tooltip="For MCLD: texture map(s) from Warp to Texture Map or "
                                   "Edit Texture. Needs vae."),
                    FaceEmbedsType.Input("face", optional=True, tooltip="For MCLD: face(s) from Face Embedding, one or "
                                         "one per picture."),
                    io.ClipVision.Input("clip_vision", optional=True, tooltip="For MCLD's published weights: CLIP ViT-L/14 "
                                        "of sd-image-variations."),
                    io.Vae.Input("vae", optional=True, tooltip="For MCLD: encodes the texture map for the reference "
                                 "network."),
                    io.Mask.Input("mask", optional=True, tooltip="For QEN: region(s) in which patches see the local "
                                  "queries, in place of the pose's own."),
                    io.Int.Input("person", **ADVANCED, default=-1, min=-1, max=99, optional=True, tooltip=PERSON_TOOLTIP),
                    *span_inputs(optional=True),
                    io.Float.Input("control_strength", **ADVANCED, default=1.0, min=0.0, max=10.0, step=0.01, optional=True,
                                   tooltip="For QEN: strength of the pose's ControlNet."),
                    io.Float.Input("face_weight", **ADVANCED, default=FACE_WEIGHT, min=0.0, max=5.0, step=0.05,
                                   optional=True,
                                   tooltip="For MCLD: weight of the face branch; 0 leaves it out."),
                    io.Boolean.Input("fit", default=True, optional=True, tooltip="Frame the person as the checkpoint "
                                     "was trained, and bring the target pose to the person's size and place; Paste Back "
                                     "puts the result into the photo again. Off: photo and pose are taken as they are."),
                    PoseKeypointType.Input("source_pose", optional=True, tooltip="The pose found in the photo, which says "
                                           "where the person is. Without it source_densepose or source_mask says so, or "
                                           "a plain ground does."),
                    io.Combo.Input("proportions", **ADVANCED, options=list(PROPORTIONS), default=PROPORTIONS[0],
                                   optional=True, tooltip="Lengths of the target pose's limbs: of the person, as far as "
                                   "source_pose shows them, or as given. What the photo does not show, such as the legs "
                                   "of a portrait, keeps the pose's own."),
                    io.Int.Input("source_person", **ADVANCED, default=-1, min=-1, max=99, optional=True,
                                 tooltip="With fit: which person of the photo, counted from 0 in the order of source_pose, "
                                 "or in a mask from left to right; -1 takes the largest."),
                    io.Mask.Input("source_mask", optional=True, tooltip="With fit: white where the person of the photo is, "
                                  "of the photo's size. It may stand in for source_pose."),
                    *photos_inputs(poses=False)],
            outputs=[*outputs(), FrameType.Output(display_name="frame", tooltip="For Paste Back, where fit is on.")])

    @classmethod
    def execute(cls, model, positive=None, negative=None, latent=None, method=None, image=None, start_percent=0.0,
                end_percent=1.0, fit=True, source_pose=None, photos=EACH, **given) -> io.NodeOutput:
        needed(NODE, method=(method, "the PGPIS_METHOD of Load PGPIS Checkpoint"), image=(image, "a photo of the person"))
        frame = ExecutionBlocker(f"{NODE}'s frame is empty, since fit is off; turn it on, or take Fit Person")
        views = views_of(source_pose, given.get("source_person", -1))
        surface = given.get("source_densepose")
        apart, unknown = look_apart(photos, image, views if surface is None else checked_densepose(surface),
                                    "connect source_pose or source_densepose", given.get("texture"))
        if fit:
            image, given, frame = framed(method, image, source_pose, given, photos == TOGETHER)
        cond = transferred(method, image, {**given, "model": model}, photos, views)
        result = applied(model, cond, positive, negative, latent, start_percent, end_percent)
        # in one text with the advice: a node shows its last one
        said = [*apart, *stands_against(method, given, views, photos == TOGETHER)]
        notice("\n".join([*said, *unknown, advice(method, model)]), logging.WARNING if said else logging.INFO)
        return io.NodeOutput(*result, frame)


def framed(method: Method, image, source_pose, given: Mapping[str, Any],
           together: bool = False) -> tuple[Any, dict[str, Any], tuple[Frame, ...]]:
    """The photo and the other inputs by name in the method's frame, and PGPIS_FRAME; says what was done. together: the
    photos show one person.

    Raises ValueError for a mask, whose regions lie where the pose was before it was brought into the frame.
    """
    if given.get("mask") is not None:
        raise ValueError(f"{NODE} has a mask and fit is on; expected a mask with fit off, since the pose moves and the "
                         "mask's regions would not. Turn fit off and take Fit Person before the mask is made; where the "
                         "person of the photo is says source_mask")
    names = ("pose", "densepose", "source_densepose")
    made, frames, said = framed_inputs(method, image, source_pose=source_pose, source_mask=given.get("source_mask"),
                                       person=given.get("person", -1), source_person=given.get("source_person", -1),
                                       proportions=given.get("proportions", PROPORTIONS[0]), together=together,
                                       **{name: given.get(name) for name in names})
    notice(said, logging.INFO)
    return made["image"], {**given, **{name: made[name] for name in names if name in made}, "person": -1}, frames


def stands_against(method: Method, given: Mapping[str, Any], views: Sequence[Keypoints] | None,
                   together: bool = False) -> list[str]:
    """What of a transfer is known to be a guess, in sentences. given: the node's inputs by name, in the method's frame where
    `fit` brought them there. views: the photos' poses, where they are known; together: all show one person."""
    if method.checkpoint.meta.method == "mcld":
        of_photo = given.get("source_densepose")
        return limits_of(method, denseposes=given["densepose"], source_denseposes=() if of_photo is None else of_photo,
                         together=together)
    return limits_of(method, shown_poses(given["pose"], given.get("person", -1)), source_poses=views or (),
                     together=together)


def transferred(method: Method, image, given: Mapping[str, Any], photos: str = EACH,
                views: Sequence[Keypoints] | None = None) -> Cond:
    """A photo and what else is connected, by the node's input names, through the method of a checkpoint -> PGPIS_COND.
    photos: the widget's word for whom they show; views: their poses, where they are known.

    Raises ValueError that names the input for what is missing or does not fit.
    """
    name = method.checkpoint.meta.method
    if name == "mcld":
        return _by_densepose(method, image, photos == TOGETHER, **given)
    if given.get("pose") is None:
        came = "a densepose but no pose" if given.get("densepose") is not None else "no pose"
        raise ValueError(f"{NODE} has {came}; {method.name} expects POSE_KEYPOINT at the input pose. Connect Load Pose, "
                         "Extract Pose or any node that gives POSE_KEYPOINT")
    poses = shown_poses(given["pose"], given.get("person", -1), whole=draws_hands(method))
    if views is None and given.get("source_densepose") is not None:
        views = checked_densepose(given["source_densepose"])
    weights = one_person(photos, image, poses, views)
    if name == "qen":
        return query_cond(method, image, poses, given.get("mask"), given.get("control_strength", 1.0), weights=weights)
    return encoded_pairs(method, image, poses, weights=weights)


def _by_densepose(method: Method, image, together: bool, densepose=None, source_densepose=None, texture=None, face=None,
                  clip_vision=None, vae=None, model=None, face_weight=FACE_WEIGHT, pose=None, **_others) -> Cond:
    config = method.checkpoint.method.config
    if densepose is None:
        came = "a pose but no densepose" if pose is not None else "no densepose"
        raise ValueError(f"{NODE} has {came}; {method.name} expects DENSEPOSE at the input densepose. Connect Estimate "
                         "DensePose of a picture in the target pose, or Read IUV")
    if not config.own_vision and clip_vision is None:
        raise ValueError(f"{NODE} has no clip_vision; {method.name} expects CLIP ViT-L/14 of sd-image-variations. Connect "
                         "Load CLIP Vision")
    if source_densepose is not None:
        people, surface = pixels(image, "the IMAGE"), checked_densepose(source_densepose, charts=True)
        if together:
            checked_views(len(people), surface, "DENSEPOSE of theirs")
        if texture is None:
            needed(NODE, vae=(vae, "the VAE of the base model, which encodes the texture map made of the photo"))
            texture = as_images((merged_texture if together else texture_maps)(config, people, surface))
        if face is None and config.own_vision:
            face = own_faces(method, people, surface)
            if together:
                face = FaceEmbeds(mean_face(face.vectors, face_quality(surface)))
    elif texture is None and config.aggregation != "image":
        notice(f"{method.name} sees no texture map: connect source_densepose (DensePose of the photo) or texture for the "
               "garments' details.")
    return focal_cond(method, image, densepose, face_weight, texture, face, clip_vision, vae, model, together)


def advice(method: Method, model: Any) -> str:
    """What to set at the sampler for a checkpoint and the LoRA that was put on the MODEL last, of which newer hosts tell.
    Raises ValueError for a LoRA that was distilled from another method."""
    metadata = model.get_attachment("lora_metadata") or {}
    added = lora_sampling(metadata, "the LoRA on the MODEL", method.checkpoint.meta.method)
    if added or method.checkpoint.meta.sampling:
        return f"{method.name}{' with the LoRA' if added else ''}: made for {added or method.checkpoint.meta.sampling}."
    usual, module = defaults_of(method.checkpoint.meta.method, method.checkpoint.meta.base), method.checkpoint.method
    scales = module.guidance_scales(module.guidance_modes[0])
    cfg = usual["weights"].get(scales[-1], 2.0)
    return f"{method.name}: {usual['steps']} steps at cfg {cfg:g} suit it."


NODES = [PoseTransfer]
