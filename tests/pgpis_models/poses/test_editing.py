"""Edited poses against the exact geometry of mannequins, whose joints are projected without perspective."""

import numpy as np
import pytest

from pgpis_models.poses.drawing import LIMBS
from pgpis_models.poses.editing import NECK, edit, lengths, retarget
from pgpis_models.poses.formats import from_pose_keypoint, to_pose_keypoint
from pgpis_models.poses.keypoints import MIRROR, Keypoints
from training.world.drawing import render
from training.world.poses import sample_pose
from training.world.wardrobe import sample_identity

SIZE = (256, 192)
ARMS_AND_LEGS = ((2, 3), (3, 4), (5, 6), (6, 7), (8, 9), (9, 10), (11, 12), (12, 13))


def keypoints(person, view, present=None):
    drawn = render(sample_identity(person), sample_pose(view), SIZE)
    return Keypoints(drawn.keypoints, np.ones(18, bool) if present is None else present, SIZE)


def limb(pose, ends):
    return pose.xy[ends[1]] - pose.xy[ends[0]]


@pytest.mark.parametrize("view", range(4))
def test_a_pose_retargeted_to_another_body_is_that_bodys_own(view):
    """Both bodies in the same pose: foreshortening is the same, so arms and legs must come out as the other body's."""
    tall, small = keypoints(3, view), keypoints(11, view)
    [made] = retarget([tall], [small])
    assert np.array_equal(made.xy[NECK], tall.xy[NECK])
    before = max(np.abs(limb(tall, ends) - limb(small, ends)).max() for ends in ARMS_AND_LEGS)
    after = max(np.abs(limb(made, ends) - limb(small, ends)).max() for ends in ARMS_AND_LEGS)
    assert before > 1 and after < 1e-4   # joints come as float32


def test_directions_and_foreshortening_stay_over_a_sequence():
    frames, body = [keypoints(3, view) for view in range(6)], [keypoints(11, 9)]
    made = retarget(frames, body)
    for ends in LIMBS:
        ratios = [np.linalg.norm(limb(after, ends)) / np.linalg.norm(limb(before, ends))
                  for before, after in zip(frames, made, strict=True)]
        assert np.allclose(ratios, ratios[0])
        for before, after in zip(frames, made, strict=True):
            a, b = limb(before, ends), limb(after, ends)
            assert abs(a[0] * b[1] - a[1] * b[0]) < 1e-6 and a @ b > 0
    own, wanted = lengths(made), lengths(body)
    assert all(abs(own[ends] - wanted[ends]) < 1e-6 for ends in LIMBS)


def test_a_body_on_a_photo_of_another_size_counts_at_the_same_size():
    pose, body = keypoints(3, 0), keypoints(11, 1)
    assert np.allclose(retarget([pose], [body.scaled_to((512, 384))])[0].xy, retarget([pose], [body])[0].xy)


def test_joints_below_a_missing_one_move_with_the_nearest_ancestor():
    present = np.ones(18, bool)
    present[3] = False   # the right elbow; the wrist hangs on the shoulder then
    pose, body = keypoints(3, 0, present), keypoints(11, 0).scaled(2.0)
    [made] = retarget([pose], [body])
    assert not made.present[3] and made.present[4]
    ratios = [lengths([body])[ends] / lengths([pose])[ends] for ends in LIMBS]
    assert np.allclose(made.xy[4] - made.xy[2], (pose.xy[4] - pose.xy[2]) * np.median(ratios))


def test_mirror_scale_and_shift_are_exact_and_keep_the_canvas():
    pose = keypoints(3, 2)
    height, width = SIZE
    [made] = from_pose_keypoint(edit(to_pose_keypoint(pose), mirror=True, scale=1.5, shift=(0.1, -0.25)))
    flipped = np.stack([width - 1 - pose.xy[list(MIRROR), 0], pose.xy[list(MIRROR), 1]], 1)
    centre = (flipped.min(0) + flipped.max(0)) / 2
    assert np.allclose(made.xy, centre + 1.5 * (flipped - centre) + (0.1 * width, -0.25 * height))
    assert made.canvas == SIZE and made.present.all()
    assert np.allclose(from_pose_keypoint(edit(to_pose_keypoint(pose)))[0].xy, pose.xy)


def test_empty_frames_stay_and_units_do_not_matter():
    pose = keypoints(3, 2)
    [frame] = to_pose_keypoint(pose)
    empty = {"people": [], "canvas_height": SIZE[0], "canvas_width": SIZE[1]}
    made = edit([empty, frame, empty], scale=2.0)
    assert made[0] == made[2] == empty and len(made) == 3
    shares = pose.xy / (SIZE[1], SIZE[0])
    normalised = {"people": [{"pose_keypoints_2d": [float(v) for x, y in shares for v in (x, y, 1)]}],
                  "canvas_height": SIZE[0], "canvas_width": SIZE[1]}
    assert np.allclose(from_pose_keypoint(edit([normalised], scale=2.0))[0].xy, from_pose_keypoint(made[1:2])[0].xy)


def test_bad_input_says_what_to_do():
    pose = keypoints(3, 0)
    frames = to_pose_keypoint(pose)
    with pytest.raises(ValueError, match="scale is 0; expected a factor above 0"):
        edit(frames, scale=0)
    with pytest.raises(ValueError, match="No person in frame 1 of 1"):
        edit([{"people": [], "canvas_height": 4, "canvas_width": 4}])
    headless = np.ones(18, bool)
    headless[NECK] = False
    with pytest.raises(ValueError, match="pose 2 of 2 has no neck"):
        retarget([pose, keypoints(3, 0, headless)], [pose])
    nose = np.zeros(18, bool)
    nose[0] = True
    with pytest.raises(ValueError, match="no limb in common"):
        retarget([pose], [keypoints(11, 0, nose)])
    with pytest.raises(ValueError, match="1 poses came to retarget and 0 of the person"):
        retarget([pose], [])
