"""Nodes that give FACE_EMBEDS."""

from __future__ import annotations

import logging
import warnings
from functools import lru_cache
from pathlib import Path

import comfy.model_management
import comfy.utils
import folder_paths
import numpy as np
import torch
from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from ..pgpis_models.mcld.inputs import as_input, encode_faces, face_crops, head_box
from ..pgpis_models.mcld.model import MCLD
from ..pgpis_models.surface.densepose import IUV
from ..pgpis_models.surface.face import LENGTH, MODELS, crop, expanded_box, find_face, load_app, load_embedding
from .inputs import checked_densepose, needed, pixels
from .schema import aliases
from .types import DenseposeType, FaceEmbeds, FaceEmbedsType, Method, MethodType

NODE = "Face Embedding"
OWN = "the checkpoint's own"
NO_FILE = "(no file)"
CROP = 224  # pixels, as in the authors' demo

log = logging.getLogger(__name__)


@lru_cache(maxsize=1)
def _app(root: str, name: str):
    return load_app(root, name)


def insightface_root(name: str) -> str:
    """The folder that holds models/<name>: the host's own, or one that is registered as `insightface`."""
    known = folder_paths.folder_names_and_paths.get("insightface", ([],))[0]
    places = [Path(folder_paths.models_dir) / "insightface", *map(Path, known)]
    return str(next((place for place in places if (place / "models" / name).is_dir()), places[0]))


def box_mask(box, size: tuple[int, int]) -> torch.Tensor:
    """(H, W): 1 inside of a box x0, y0, x1, y1 in pixels; empty for None."""
    mask = torch.zeros(size)
    if box is not None:
        x0, y0, x1, y1 = (max(int(value), 0) for value in box)
        mask[y0:y1, x0:x1] = 1
    return mask


def _files() -> list[str]:
    folder = Path(folder_paths.get_input_directory())
    return sorted(path.name for path in folder.glob("*.npy")) if folder.is_dir() else []


class FaceEmbedding(io.ComfyNode):
    """IMAGE, or a file -> FACE_EMBEDS, crop, face MASK."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PGPISFaceEmbedding", display_name="Face Embedding", category="PGPIS/face",
            **aliases("identity", "insightface", "antelopev2", "buffalo_l", "face id", "load face embedding", "person"),
            description="Embeds the face of each picture as MCLD wants it: insightface's 512 numbers for published weights "
                        "(Python packages insightface and onnxruntime, models in models/insightface/models), or the small "
                        "encoder that the demo's checkpoint brings. A picture without a face gives the method's zero input "
                        "and a warning. An embedding that was saved before is read from its file.",
            inputs=[io.Image.Input("image", optional=True, tooltip="Picture(s) of one person each. Needed, but with a "
                                   "file."),
                    io.Combo.Input("model", options=[*MODELS, OWN], default=MODELS[0], tooltip="antelopev2 is what MCLD was "
                                   f"trained with. '{OWN}' needs method and densepose."),
                    io.Int.Input("face", default=0, min=0, max=99, tooltip="Which face of each picture; 0 is the largest."),
                    MethodType.Input("method", optional=True, tooltip="The demo's MCLD checkpoint, whose encoder reads "
                                     "faces."),
                    DenseposeType.Input("densepose", optional=True, tooltip="DensePose of these pictures, which says where "
                                        "the head is; for the checkpoint's own encoder."),
                    io.Combo.Input("file", options=[NO_FILE, *_files()], default=NO_FILE, optional=True,
                                   tooltip="In place of the picture: an .npy file of ComfyUI's input folder with the 512 "
                                   "numbers of insightface, as MCLD's data preparation writes them.")],
            outputs=[FaceEmbedsType.Output(display_name="face", tooltip="One embedding per picture: 512 numbers of "
                                           "insightface, or what the checkpoint's own encoder gives."),
                     io.Image.Output(display_name="crop", tooltip=f"The faces, {CROP}x{CROP}; black where there is none. "
                                     "Not of a file."),
                     io.Mask.Output(display_name="mask", tooltip="The square around the face in each picture. Not of a "
                                    "file.")])

    @classmethod
    def fingerprint_inputs(cls, file: str = NO_FILE, **_) -> tuple:
        path = Path(folder_paths.get_input_directory()) / file
        return file, path.stat().st_mtime_ns if file in _files() else None

    @classmethod
    def execute(cls, image=None, model=MODELS[0], face=0, method=None, densepose=None, file=NO_FILE) -> io.NodeOutput:
        if file != NO_FILE:
            no_picture = ExecutionBlocker(f"{NODE} read {file}, so there is no picture; connect image and set file to "
                                          f"{NO_FILE}")
            return io.NodeOutput(read_file(file), no_picture, no_picture)
        needed(NODE, image=(image, "picture(s) of a person, or a file in its place"))
        photos = pixels(image, "the IMAGE")
        if model == OWN:
            return cls._own(photos, method, densepose)
        app = _app(insightface_root(model), model)
        bar, vectors, boxes = comfy.utils.ProgressBar(len(photos)), [], []
        for number, photo in enumerate(photos, start=1):
            comfy.model_management.throw_exception_if_processing_interrupted()
            with warnings.catch_warnings():   # Python would show the same warning once; a server runs for long
                warnings.simplefilter("ignore")
                try:
                    found = find_face(app, photo, face)
                except ValueError as error:
                    raise ValueError(f"picture {number} of {len(photos)}: {error}") from error
            if found is None:
                log.warning("no face found in picture %d of %d: the method's zero input is used. Crop the photo around the "
                            "head for one.", number, len(photos))
            vectors.append(torch.zeros(LENGTH) if found is None else torch.from_numpy(found.embedding))
            boxes.append(None if found is None else found.box)
            bar.update(1)
        return _result(torch.stack(vectors), photos, boxes, 1.5)

    @classmethod
    def _own(cls, photos: np.ndarray, method, densepose) -> io.NodeOutput:
        module = None if method is None else method.checkpoint.method
        if not isinstance(module, MCLD) or not module.config.own_vision or densepose is None:
            came = "no checkpoint" if method is None else method.name
            raise ValueError(f"'{OWN}' came with {came} and {'no ' if densepose is None else ''}densepose; expected an MCLD "
                             "checkpoint that brings a face encoder (the demo's) and the pictures' DensePose. Connect both, "
                             f"or choose one of {', '.join(MODELS)}")
        densepose = checked_densepose(densepose)
        if len(densepose) == 1:   # several results in one pose
            densepose *= len(photos)
        return _result(own_faces(method, photos, densepose).vectors, photos, [head_box(iuv) for iuv in densepose], 1.0)


def own_faces(method: Method, photos: np.ndarray, densepose: tuple[IUV, ...]) -> FaceEmbeds:
    """Photos (B, H, W, 3) uint8 and their DensePose through the face encoder that an MCLD checkpoint brings."""
    device, module = method.load(), method.checkpoint.method
    with torch.no_grad():
        crops, found = face_crops(as_input(photos).to(device), densepose, module.config.face_pixels)
        vectors = encode_faces(module, crops, found).cpu()
    if not bool(found.all()):
        lacking = [number + 1 for number, there in enumerate(found.tolist()) if not there]
        log.warning("no head in picture %s of %d: the method's zero input is used", lacking, len(photos))
    return FaceEmbeds(vectors)


def _result(vectors: torch.Tensor, photos: np.ndarray, boxes: list, factor: float) -> io.NodeOutput:
    crops = [np.zeros((CROP, CROP, 3), np.uint8) if box is None else crop(photo, box, CROP, factor)
             for photo, box in zip(photos, boxes, strict=True)]
    masks = [box_mask(None if box is None else expanded_box(box, factor), photos.shape[1:3]) for box in boxes]
    return io.NodeOutput(FaceEmbeds(vectors), torch.from_numpy(np.stack(crops)).float() / 255, torch.stack(masks))


def read_file(name: str) -> FaceEmbeds:
    """The embedding of an .npy file in the host's input folder. Raises ValueError when it is not there, or holds another
    thing."""
    if name not in _files():   # so that no other path can be read through the widget
        raise ValueError(f"no file {name!r} in {folder_paths.get_input_directory()}; expected one of {_files()[:10]}. Put "
                         "the .npy file into ComfyUI's input folder and press R")
    return FaceEmbeds(torch.from_numpy(load_embedding(Path(folder_paths.get_input_directory()) / name))[None])


NODES = [FaceEmbedding]
