"""rtmlib as a detector, through a stand-in with the interface that it publishes (0.0.13)."""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import pytest

from pgpis_models.poses import detection, rtm
from pgpis_models.poses.formats import from_pose_keypoint
from training import prepare


class Wholebody:
    """Finds one person per bright column block; joint n at (x0 + n, 2 n) with score 0.9, unsure for the last joints."""

    def __init__(self, det=None, det_input_size=(640, 640), pose=None, pose_input_size=(288, 384), mode="balanced",
                 to_openpose=False, backend="onnxruntime", device="cpu"):
        self.given = dict(det=det, det_input_size=det_input_size, pose=pose, pose_input_size=pose_input_size,
                          to_openpose=to_openpose, backend=backend, device=device)
        self.seen = []

    def det_model(self, image):
        self.seen.append(image)
        columns = np.flatnonzero(image[..., 0].any(0))
        return np.array([[x, 0, x + 1, image.shape[0]] for x in columns]) if len(columns) else np.zeros((0, 4))

    def pose_model(self, image, bboxes=()):
        assert len(bboxes), "without boxes the true one takes the whole picture for a person"
        step = np.arange(133)
        points = np.stack([np.stack([box[0] + step, 2 * step], 1) for box in bboxes]).astype(np.float32)
        return points, np.where(step[None] < 120, 0.9, 0.1).repeat(len(bboxes), 0)


@pytest.fixture
def module(monkeypatch):
    fake = ModuleType("rtmlib")
    fake.Wholebody = Wholebody
    monkeypatch.setitem(sys.modules, "rtmlib", fake)
    detection._rtm.cache_clear()
    yield fake
    detection._rtm.cache_clear()


@pytest.fixture
def networks(tmp_path, monkeypatch):
    for name in (rtm.PEOPLE[2][0], rtm.JOINTS[1][0]):
        (tmp_path / f"{name}.onnx").touch()
    monkeypatch.setattr(detection, "FOLDER", tmp_path)
    return tmp_path


def photo(*columns: int) -> np.ndarray:
    picture = np.zeros((100, 80, 3), np.uint8)
    picture[:, list(columns), 2] = 255   # blue, which a network made for BGR gets first
    return picture


def test_only_files_are_given_with_the_sizes_of_their_networks(module, networks):
    detector = rtm.load_detector([networks / name for name in rtm.file_names()], "there", "cuda")
    assert detector.given == {"det": str(networks / f"{rtm.PEOPLE[2][0]}.onnx"), "det_input_size": (416, 416),
                              "pose": str(networks / f"{rtm.JOINTS[1][0]}.onnx"), "pose_input_size": (192, 256),
                              "to_openpose": False, "backend": "onnxruntime", "device": "cuda"}


def test_a_frame_has_everybody_in_pixels_with_hands_and_face(module, networks):
    frame = rtm.frame_by_rtm(Wholebody(), photo(3, 40))
    assert (frame["canvas_height"], frame["canvas_width"], len(frame["people"])) == (100, 80, 2)
    first, second = (from_pose_keypoint([frame], person=number)[0] for number in (0, 1))
    assert first.xy[0].tolist() == [0 + 3, 0] and second.xy[4].tolist() == [40 + 10, 20]   # COCO's joint 10: right wrist
    assert first.xy[1].tolist() == [3 + 5.5, 11]                                           # the neck, between 5 and 6
    hands = frame["people"][0]
    assert hands["hand_left_keypoints_2d"][:3] == [3 + 91, 182, 0.9] and hands["hand_right_keypoints_2d"][-1] == 0.1
    assert rtm.frame_by_rtm(Wholebody(), photo())["people"] == []


def test_the_command_line_takes_the_networks_of_its_folder(module, networks):
    assert [pose.canvas for pose in detection.detect_poses(photo(3, 40), "rtmlib")] == [(100, 80)] * 2
    assert detection.detect_pose(photo(7), "rtmlib").xy[0, 0] == 7
    with pytest.raises(ValueError, match="no person found in a photo of 80x100"):
        detection.detect_pose(photo(), "rtmlib")


def test_what_is_missing_is_named_with_its_page(module, monkeypatch, tmp_path, networks):
    with pytest.raises(ValueError, match=r"rtmlib needs yolox_m_\S+\.onnx .*rtmposev1/onnx_sdk/yolox_m.*zip, renamed\) and "
                                         r"rtmw-\S+\.onnx .* in the folder; nothing is downloaded"):
        rtm.load_detector([], "the folder")
    (networks / f"{rtm.JOINTS[1][0]}.onnx").unlink()
    with pytest.raises(ValueError, match=r"rtmlib needs rtmw-\S+\.onnx .*Download it and put it there") as caught:
        detection.detect_pose(photo(3), "rtmlib")
    assert "yolox" not in str(caught.value)
    (networks / f"{rtm.JOINTS[1][0]}.onnx").touch()
    monkeypatch.setitem(sys.modules, "rtmlib", None)
    with pytest.raises(ValueError, match="pip install rtmlib onnxruntime"):
        detection.detect_pose(photo(3), "rtmlib")


def test_another_network_is_refused():
    class Body(Wholebody):
        def pose_model(self, image, bboxes=()):
            return np.zeros((len(bboxes), 17, 2)), np.zeros((len(bboxes), 17))
    with pytest.raises(ValueError, match=r"points of shape \(1, 17, 2\).*expected \(1, 133, 2\).*whole-body"):
        rtm.frame_by_rtm(Body(), photo(3))


@pytest.mark.parametrize("flags, detector", [([], None), (["--detect"], "controlnet-aux"),
                                             (["--detect", "rtmlib"], "rtmlib")])
def test_prepare_passes_the_detector_on(flags, detector, monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(prepare, "prepare_folder", lambda *given: seen.append(given))
    prepare.main(["folder", "--root", str(tmp_path), "--out", str(tmp_path / "out"), *flags])
    assert seen[0][3] == detector
