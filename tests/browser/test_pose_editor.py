"""The Pose Editor in ComfyUI's own frontend: a pose is changed by mouse and keys, saved, loaded again and run."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from pgpis_models.poses.by_hand import draw_people, standing
from pgpis_models.poses.formats import from_pose_keypoint
from pgpis_models.poses.keypoints import JOINTS

CANVAS = (768, 512)
ELBOW, WRIST, ANKLE, HIP, KNEE = 6, 7, 10, 11, 12


@pytest.fixture(scope="module")
def acted(seen):
    return seen["pose editor"]["acted"]


def poses(acted) -> list:
    return [from_pose_keypoint(json.loads(text))[0] if text else standing(CANVAS) for text in acted["texts"]]


def test_a_dragged_wrist_takes_the_arm_along_and_nothing_else(acted):
    before, after, *_ = poses(acted)
    np.testing.assert_allclose(after.xy[WRIST], [330, 250], atol=1)
    for a, b in ((5, ELBOW), (ELBOW, WRIST)):
        now, was = (np.linalg.norm(pose.xy[a] - pose.xy[b]) for pose in (after, before))
        assert now == pytest.approx(was, abs=0.01)
    others = [joint for joint in range(18) if joint not in (ELBOW, WRIST)]
    np.testing.assert_allclose(after.xy[others], before.xy[others], atol=1e-3)


def test_mirror_hide_undo_and_redo(acted):
    _, dragged, mirrored, hidden, undone, redone, *_ = poses(acted)
    middle = (dragged.bounds[0] + dragged.bounds[2]) / 2
    np.testing.assert_allclose(mirrored.xy, dragged.mirrored().shifted(2 * middle - (CANVAS[1] - 1), 0).xy, atol=2e-3)
    assert [JOINTS[joint] for joint in np.flatnonzero(~hidden.present)] == [JOINTS[ANKLE]]
    assert acted["texts"][4] == acted["texts"][2] and acted["texts"][5] == acted["texts"][3]
    assert undone.present.all() and not redone.present[ANKLE]


def test_the_dialog_edits_the_same_pose_with_mouse_and_arrows(acted):
    before, dragged, nudged = poses(acted)[5:8]
    reach = np.linalg.norm(before.xy[KNEE] - before.xy[HIP])
    towards = np.array([380, 520]) - before.xy[HIP]
    np.testing.assert_allclose(dragged.xy[KNEE], before.xy[HIP] + towards / np.linalg.norm(towards) * reach, atol=1)
    towards = dragged.xy[KNEE] - before.xy[HIP]
    for step in ([1, 0], [1, 0], [1, 0], [0, 10]):
        towards = (towards + step) / np.linalg.norm(towards + step) * reach
    np.testing.assert_allclose(nudged.xy[KNEE], before.xy[HIP] + towards, atol=0.01)
    assert acted["dialogs"] == 0, "Done closes it"


def test_the_pose_is_saved_loaded_and_run(acted):
    saved = next(node for node in acted["saved"]["nodes"] if node["type"] == "PGPISPoseEditor")
    assert saved["widgets_values"] == [acted["texts"][7], 512, 768] and acted["texts"][8] == acted["texts"][7]
    assert acted["nodes"] == 1 and acted["shown"] == acted["texts"][7]
    assert acted["execution"] == "execution_success", acted["error"]
    pose = poses(acted)[-1]
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(acted["picture"]))).convert("RGB"))
    np.testing.assert_array_equal(picture, draw_people([pose], CANVAS))
    [said] = acted["said"]
    [frame] = json.loads(said)
    [found] = from_pose_keypoint([frame])
    np.testing.assert_array_equal(found.present, pose.present)
    np.testing.assert_array_equal(found.xy, pose.xy)
