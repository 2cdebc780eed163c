"""The demo world's pictures as a node, so that the demo's workflows run as soon as they are dragged in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from comfy_api.latest import io, ui
from PIL import Image

from .schema import aliases

PHOTO = "pgpis_photo.png"   # of another size, for Load Image
FOLDER = Path(__file__).resolve().parent.parent / "workflows" / "inputs"


def pictures() -> list[str]:
    """Names of the pictures that come with the pack."""
    return sorted(path.name for path in FOLDER.glob("*.png") if path.name != PHOTO)


class DemoPicture(io.ComfyNode):
    """Name of a picture that comes with the pack -> IMAGE, MASK."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PGPISDemoPicture", display_name="Demo Picture (Person)", category="PGPIS/loaders",
            **aliases("mannequin", "example image", "pose transfer demo"),
            description="A drawn person of the demo world. The picture comes with the pack: nothing to upload. For "
                        "your own photos, with a checkpoint that was trained on photos, put Load Image in its place.",
            is_output_node=True,   # the host shows again what it has kept of an output node, and of no other
            inputs=[io.Combo.Input("picture", options=pictures(), tooltip=(
                "source and target are one person in two poses, person is another; view_ are a third one, turned. "
                "_iuv is the true DensePose of the picture of that name, for Read IUV (channels v,u,part)."))],
            outputs=[io.Image.Output(display_name="image", tooltip="The picture, 256x192 (height x width)."),
                     io.Mask.Output(display_name="mask", tooltip="Its red channel: use it of a picture that is a mask.")])

    @classmethod
    def validate_inputs(cls, picture: str) -> bool | str:
        """Here, so that a file of another version of the pack gets a sentence that says so."""
        return picture in pictures() or f"no demo picture {picture!r}; expected one of {', '.join(pictures())}"

    @classmethod
    def execute(cls, picture: str) -> io.NodeOutput:
        if picture not in pictures():   # a name that comes by a link is validated nowhere else, and may be any path
            raise ValueError(cls.validate_inputs(picture))
        pixels = np.asarray(Image.open(FOLDER / picture).convert("RGB")).astype(np.float32) / 255
        image = torch.from_numpy(pixels)[None]
        return io.NodeOutput(image, image[..., 0], ui=ui.PreviewImage(image, cls=cls))


NODES = [DemoPicture]
