"""Photos, DensePose, texture maps and faces as MCLD wants them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..surface.densepose import IUV, PARTS, pose_pictures
from ..surface.face import expanded_box
from ..surface.facing import front_share
from ..surface.layout import LAYOUTS, TILE, layout_of
from ..surface.merging import Merged, merge
from ..surface.texture import warp
from ..unet.autoencoder import encode_latents
from .config import FACE_WEIGHT, MCLDConfig
from .joining import appearance_of_one, mean_face
from .model import MCLD, Appearance, Encoded
from .pixels import clip_pixels
from .reference import ReferenceNetwork, ReferenceWriter

HEAD_ROOM = 1.2         # how much larger a face crop is than the box of the head parts
SMALLEST_HEAD = 4       # pixels of the head parts; less of it is no face

Clip = Callable[[np.ndarray], Tensor]   # square RGB pictures (B, S, S, 3) uint8 -> image embeddings (B, X)


# --- pictures ------------------------------------------------------------------------------------------------

def texture_maps(config: MCLDConfig, photos: np.ndarray, iuvs: Sequence[IUV]) -> np.ndarray:
    """Photos (B, H, W, 3) uint8 and their DensePose -> texture maps (B, h, w, 3) uint8 in the layout of the checkpoint.

    The SMPL layout as the authors make it; the atlas, of which they show no pictures, with all holes of the parts that
    show filled from the nearest texel that is seen, on the whole tile, so that no package decides over the result.
    """
    if config.texture_layout == "smpl":
        return warp(photos, iuvs, "smpl", "exact").picture
    return warp(photos, iuvs, "atlas", "fast", "all", region=np.ones((PARTS, TILE, TILE), bool)).picture


def merged_texture(config: MCLDConfig, photos: Sequence[np.ndarray], iuvs: Sequence[IUV]) -> np.ndarray:
    """N photos (H, W, 3) uint8 of one person, of any sizes, and their DensePose -> one texture map (1, h, w, 3) uint8 as
    of `texture_maps`, joined as by `surface.merging`. One photo N times is as that photo alone."""
    one = all(np.array_equal(photo, photos[0]) for photo in photos) and all(
        np.array_equal(getattr(iuv, name), getattr(iuvs[0], name)) for iuv in iuvs for name in ("part", "u", "v"))
    return texture_maps(config, np.stack(photos[:1]), iuvs[:1]) if one else \
        merged_photos(config, photos, iuvs).texture.picture[None]


def merged_photos(config: MCLDConfig, photos: Sequence[np.ndarray], iuvs: Sequence[IUV]) -> Merged:
    """The same photos with what each gave, for `surface.provenance`."""
    if config.texture_layout == "smpl":
        return merge(photos, iuvs, "smpl", "exact")
    return merge(photos, iuvs, "atlas", "fast", "all", np.ones((PARTS, TILE, TILE), bool))


def face_quality(iuvs: Sequence[IUV]) -> Tensor:
    """(N,): how large N photos of one person show the face, in pixels; the head of one seen from behind shows none."""
    return torch.tensor([float(iuv.part_mask("head").sum()) * front_share(iuv) for iuv in iuvs])


def squashed_textures(config: MCLDConfig, textures: np.ndarray) -> np.ndarray:
    """Texture maps (B, h, w, 3) uint8 -> (B, *image_size, 3) uint8, what the networks read.

    The authors' are of that size already; others are reduced by the mean of the texels. Raises ValueError for a map that
    is not in the checkpoint's layout.
    """
    from PIL import Image

    layout, (height, width) = config.texture_layout, config.image_size
    if layout_of(textures) != layout:
        rows, columns = LAYOUTS[layout]
        raise ValueError(f"the texture map is in the layout {layout_of(textures)!r}; this checkpoint expects {layout!r} "
                         f"({rows}x{columns}, height x width). Warp it with that layout")
    if textures.shape[1:3] == (height, width):
        return textures
    made = [Image.fromarray(texture).resize((width, height), Image.Resampling.BOX) for texture in textures]
    return np.stack([np.asarray(picture) for picture in made])


def as_input(pictures: np.ndarray) -> Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float32 in -1..1."""
    return torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


def as_pixels(pictures: Tensor) -> np.ndarray:
    """(B, 3, H, W) in -1..1 -> (B, H, W, 3) uint8."""
    return ((pictures.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def head_box(iuv: IUV) -> tuple[int, int, int, int] | None:
    """x0, y0, x1, y1 in pixels of the square around the head parts, which may reach out of the picture; None without."""
    rows, columns = np.nonzero(iuv.part_mask("head"))
    if len(rows) < SMALLEST_HEAD:
        return None
    return expanded_box((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1), HEAD_ROOM)


def face_crops(pictures: Tensor, iuvs: Sequence[IUV], pixels: int) -> tuple[Tensor, Tensor]:
    """Pictures (B, 3, H, W) in -1..1 with DensePose of the same size -> head crops (B, 3, P, P), and which show one (B,).

    Outside of the picture its border is repeated. A picture without a head gives zeros. Raises ValueError where picture
    and DensePose differ in size or number.
    """
    if len(pictures) != len(iuvs):
        raise ValueError(f"{len(pictures)} pictures and {len(iuvs)} DensePose; expected as many of each")
    height, width = pictures.shape[-2:]
    crops, found = pictures.new_zeros(len(iuvs), 3, pixels, pixels), torch.zeros(len(iuvs), dtype=torch.bool)
    for row, iuv in enumerate(iuvs):
        if iuv.size != (height, width):
            raise ValueError(f"the picture is {width}x{height}, its DensePose {iuv.size[1]}x{iuv.size[0]}; expected the "
                             "same. Estimate DensePose on this very picture")
        box = head_box(iuv)
        if box is None:
            continue
        x0, y0, x1, y1 = box
        steps = (torch.arange(pixels, device=pictures.device) + 0.5) / pixels
        x, y = (low + steps * (high - low) for low, high in ((x0, x1), (y0, y1)))
        where = torch.stack(torch.meshgrid(x / width * 2 - 1, y / height * 2 - 1, indexing="xy"), -1)  # (P, P, 2)
        crops[row] = F.grid_sample(pictures[row:row + 1], where[None], padding_mode="border", align_corners=False)[0]
        found[row] = True
    return crops, found


# --- encoders ------------------------------------------------------------------------------------------------

class ClipEncoder:
    """CLIP's image embeddings from a transformers folder, such as `image_encoder` of lambdalabs/sd-image-variations.

    Projected, not normalised. Raises ImportError without transformers, OSError when the folder is something else.
    """

    def __init__(self, folder: str | Path, device: torch.device) -> None:
        try:
            from transformers import CLIPVisionModelWithProjection
        except ImportError as error:
            raise ImportError("CLIP needs the package transformers: pip install transformers") from error
        self.model = CLIPVisionModelWithProjection.from_pretrained(folder).to(device).train(False).requires_grad_(False)

    @torch.no_grad()
    def __call__(self, pictures: np.ndarray) -> Tensor:
        """Pictures (B, H, W, 3) uint8 -> (B, X)."""
        device = next(self.model.parameters()).device
        return self.model(clip_pixels(pictures).to(device)).image_embeds


def encode_faces(method: MCLD, crops: Tensor, found: Tensor) -> Tensor:
    """Head crops of `face_crops` through the checkpoint's own face encoder -> (B, face_width), zeros without a face."""
    embedding = method.vision.face(crops)
    return embedding * found.to(embedding)[:, None]


def image_tokens(method: MCLD, pictures: Tensor, clip: Clip | None = None) -> Tensor:
    """Pictures (B, 3, *image_size) in -1..1 -> tokens (B, N, X), by the checkpoint's own encoder or by `clip`.

    Photos and texture maps alike. Raises ValueError when the checkpoint needs CLIP and there is none.
    """
    if method.config.own_vision:
        return method.vision.tower(pictures)
    if clip is None:
        raise ValueError("this checkpoint reads pictures with CLIP ViT-L/14, which was not given; expected the image "
                         "encoder that MCLD was trained with (lambdalabs/sd-image-variations, image_encoder)")
    return clip(as_pixels(pictures)).to(pictures.device)


def encode_source(method: MCLD, sources: Tensor, device: torch.device, *, vae: nn.Module | None = None,
                  source_densepose: Sequence[IUV] | None = None, textures: np.ndarray | None = None,
                  faces: Tensor | None = None, clip: Clip | None = None, face_weight: float = FACE_WEIGHT,
                  reference: ReferenceNetwork | None = None, one_person: Tensor | None = None) -> Appearance:
    """sources (B, 3, H, W) in -1..1 at the method's image size -> Appearance, on the device; once for many poses. The rest
    as in `encode_pictures`.

    one_person: weights where the sources are N photos of one person, as other methods take them, for an Appearance of batch
    1; here visibility joins the texture maps (1, or N that are given), and the size of the face the faces.
    """
    config = method.config
    sources = sources.to(device)
    if source_densepose is not None and textures is None:
        made = texture_maps if one_person is None else merged_texture
        textures = made(config, as_pixels(sources), source_densepose)
    if source_densepose is not None and faces is None and config.own_vision:
        crops, found = face_crops(sources, source_densepose, config.face_pixels)
        faces = encode_faces(method, crops, found)
    image, texture, latent = image_tokens(method, sources, clip), None, None
    if textures is not None:
        flat = as_input(squashed_textures(config, textures)).to(device)
        texture = image_tokens(method, flat, clip)
    read = flat if textures is not None and config.aggregation != "image" else \
        sources if config.aggregation == "image" else None
    if read is not None:
        if vae is None:
            raise ValueError("the reference network reads the texture map through the autoencoder, which was not given")
        latent = encode_latents(vae, read)
        reference = reference or ReferenceWriter(method.reference().to(device).train(False))
    faces, read_person = None if faces is None else faces.to(device), method.encode_appearance
    if one_person is not None:
        read_person = partial(appearance_of_one, method)
        if faces is not None:
            faces = mean_face(faces, face_quality(source_densepose) if source_densepose and len(faces) > 1 else None)
    return replace(read_person(image, texture, latent, faces, reference), face_weight=face_weight)


def encode_poses(method: MCLD, source: Appearance, poses: Sequence[IUV], device: torch.device) -> Encoded:
    """An Appearance with target poses as DensePose: one source with B poses, B with one, or B with B."""
    return source.with_pose(method.encode_pose(pose_pictures(poses, method.config.image_size).to(device)))


def encode_pictures(method: MCLD, sources: Tensor, poses: Sequence[Any], device: torch.device, *,
                    densepose: Sequence[IUV], vae: nn.Module | None = None, **person: Any) -> Encoded:
    """sources (B or 1, 3, H, W) in -1..1 at the method's image size and B or 1 target poses -> Encoded, on the device.

    poses are not used: MCLD's target is `densepose`. What is not given of the person is made of the photo where
    source_densepose (at the photo's size) allows: textures (B, h, w, 3) uint8 by warping, faces (B, face_width) by the
    checkpoint's own encoder; else it is the method's null. vae reads the texture map for the reference network. person: the
    rest of `encode_source`.
    """
    return encode_poses(method, encode_source(method, sources, device, vae=vae, **person), densepose, device)
