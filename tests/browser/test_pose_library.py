"""Pose Library in ComfyUI's own frontend: an own pose is uploaded by the button, found in the gallery, and run."""

from __future__ import annotations

import json

NAME = "input/poses/own leap.json"


def test_an_own_pose_is_uploaded_shown_and_run(seen):
    acted, base = seen["pose library"]["acted"], seen["pose library"]["base"]
    assert acted["name"] == NAME and json.loads((base / NAME).read_text()) == acted["file"]
    assert len(acted["heights"]) > 100 and all(cell >= picture > 40 for cell, picture in acted["heights"]), "shown whole"
    assert ["leap", False] in acted["listed"]["leap"], "the library's own of that name"
    assert [NAME, True] in acted["listed"]["leap"] and acted["listed"]["own"] == [[NAME, True]]
    assert acted["saved"] == [NAME, 512, 768, -1], "the button's value is not saved"
    assert acted["execution"] == "execution_success", acted["error"]
    [said] = acted["said"]
    [frame] = json.loads(said)
    assert frame["people"][0]["pose_keypoints_2d"][:54] == acted["file"]["people"][0]["pose_keypoints_2d"]
