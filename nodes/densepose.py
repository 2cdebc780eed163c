"""Nodes that give DensePose: from photos, and from IUV pictures."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import comfy.model_management
import comfy.utils
import folder_paths
import numpy as np
import torch
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io
from torch import Tensor, nn

from ..pgpis_models.surface.coloured_parts import looks_coloured, read_coloured_parts
from ..pgpis_models.surface.densepose import GROUPS, IUV, ORDERS, PARTS, NobodyFound, estimate, load_model, part_numbers
from .inputs import pixels, watched
from .schema import aliases
from .types import DenseposeType

COLOURS = "part colours"
FOLDER = "pgpis_densepose"
FILES = ("densepose_r50_fpn_dl.torchscript", "densepose_r101_fpn_dl.torchscript")
SOURCE = "huggingface.co/LayerNorm/DensePose-TorchScript-with-hint-image"
AUX = ("ckpts", "LayerNorm", "DensePose-TorchScript-with-hint-image")   # where comfyui_controlnet_aux keeps them
PARTS_TOOLTIP = (f"Body parts of the mask, separated by commas: numbers 1 to {PARTS} or names such as "
                 f"{', '.join(GROUPS)}, left foot.")


def register_folder() -> None:
    """Makes the host know models/pgpis/densepose and the folder of controlnet_aux."""
    places = [Path(folder_paths.models_dir) / "pgpis" / "densepose"]
    places += [folder.joinpath(*AUX) for root in folder_paths.get_folder_paths("custom_nodes")
               for folder in sorted(Path(root).glob("*controlnet_aux*"))]   # it may download the files later
    for path in places:
        folder_paths.add_model_folder_path(FOLDER, str(path))
    paths, _ = folder_paths.folder_names_and_paths[FOLDER]
    folder_paths.folder_names_and_paths[FOLDER] = (paths, {".torchscript"})


class Detector(nn.Module):
    """The TorchScript network as the host can move it. No parameter of it is ever changed."""

    def __init__(self, network: torch.jit.ScriptModule) -> None:
        super().__init__()
        self.network = network


@lru_cache(maxsize=1)
def _patcher(path: str, _changed: int) -> ModelPatcher:
    return ModelPatcher(Detector(load_model(path)), comfy.model_management.get_torch_device(),
                        comfy.model_management.unet_offload_device())


def chosen_parts(text: str) -> list[str | int]:
    """`clothes, Left foot, 3` -> names and numbers."""
    names = [name.strip().lower() for name in text.replace("\n", ",").split(",")]
    return [int(name) if name.isdecimal() and len(name) < 4 else name for name in names if name]


def pictures_of(densepose: tuple[IUV, ...], order: str = ORDERS[1]) -> Tensor:
    """IUV pictures of one size as an IMAGE (B, H, W, 3)."""
    return torch.from_numpy(np.stack([iuv.to_picture(order) for iuv in densepose])).float().div_(255)


def masks_of(densepose: tuple[IUV, ...], parts: str) -> Tensor:
    """MASK (B, H, W) of the named parts; of the whole person when none is named."""
    return torch.from_numpy(np.stack([iuv.part_mask(*chosen_parts(parts)) for iuv in densepose])).float()


def part_masks_of(densepose: tuple[IUV, ...]) -> Tensor:
    """MASK (24 B, H, W): all parts of the first picture, then of the next."""
    numbers = np.arange(1, PARTS + 1, dtype=np.uint8)[:, None, None]
    masks = np.empty((len(densepose), PARTS, *densepose[0].size), np.float32)
    for iuv, own in zip(densepose, masks, strict=True):
        np.equal(iuv.part, numbers, out=own)
    return torch.from_numpy(masks).flatten(0, 1)


def _outputs() -> list:
    return [DenseposeType.Output(display_name="densepose", tooltip="Part (0 to 24), U and V (0 to 1) of each pixel, one per "
                                 "picture."),
            io.Image.Output(display_name="image", tooltip="The same as pictures, channels V, U and part number. Saved as "
                            "PNG (never JPEG) it can be read again with Read IUV."),
            io.Mask.Output(display_name="mask", tooltip="The parts named in the widget."),
            io.Mask.Output(display_name="part_masks", tooltip="24 masks per picture, parts 1 to 24.")]


def _result(found: tuple[IUV, ...], parts: str) -> io.NodeOutput:
    return io.NodeOutput(found, pictures_of(found), masks_of(found, parts), part_masks_of(found))


class EstimateDensePose(io.ComfyNode):
    """IMAGE -> DENSEPOSE, IMAGE, MASKs with the public TorchScript models."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        files = folder_paths.get_filename_list(FOLDER)
        return io.Schema(
            node_id="PGPISEstimateDensePose", display_name="Estimate DensePose", category="PGPIS/densepose",
            **aliases("iuv", "body parts", "person segmentation", "surface"),
            description="Finds one person per picture and says which body part each pixel shows, and where on it. Needs one "
                        f"of {' or '.join(FILES)} in models/pgpis/densepose, or where comfyui_controlnet_aux keeps them.",
            inputs=[io.Image.Input("image", tooltip="Photo(s) of people."),
                    io.Combo.Input("file", options=files or list(FILES),
                                   tooltip=f"A public TorchScript DensePose model, from {SOURCE}."),
                    io.Int.Input("person", default=-1, min=-1, max=99, tooltip="Which person of each picture, counted from "
                                 "0 by the model's confidence; -1 takes the largest."),
                    io.String.Input("parts", default="body", tooltip=PARTS_TOOLTIP)],
            outputs=_outputs())

    @classmethod
    def execute(cls, image, file, person, parts) -> io.NodeOutput:
        part_numbers(chosen_parts(parts))   # before the work, not after it
        photos = pixels(image, "the IMAGE")
        path = folder_paths.get_full_path(FOLDER, file)
        if path is None:
            places = ", ".join(folder_paths.get_folder_paths(FOLDER))
            raise FileNotFoundError(f"no file {file} in {places}. Download it from {SOURCE} and put it there, or "
                                    "load an IUV picture with Read IUV")
        patcher = _patcher(path, Path(path).stat().st_mtime_ns)
        comfy.model_management.load_models_gpu([patcher], force_full_load=True)
        bar, found = comfy.utils.ProgressBar(len(photos)), []
        for number, photo in enumerate(photos):
            comfy.model_management.throw_exception_if_processing_interrupted()
            try:
                found.append(estimate(patcher.model.network, photo, "largest" if person < 0 else person,
                                      device=patcher.load_device))
            except ValueError as error:
                raise ValueError(f"picture {number + 1} of {len(photos)}: {error}") from error
            bar.update(1)
        return _result(tuple(found), parts)


class ReadIUV(io.ComfyNode):
    """IUV picture -> DENSEPOSE."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PGPISReadIUV", display_name="Read IUV (DensePose)", category="PGPIS/densepose",
            **aliases("load densepose", "body parts", "uv"),
            description="Reads DensePose from IUV pictures: part number 0 to 24, U and V as the three channels. Also from "
                        "the coloured pictures of comfyui_controlnet_aux, which hold parts alone: enough for masks, framing "
                        "and faces, not for textures or MCLD's pose, which need U and V.",
            inputs=[io.Image.Input("image", tooltip="IUV picture(s), PNG, never resized with interpolation."),
                    io.Combo.Input("order", options=[ORDERS[1], ORDERS[0], COLOURS], default=ORDERS[1],
                                   tooltip="Which channel is which in red, green, blue. v,u,part: files that OpenCV wrote "
                                   "(MCLD's, and this pack's own). part,u,v: files that name the part in red. part "
                                   "colours: viridis or parula, of "
                                   "controlnet_aux's DensePose Estimator."),
                    io.String.Input("parts", default="body", tooltip=PARTS_TOOLTIP)],
            outputs=_outputs())

    @classmethod
    def execute(cls, image, order, parts) -> io.NodeOutput:
        part_numbers(chosen_parts(parts))
        if isinstance(image, Tensor) and image.ndim == 4 and image.shape[-1] == 1:
            raise ValueError("the IUV picture is grey, so it holds part numbers at most; expected channels of part, U and V")
        pictures, found = pixels(image, "the IUV picture", ground=0.0), []
        for number, picture in enumerate(watched(pictures), start=1):
            where = f"picture {number} of {len(pictures)}: "
            try:
                found.append(read_coloured_parts(picture) if order == COLOURS else IUV.from_picture(picture, order))
            except ValueError as error:
                hint = f" It looks like controlnet_aux's coloured picture: set order to {COLOURS}." \
                    if order != COLOURS and looks_coloured(picture) else ""
                raise ValueError(f"{where}{error}{hint}") from error
            if not found[-1].part.any():
                raise NobodyFound(f"{where}no pixel belongs to a body part; expected a person in each IUV picture. Leave "
                                  "it out")
        return _result(tuple(found), parts)


NODES = [EstimateDensePose, ReadIUV]
