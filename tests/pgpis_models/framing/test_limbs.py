"""The surface of a skeleton, against drawn people and against turning a limb by hand."""

import numpy as np
import pytest

from pgpis_models.framing.limbs import surface_of_pose
from pgpis_models.poses.keypoints import Keypoints
from training.world.motion import walk
from training.world.wardrobe import sample_identity

SIZE = (256, 192)


@pytest.fixture(scope="module")
def drawn():
    return walk(sample_identity(1_000_001), 3, SIZE)


def pose_of(one):
    return Keypoints(one.keypoints, one.detected, SIZE)


def test_strips_cover_the_drawn_person(drawn):
    for one in drawn:
        made, true = surface_of_pose(pose_of(one), SIZE).part > 0, one.part > 0
        assert (made & true).sum() > 0.8 * true.sum() and (made & ~true).sum() < 0.25 * true.sum()


def test_a_point_keeps_its_place_on_a_limb_that_turns_and_stretches(drawn):
    """A point at a share of the forearm, and at a distance beside it, before and after the wrist is moved."""
    pose = pose_of(drawn[0])
    elbow, wrist = pose.xy[6], pose.xy[7]
    xy = pose.xy.copy()
    xy[7] = elbow + 1.2 * np.array([[0, -1], [1, 0]]) @ (wrist - elbow)   # a quarter turn
    turned = Keypoints(xy, pose.present, SIZE)

    def at(keypoints, share, aside):
        made = surface_of_pose(keypoints, SIZE)
        along = keypoints.xy[7] - keypoints.xy[6]
        across = np.array([-along[1], along[0]]) / np.linalg.norm(along)
        column, row = (keypoints.xy[6] + share * along + aside * across).astype(int)
        return made.part[row, column], made.u[row, column], made.v[row, column]
    for share, aside in ((0.3, 0), (0.7, 3), (0.6, -3)):
        (part, u, v), (other, other_u, other_v) = at(pose, share, aside), at(turned, share, aside)
        assert part == other == 21 and abs(u - other_u) < 0.15 and abs(v - other_v) < 0.06


def test_limbs_without_a_joint_are_left_out_and_nobody_has_no_surface(drawn):
    pose = pose_of(drawn[0])
    present = pose.present.copy()
    present[[3, 9, 8]] = False
    made = surface_of_pose(Keypoints(pose.xy, present, SIZE), SIZE)
    assert set(np.unique(made.part)) == {0, 10, 14, 17, 21, 24}
    assert not surface_of_pose(Keypoints(np.zeros((18, 2)), np.zeros(18, bool), SIZE), SIZE).part.any()
    larger = surface_of_pose(pose, (512, 384)).part[::2, ::2]
    assert (larger == surface_of_pose(pose, SIZE).part).mean() > 0.97
