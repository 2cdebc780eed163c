"""Poses as values, as POSE_KEYPOINT and as CFLD annotations: what is read, what is refused."""

import json
import math

import numpy as np
import pytest
import torch

from pgpis_models.poses.drawing import (
    heatmaps,
)
from pgpis_models.poses.formats import (
    BODY_25_TO_COCO_18,
    from_pose_keypoint,
    load_openpose_json,
    parse_cfld_annotation,
    to_pose_keypoint,
)
from pgpis_models.poses.keypoints import Keypoints
from tests.helpers.poses import CANVAS, some_pose


def frame_of(*bodies, canvas=CANVAS) -> dict:
    return {
        "canvas_height": canvas[0],
        "canvas_width": canvas[1],
        "people": [{"pose_keypoints_2d": body, "face_keypoints_2d": None} for body in bodies],
    }


def body_of(pose: Keypoints, scale=(1.0, 1.0)) -> list[float]:
    return np.concatenate([pose.xy * scale, pose.present[:, None]], 1).reshape(-1).tolist()


def same(a: Keypoints, b: Keypoints, atol: float = 1e-9) -> bool:
    return a.canvas == b.canvas and np.array_equal(a.present, b.present) and np.allclose(a.xy, b.xy, atol=atol)


def test_a_pose_cannot_be_changed_after_it_is_made():
    xy = np.ones((18, 2))
    pose = Keypoints(xy, np.ones(18, bool), CANVAS)
    xy[0] = 99
    assert pose.xy[0, 0] == 1
    with pytest.raises(ValueError, match="read-only"):
        pose.xy[0] = 5


def test_mirroring_twice_gives_the_pose_back_and_once_swaps_left_and_right():
    pose = some_pose()
    assert same(pose.mirrored().mirrored(), pose)
    for right, left in ((2, 5), (3, 6), (4, 7), (8, 11), (9, 12), (10, 13), (14, 15), (16, 17)):
        assert pose.mirrored().present[left] == pose.present[right]
    assert pose.mirrored().xy[5, 0] == CANVAS[1] - 1 - pose.xy[2, 0]


def test_heat_maps_of_a_mirrored_pose_are_the_flipped_heat_maps():
    pose = Keypoints(np.trunc(some_pose().xy), some_pose().present, CANVAS)
    flipped = heatmaps(pose, CANVAS).flip(-1)
    swapped = [0, 1, 5, 6, 7, 2, 3, 4, 11, 12, 13, 8, 9, 10, 15, 14, 17, 16]
    torch.testing.assert_close(heatmaps(pose.mirrored(), CANVAS), flipped[swapped])


def test_scaling_to_another_canvas_and_back_keeps_the_pose():
    pose = some_pose()
    larger = pose.scaled_to((512, 512))
    assert larger.canvas == (512, 512)
    assert np.allclose(larger.xy[0], pose.xy[0] * (512 / 176, 2))
    assert same(larger.scaled_to(CANVAS), pose)


def test_shifting_and_scaling_about_a_point():
    pose = some_pose(missing=())
    assert np.allclose(pose.shifted(3, -2).xy - pose.xy, (3, -2))
    doubled = pose.scaled(2.0)
    assert np.allclose(doubled.xy - doubled.xy[0], 2 * (pose.xy - pose.xy[0]))
    x0, y0, x1, y1 = pose.bounds
    assert np.allclose(np.add(doubled.bounds[:2], doubled.bounds[2:]), (x0 + x1, y0 + y1))
    assert np.allclose(pose.scaled(0.5, about=(0, 0)).xy, pose.xy / 2)


def test_missing_joints_have_no_position():
    pose = Keypoints(np.full((18, 2), math.nan), np.zeros(18, bool), CANVAS)
    assert not pose.xy.any() and pose.bounds == (0, 0, 0, 0) and not pose.on_canvas.any()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((np.zeros((17, 2)), np.ones(17), CANVAS), r"shape \(17, 2\).*expected \(18, 2\)"),
        ((np.full((18, 2), np.inf), np.ones(18), CANVAS), "non-finite coordinates for nose, neck"),
        ((np.zeros((18, 2)), np.ones(18), (0, 5)), "1 pixel or more"),
        ((np.zeros((18, 2)), np.ones(18), 5), r"expected \(H, W\)"),
    ],
)
def test_bad_keypoints_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Keypoints(*arguments)


def test_pose_keypoint_round_trip():
    poses = [some_pose(0), some_pose(1, missing=()), some_pose(2, canvas=(64, 48))]
    back = from_pose_keypoint(to_pose_keypoint(poses))
    assert len(back) == 3 and all(same(a, b) for a, b in zip(poses, back))


def test_what_we_write_has_the_list_lengths_that_the_host_reshapes():
    (frame,) = to_pose_keypoint(some_pose())
    (person,) = frame["people"]
    lengths = {key: len(value) for key, value in person.items()}
    assert lengths == {
        "pose_keypoints_2d": 54, "face_keypoints_2d": 210, "hand_left_keypoints_2d": 63, "hand_right_keypoints_2d": 63,
    }
    assert (frame["canvas_height"], frame["canvas_width"]) == CANVAS
    assert json.loads(json.dumps(frame)) == frame


def test_normalised_and_pixel_coordinates_give_the_same_pose():
    pose = some_pose()
    normalised = frame_of(body_of(pose, (1 / CANVAS[1], 1 / CANVAS[0])))
    pixels = frame_of(body_of(pose))
    assert same(*from_pose_keypoint([normalised, pixels]))


def test_normalised_coordinates_may_leave_the_canvas():
    pose = some_pose().shifted(0, 100)  # feet below the picture: y above 1 when normalised
    (read,) = from_pose_keypoint([frame_of(body_of(pose, (1 / CANVAS[1], 1 / CANVAS[0])))])
    assert same(read, pose)
    assert read.present.sum() > read.on_canvas.sum() > 0


def test_the_unit_is_decided_for_all_people_of_a_frame_together():
    tiny = [0.5, 0.5, 1.0] * 18  # half a pixel; alone it would pass for normalised
    large = some_pose()
    (read,) = from_pose_keypoint([frame_of(tiny, body_of(large))], person=0)
    assert np.allclose(read.xy, 0.5)


def test_missing_joints_come_as_zero_confidence_none_minus_one_or_nan():
    body = body_of(some_pose(missing=()))
    body[3 * 3 + 2] = 0.0
    body[4 * 3 + 2] = None
    body[5 * 3] = None
    body[6 * 3 : 6 * 3 + 2] = [-1, -1]
    body[7 * 3] = math.nan
    (read,) = from_pose_keypoint([frame_of(body)])
    assert np.flatnonzero(~read.present).tolist() == [3, 4, 5, 6, 7]


def test_unsure_joints_are_missing_below_the_threshold():
    body = body_of(some_pose(missing=()))
    body[2 * 3 + 2] = 0.1
    assert not from_pose_keypoint([frame_of(body)])[0].present[2]
    assert from_pose_keypoint([frame_of(body)], min_confidence=0.05)[0].present[2]


def test_body_25_is_read_as_our_18_joints():
    body = np.arange(75, dtype=float).reshape(25, 3)
    body[:, 2] = 1
    (read,) = from_pose_keypoint([frame_of(body.reshape(-1).tolist())])
    assert np.array_equal(read.xy, body[list(BODY_25_TO_COCO_18), :2])
    # joint 8 of BODY_25 is the middle hip, which we have not; our right hip is its 9, our right ear its 17
    assert read.xy[8, 0] == 9 * 3 and read.xy[16, 0] == 17 * 3 and read.xy[7, 0] == 7 * 3


def test_joints_as_triples_and_one_frame_as_a_dict_are_read():
    pose = some_pose()
    triples = np.reshape(body_of(pose), (18, 3)).tolist()
    assert same(from_pose_keypoint(frame_of(triples))[0], pose)


def test_the_largest_person_is_taken_unless_one_is_named():
    small, large = some_pose(0).scaled(0.2), some_pose(1)
    frames = [frame_of(None, body_of(small), body_of(large))]
    assert same(from_pose_keypoint(frames)[0], large)
    assert same(from_pose_keypoint(frames, person=1)[0], small)


@pytest.mark.parametrize(
    "frames, options, message",
    [
        (torch.zeros(1, 64, 64, 3), {}, "came as Tensor; expected POSE_KEYPOINT.*not its picture"),
        ("pose.json", {}, "came as str"),
        ([], {}, "without frames"),
        ([[1, 2]], {}, "frame 1 of 1 is list; expected a dict"),
        ([{"people": []}], {}, "canvas_width = None, canvas_height = None; expected pixels"),
        ([frame_of(body_of(some_pose())), frame_of()], {}, r"No person in frame 2 of 2 \(people listed: 0\).*leave"),
        ([{**frame_of(), "people": None}], {}, "No person in frame 1 of 1"),
        ([{**frame_of(), "people": {"a": 1}}], {}, "people of frame 1 of 1 is dict; expected a list"),
        ([frame_of([0.0] * 54)], {}, "No person in frame 1 of 1.*or lower min_confidence"),
        ([frame_of() | {"canvas_width": math.inf}], {}, "canvas_width = inf; expected pixels, 1 to 16384"),
        ([frame_of() | {"canvas_height": math.nan}], {}, "canvas_height = nan; expected pixels"),
        ([frame_of() | {"canvas_height": 10**400}], {}, "canvas_height = 1000000*; expected pixels"),
        ([frame_of([10**400] * 54)], {}, "holds something that is not a number"),
        ([frame_of(), frame_of()], {"names": ["a.json", "b.json"]}, "No person in a.json"),
        ([frame_of(None)], {"person": 0}, "this one has no joint"),
        ([frame_of(body_of(some_pose()))], {"person": 3}, "Person 3 asked for, but frame 1 of 1 has 1"),
        ([frame_of(body_of(some_pose()))], {"person": -1}, "expected 'largest' or an index from 0"),
        ([frame_of([1.0] * 51)], {}, "51 numbers; expected 54.*or 75"),
        ([frame_of(["x"] * 54)], {}, "not a number"),
        ([frame_of(5)], {}, "pose_keypoints_2d of person 0 of frame 1 of 1 is int"),
        ([{**frame_of(), "people": [3]}], {}, "person 0 of frame 1 of 1 is int; expected a dict"),
    ],
)
def test_bad_poses_are_refused_with_what_came_and_what_to_do(frames, options, message):
    with pytest.raises(ValueError, match=message):
        from_pose_keypoint(frames, **options)


def test_json_files_saved_by_pose_nodes_and_by_openpose_are_read(tmp_path):
    pose = some_pose()
    saved, openpose = tmp_path / "saved.json", tmp_path / "openpose.json"
    saved.write_text(json.dumps(to_pose_keypoint([pose, pose])))
    openpose.write_text(json.dumps({"version": 1.3, "people": [{"pose_keypoints_2d": body_of(pose)}]}))
    assert all(same(read, pose) for read in from_pose_keypoint(load_openpose_json(saved)))
    assert same(from_pose_keypoint(load_openpose_json(openpose, canvas=CANVAS))[0], pose)
    assert from_pose_keypoint(load_openpose_json(saved, canvas=(9, 9)))[0].canvas == CANVAS  # the file's own wins
    with pytest.raises(ValueError, match="lack the canvas"):
        from_pose_keypoint(load_openpose_json(openpose))
    nulls = json.loads(openpose.read_text()) | {"canvas_width": None, "canvas_height": None}
    openpose.write_text("\ufeff" + json.dumps(nulls), encoding="utf-8")   # with the mark that Windows' editors write
    assert same(from_pose_keypoint(load_openpose_json(openpose, canvas=CANVAS))[0], pose)


@pytest.mark.parametrize("text", ["no json", "[1]", "[]", "{}", "[" * 100_000])
def test_json_files_of_another_kind_are_refused(tmp_path, text):
    path = tmp_path / "pose.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="pose.json (is not JSON|holds no pose frames).*expected"):
        load_openpose_json(path)


def test_annotation_rows_and_lists_are_read():
    ys, xs = list(range(18)), list(range(100, 118))
    ys[3], xs[5] = -1, -1
    row = f"fashionMEN_1front.jpg: {ys}: {xs}\n"
    for pose in (parse_cfld_annotation(row), parse_cfld_annotation(f"{ys}: {xs}"), parse_cfld_annotation(ys, xs)):
        assert pose.canvas == CANVAS
        assert np.flatnonzero(~pose.present).tolist() == [3, 5]
        assert pose.xy[7].tolist() == [107, 7]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("name only",), "expected 'name: "),
        (("a.jpg: [1, 2: [3]",), "is not JSON"),
        (("a.jpg: [1, 2]: [3, 4]",), r"y of shape \(2,\).*expected 18"),
        (([1] * 18, [1] * 17), r"x of shape \(17,\)"),
        (("a.jpg: [{}]: [3]",), "something that is not a number"),
        ((f"a.jpg: [{10**400}]: [3]",), "something that is not a number"),
    ],
)
def test_bad_annotations_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        parse_cfld_annotation(*arguments)
