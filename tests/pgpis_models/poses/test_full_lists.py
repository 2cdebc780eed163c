"""Every list of a POSE_KEYPOINT person at full length."""

from __future__ import annotations

import math

from pgpis_models.poses.editing import edit
from pgpis_models.poses.formats import from_pose_keypoint
from pgpis_models.poses.full_lists import JOINTS_OF, with_full_lists

BODY = [value for joint in range(18) for value in (10.0 + joint, 20.0 + 2 * joint, 1.0)]


def frame(**person) -> dict:
    return {"people": [person], "canvas_width": 64, "canvas_height": 96, "version": "x"}


def test_what_a_person_lacks_is_zeros():
    [made] = with_full_lists([frame(pose_keypoints_2d=BODY, face_keypoints_2d=None, note=3)])
    [person] = made["people"]
    assert {name: len(person[name]) for name in JOINTS_OF} == {name: 3 * count for name, count in JOINTS_OF.items()}
    assert person["pose_keypoints_2d"] == BODY and person["note"] == 3 and made["version"] == "x"
    assert not any(any(person[name]) for name in JOINTS_OF if name != "pose_keypoints_2d")
    assert with_full_lists([{**frame(), "people": None}])[0]["people"] == []


def test_hands_and_faces_that_are_there_stay():
    hand = [float(value) for value in range(63)]
    face = [[float(n), float(n), 0.5] for n in range(68)]   # as triples, and two short of OpenPose's 70
    [made] = with_full_lists([frame(pose_keypoints_2d=BODY, hand_left_keypoints_2d=hand, face_keypoints_2d=face)])
    [person] = made["people"]
    assert person["hand_left_keypoints_2d"] == hand
    assert person["face_keypoints_2d"] == [value for row in face for value in row] + [0.0] * 6


def test_body_25_and_missing_values_read_as_before():
    joints = [[float(n), 2.0 * n, 0.9] for n in range(25)]
    joints[3] = [None, None, 0.0]
    before = frame(pose_keypoints_2d=joints)
    [a], [b] = from_pose_keypoint([before]), from_pose_keypoint(with_full_lists([before]))
    assert a.present.tolist() == b.present.tolist() and (a.xy == b.xy).all()
    flat = with_full_lists([before])[0]["people"][0]["pose_keypoints_2d"]
    assert len(flat) == 54 and all(math.isfinite(value) for value in flat)


def test_frames_that_editing_leaves_alone_are_full_too():
    crowd = {**frame(pose_keypoints_2d=BODY), "people": [{"pose_keypoints_2d": BODY}, {"pose_keypoints_2d": [0.0] * 54}]}
    made = edit([crowd, frame(pose_keypoints_2d=[0.0] * 54)], scale=1.1)
    assert all(len(person[name]) == 3 * count for one in made for person in one["people"]
               for name, count in JOINTS_OF.items())
