"""Skeleton pictures of people never seen while the reader was made, drawn in four ways, are read back."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from pgpis_models.poses.formats import from_pose_keypoint
from pgpis_models.poses.keypoints import JOINTS, Keypoints
from pgpis_models.poses.skeleton_pictures import read_skeletons
from tests.helpers.skeletons import DRAWERS, as_jpeg, drawn_people, ours

NEAR = 0.015          # of the picture's height
SIZES = (256, 384, 512, 768, 1024)


@pytest.fixture(scope="module")
def people() -> list[Keypoints]:
    return drawn_people(start=700, count=20)


def read(picture: np.ndarray, order: str = "auto") -> Keypoints:
    frame = read_skeletons(np.ascontiguousarray(picture), order)
    assert len(frame["people"]) <= 1, "one person was drawn"
    return from_pose_keypoint(frame, empty="nobody")[0]


def compare(pose: Keypoints, found: Keypoints) -> tuple[int, int, list[str]]:
    """Of the joints on the canvas how many were found near their place, how many there are; what was invented."""
    shown = pose.on_canvas
    near = np.linalg.norm(found.xy - pose.xy, axis=1) <= NEAR * pose.canvas[0]
    return int((shown & found.present & near).sum()), int(shown.sum()), [JOINTS[j] for j in np.flatnonzero(
        found.present & ~pose.present)]


@pytest.mark.parametrize("drawer", DRAWERS)
@pytest.mark.parametrize("change", ["plain", "swapped", "wide", "antialiased"])
def test_ninety_nine_of_a_hundred_joints_are_found_and_none_is_invented(drawer, change, people):
    found, count, invented = 0, 0, []
    for number, pose in enumerate(people):
        height = SIZES[(number + len(change)) % len(SIZES)]
        size = (height, height * 3 // 4)
        wide = {"width": max(2, height // 64), "radius": max(3, height // 64)} if change == "wide" else {}
        picture = DRAWERS[drawer](pose, size, **wide)
        if change == "swapped":
            picture = picture[..., ::-1]
        elif change == "antialiased":
            larger = DRAWERS[drawer](pose, (2 * size[0], 2 * size[1]), width=8, radius=8)
            picture = cv2.resize(larger, size[::-1], interpolation=cv2.INTER_AREA)
        near, shown, more = compare(pose.scaled_to(size), read(picture))
        found, count, invented = found + near, count + shown, invented + more
    assert found >= 0.99 * count, f"{found} of {count}"
    assert invented == []


@pytest.mark.parametrize("drawer", DRAWERS)
def test_jpeg_costs_few_joints(drawer, people):
    found, count, invented = 0, 0, 0
    for pose in people[:10]:
        near, shown, more = compare(pose.scaled_to((512, 384)), from_pose_keypoint(read_skeletons(
            as_jpeg(DRAWERS[drawer](pose, (512, 384)), 85)), empty="nobody")[0])
        found, count, invented = found + near, count + shown, invented + len(more)
    assert found >= 0.97 * count and invented <= 0.01 * count, f"{found} of {count}, {invented} invented"


def test_two_people_are_told_apart(people):
    first, second = people[0].scaled_to((512, 384)), people[3].scaled_to((512, 384))
    picture = np.concatenate([ours(first, (512, 384)), ours(second, (512, 384))], axis=1)
    frame = read_skeletons(picture)
    poses = [from_pose_keypoint(frame, person)[0] for person in range(len(frame["people"]))]
    left, right = sorted(poses, key=lambda pose: pose.bounds[0])
    assert len(poses) == 2 and (frame["canvas_width"], frame["canvas_height"]) == (768, 512)
    for found, pose, shift in ((left, first, 0), (right, second, 384)):
        joints = pose.on_canvas & found.present
        assert joints.sum() >= pose.on_canvas.sum() - 1
        np.testing.assert_allclose(found.xy[joints] - [shift, 0], pose.xy[joints], atol=NEAR * 512)


def test_parts_without_a_neck_between_them_are_one_person(people):
    pose = people[0].scaled_to((512, 384))
    part = Keypoints(pose.xy, pose.present & (np.arange(18) != 1), pose.canvas)
    near, shown, invented = compare(part, read(ours(part, (512, 384))))
    assert near >= shown - 1 and invented == []


def test_the_order_of_channels_can_be_said(people):
    picture = ours(people[0].scaled_to((512, 384)), (512, 384))
    same, swapped = read(picture, "rgb"), read(picture[..., ::-1], "bgr")
    np.testing.assert_array_equal(same.xy, swapped.xy)
    assert same.present.any()


def test_pictures_without_skeletons_have_nobody():
    photo = np.random.default_rng(0).integers(0, 255, (64, 48, 3), dtype=np.uint8)
    grey = np.full((64, 48, 3), 200, np.uint8)
    for picture in (np.zeros((64, 48, 3), np.uint8), grey):
        assert read_skeletons(picture)["people"] == []
    assert isinstance(read_skeletons(photo)["people"], list), "of noise anything may be read, but nothing fails"


def test_other_arrays_and_orders_are_said():
    with pytest.raises(ValueError, match="expected \\(H, W, 3\\) uint8"):
        read_skeletons(np.zeros((8, 8)))
    with pytest.raises(ValueError, match="expected one of auto, rgb, bgr"):
        read_skeletons(np.zeros((8, 8, 3), np.uint8), "grb")
