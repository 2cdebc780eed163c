"""Pose pictures as a checkpoint of FPDM wants them: of 18 joints, or of 133 points with hands and face."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..poses.keypoints import Keypoints
from .config import FusionConfig
from .drawing import draw_fpdm
from .whole_drawing import draw_whole


def draw_poses(poses: Sequence[Keypoints], size: tuple[int, int], config: FusionConfig) -> np.ndarray:
    """The poses as config.points says -> (B, H, W, 3) uint8. size: (H, W) to draw on. Poses may come on canvases of
    different sizes; of those without hands and face the body alone is drawn.

    Raises ValueError without poses.
    """
    if not poses:
        raise ValueError("no poses to draw; expected one or more Keypoints")
    return np.stack([(draw_whole if config.whole else draw_fpdm)(pose, size) for pose in poses])
