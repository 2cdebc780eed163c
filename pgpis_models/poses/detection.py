"""Pose detection in photos: by controlnet-aux where it is installed (the pack's `pose` extra), or by rtmlib."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from .formats import EmptyFrame, from_pose_keypoint
from .keypoints import Keypoints
from .rtm import file_names, frame_by_rtm, load_detector

DETECTORS = ("controlnet-aux", "rtmlib")
FOLDER = Path("models/pgpis")   # where the command line looks for rtmlib's networks
JOINTS = 18
DETECTOR_SIDE = 512   # pixels
ANNOTATORS = "lllyasviel/Annotators"  # where controlnet-aux finds its OpenPose weights


def detect_poses(image: np.ndarray, detector: str = DETECTORS[0], whole: bool = False) -> list[Keypoints]:
    """Everybody in a photo (H, W, 3) uint8 RGB, each as Keypoints on the photo's canvas. detector: one of DETECTORS. whole:
    with hands and face, which rtmlib finds.

    Raises ValueError naming the package and the command when the detector is missing, or the files that it needs.
    """
    if detector == DETECTORS[1]:
        frame = frame_by_rtm(_rtm(), image)
        return [pose for number in range(len(frame["people"])) for pose in _seen(frame, number, whole)]
    if whole:
        raise ValueError(f"{detector} finds no hands and faces here; expected {DETECTORS[1]}")
    size = image.shape[:2]
    people = [joints_of(person, size) for person in _detector().detect_poses(detector_sized(image))]
    return [Keypoints(joints[:, :2], joints[:, 2] > 0, size) for joints in people]


def detector_sized(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8, shrunk to a shorter side of 512, on which controlnet-aux's own preprocessor detects: its maps of a
    photo of 12 megapixels would take gigabytes. Joints come as shares of the picture, so nothing else changes."""
    import cv2  # no cost when the host starts
    scale = DETECTOR_SIDE / min(image.shape[:2])
    if scale >= 1:
        return image
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def joints_of(person, size: tuple[int, int]) -> np.ndarray:
    """A person as controlnet-aux gives it, in shares of a picture of `size` (H, W) -> (18, 3) x, y in pixels and 1 for a
    joint that was found; zeros for one that was not."""
    height, width = size
    found = [(joint.x * width, joint.y * height, 1.0) if joint is not None else (0.0, 0.0, 0.0)
             for joint in person.body.keypoints[:JOINTS]]
    return np.array(found, np.float32)


def detect_pose(image: np.ndarray, detector: str = DETECTORS[0], whole: bool = False) -> Keypoints:
    """The largest person of a photo (H, W, 3) uint8, as `detect_poses` has it. Raises ValueError when there is nobody."""
    poses = detect_poses(image, detector, whole)
    if not poses:
        raise ValueError(f"no person found in a photo of {image.shape[1]}x{image.shape[0]} pixels; expected one, upright "
                         "and at least a quarter of the picture high; load a pose from JSON instead, or crop the photo")

    def area(pose: Keypoints) -> float:
        x0, y0, x1, y1 = pose.bounds
        return (x1 - x0) * (y1 - y0)
    return max(poses, key=area)


@cache
def _detector():
    """The detector with its weights, loaded once for many photos."""
    try:
        from controlnet_aux import OpenposeDetector
    except ImportError:
        raise ValueError("pose detection needs the package controlnet-aux, which is not installed; run "
                         "`pip install controlnet-aux`, or give the pose as POSE_KEYPOINT / OpenPose JSON (the nodes of "
                         "comfyui_controlnet_aux and ComfyUI's own SDPose give it)") from None
    return OpenposeDetector.from_pretrained(ANNOTATORS)


@cache
def _rtm():
    """rtmlib's detector with the networks of FOLDER, loaded once for many photos."""
    return load_detector([FOLDER / name for name in file_names()], str(FOLDER))


def _seen(frame: dict, number: int, whole: bool) -> list[Keypoints]:
    """Person `number` of a frame in a list, empty where no joint is sure enough."""
    try:
        return from_pose_keypoint([frame], person=number, whole=whole)
    except EmptyFrame:
        return []
