"""FPDM's pose pictures and tensors, and whole-body points, against plain formulas; bad input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgpis_models.fpdm.config import FusionConfig
from pgpis_models.fpdm.drawing import augmented, draw_fpdm, on_canvas
from pgpis_models.fpdm.pictures import draw_poses
from pgpis_models.fpdm.pixels import clip_pixels, unit_tensor
from pgpis_models.fpdm.whole_drawing import LIMBS, draw_whole
from pgpis_models.poses.formats import from_pose_keypoint, to_pose_keypoint
from pgpis_models.poses.keypoints import MIRROR, Keypoints
from pgpis_models.poses.padded_rows import parse_fpdm_txt
from pgpis_models.poses.wholebody import MIRROR_POINTS, WholeBody, load_wholebody, wholebody_to_pose_keypoint


def standing(canvas=(256, 176)) -> Keypoints:
    """A person with all joints, scaled to the canvas."""
    x = [.5, .5, .4, .35, .33, .6, .65, .67, .43, .42, .42, .57, .58, .58, .48, .52, .45, .55]
    y = [.12, .2, .2, .35, .5, .2, .35, .5, .5, .7, .92, .5, .7, .92, .1, .1, .11, .11]
    return Keypoints(np.stack([np.array(x) * canvas[1], np.array(y) * canvas[0]], 1), np.ones(18, bool), canvas)


# --- poses --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("text", "says"), [
    ("1 2\n" * 17, "17 lines; expected 18"), ("1 2\n" * 19, "19 lines; expected 18"), ("", "0 lines"),
    ("1 2\n" * 17 + "1 2 3\n", "line 18 is '1 2 3'; expected 'x y'"), ("1 2\n" * 17 + "nose\n", "line 18 is 'nose'"),
    ("1 2\n" * 17 + "nan 2\n", "line 18 is 'nan 2'; expected finite")])
def test_a_pose_text_that_is_not_18_pairs_is_refused(text, says):
    with pytest.raises(ValueError, match=says):
        parse_fpdm_txt(text)


def test_a_joint_with_one_coordinate_of_minus_one_is_missing():
    pose = parse_fpdm_txt("-1 -1\n-1 30\n" + "128 64\n" * 16)
    assert pose.present.tolist() == [False, False] + [True] * 16
    assert pose.xy[2].tolist() == [88, 64] and pose.canvas == (256, 176)


def test_poses_on_other_canvases_are_scaled_to_the_one_drawn_on():
    small, large = standing(), standing((1024, 704))
    apart = np.abs(draw_fpdm(small).astype(int) - draw_fpdm(large)).max(2) > 0
    assert draw_fpdm(large).any() and apart.mean() < 0.01  # rounding of the scale only
    batch = draw_poses([small, large], (64, 48), FusionConfig())
    assert batch.shape == (2, 64, 48, 3) and batch[0].any() and batch[1].any()
    far = Keypoints(standing().xy + 1e6, np.ones(18, bool), (256, 176))
    assert not draw_fpdm(far).any()


def test_red_and_blue_are_swapped_and_lone_limbs_have_60_percent():
    pose = np.zeros((18, 2))
    pose[0] = 20, 20
    nose = draw_fpdm(Keypoints(pose, np.arange(18) == 0, (64, 64)), (64, 64))
    assert nose[20, 20].tolist() == [0, 0, 255] and nose[20, 24].any() and not nose[20, 26].any()
    pose[1] = 50, 20
    limb = draw_fpdm(Keypoints(pose, np.arange(18) < 2, (64, 64)), (64, 64))
    assert limb[20, 35].tolist() == [153, 0, 0]  # the neck-nose limb takes the thirteenth colour, (0, 0, 255) swapped


def test_blending_inside_a_box_equals_blending_the_whole_picture():
    import cv2

    from pgpis_models.fpdm.drawing import COLOURS, LIMBS, RADIUS
    pose = on_canvas(standing(), (120, 90)).shifted(-25, 20)  # some of it off the canvas
    whole = np.zeros((120, 90, 3), np.uint8)
    for (x, y), colour in zip(pose.xy.tolist(), COLOURS, strict=True):
        cv2.circle(whole, (int(x), int(y)), RADIUS, colour, -1)
    for (a, b), colour in zip(LIMBS, COLOURS[:17], strict=True):
        (ax, ay), (bx, by) = pose.xy[a], pose.xy[b]
        angle = int(np.degrees(np.arctan2(ay - by, ax - bx)))
        outline = cv2.ellipse2Poly((int((ax + bx) / 2), int((ay + by) / 2)),
                                   (int(np.hypot(ax - bx, ay - by) / 2), RADIUS), angle, 0, 360, 1)
        cover = whole.copy()
        cv2.fillConvexPoly(cover, outline, colour)
        whole = cv2.addWeighted(whole, 0.4, cover, 0.6, 0)
    assert whole.any() and np.array_equal(draw_fpdm(pose, (120, 90)), whole)


def test_training_noise_drops_joints_that_leave_to_the_left_and_keeps_the_others():
    pose, noise = on_canvas(standing()), np.zeros((18, 2))
    noise[4], noise[7], noise[10] = (-1000, 0), (1000, 0), (0, 1000)
    moved = augmented(pose, noise)
    assert not moved.present[4] and moved.present.sum() == 17
    assert moved.xy[7, 0] == 374 and moved.xy[10, 1] == 549
    flipped = augmented(pose, flip=True)
    assert np.allclose(flipped.xy[:, 0], 375 - pose.xy[list(MIRROR), 0])
    assert np.allclose(augmented(flipped, flip=True).xy, pose.xy)
    with pytest.raises(ValueError, match=r"\(17, 2\); expected \(18, 2\)"):
        augmented(pose, np.zeros((17, 2)))


EDGES = st.sampled_from([0.0, -0.0, 1e-9, -1e-9, 374.0, 375.0, 375.5, 549.0, 550.0, 550.5, -1.0, -3.0, 200.0])


@given(st.lists(st.tuples(EDGES, EDGES, st.booleans()), min_size=18, max_size=18),
       st.lists(st.sampled_from([0.0, -1.5, 1.5, -1e-9]), min_size=36, max_size=36), st.booleans())
@settings(max_examples=200)
def test_training_poses_at_the_edges_are_those_of_the_authors_rule(joints, noise, flip):
    """Their rule, coordinate by coordinate: a negative one is written -1, before joints are mirrored and after, and a joint
    with a -1 is not drawn."""
    xy, present = np.array([joint[:2] for joint in joints]), np.array([joint[2] for joint in joints])
    pose, noise = Keypoints(xy, present, (550, 375)), np.reshape(noise, (18, 2))
    expected = []
    for (x, y), there, (dx, dy) in zip(xy, present, noise, strict=True):
        row = [value + by if there else -1.0 for value, by in ((x, dx), (y, dy))]
        row = [-1.0 if value < 0 else most - 1 if value > most else value
               for value, most in zip(row, (375, 550), strict=True)]
        expected.append([375 - row[0] if flip and row[0] != -1 else row[0], row[1]])
    expected = [expected[MIRROR[n] if flip else n] for n in range(18)]
    found = augmented(pose, noise, flip)
    assert found.present.tolist() == [-1 not in row for row in expected]
    assert found.xy[found.present].tolist() == [row for row in expected if -1 not in row]


def test_pictures_become_tensors_in_their_ranges():
    picture = draw_fpdm(standing())
    pose = unit_tensor([picture, picture], (64, 48))
    assert pose.shape == (2, 3, 64, 48) and 0 <= pose.min() and pose.max() <= 1
    assert clip_pixels([picture], (56, 56), crop=True).shape == (1, 3, 56, 56)
    with pytest.raises(ValueError, match="float64.*expected uint8"):
        unit_tensor([picture / 255.0], (64, 48))
    with pytest.raises(ValueError, match="no poses"):
        draw_poses([], (64, 48), FusionConfig())


# --- whole-body points --------------------------------------------------------------------------------------

def people(frames: int) -> np.ndarray:
    points = np.random.default_rng(0).uniform(20, 200, (frames, 133, 2))
    points[0, 9] = 0  # the left wrist
    return points


def test_133_points_become_18_joints_with_hands_and_face(tmp_path):
    points = people(2)
    frames = wholebody_to_pose_keypoint(points, (260, 210))
    first, second = from_pose_keypoint(frames)
    assert first.canvas == (260, 210) and not first.present[7] and first.present.sum() == 17
    assert np.allclose(second.xy[0], points[1, 0]) and np.allclose(second.xy[2], points[1, 6])
    assert np.allclose(second.xy[1], (points[1, 5] + points[1, 6]) / 2) and np.allclose(second.xy[14], points[1, 2])
    person = frames[1]["people"][0]
    assert [len(person[f"{part}_keypoints_2d"]) for part in ("pose", "face", "hand_left", "hand_right")] == \
        [54, 210, 63, 63]
    assert np.allclose(np.reshape(person["hand_right_keypoints_2d"], (21, 3))[:, :2], points[1, 112:])
    assert np.allclose(np.reshape(person["face_keypoints_2d"], (70, 3))[:68, :2], points[1, 23:91])
    np.save(tmp_path / "video.npy", points)
    assert load_wholebody(tmp_path / "video.npy", (260, 210)) == frames
    (tmp_path / "one.txt").write_text("\n".join(f"{x} {y}" for x, y in points[0]))
    assert load_wholebody(tmp_path / "one.txt", (260, 210)) == frames[:1]
    scored = wholebody_to_pose_keypoint(points, (260, 210), np.full((2, 133), 0.4))
    assert scored[1]["people"][0]["pose_keypoints_2d"][2] == 0.4
    assert wholebody_to_pose_keypoint(np.zeros((133, 3)), (260, 210))[0]["people"] == []


def test_other_numbers_of_whole_body_points_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"shape \(17, 2\); expected \(133, 2"):
        wholebody_to_pose_keypoint(np.zeros((17, 2)), (260, 210))
    (tmp_path / "one.txt").write_text("1 2\n" * 132)
    with pytest.raises(ValueError, match="one.txt: 132 lines.*expected 133"):
        load_wholebody(tmp_path / "one.txt", (260, 210))
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="objects.npy"):
        load_wholebody(tmp_path / "objects.npy", (260, 210))


def test_whole_bodies_move_and_mirror_with_hands_and_face():
    [frame] = wholebody_to_pose_keypoint(people(1), (260, 210))
    [pose] = from_pose_keypoint([frame], whole=True)
    assert pose.seen.sum() == 133 - 6 - 1 and not pose.seen[9] and not pose.seen[17:23].any()   # feet are not in the frame
    assert np.allclose(pose.points[112:], people(1)[0, 112:]) and np.array_equal(pose.xy, from_pose_keypoint([frame])[0].xy)
    again = from_pose_keypoint(to_pose_keypoint(pose), whole=True)[0]
    assert np.allclose(again.points, pose.points) and np.array_equal(again.seen, pose.seen)
    shares = {"canvas_width": 420, "canvas_height": 520, "people": [
        {key: [value / (210, 260, 1)[n % 3] for n, value in enumerate(values)] for key, values in person.items()}
        for person in frame["people"]]}
    assert np.allclose(from_pose_keypoint([shares], whole=True)[0].points, pose.scaled_to((520, 420)).points)
    turned = pose.mirrored()
    assert np.allclose(turned.points[91:112, 0], 209 - pose.points[112:, 0])
    assert np.allclose(turned.mirrored().points, pose.points) and sorted(MIRROR_POINTS) == list(range(133))
    full = WholeBody.of(people(2)[1], np.ones(133, bool), (260, 210))
    flipped = augmented(full, flip=True)
    assert np.allclose(flipped.points, np.stack([210 - full.points[list(MIRROR_POINTS), 0],
                                                 full.points[list(MIRROR_POINTS), 1]], 1))
    assert np.allclose(flipped.xy[1], flipped.points[[5, 6]].mean(0))   # the neck, between the shoulders
    noise = np.zeros((133, 2))
    noise[100] = -1e4
    assert augmented(full, noise).seen.sum() == 132
    raised = pose.with_joints(pose.xy + np.eye(18)[4][:, None] * (3, -5))   # the right wrist alone
    assert np.allclose(raised.points[112:] - pose.points[112:], (3, -5)) and np.allclose(raised.points[23:112],
                                                                                          pose.points[23:112])


def test_hands_and_face_are_drawn_for_checkpoints_that_saw_them():
    """Every disc that nothing covers has its own colour, of the authors' generator; of 18 joints the body alone is drawn."""
    grid = np.stack(np.meshgrid(np.arange(12) * 40 + 20, np.arange(12) * 40 + 20), -1).reshape(-1, 2)[:133].astype(float)
    lone = WholeBody.of(grid, np.arange(133) % 60 == 12, (480, 480))    # no two of these are joined
    np.random.seed(777)
    colours = np.random.choice(np.arange(256), 399).reshape(133, 3)[:, ::-1]
    picture = draw_whole(lone, (480, 480))
    for index in np.flatnonzero(lone.seen):
        x, y = grid[index].astype(int)
        assert np.array_equal(picture[y, x], colours[index]) and np.array_equal(picture[y, x + 2], colours[index])
    assert (picture.any(2).sum() == 13 * lone.seen.sum())   # discs of radius 2
    assert len(LIMBS) == 120 and len({limb[:2] for limb in LIMBS}) == 117   # three of the chin are there twice
    hands = [limb[:2] for limb in LIMBS if min(limb[:2]) >= 91]
    assert len(hands) == 40 and {point for limb in hands for point in limb} == set(range(91, 133))
    [frame] = wholebody_to_pose_keypoint(people(1), (260, 210))
    [whole], [body] = from_pose_keypoint([frame], whole=True), from_pose_keypoint([frame])
    config = FusionConfig(points=133)
    with_hands, without = (draw_poses([pose], (260, 210), config)[0] for pose in (whole, body))
    assert with_hands.any(2).sum() > 3 * without.any(2).sum() > 0
    assert np.array_equal(draw_poses([whole], (260, 210), FusionConfig())[0], draw_fpdm(body, (260, 210)))
    with pytest.raises(ValueError, match="points is 21; expected 18"):
        FusionConfig(points=21)
