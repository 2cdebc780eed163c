"""Which joints a picture of the body shows: in the canvas, and nothing else of the body far in front of them."""

from __future__ import annotations

import math

import numpy as np

from .figure import HEAD, L_ARM, L_LEG, R_ARM, R_LEG, SKIRT, TORSO
from .raster import Hits, View
from .skeleton import EYE_ANGLE, Skeleton

# segments whose surface may lie on top of a joint without hiding it
_AROUND = ((HEAD,), (TORSO, HEAD), (R_ARM[0], TORSO), R_ARM[:2], R_ARM[1:], (L_ARM[0], TORSO), L_ARM[:2], L_ARM[1:],
           (R_LEG[0], TORSO, SKIRT), R_LEG[:2], R_LEG[1:], (L_LEG[0], TORSO, SKIRT), L_LEG[:2], L_LEG[1:],
           (HEAD,), (HEAD,), (HEAD,), (HEAD,))
FACE = (0, 14, 15, 16, 17)   # joints that lie on the surface of the head


def uncovered(skeleton: Skeleton, view: View, hits: Hits, owners, keypoints, eyes, height: int, width: int):
    """(18,) and (2,) bool: joints and eyes in the canvas that nothing else of the body lies far in front of."""
    depth, segment = np.full(height * width, -np.inf, np.float32), np.full(height * width, -1, np.int32)
    depth[hits.sample], segment[hits.sample] = hits.depth, owners

    def before(points):
        column, row = (np.clip(np.floor(points[:, i]).astype(int), 0, n - 1) for i, n in ((0, width), (1, height)))
        inside = np.all((points[:, :2] >= 0) & (points[:, :2] < (width, height)), axis=1)
        return depth[row * width + column], segment[row * width + column], inside

    front, owner, inside = before(keypoints)
    axes = view.rotation @ skeleton.head  # columns left, up, forward
    sine, cosine = math.sin(EYE_ANGLE), math.cos(EYE_ANGLE)
    facing = {0: axes[2, 2] + 0.10,
              14: -sine * axes[2, 0] + cosine * axes[2, 2], 15: sine * axes[2, 0] + cosine * axes[2, 2],
              16: -axes[2, 0] + 0.20, 17: axes[2, 0] + 0.20}
    result = np.zeros(18, bool)
    for joint, around in enumerate(_AROUND):
        if joint in facing:  # on the surface; a point at the outline may fall on the ground
            result[joint] = facing[joint] > 0.08 and front[joint] - keypoints[joint, 2] < 0.022
        else:
            result[joint] = owner[joint] in around and front[joint] - keypoints[joint, 2] < 0.085
    above, _, shown = before(eyes)
    turned = np.array([facing[14], facing[15]]) > 0.30
    return result & inside, turned & shown & (above - eyes[:, 2] < 0.014)
