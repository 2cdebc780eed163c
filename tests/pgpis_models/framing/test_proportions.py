"""A target pose in the proportions of the person of the photo, against drawn bodies whose proportions are known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pgpis_models.body.camera import Camera
from pgpis_models.body.library import library
from pgpis_models.body.measured import Proportions
from pgpis_models.body.skeleton import Build, Lengths, build_skeleton
from pgpis_models.framing.boxes import Layout
from pgpis_models.framing.fitting import fit_person
from pgpis_models.framing.proportions import in_proportions
from pgpis_models.poses.keypoints import Keypoints

POSES = library(Path(__file__).resolve().parents[3] / "web" / "pose_library" / "poses.json")
SIZE = (512, 352)
PLAIN, OTHER = Proportions(), Proportions(Build(shoulders=1.12, hips=0.92), Lengths(1.10, 0.92, 0.93, 1.08))
LIMBS = ((2, 3), (3, 4), (5, 6), (6, 7), (8, 9), (9, 10), (11, 12), (12, 13))


def pose(name: str, shape: Proportions, yaw: float = 0.0) -> Keypoints:
    state = replace(POSES[name].state, camera=Camera(yaw, 0.0, 0.8))
    joints = build_skeleton(shape.build, state.pose(), shape.lengths).joints
    return Keypoints(state.camera.view(SIZE).project(joints)[:, :2], np.ones(18, bool), SIZE)


def shares(one: Keypoints) -> np.ndarray:
    """Limbs against the torso."""
    torso = np.linalg.norm(one.xy[1] - (one.xy[8] + one.xy[11]) / 2)
    return np.array([np.linalg.norm(one.xy[a] - one.xy[b]) for a, b in LIMBS]) / torso


def test_limbs_become_those_of_the_person():
    """Another body in the same pose is what is wanted; the person is seen in a third pose."""
    person, target, wanted = pose("attention", OTHER), pose("A pose", PLAIN), pose("A pose", OTHER)
    [made] = in_proportions([target], person)
    before, after = (np.abs(shares(one) / shares(wanted) - 1) for one in (target, made))
    assert before.max() > 0.07 and after.max() < 0.03
    np.testing.assert_allclose(made.xy[[0, 1, 14, 15, 16, 17]], target.xy[[0, 1, 14, 15, 16, 17]])


def test_what_the_photo_does_not_show_keeps_the_poses_own_ratio():
    whole, target = pose("standing at ease", OTHER), pose("A pose", PLAIN)
    portrait = Keypoints(whole.xy, np.isin(np.arange(18), (0, 1, 2, 5, 14, 15, 16, 17)), SIZE)
    [made] = in_proportions([target], portrait)
    for a, b in LIMBS:
        np.testing.assert_allclose(made.xy[b] - made.xy[a], target.xy[b] - target.xy[a], atol=1e-9)


@pytest.mark.parametrize("seated", ["sitting, from the front", "squat"])
def test_a_limb_that_points_at_the_camera_is_not_a_short_one(seated):
    standing, sitting = pose("A pose", PLAIN), pose(seated, PLAIN)
    for person, target in ((sitting, standing), (standing, sitting)):   # the same body: nothing may change much
        [made] = in_proportions([target], person)
        assert np.abs(made.xy - target.xy).max() < 0.05 * 0.8 * SIZE[0]
    [made] = in_proportions([Keypoints(standing.xy, np.arange(18) != 1, SIZE)], sitting)
    assert (made.xy == Keypoints(standing.xy, np.arange(18) != 1, SIZE).xy).all(), "without a neck it stays"


def test_fit_person_takes_them_unless_told_otherwise():
    photo, layout = np.full((*SIZE, 3), 200, np.uint8), Layout((256, 192), (256, 192))
    person, target, wanted = pose("attention", OTHER), pose("A pose", PLAIN), pose("A pose", OTHER)
    made, given = (fit_person(photo, layout, people=[person], targets=[target], **more).targets[0]
                   for more in ({}, {"proportions": "as given"}))
    assert np.abs(shares(made) / shares(wanted) - 1).max() < 0.03
    np.testing.assert_allclose(shares(given), shares(target), rtol=1e-3)   # whole pixels of the frame
    with pytest.raises(ValueError, match="proportions is 'long'"):
        fit_person(photo, layout, people=[person], targets=[target], proportions="long")
