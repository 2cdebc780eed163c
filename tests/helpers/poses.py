"""A pose of random joints."""

import numpy as np

from pgpis_models.poses.keypoints import Keypoints

CANVAS = (256, 176)


def some_pose(seed: int = 0, missing: tuple[int, ...] = (4, 10), canvas=CANVAS) -> Keypoints:
    xy = np.random.default_rng(seed).uniform((5, 5), (canvas[1] - 5, canvas[0] - 5), (18, 2))
    present = np.ones(18, dtype=bool)
    present[list(missing)] = False
    return Keypoints(xy, present, canvas)
