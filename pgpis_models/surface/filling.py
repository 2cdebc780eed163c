"""The working canvas of a warp: 24 tiles with gaps, one number per texel, whose holes are filled (MCLD's authors' code).

Tiles lie apart, so that neither a dilation nor the search for the nearest texel leaves a tile: each step then runs on all
parts at once. A texel is a uint32 of the three channels and a fourth that counts for nothing, so that it moves in one go.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from .densepose import IUV, PARTS
from .layout import ATLAS, COLUMNS, ROWS, TILE

REACH = 10  # side in texels of the authors' dilation box: holes are filled 4 texels up and left, 5 down and right
PITCH = TILE + REACH
CANVAS = (ROWS * PITCH, COLUMNS * PITCH)

# Telea's inpainting works inwards from all borders of a hole at one speed, so a hole may be cut off where its far side can
# no longer reach a texel that is kept: 5 + 3 (radius) + 4 texels. Measured on the golden cases: 6 of 960,000 texels change,
# by one level, in one of two; with 10 they are 46, by up to 4.
CUT = 12
RADIUS = 3  # of Telea's neighbourhood, in texels

_COLOUR = np.array([255, 255, 255, 0], np.uint8).view(np.uint32)[0]  # bits of the three channels
_BYTE = np.arange(256)
_COLUMN = np.trunc(_BYTE * (TILE - 1.0) / 255).astype(np.int32)  # of 8-bit U
_ROW = np.trunc((255 - _BYTE) * (TILE - 1.0) / 255).astype(np.int32)  # of 8-bit V, whose axis points up


def _corners(pitch: int, width: int) -> np.ndarray:
    """(25,) int32: flat index of each part's first texel; part 0 has none."""
    return np.array([0] + [p % ROWS * pitch * width + p // ROWS * pitch for p in range(PARTS)], np.int32)


_CORNERS = {True: _corners(PITCH, CANVAS[1]), False: _corners(TILE, ATLAS[1])}


def opencv():
    """The module cv2. Raises ImportError naming the package when it is missing."""
    try:
        import cv2
    except ImportError as error:
        raise ImportError(
            "Texture maps need OpenCV (package opencv-python-headless), which is not installed. "
            "Install it with: python -m pip install opencv-python-headless"
        ) from error
    return cv2


def texels(iuv: IUV, gaps: bool) -> tuple[np.ndarray, np.ndarray]:
    """Flat indices of the N pixels that show a part, in raster order, and of their texels, (N,) each.

    gaps: True for texels of the canvas, False of the atlas. The formula is the authors', on 8-bit U and V.
    """
    picture, pixel = iuv.to_picture(), np.flatnonzero(iuv.part)
    part, u, v = (picture[..., channel].ravel().take(pixel) for channel in range(3))   # 3 times as fast as rows of them
    width = CANVAS[1] if gaps else ATLAS[1]
    return pixel, _CORNERS[gaps].take(part) + (_ROW * np.int32(width)).take(v) + _COLUMN.take(u)


def spread(parts: np.ndarray) -> np.ndarray:
    """Tiles (24, 200, 200) bool -> canvas."""
    canvas = np.zeros((ROWS, PITCH, COLUMNS, PITCH), bool)
    canvas[:, :TILE, :, :TILE] = parts.reshape(COLUMNS, ROWS, TILE, TILE).transpose(1, 2, 0, 3)
    return canvas.reshape(CANVAS)


def gathered(canvas: np.ndarray) -> np.ndarray:
    """Canvas (H, W, ...) -> atlas (1200, 800, ...)."""
    depth = canvas.shape[2:]
    grid = canvas.reshape(ROWS, PITCH, COLUMNS, PITCH, *depth)
    return np.ascontiguousarray(grid[:, :TILE, :, :TILE]).reshape(*ATLAS, *depth)


def scatter(image: np.ndarray, iuv: IUV) -> np.ndarray:
    """Photo (H, W, 3) uint8 -> canvas uint32; of pixels that share a texel the last in raster order stays."""
    canvas = np.zeros(CANVAS, np.uint32)
    pixel, texel = texels(iuv, gaps=True)
    canvas.ravel()[texel] = packed(image).ravel()[pixel]
    return canvas


def packed(picture: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 -> (H, W) uint32, the fourth channel 0, so that black is 0."""
    cv2 = opencv()
    four = cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_BGR2BGRA).view(np.uint32)[..., 0]
    return np.bitwise_and(four, _COLOUR, out=four)


def not_black(colours: np.ndarray) -> np.ndarray:
    """Colours (..., 3) uint8 -> (...) bool, which are not black; several times as fast as `any` along so short an axis."""
    return (colours[..., 0] | colours[..., 1] | colours[..., 2]) > 0


def channels(canvas: np.ndarray) -> np.ndarray:
    """Canvas (H, W) uint32 -> (H, W, 3) uint8."""
    cv2 = opencv()
    canvas = np.ascontiguousarray(canvas)
    return cv2.cvtColor(canvas.view(np.uint8).reshape(*canvas.shape, 4), cv2.COLOR_BGRA2BGR)


def holes_to_fill(seen: np.ndarray, region: np.ndarray, fill: str) -> np.ndarray:
    """Canvas bool: unseen texels of the region that are to be filled; see `texture.warp` for `fill`."""
    if fill == "none":
        return np.zeros_like(seen)
    if fill == "near":
        # The anchor of an even box is OpenCV's default: a hole looks 5 texels up and left, and 4 down and right.
        return opencv().dilate(seen.view(np.uint8), np.ones((REACH, REACH), np.uint8)).view(bool) & region & ~seen
    holes = (region & ~seen).reshape(ROWS, PITCH, COLUMNS, PITCH)
    return (holes & seen.reshape(holes.shape).any((1, 3), keepdims=True)).reshape(CANVAS)  # parts that show


def tiles_of(seen: np.ndarray) -> list:
    """Index of each tile of the canvas that has a seen texel. seen: CANVAS, bool."""
    shown = seen.reshape(ROWS, PITCH, COLUMNS, PITCH).any((1, 3))
    return [np.s_[r * PITCH : r * PITCH + TILE, c * PITCH : c * PITCH + TILE] for r, c in np.argwhere(shown)]


def _round_trip(tile: np.ndarray, full: bool) -> tuple[np.ndarray, np.ndarray]:
    """(256,) uint8 each: colours of a tile stretched to 0..255, and back. Both truncate, so that some colours lose a
    level: the authors' code. full: no texel is empty."""
    low, high = float(tile.min()) if full else 0.0, float(tile.max())
    values = np.arange(256.0)
    if high == low:  # one grey all over: the authors divide by zero
        return values.astype(np.uint8), values.astype(np.uint8)
    there = np.clip((values - low) / (high - low) * 255, 0, 255).astype(np.uint8)
    return there, (values / 255.0 * (high - low) + low).astype(np.uint8)


def fill_telea(canvas: np.ndarray, seen: np.ndarray, holes: np.ndarray, region: np.ndarray) -> None:
    """Fills `holes` in place by Telea's fast marching, tile by tile, on colours stretched to 0..255 (authors' code)."""
    cv2 = opencv()
    # Telea needs to run a little farther than what is kept, in the region that the authors fill.
    reached = cv2.dilate(holes.view(np.uint8), np.ones((2 * CUT + 1, 2 * CUT + 1), np.uint8))
    marched = reached & (region & ~seen).view(np.uint8)

    def fill(place: tuple[slice, slice]) -> None:
        tile, hole = channels(canvas[place]), marched[place]
        there, back = _round_trip(tile, bool(seen[place].all()))
        tile = cv2.LUT(tile, there)
        if hole.any():
            inner = _box(hole, margin=RADIUS + 2)
            tile[inner] = cv2.inpaint(np.ascontiguousarray(tile[inner]), np.ascontiguousarray(hole[inner]), RADIUS,
                                      cv2.INPAINT_TELEA)
        tile = cv2.LUT(tile, back)
        tile[~(seen[place] | holes[place])] = 0
        canvas[place] = packed(tile)

    places, threads = tiles_of(seen), cv2.getNumThreads()
    if threads < 2:
        list(map(fill, places))
    else:   # OpenCV marches on one, and lets others run meanwhile
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(fill, places))


def fill_nearest(canvas: np.ndarray, seen: np.ndarray, holes: np.ndarray, near: bool) -> None:
    """Gives each of `holes` the colour of the nearest seen texel of its tile, in place.

    near: holes are closer to a seen texel than the gap between tiles, so that the canvas can be searched as a whole.
    """
    cv2 = opencv()
    places = tiles_of(seen)
    for place in places:  # the authors' round trip, which the filled texels inherit
        tile, full = np.ascontiguousarray(canvas[place]).view(np.uint8).reshape(TILE, TILE, 4), bool(seen[place].all())
        there, back = _round_trip(tile[..., :3] if full else tile, full)
        if not np.array_equal(back[there], _BYTE):
            canvas[place] = cv2.LUT(tile, back[there]).view(np.uint32)[..., 0]
    if not holes.any():
        return
    for place in [np.s_[:, :]] if near else places:
        known, wanted = np.flatnonzero(seen[place]), np.flatnonzero(holes[place])   # quicker than masks
        _, label = cv2.distanceTransformWithLabels((~seen[place]).view(np.uint8), cv2.DIST_L2, 3,
                                                   labelType=cv2.DIST_LABEL_PIXEL)
        label, colours = label.ravel(), np.ascontiguousarray(canvas[place]).ravel()
        owner = np.zeros(len(known) + 1, np.uint32)  # each seen texel has a label of its own, from 1 on
        owner[label.take(known)] = colours.take(known)
        colours[wanted] = owner.take(label.take(wanted))
        canvas[place] = colours.reshape(canvas[place].shape)


def _box(mask: np.ndarray, margin: int) -> tuple[slice, slice]:
    """Rows and columns around the mask, with a margin, inside of the tile."""
    spans = []
    for axis in (1, 0):
        found = np.flatnonzero(mask.any(axis))
        spans.append(slice(max(int(found[0]) - margin, 0), min(int(found[-1]) + 1 + margin, TILE)))
    return tuple(spans)
