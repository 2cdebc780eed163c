"""Pose Editor, Read Skeleton Picture and Pose Score in graphs that the host itself executes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from pgpis_models.poses.by_hand import draw_people, standing
from pgpis_models.poses.formats import from_pose_keypoint, to_pose_keypoint
from pgpis_models.poses.keypoints import Keypoints

CANVAS = (256, 192)


def run(host, **nodes):
    result = host.run({name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in nodes.items()})
    assert result.success, result.errors
    return result.outputs


def pictures(host, outputs, name):
    folders = {"output": host.base / "output", "temp": host.base / "temp"}
    return [np.asarray(Image.open(folders[file["type"]] / file["subfolder"] / file["filename"]).convert("RGB"))
            for file in outputs[name]["images"]]


def poses(outputs, name):
    return from_pose_keypoint(json.loads(outputs[name]["text"][0]), empty="nobody")


@pytest.fixture(scope="module")
def two():
    """Two poses of a person, and their text."""
    first = standing(CANVAS)
    second = Keypoints(first.xy + np.random.default_rng(0).normal(0, 6, (18, 2)), np.arange(18) != 9, CANVAS)
    return first, second, json.dumps(to_pose_keypoint([first, second]))


def editor(**inputs):
    return "PGPISPoseEditor", {"text": "", "width": 192, "height": 256} | inputs


def test_without_an_edit_the_input_passes_and_with_one_the_text_counts(host, two):
    first, second, text = two
    load = "PGPISLoadPose", {"file": "(the text below)", "text": text, "canvas_width": 0, "canvas_height": 0}
    outputs = run(host, load=load, passed=editor(pose=["load", 0]), shown=("PreviewImage", {"images": ["passed", 1]}),
                  said=("PreviewAny", {"source": ["passed", 0]}),
                  edited=editor(pose=["load", 0], text=json.dumps(to_pose_keypoint(second))),
                  said_too=("PreviewAny", {"source": ["edited", 0]}))
    for pose, expected in zip(poses(outputs, "said"), (first, second), strict=True):
        np.testing.assert_array_equal(pose.xy, expected.xy)
    [pose] = poses(outputs, "said_too")
    np.testing.assert_array_equal(pose.xy, second.xy)
    for picture, pose in zip(pictures(host, outputs, "shown"), (first, second), strict=True):
        np.testing.assert_array_equal(picture, draw_people([pose], CANVAS))
    for name in ("passed", "edited"):   # what the page is told for its button
        np.testing.assert_array_equal(from_pose_keypoint(json.loads(outputs[name]["pgpis_pose"][0]))[1].xy, second.xy)


def test_with_nothing_given_a_person_stands_in_the_canvas_of_the_picture(host, two):
    Image.new("RGB", (120, 200), "white").save(host.base / "input" / "ground.png")
    outputs = run(host, load=("LoadImage", {"image": "ground.png"}), bare=editor(), with_picture=editor(image=["load", 0]),
                  said=("PreviewAny", {"source": ["bare", 0]}), said_too=("PreviewAny", {"source": ["with_picture", 0]}))
    for name, canvas in (("said", CANVAS), ("said_too", (200, 120))):
        [pose] = poses(outputs, name)
        assert pose.canvas == canvas
        np.testing.assert_allclose(pose.xy, standing(canvas).xy)
    [file] = outputs["with_picture"]["pgpis_background"]
    assert Image.open(host.base / "temp" / file["subfolder"] / file["filename"]).size == (120, 200)


def test_a_thousand_frames_pass_and_their_pictures_say_that_they_are_too_many(host, two):
    frames = to_pose_keypoint([standing((768, 512))] * 1000)
    node = host.pack("nodes.pose.editor").PoseEditor
    pose, image = node.execute(json.dumps(frames), 512, 768).result
    assert len(pose) == 1000 and pose == frames
    assert "4.7 GB" in image.message and "Draw Pose" in image.message


def test_a_drawn_skeleton_is_read_back(host, two):
    outputs = run(host, draw=editor(text=two[2]), read=("PGPISReadSkeleton", {"image": ["draw", 1], "channels": "auto"}),
                  said=("PreviewAny", {"source": ["read", 0]}))
    found = poses(outputs, "said")
    for pose, expected in zip(found, two[:2], strict=True):
        np.testing.assert_array_equal(pose.present, expected.present)
        np.testing.assert_allclose(pose.xy, expected.xy, atol=0.015 * CANVAS[0])


def test_the_best_of_several_comes_out_by_pose_or_by_face(host, two):
    first, second, _ = two
    node, types = host.pack("nodes.pose.scoring").PoseScore, host.pack("nodes.types")
    results = torch.stack([torch.full((64, 48, 3), value) for value in (0.2, 0.4, 0.6)])
    found = to_pose_keypoint([second, first.shifted(1, 0), second])
    found[2]["people"] = []
    best, overlay, value, index, table = node.execute(to_pose_keypoint(first), found, "pose", image=results).result
    assert index == 1 and 0.9 < value < 1 and torch.allclose(best, results[1:2], atol=0.01)
    assert overlay.shape == (3, 64, 48, 3) and len(table.splitlines()) == 4
    assert table.splitlines()[3].split("\t")[1:5] == ["0.0000", "0.0000", "0.0000", "-"]
    faces = types.FaceEmbeds(torch.eye(4)[:1]), types.FaceEmbeds(torch.eye(4)[[1, 2, 0]])
    best, _, value, index, table = node.execute(to_pose_keypoint(first), found, "face", image=results, face=faces[0],
                                                result_face=faces[1]).result
    assert index == 2 and value == 1 and torch.allclose(best, results[2:], atol=0.01) and table.endswith("1.0000")
    alone = node.execute(to_pose_keypoint(first), None, "face", image=results, face=faces[0], result_face=faces[1]).result
    assert alone[3] == 2 and torch.equal(alone[0], best) and "connected to its found" in alone[1].message
    assert alone[4].splitlines() == ["result\tface", "0\t0.0000", "1\t0.0000", "2\t1.0000"]


def test_what_is_missing_or_does_not_match_is_said(host, two):
    first, second, _ = two
    node = host.pack("nodes.pose.scoring").PoseScore
    with pytest.raises(ValueError, match="Connect Face Embedding"):
        node.execute(to_pose_keypoint(first), to_pose_keypoint(second), "face")
    with pytest.raises(ValueError, match="found came empty"):
        node.execute(to_pose_keypoint(first))
    with pytest.raises(ValueError, match="2 wanted poses and 3 found poses"):
        node.execute(to_pose_keypoint([first] * 2), to_pose_keypoint([second] * 3), "pose")
    blocked = node.execute(to_pose_keypoint(first), to_pose_keypoint(second), "pose").result[0]
    assert "connect the results" in blocked.message
