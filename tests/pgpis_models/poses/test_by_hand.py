"""Text of editors to frames, and pictures of several people. The page's reading: tests/test_pose_editor.py."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pgpis_models.poses import by_hand
from pgpis_models.poses.drawing import draw_openpose
from pgpis_models.poses.formats import from_pose_keypoint, people_seen, to_pose_keypoint
from pgpis_models.poses.keypoints import Keypoints

CANVAS = (240, 160)


def text(*people: dict, **canvas) -> str:
    return json.dumps([{"people": list(people), **canvas}])


def test_every_list_has_its_length_and_every_number_is_finite():
    body = [1.0, 2.0, 1.0] * 18
    body[3:6], body[7] = [float("nan"), 5, 1], None
    [frame] = by_hand.edited_frames(text({"pose_keypoints_2d": body, "hand_left_keypoints_2d": None, "name": "x"}), CANVAS)
    [person] = frame["people"]
    assert [len(person[key]) for key in ("pose_keypoints_2d", *by_hand.LENGTHS)] == [54, 210, 63, 63]
    assert person["pose_keypoints_2d"][3:9] == [0, 0, 0, 0, 0, 0] and person["name"] == "x"
    assert all(np.isfinite(person[key]).all() for key in by_hand.LENGTHS)
    assert (frame["canvas_height"], frame["canvas_width"]) == CANVAS
    assert by_hand.edited_frames(json.dumps([frame]), CANVAS) == [frame]


def test_frames_may_be_empty_and_keep_their_own_canvas():
    frames = [{"people": [], "canvas_width": 30, "canvas_height": 20}, *to_pose_keypoint(by_hand.standing(CANVAS))]
    assert by_hand.edited_frames(json.dumps(frames), (1, 1)) == frames
    assert people_seen(frames[0]) == [] and len(people_seen(frames[1])) == 1


@pytest.mark.parametrize("bad", ["hello", "{", '{"people": 3}', '[{"people": [{"pose_keypoints_2d": [1, 2, 3]}]}]', "[]",
                                 '[{"people": [{"pose_keypoints_2d": ["a", 2, 3]}]}]', '{"keypoints": 7}'])
def test_what_is_no_pose_is_said(bad):
    with pytest.raises(ValueError, match="expected"):
        by_hand.edited_frames(bad, CANVAS)


def test_a_standing_person_has_all_joints_inside_of_any_canvas():
    for canvas in ((256, 256), (900, 100), (100, 900), CANVAS):
        pose = by_hand.standing(canvas)
        assert pose.on_canvas.all()
        np.testing.assert_allclose(pose.mirrored().shifted(1, 0).xy, pose.xy, atol=1e-9)


def test_people_are_drawn_over_each_other_and_fitted_to_the_size():
    first = by_hand.standing(CANVAS).shifted(-30, 0)
    second = by_hand.standing((480, 320)).shifted(60, 0)   # of a canvas twice as large
    picture = by_hand.draw_people([first, second], CANVAS)
    alone = draw_openpose(second.scaled_to(CANVAS))
    np.testing.assert_array_equal(picture[alone.any(-1)], alone[alone.any(-1)])
    np.testing.assert_array_equal(picture[:, :60], draw_openpose(first)[:, :60])
    assert not by_hand.draw_people([], CANVAS).any()


def test_a_pose_on_a_wider_canvas_keeps_its_shape():
    pose = by_hand.standing(CANVAS)
    np.testing.assert_allclose(by_hand.fitted_to(pose, (120, 400)).xy, pose.xy / 2 + [160, 0], atol=1e-12)
    assert by_hand.fitted_to(pose, CANVAS) is pose
    [same] = from_pose_keypoint(by_hand.one_standing(CANVAS))
    np.testing.assert_array_equal(same.xy, pose.xy)
    assert isinstance(same, Keypoints)
