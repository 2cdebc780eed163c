"""The node of MCLD: what it sees of the source person and the target pose."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from comfy_api.latest import io
from torch import Tensor

from ..pgpis_models.mcld.config import FACE_WEIGHT
from ..pgpis_models.mcld.inputs import as_input, as_pixels, image_tokens, squashed_textures
from ..pgpis_models.mcld.joining import appearance_of_one, mean_face
from ..pgpis_models.mcld.model import MCLD
from ..pgpis_models.parts.pixels import resized
from ..pgpis_models.surface.densepose import pose_pictures
from .binding.reference import reference_of
from .embedding import EACH, TOGETHER, look_apart, photos_inputs, warn_of_photo
from .inputs import checked_densepose, checked_faces, matching, pixels
from .notice import notice
from .schema import aliases
from .types import Cond, CondType, DenseposeType, FaceEmbedsType, Method, MethodType, on_cpu


class MultiFocalEmbedding(io.ComfyNode):
    """MCLD: source IMAGE, target DENSEPOSE, texture, face -> PGPIS_COND."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PGPISMultiFocalEmbedding", display_name="MCLD Multi-Focal Embedding", category="PGPIS/conditioning",
            **aliases("pose transfer", "person", "try on", "garment", "encode"),
            description="Encodes a source person and a target pose with an MCLD checkpoint. Photo, texture map and face may "
                        "come from different people: that is how MCLD swaps garments and identities. A texture or face that "
                        "is left out is the method's own 'nothing'. Published weights are sampled in 20 steps of ddim or "
                        "euler on the scheduler sgm_uniform at cfg 3.5; Apply PGPIS and PGPIS Guider set their noise "
                        "schedule.",
            inputs=[MethodType.Input("method", tooltip="An MCLD checkpoint from Load PGPIS Checkpoint."),
                    io.Image.Input("source", tooltip="Photo(s) of the person; of the garment's donor where clothes are "
                                   "swapped. Squashed to the checkpoint's size, as in training."),
                    DenseposeType.Input("densepose", tooltip="Target pose(s): DensePose of the person to be drawn, from "
                                        "Estimate DensePose or Read IUV."),
                    io.Float.Input("face_weight", default=FACE_WEIGHT, min=0.0, max=5.0, step=0.05, tooltip="Weight of the "
                                   "face branch; 0.5 in training. 0 leaves it out."),
                    io.Image.Input("texture", optional=True, tooltip="Texture map(s) from Warp to Texture Map or Edit "
                                   "Texture, in the layout of the checkpoint. Needs vae and model."),
                    FaceEmbedsType.Input("face", optional=True,
                                         tooltip="Face(s) from Face Embedding, one or one per picture."),
                    io.ClipVision.Input("clip_vision", optional=True, tooltip="CLIP ViT-L/14 of sd-image-variations, for "
                                        "published weights. The demo's checkpoint brings its own encoders."),
                    io.Vae.Input("vae", optional=True, tooltip="Encodes the texture map for the reference network."),
                    io.Model.Input("model", optional=True, tooltip="The base MODEL, from which the reference network takes "
                                   "its sizes and precision; its weights are the checkpoint's."),
                    *photos_inputs(poses=False)],
            outputs=[CondType.Output(display_name="cond", tooltip="For Apply PGPIS or PGPIS Guider.")])

    @classmethod
    def execute(cls, method, source, densepose, face_weight, texture=None, face=None, clip_vision=None, vae=None,
                model=None, photos=EACH) -> io.NodeOutput:
        module = method.checkpoint.method
        if not isinstance(module, MCLD):
            raise ValueError(f"the checkpoint is {method.name}; MCLD Multi-Focal Embedding expects one of method mcld. Load "
                             "another file, or use the embedding node of that method")
        apart, unknown = look_apart(photos, source, None, "connect a texture map of each, or Merge Photos", texture)
        if apart or unknown:
            notice("\n".join([*apart, *unknown]), logging.WARNING if apart else logging.INFO)
        return io.NodeOutput(focal_cond(method, source, densepose, face_weight, texture, face, clip_vision, vae, model,
                                        photos == TOGETHER))


def focal_cond(method: Method, source: Tensor, densepose, face_weight: float = FACE_WEIGHT, texture: Tensor | None = None,
               face=None, clip_vision=None, vae=None, model=None, together: bool = False) -> Cond:
    """What MCLD Multi-Focal Embedding takes -> PGPIS_COND. together: the photos, textures and faces are of one person."""
    module = method.checkpoint.method
    config = module.config
    densepose = checked_densepose(densepose, charts=True)
    photo = squashed(pixels(source, "the source IMAGE"), config.image_size)
    flat = None
    if texture is not None:
        flat = as_input(squashed_textures(config, pixels(texture, "the texture IMAGE", ground=0.0)))
    vectors = None if face is None else checked_faces(face, config.face_width)
    maps, found = (1 if one is None else len(one) for one in (flat, vectors))
    own = {"sources": len(photo), "textures": maps, "faces": found}
    batch = matching(**own, poses=1 if together else len(densepose))   # before the work, not after it
    batch = len(densepose) if together else batch
    warn_of_photo(method, (photo + 1) / 2)
    read = photo if config.aggregation == "image" else flat   # by the reference network
    reference = None
    if read is not None:
        lacking = [name for name, value in (("vae", vae), ("model", model)) if value is None]
        if lacking:
            raise ValueError(f"MCLD's reference network reads the texture map, but {' and '.join(lacking)} is not "
                             "connected; connect the base's VAE and MODEL, or leave the texture out")
        reference = reference_of(method, model)
    with torch.no_grad():
        latent = None if read is None else model.model.process_latent_in(vae.encode((read.movedim(1, -1) + 1) / 2))
        clip = None if clip_vision is None else lambda pictures: embeds(clip_vision, pictures, config.prompt_width)
        device = method.load()
        image = image_tokens(module, photo.to(device), clip)
        tokens = None if flat is None else image_tokens(module, flat.to(device), clip)
        # Again, since CLIP may have taken their place; and before the reference network, which may do the same.
        device = method.load()
        pose = module.encode_pose(pose_pictures(densepose, config.image_size).to(device))
        read_person = module.encode_appearance
        if together:
            read_person, vectors = partial(appearance_of_one, module), None if vectors is None else mean_face(vectors)
        appearance = read_person(image, tokens, None if latent is None else latent.to(device),
                                 None if vectors is None else vectors.to(device), reference)
        encoded = replace(appearance.with_pose(pose), face_weight=face_weight)
    return Cond(method, on_cpu(encoded), batch, config.latent_size)


def squashed(pictures: np.ndarray, size: tuple[int, int]) -> Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, *size) in -1..1 by Pillow's bicubic filter, aspect ratio ignored: as published."""
    return as_input(np.stack([resized(picture, size) for picture in pictures]))


def embeds(clip_vision, pictures: np.ndarray, width: int) -> Tensor:
    """Square pictures (B, S, S, 3) uint8 through the host's CLIP -> (B, width), projected and not normalised.

    Pillow reduces them to CLIP's size first, so that the host's own preprocessing has nothing left to resize. Raises
    ValueError for a CLIP of another width.
    """
    side = clip_vision.image_size
    small = as_pixels(squashed(pictures, (side, side)))
    found = clip_vision.encode_image(torch.from_numpy(small).float() / 255)["image_embeds"]
    if found.shape[-1] != width:
        raise ValueError(f"this CLIP_VISION gives embeddings of {found.shape[-1]} numbers, the checkpoint expects {width}; "
                         "load CLIP ViT-L/14 (the image encoder of sd-image-variations)")
    return found


NODES = [MultiFocalEmbedding]
