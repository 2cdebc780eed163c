"""Photos with drawn people somewhere in them, of whom all is known: for framing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pgpis_models.poses.keypoints import Keypoints
from pgpis_models.surface.densepose import IUV
from training.world.drawing import Rendering, render
from training.world.poses import sample_pose
from training.world.wardrobe import BACKGROUND, sample_identity

GROUND = np.round(np.array(BACKGROUND) * 255).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class Photo:
    """picture (H, W, 3) uint8; per person the pose, and of the last one drawn IUV and mask."""

    picture: np.ndarray
    people: list[Keypoints]
    iuv: IUV
    mask: np.ndarray


def figure(seed: int = 0, size: tuple[int, int] = (400, 300), seated: bool = False, closer: bool = False) -> Rendering:
    """A mannequin: the first pose from `seed` on of the kind that is asked for."""
    pose = next(pose for pose in map(sample_pose, range(1000 * seed, 1000 * seed + 1000))
                if pose.seated == seated and (pose.zoom > 1) == closer)
    return render(sample_identity(seed), pose, size)


def photo(size: tuple[int, int], *people: tuple[Rendering, int, int], noise: int = 0) -> Photo:
    """A plain ground of (H, W) pixels with mannequins: (rendering, left, top) each, whose pictures lie within it. noise:
    of the ground, in 8-bit steps; above 40 it is no plain ground any more."""
    height, width = size
    rng = np.random.default_rng(0)
    picture = np.clip(GROUND + rng.integers(-noise, noise + 1, (*size, 3)), 0, 255).astype(np.uint8)
    maps = [np.zeros(size, np.uint8), np.zeros(size, np.float32), np.zeros(size, np.float32)]
    mask, poses = np.zeros(size, bool), []
    for drawn, left, top in people:
        where = slice(top, top + drawn.part.shape[0]), slice(left, left + drawn.part.shape[1])
        body = drawn.part > 0
        picture[where][body] = drawn.image[body]
        mask[where] |= body
        maps = [np.zeros_like(one) for one in maps]
        iuv = IUV.from_picture(drawn.iuv())
        for one, values in zip(maps, (iuv.part, iuv.u, iuv.v), strict=True):
            one[where] = values
        poses.append(Keypoints(drawn.keypoints + (left, top), drawn.detected, size))
    return Photo(picture, poses, IUV(*maps), mask)
