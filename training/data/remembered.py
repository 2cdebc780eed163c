"""Poses that a detector found, kept on disk: a preparation that was interrupted does not look for them again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pgpis_models.poses.formats import from_pose_keypoint, to_pose_keypoint
from pgpis_models.poses.keypoints import Keypoints
from training.data.placing import clean, whole

Detector = Callable[[np.ndarray], Keypoints]


class RememberedPoses:
    """Calls `detect` for photos whose pose is not in `folder`, and keeps what it finds there.

    A pose is kept under the photo's place below `root`, with the name of the detector and the size and time of the photo's
    file: where one of them is another, it is found again.
    """

    def __init__(self, folder: Path, root: Path, detect: Detector, detector: str, hands: bool = False) -> None:
        self.folder, self.root, self.detect, self.hands = folder, root, detect, hands
        self.detector = f"{detector} with hands" if hands else detector

    def __call__(self, path: Path, picture: np.ndarray) -> Keypoints:
        """The pose in a photo (H, W, 3) uint8, which is that of the file `path`. Raises as the detector does."""
        kept = self.folder / path.relative_to(self.root).with_name(f"{path.name}.json")
        about = {"detector": self.detector, "bytes": path.stat().st_size, "modified": path.stat().st_mtime_ns}
        try:
            frame = json.loads(kept.read_text(encoding="utf-8"))
            if frame["of"] == about:
                return from_pose_keypoint([frame], whole=self.hands)[0]
        except (OSError, ValueError, KeyError, TypeError):
            pass   # not there, or another's: found anew
        pose = self.detect(picture)
        clean(kept.parent)
        whole(kept, lambda part: part.write_text(json.dumps(to_pose_keypoint(pose)[0] | {"of": about}), encoding="utf-8"))
        return pose
