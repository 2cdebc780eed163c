"""A person in a photo of any size is framed as the method was trained; mannequins tell where every joint must come out."""

from __future__ import annotations

import numpy as np
import pytest

from pgpis_models.cfld.config import CONFIGS as CFLD
from pgpis_models.fpdm.config import CONFIGS as FPDM
from pgpis_models.framing.bodies import body_of_densepose, body_of_mask, body_of_pose
from pgpis_models.framing.boxes import Layout, layout_of
from pgpis_models.framing.fitting import fit_person, people_in_photo
from pgpis_models.mcld.config import CONFIGS as MCLD
from pgpis_models.poses.formats import to_pose_keypoint
from pgpis_models.poses.keypoints import Keypoints
from pgpis_models.qen.config import CONFIGS as QEN
from pgpis_models.surface.densepose import IUV
from tests.helpers.photos import GROUND, figure, photo

DEMO, FULL = layout_of(CFLD["demo"]), layout_of(CFLD["full"])
SIZE = (1536, 1024)   # (H, W) of the photo that the tests start from


@pytest.fixture(scope="module")
def standing():
    return figure(3)


@pytest.fixture(scope="module")
def small(standing):
    """A mannequin, 400 pixels of picture, near the left edge of a photo of 1024x1536."""
    return photo(SIZE, (standing, 20, 900))


def torso(pose):
    return np.linalg.norm((pose.xy[8] + pose.xy[11]) / 2 - pose.xy[1])


# --- size and framing from the checkpoint -------------------------------------------------------------------

def test_sizes_come_from_the_config():
    assert layout_of(CFLD["demo"]) == Layout((256, 192), (256, 192)) == layout_of(MCLD["demo"]) == layout_of(QEN["demo"])
    assert layout_of(FPDM["full"]) == Layout((512, 352), (512, 352))
    for square in (CFLD["full"], MCLD["full"], QEN["full"]):   # squashed from photos of 11 to 16
        assert layout_of(square) == Layout((512, 512), (512, 352))


@pytest.mark.parametrize("given", ["people", "densepose", "mask", "nothing"])
def test_a_small_person_at_one_side_is_framed_as_in_training(small, given):
    known = {"people": {"people": small.people}, "densepose": {"densepose": small.iuv}, "mask": {"mask": small.mask},
             "nothing": {}}[given]
    fitted = fit_person(small.picture, DEMO, **known)
    assert fitted.photo.shape == (256, 192, 3) and not fitted.frame.whole
    shown = np.nonzero(np.abs(fitted.photo.astype(int) - GROUND).sum(-1) > 30)
    top, bottom, left, right = shown[0].min() / 256, shown[0].max() / 256, shown[1].min() / 192, shown[1].max() / 192
    assert 0.02 < top < 0.14 and 0.90 < bottom < 0.98, (top, bottom)
    assert abs((left + right) / 2 - 0.5) < 0.1
    x0, y0, x1, y1 = fitted.frame.box
    assert abs((x1 - x0) / (y1 - y0) - 0.75) < 1 / (y1 - y0)   # never squashed


@pytest.mark.parametrize("layout", [DEMO, FULL])
@pytest.mark.parametrize("seed", range(4))
def test_every_joint_lands_where_its_pixels_land(seed, layout):
    drawn = figure(seed)
    one = photo((700, 900), (drawn, 500, 200))
    fitted = fit_person(one.picture, layout, people=one.people, densepose=one.iuv)
    x0, y0, x1, y1 = fitted.frame.box
    height, width = layout.size
    expected = (one.people[0].xy - (x0, y0)) * (width / (x1 - x0), height / (y1 - y0))
    present = fitted.pose.present
    assert np.allclose(fitted.pose.xy[present], expected[present]) and fitted.pose.canvas == layout.size
    assert abs(width / (x1 - x0) / (height / (y1 - y0)) - 1) < 0.01 and abs(fitted.frame.scale - height / (y1 - y0)) < 1e-12
    # pixels and labels agree: the framed picture differs from the ground where the framed DensePose has a body
    shown = np.abs(fitted.photo.astype(int) - GROUND).sum(-1) > 40
    body = fitted.densepose.part_mask()
    assert (shown & body).sum() / (shown | body).sum() > 0.85
    assert np.array_equal(fitted.mask, body)
    for joint in np.flatnonzero(drawn.visible):
        x, y = fitted.pose.xy[joint].astype(int)
        assert body[max(y - 2, 0):y + 3, max(x - 2, 0):x + 3].any(), joint


def test_padding_repeats_the_border_or_the_colour_of_the_ground(standing):
    one = photo((420, 300), (standing, 0, 20), noise=4)
    one.picture[:, 0] = (200, 30, 30)
    wide = Layout((256, 512), (256, 512))   # wider than the photo, which is padded on both sides
    for padding, colour in (("border", (200, 30, 30)), ("ground", GROUND)):
        fitted = fit_person(one.picture, wide, people=one.people, padding=padding)
        assert fitted.frame.box[0] < -20 and fitted.frame.box[2] > 320
        assert np.abs(fitted.photo[100:150, 2].astype(int) - colour).max() <= 6, padding


def test_photos_that_are_framed_already_stay_whole_and_equal():
    for seed in range(6):
        drawn = figure(seed, (256, 192), closer=seed % 2 == 1)
        pose = Keypoints(drawn.keypoints, drawn.detected, (256, 192))
        fitted = fit_person(drawn.image, DEMO, people=[pose])
        assert fitted.frame.whole and np.array_equal(fitted.photo, drawn.image) and np.allclose(fitted.pose.xy, pose.xy)


def test_a_person_cut_off_by_the_lower_edge_stays_at_the_lower_edge():
    drawn = figure(2, (300, 225), closer=True)
    one = photo((420, 800), (drawn, 300, 120))
    for known in ({"people": one.people}, {"mask": one.mask}, {"densepose": one.iuv}):
        fitted = fit_person(one.picture, DEMO, **known)
        assert fitted.frame.box[3] == 420   # no ground below hips that were never seen
        shown = np.nonzero(np.abs(fitted.photo.astype(int) - GROUND).sum(-1) > 30)
        assert 0.02 < shown[0].min() / 256 < 0.16 and shown[0].max() == 255


# --- a pose from another photo ------------------------------------------------------------------------------

@pytest.mark.parametrize("factor", [0.3, 1.0, 4.0])
def test_a_pose_from_another_photo_comes_by_the_body_not_by_the_canvas(small, factor):
    other = figure(5)
    canvas = (int(900 * factor), int(1400 * factor))
    target = Keypoints((other.keypoints + (700, 420)) * factor, other.detected, canvas)
    fitted = fit_person(small.picture, DEMO, people=small.people, targets=[target])
    made, own = fitted.targets[0], fitted.pose
    assert made.canvas == (256, 192) and abs(torso(made) / torso(own) - 1) < 0.15   # torsos lean to and from the camera
    assert abs(max(made.xy[10, 1], made.xy[13, 1]) - max(own.xy[10, 1], own.xy[13, 1])) < 1.0     # on the same floor
    assert abs(np.mean(made.xy[[1, 8, 11], 0]) - np.mean(own.xy[[1, 8, 11], 0])) < 4              # in the same place
    assert made.on_canvas[made.present].all()
    # whatever the canvas and its scale, the same pose comes out
    plain = fit_person(small.picture, DEMO, people=small.people,
                       targets=[Keypoints(other.keypoints, other.detected, (400, 300))]).targets[0]
    assert np.allclose(made.xy, plain.xy, atol=1e-6)


@pytest.mark.parametrize("factor", [0.3, 1.0, 4.0])
def test_the_same_person_in_another_pose_and_photo_has_hips_and_shoulders_where_they_were(small, factor):
    pose = small.people[0]
    arms, trunk = [3, 4, 6, 7], [1, 2, 5, 8, 11]
    xy = pose.xy.copy()
    xy[arms] += ((30, -50), (60, -120), (-30, -50), (-60, -120))
    target = Keypoints((xy + (333, -222)) * factor, pose.present, (1800, 700))
    fitted = fit_person(small.picture, DEMO, people=[pose], targets=[target])
    assert np.allclose(fitted.targets[0].xy[trunk], fitted.pose.xy[trunk], atol=1e-9)
    assert not np.allclose(fitted.targets[0].xy[arms], fitted.pose.xy[arms], atol=3)


def test_a_pose_without_feet_comes_by_the_torso(small):
    other = figure(4, closer=True)
    present = other.detected & ~np.isin(np.arange(18), (9, 10, 12, 13))
    fitted = fit_person(small.picture, DEMO, people=small.people, targets=[Keypoints(other.keypoints, present, (400, 300))])
    middle = [(pose.xy[1] + (pose.xy[8] + pose.xy[11]) / 2) / 2 for pose in (fitted.targets[0], fitted.pose)]
    assert np.allclose(*middle, atol=1e-6) and abs(torso(fitted.targets[0]) / torso(fitted.pose) - 1) < 0.15
    assert "target pose 1 shows no feet" in fitted.said


def test_the_frame_holds_raised_arms_and_all_poses_of_one_photo(small):
    arms = small.people[0].xy.copy()
    arms[[4, 7]] = small.people[0].xy[0] - ((140, 160), (-140, 160))
    targets = [small.people[0], Keypoints(arms, small.people[0].present, SIZE)]
    alone, both = (fit_person(small.picture, DEMO, people=small.people, targets=some) for some in (targets[:1], targets))
    assert both.frame.box[3] - both.frame.box[1] > alone.frame.box[3] - alone.frame.box[1]
    assert all(pose.on_canvas[pose.present].all() for pose in both.targets) and len(both.targets) == 2
    assert np.allclose(both.targets[0].xy, both.pose.xy)    # the photo's own pose stays where it is


def test_a_movement_keeps_its_steps(small):
    """Frames of one movement are moved alike: a jump stays a jump, which is lost when each stands on the floor."""
    high = small.people[0].shifted(0, -60)
    for together, rise in ((True, 60), (False, 0)):
        fitted = fit_person(small.picture, DEMO, people=small.people, targets=[small.people[0], high], together=together)
        moved = (fitted.targets[0].xy - fitted.targets[1].xy)[small.people[0].present]
        assert np.allclose(moved[:, 1], rise * fitted.frame.scale) and np.allclose(moved[:, 0], 0)


def test_densepose_of_another_photo_comes_by_the_body_too(small):
    other = figure(5, (800, 600))
    target = IUV.from_picture(other.iuv())
    fitted = fit_person(small.picture, DEMO, densepose=small.iuv, target_denseposes=[target])
    made = fitted.target_denseposes[0]
    assert made.size == (256, 192) and set(np.unique(made.part)) <= set(np.unique(target.part))
    own, new = body_of_densepose(fitted.densepose), body_of_densepose(made)
    assert abs(new.size / own.size - 1) < 0.1 and abs(new.box[3] - own.box[3]) < 4 and abs(new.middle[0] - own.middle[0]) < 4


@pytest.mark.parametrize("seed", range(3))
def test_joints_densepose_and_mask_tell_nearly_the_same_of_somebody_who_stands(seed):
    one = photo((600, 500), (figure(seed), 90, 120))
    pose, dense, mask = body_of_pose(one.people[0]), body_of_densepose(one.iuv), body_of_mask(one.mask)
    for other in (dense, mask):
        assert abs(other.size / pose.size - 1) < 0.25
        assert np.allclose(other.middle, pose.middle, atol=0.08 * pose.size)
        assert abs(other.feet - pose.feet) < 0.05 * pose.size


# --- two people ---------------------------------------------------------------------------------------------

def test_of_two_people_the_largest_or_the_chosen_one_is_framed_and_said(standing):
    large, little = figure(1, (600, 450)), figure(2, (300, 225))
    both = photo((800, 1200), (little, 40, 300), (large, 600, 100))
    for known in ({"people": both.people}, {"mask": both.mask}, {}):
        for person, index, said in (("largest", 1, "person 1 of 2, the largest"), (0, 0, "person 0 of 2, as chosen")):
            fitted = fit_person(both.picture, DEMO, person=person, **known)
            x0, _, x1, _ = fitted.frame.box
            assert abs((x0 + x1) / 2 - both.people[index].xy[1, 0]) < 90
            assert fitted.said.startswith(said) and fitted.frame.person == said
        with pytest.raises(ValueError, match="person is 2.*shows 2.*0 to 1"):
            fit_person(both.picture, DEMO, person=2, **known)
    # the mask of both, and the pose of one of them: that one
    fitted = fit_person(both.picture, DEMO, people=both.people, mask=both.mask, person=0)
    assert fitted.frame.box[2] < 600
    assert [np.allclose(a.xy, b.xy) for a, b in zip(people_in_photo(
        {"people": [to_pose_keypoint(pose)[0]["people"][0] for pose in both.people], "canvas_height": 800,
         "canvas_width": 1200}), both.people, strict=True)] == [True, True]


# --- bad input ----------------------------------------------------------------------------------------------

def wrong(match, picture, **known):
    with pytest.raises(ValueError, match=match):
        fit_person(picture, DEMO, **known)


def test_bad_input_is_named(small):
    picture, pose = small.picture, small.people[0]
    nobody = Keypoints(np.zeros((18, 2)), np.zeros(18, bool), SIZE)
    empty = IUV(np.zeros(SIZE, np.uint8), np.zeros(SIZE, np.float32), np.zeros(SIZE, np.float32))
    wrong("the photo of 1024x1536 pixels shows nobody", np.broadcast_to(GROUND, (*SIZE, 3)).copy())
    wrong("nothing says where the person is.*Give one", photo((900, 900), (figure(1), 300, 300), noise=80).picture)
    wrong("the pose of the photo shows nobody", picture, people=[])
    wrong("the pose of the photo lies outside it", picture, people=[pose.shifted(5000, 0)])
    wrong("canvas of 500x400.*the photo has 1024x1536", picture, people=[Keypoints(pose.xy, pose.present, (400, 500))])
    wrong("the MASK is 50x40 pixels, the photo 1024x1536", picture, mask=np.ones((40, 50)))
    wrong("the MASK of the photo is black", picture, mask=np.zeros(SIZE))
    wrong("the DENSEPOSE of the photo shows nobody", picture, densepose=empty)
    wrong("the DENSEPOSE is 300x400 pixels, the photo 1024x1536", picture, densepose=IUV.from_picture(figure(1).iuv()))
    wrong("target pose 2 shows nobody", picture, people=[pose], targets=[pose, nobody])
    wrong("target DENSEPOSE 1 shows nobody", picture, people=[pose], target_denseposes=[empty])
    wrong("padding is 'mirror'; expected one of border, ground", picture, people=[pose], padding="mirror")
    with pytest.raises(ValueError, match="the pose of the photo shows nobody"):
        people_in_photo({"people": [], "canvas_height": 10, "canvas_width": 10})


def test_a_photo_of_the_right_shape_without_a_plain_ground_is_taken_as_it_is():
    drawn = figure(1, (256, 192))
    noisy = photo((512, 384), (drawn, 90, 100), noise=90)
    target = Keypoints(drawn.keypoints, drawn.detected, (256, 192))
    fitted = fit_person(noisy.picture, DEMO, targets=[target], target_denseposes=[noisy.iuv])
    assert fitted.frame.whole and "whole photo" in fitted.said and np.allclose(fitted.targets[0].xy, target.xy)
    assert fitted.target_denseposes[0].size == (256, 192)
