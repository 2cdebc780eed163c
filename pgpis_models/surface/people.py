"""Whether several photos show one person: by the colours of the parts of the body, which clothes and skin give.

Of 60 drawn people in two views each, one person's look like two people's in 2 % by DensePose and in 13 % by pose, two
people's like one's in 6 %; by texture maps, whose filled-in texels count as well, in 3 and 18 %
(benchmarks/several_photos.py --strangers). Faces are not asked: from behind there is none.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..poses.keypoints import JOINTS, Keypoints
from . import layout
from .densepose import IUV

PARTS = ("torso", "upper arms", "lower arms", "upper legs", "lower legs")   # the head is hair behind and a face before
LIMBS = {"upper arms": ("shoulder", "elbow"), "lower arms": ("elbow", "wrist"), "upper legs": ("hip", "knee"),
         "lower legs": ("knee", "ankle")}
SIDES = ("left", "right")
FEWEST = 12          # pixels of a part, of which its colour is told
SHARED = 3           # parts that two photos must both show before they are compared
APART = 0.22         # mean distance of the parts' colours (RGB, 0..1), from which on two photos look like two people
STEPS, ACROSS = np.linspace(0.2, 0.8, 13), np.linspace(-1, 1, 5)   # of a limb, along it and over its breadth
BREADTH = {"torso": 0.2, "limb": 0.08}                             # half of it, over the length of the bone
NOT_COMPARED = "the photos were not compared, and two people's would not be told: {give} for that"


def clothing_colours(photo: np.ndarray, view: Keypoints | IUV) -> dict[str, np.ndarray]:
    """Photo (H, W, 3) uint8 with the pose or the DensePose of the person in it -> part -> median colour (3,) in 0..1, of the
    parts that show."""
    found = {}
    for part in PARTS:
        pixels = photo[view.part_mask(part)] if isinstance(view, IUV) else _near_bones(photo, view, part)
        if len(pixels) >= FEWEST:
            found[part] = np.median(pixels, 0) / 255
    return found


def differences(photos: Sequence[np.ndarray], views: Sequence[Keypoints | IUV]) -> np.ndarray:
    """(N, N) float64: mean distance of the parts' colours between two photos; nan where they share too few parts."""
    colours = [clothing_colours(photo, view) for photo, view in zip(photos, views, strict=True)]
    found = np.full((len(photos), len(photos)), np.nan)
    for i, one in enumerate(colours):
        for j, other in enumerate(colours):
            shared = one.keys() & other.keys()
            if len(shared) >= SHARED:
                found[i, j] = np.mean([np.linalg.norm(one[part] - other[part]) for part in sorted(shared)])
    return found


def strangers(photos: Sequence[np.ndarray], views: Sequence[Keypoints | IUV]) -> str:
    """What to tell of photos (H, W, 3) uint8 that look like two people, naming the two that differ most; "" for those that
    look like one, or that share too little to say."""
    apart = np.nan_to_num(differences(photos, views))
    if apart.max(initial=0) <= APART:
        return ""
    first, second = sorted(np.unravel_index(apart.argmax(), apart.shape))
    return (f"photos {first + 1} and {second + 1} differ in the colours of skin and clothes ({apart.max():.2f} of 1; those "
            f"of one person seldom by {APART}): expected one person in one set of clothes. What is made will mix both")


def views_of_maps(maps: np.ndarray) -> list[IUV] | None:
    """Texture maps (N, H, W, 3) uint8, black where nothing is known -> the parts that their texels show, so that maps are
    compared as photos are; U and V are 0. None for maps in the SMPL layout where its table is not installed. Raises
    ValueError for another layout."""
    name = layout.layout_of(maps)
    if name == "smpl" and not layout.have_smpl():
        return None
    tiles = np.broadcast_to(np.arange(1, layout.PARTS + 1, dtype=np.uint8)[:, None, None],
                            (layout.PARTS, layout.TILE, layout.TILE))
    part = layout.smpl_table().part() if name == "smpl" else layout.from_tiles(tiles)
    flat = np.zeros(part.shape, np.float32)
    return [IUV(part * one.any(-1), flat, flat) for one in maps]


def _near_bones(photo: np.ndarray, pose: Keypoints, part: str) -> np.ndarray:
    """Pixels (P, 3) around the bones of a part, as far as they are in the photo, which the pose's canvas is squashed to."""
    height, width = photo.shape[:2]
    pose = pose.scaled_to((height, width))
    at = {name: pose.xy[number] for number, name in enumerate(JOINTS) if pose.present[number]}
    if part == "torso":
        ends = [[at[f"{side} {joint}"] for side in SIDES if f"{side} {joint}" in at] for joint in ("shoulder", "hip")]
        bones = [tuple(sum(some) / 2 for some in ends)] if all(len(some) == 2 for some in ends) else []
    else:
        bones = [tuple(at[f"{side} {joint}"] for joint in LIMBS[part]) for side in SIDES
                 if all(f"{side} {joint}" in at for joint in LIMBS[part])]
    found = [np.empty((0, 3), np.uint8)]
    for start, end in bones:
        along = end - start
        across = np.array([-along[1], along[0]]) * BREADTH["torso" if part == "torso" else "limb"]
        points = start + STEPS[:, None, None] * along + ACROSS[None, :, None] * across
        x, y = np.floor(points.reshape(-1, 2)).astype(int).T
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        found.append(photo[y[inside], x[inside]])
    return np.concatenate(found)
