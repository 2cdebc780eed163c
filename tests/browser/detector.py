"""In place of the Python package controlnet-aux and its weights: everybody before a plain ground stands upright.

The host loads this as a custom node of a test's own folder, so that Extract Pose finds a detector.
"""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import torch

# x and y of the 18 joints of OpenPose, as shares of the person's box
UPRIGHT = ((50, 8), (50, 18), (35, 19), (28, 34), (25, 48), (65, 19), (72, 34), (75, 48), (42, 50), (41, 72), (40, 94),
           (58, 50), (59, 72), (60, 94), (46, 6), (54, 6), (40, 8), (60, 8))


class Detector:
    """As OpenposeDetector of controlnet_aux.open_pose."""

    def __init__(self, body):
        self.body = body

    def detect_poses(self, picture):
        """(H, W, 3) uint8 -> the people in it, joints as shares of the picture."""
        rows, columns = np.nonzero((np.abs(picture.astype(int) - picture[0, 0]) > 40).any(-1))
        if not len(rows):
            return []
        (height, width), (top, left) = picture.shape[:2], (rows.min(), columns.min())
        tall, wide = rows.max() - top, columns.max() - left
        joints = [SimpleNamespace(x=(left + wide * x / 100) / width, y=(top + tall * y / 100) / height) for x, y in UPRIGHT]
        return [SimpleNamespace(body=SimpleNamespace(keypoints=joints))]


def _as_package():
    package, pose, body = (ModuleType(name) for name in ("controlnet_aux", "controlnet_aux.open_pose",
                                                         "controlnet_aux.open_pose.body"))
    pose.OpenposeDetector, body.Body = Detector, lambda path: SimpleNamespace(model=torch.nn.Linear(2, 2))
    sys.modules.update({module.__name__: module for module in (package, pose, body)})


NODE_CLASS_MAPPINGS = {}   # no node, but a custom node to the host
if __name__ not in ("__main__", "tests.browser.detector"):
    _as_package()
