"""Pose detection through a stand-in for controlnet-aux, which needs downloaded weights."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from pgpis_models.poses import detection as detect


def person(*points):
    """As controlnet-aux gives one: joints in shares of the picture, None where not found."""
    joints = [None if point is None else SimpleNamespace(x=point[0], y=point[1]) for point in points]
    return SimpleNamespace(body=SimpleNamespace(keypoints=joints + [None] * (18 - len(joints))))


@pytest.fixture
def people(monkeypatch):
    found = []
    monkeypatch.setattr(detect, "_detector", lambda: SimpleNamespace(detect_poses=lambda image: found))
    return found


def test_joints_come_in_pixels_of_the_photo(people):
    people.append(person((0.5, 0.25), None, (0.1, 1.0)))
    (pose,) = detect.detect_poses(np.zeros((200, 100, 3), np.uint8))
    assert pose.canvas == (200, 100) and pose.present.tolist() == [True, False, True] + [False] * 15
    assert np.allclose(pose.xy[[0, 2]], [[50, 50], [10, 200]])


@pytest.mark.parametrize("size, seen", [((3000, 2000), (768, 512)), ((600, 900), (512, 768)), ((200, 100), (200, 100))])
def test_large_photos_are_shrunk_for_the_detector_alone(monkeypatch, size, seen):
    """A white square on black lies at the same shares of what the detector sees."""
    photo, shapes = np.zeros((*size, 3), np.uint8), []
    photo[size[0] // 4:size[0] // 2, size[1] // 2:] = 255

    def find(image):
        shapes.append(image.shape[:2])
        y, x = np.argwhere(image[..., 0] > 127).min(0)
        return [person((x / image.shape[1], y / image.shape[0]))]
    monkeypatch.setattr(detect, "_detector", lambda: SimpleNamespace(detect_poses=find))
    (pose,) = detect.detect_poses(photo)
    assert shapes == [seen] and pose.canvas == size
    assert np.allclose(pose.xy[0], [size[1] / 2, size[0] / 4], atol=max(size) / 512)


def test_the_largest_person_is_taken(people):
    people.extend([person((0.4, 0.4), (0.5, 0.5)), person((0.1, 0.1), (0.9, 0.9))])
    assert np.allclose(detect.detect_pose(np.zeros((10, 10, 3), np.uint8)).xy[1], [9, 9])


def test_nobody_in_the_photo_is_an_error_that_says_what_to_do(people):
    with pytest.raises(ValueError, match="no person found in a photo of 30x20 pixels.*crop the photo"):
        detect.detect_pose(np.zeros((20, 30, 3), np.uint8))


def test_without_controlnet_aux_the_error_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "controlnet_aux", None)
    detect._detector.cache_clear()
    with pytest.raises(ValueError, match="pip install controlnet-aux"):
        detect.detect_poses(np.zeros((20, 30, 3), np.uint8))
