"""Poses by hand and by name in a running host: mannequin, library, own files, frames."""

from __future__ import annotations

import json

import numpy as np
import torch

from pgpis_models.poses.formats import from_pose_keypoint, to_pose_keypoint
from pgpis_models.poses.keypoints import Keypoints

RAISED = {"arms": [{"upper": [0.4, 0.9, 0.1], "lower": [0.2, 0.97, 0.1]}, {}], "camera": [20, 5, 0.8, 0, 0]}


def node(host, name: str):
    return host.nodes.NODE_CLASS_MAPPINGS[name]


def result(output) -> tuple:
    return output.result if hasattr(output, "result") else output.args


def mannequin(host, **given):
    values = {"state": json.dumps(RAISED), "width": 176, "height": 256, "stature": 1.0, "shoulders": 1.0, "hips": 1.0,
              "arms": 1.0, "legs": 1.0, "views": 1} | given
    return result(node(host, "PGPISPoseMannequin").execute(**values))


def test_a_mannequin_gives_all_that_belongs_together(host):
    pose, densepose, image, mask, depth, state = mannequin(host, views=3)
    assert image.shape == depth.shape == (3, 256, 176, 3) and mask.shape == (3, 256, 176)
    assert len(densepose) == len(pose) == 3
    assert image.dtype == mask.dtype == depth.dtype == torch.float32 and 0 <= float(image.min()) and float(image.max()) <= 1
    for number, iuv in enumerate(densepose):
        assert ((mask[number].numpy() > 0.5) == (iuv.part > 0)).mean() > 0.995
    keypoints = from_pose_keypoint(pose)
    assert keypoints[0].canvas == (256, 176) and keypoints[0].xy[4, 1] < keypoints[0].xy[2, 1], "the right hand is raised"
    assert json.loads(state)["camera"][0] == 20
    warped = result(node(host, "PGPISRenderTexture").execute(torch.full((1, 1200, 800, 3), 0.5), densepose, 0))
    assert warped[0].shape == (3, 256, 176, 3)


def test_a_mannequin_takes_a_persons_proportions(host):
    pose = mannequin(host, legs=1.2, state="")[0]
    plain, long, taken = (from_pose_keypoint(one)[0] for one in (
        mannequin(host, state="")[0], pose, mannequin(host, state="", as_person=pose)[0]))

    def ratio(one: Keypoints) -> float:
        return float(np.linalg.norm(one.xy[9] - one.xy[8]) / np.linalg.norm(one.xy[1] - (one.xy[8] + one.xy[11]) / 2))
    assert abs(ratio(taken) / ratio(long) - 1) < 0.02 and ratio(plain) < 0.9 * ratio(long)


def test_the_library_gives_a_pose_that_the_mannequin_takes_on(host):
    pose, densepose, image, _, _, state = result(node(host, "PGPISPoseLibrary").execute("leap", 176, 256))
    again = mannequin(host, state=state)
    np.testing.assert_allclose(from_pose_keypoint(again[0])[0].xy, from_pose_keypoint(pose)[0].xy, atol=0.3)
    assert image.shape == (1, 256, 176, 3) and densepose[0].part.any()
    wide = from_pose_keypoint(result(node(host, "PGPISPoseLibrary").execute("T pose", 128, 256))[0])[0]
    assert wide.on_canvas[wide.present].all(), "the camera fits the body to any canvas"


def test_own_poses_are_kept_listed_and_read_again(host):
    pose = mannequin(host)[0]
    for folder, place in (("models/pgpis/poses", host.base / "models" / "pgpis" / "poses"), ("input", host.base / "input")):
        node(host, "PGPISSavePose").execute(pose, "hand test/raised", folder, True)
        assert (place / "hand test" / "raised.json").is_file()
        name = f"{folder}/hand test/raised.json"
        assert name in node(host, "PGPISPoseLibrary").define_schema().inputs[0].options
        read = result(node(host, "PGPISPoseLibrary").execute(name, 176, 256))
        np.testing.assert_allclose(from_pose_keypoint(read[0])[0].xy, from_pose_keypoint(pose)[0].xy, atol=0.3)
    flat = to_pose_keypoint(from_pose_keypoint(pose))
    node(host, "PGPISSavePose").execute(flat, "hand test/flat", "input", True)
    read = result(node(host, "PGPISPoseLibrary").execute("input/hand test/flat.json", 176, 256))
    assert read[0] == flat and type(read[1]).__name__ == "ExecutionBlocker"


def test_frames_between_keys_in_space_and_in_the_picture(host):
    first, second = (result(node(host, "PGPISPoseLibrary").execute(name, 88, 128))[0] for name in ("squat", "star jump"))
    tween = node(host, "PGPISPoseTween")
    pose, densepose, image, *_ = result(tween.execute(first, 3, "linear", False, second))
    assert len(pose) == len(densepose) == len(image) == 5 and [pose[0], pose[4]] == [*first, *second]
    flat = [to_pose_keypoint(from_pose_keypoint(one)) for one in (first, second)]
    made = result(tween.execute(flat[0], 3, "linear", True, flat[1]))
    assert len(made[0]) == 8 and made[0][4] == flat[1][0] and type(made[1]).__name__ == "ExecutionBlocker"


def test_a_person_is_followed_and_smoothed(host):
    walk = [from_pose_keypoint(result(node(host, "PGPISPoseLibrary").execute(f"walking {n} of 8", 88, 128))[0])[0]
            for n in (1, 2, 3)]
    frames = []
    for number, one in enumerate(walk):
        people = [to_pose_keypoint(pose)[0]["people"][0] for pose in (one, one.shifted(30, 0).scaled(1.2))]
        frames.append({"people": people[::-1] if number == 1 else people, "canvas_height": 128, "canvas_width": 88})
    pose, report = result(node(host, "PGPISFollowPerson").execute(frames, 0))
    for frame, one in zip(pose, walk, strict=True):
        np.testing.assert_allclose(from_pose_keypoint([frame])[0].xy, one.xy, atol=1e-6)
    assert "3 of 3 frames" in report
    assert len(result(node(host, "PGPISSmoothPoses").execute(pose, 0.5, 6))[0]) == 3
