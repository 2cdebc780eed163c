"""What MCLD wants of the command line: DensePose pictures, texture map, face and CLIP, from files."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..files.pictures import as_rgb, open_rgb
from ..mcld.inputs import ClipEncoder, as_input, encode_faces, face_crops, face_quality, merged_texture, texture_maps
from ..mcld.joining import mean_face
from ..pipeline import Generator
from ..surface.densepose import IUV
from ..surface.face import load_embedding
from .flags import refuse
from .poses import picture_files

ORDER = "v,u,part"   # of the channels of a file that OpenCV wrote, read as RGB

FLAGS = ("source_densepose", "texture", "face", "clip")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """--source-densepose, --texture, --face and --clip."""
    parser.add_argument("--source-densepose", default="", help="MCLD, and any method with --garment: IUV picture of the "
                        "source photo")
    parser.add_argument("--texture", default="", help="MCLD: texture map; default: warped from photo and DensePose")
    parser.add_argument("--face", default="", help="MCLD: face embedding, .npy of insightface")
    parser.add_argument("--clip", default="", help="MCLD: folder of CLIP ViT-L/14 (not for demo checkpoints)")


def check_flags(options: argparse.Namespace, method: str) -> None:
    """Raises ValueError where flags of MCLD came with another method."""
    if method != "mcld":
        own = FLAGS[1:] if options.garment else FLAGS   # a garment's mask is better with it
        refuse(options, own, f"came with a checkpoint of {method}; expected one of mcld, whose source person they "
               "describe. Leave them out")


def read_iuv(path: str | Path, nobody: bool = False) -> IUV:
    """An IUV picture, as the authors' files and Estimate DensePose's are. Raises ValueError naming the file; for one without
    a person unless `nobody`."""
    try:
        iuv = IUV.from_picture(np.asarray(open_rgb(path, ground="black")), ORDER)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if not (nobody or iuv.part.any()):
        raise ValueError(f"{path}: no pixel belongs to a body part; expected an IUV picture of a person")
    return iuv


def sequence_iuvs(path: Path, empty: str = "error") -> list[IUV]:
    """The IUV pictures of a folder in natural order, or one. empty: one without a person is an "error" that names it, or
    takes the one before it, "hold"; the first must show somebody."""
    frames: list[IUV] = []
    for file in picture_files(path) if path.is_dir() else [path]:
        iuv = read_iuv(file, nobody=bool(frames) and empty == "hold")
        frames.append(iuv if iuv.part.any() else frames[-1])
    return frames


def person_of(generator: Generator, photo: np.ndarray, densepose: str | IUV | None = "", texture: str = "", face: str = "",
              clip: str = "") -> dict[str, Any]:
    """The extras of `mcld.inputs.encode_pictures` that belong to the source person.

    photo: as `open_photo` gives it. densepose: its IUV, or the file of its picture, of the same size, from which texture
    map and, with the checkpoint's own encoder, face are made where texture (picture) and face (.npy) do not give them.
    clip: folder of CLIP, for checkpoints that bring no encoder. What cannot be made is left out, which is the method's null.
    """
    config = generator.method.config
    iuv = densepose if isinstance(densepose, IUV) else read_iuv(densepose) if densepose else None
    picture = np.asarray(as_rgb(photo))
    extras: dict[str, Any] = {}
    if texture:
        extras["textures"] = np.asarray(open_rgb(texture, ground="black"))[None]
    elif iuv is not None:
        extras["textures"] = texture_maps(config, picture[None], [iuv])
    if face:
        extras["faces"] = torch.from_numpy(load_embedding(face))[None]
    elif iuv is not None and config.own_vision:
        extras["faces"] = _own_face(generator, picture, iuv)
    if not config.own_vision and clip:
        extras["clip"] = ClipEncoder(clip, generator.device)
    return extras


def several_photos_of(generator: Generator, photos: Sequence[np.ndarray], denseposes: Sequence[IUV], texture: str = "",
                      face: str = "", clip: str = "") -> dict[str, Any]:
    """`person_of` for N photos of one person, with DensePose of each or of none: their texture maps and faces joined."""
    config, pictures = generator.method.config, [np.asarray(as_rgb(photo)) for photo in photos]
    extras = person_of(generator, photos[0], None, texture, face, clip)
    wanted = not texture or config.own_vision and not face
    if denseposes and wanted and len(denseposes) != len(photos):
        raise ValueError(f"{len(denseposes)} DensePose came for {len(photos)} photos; expected --photos-densepose, one file "
                         "for each of --photos, beside --source-densepose. Add it, or leave that out")
    if denseposes and not texture:
        extras["textures"] = merged_texture(config, pictures, denseposes)
    if denseposes and not face and config.own_vision:
        faces = torch.cat([_own_face(generator, picture, iuv) for picture, iuv in zip(pictures, denseposes, strict=True)])
        extras["faces"] = mean_face(faces, face_quality(denseposes))
    return extras


@torch.no_grad()
def _own_face(generator: Generator, picture: np.ndarray, iuv: IUV) -> Tensor:
    crops, found = face_crops(as_input(picture[None]), [iuv], generator.method.config.face_pixels)
    return encode_faces(generator.method, crops.to(generator.device), found)
