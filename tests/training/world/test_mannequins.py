"""The demo world says the truth about its own pictures."""

import dataclasses
import math

import numpy as np
import pytest

from training.world.drawing import (
    BACKGROUND,
    HAIR_STYLES,
    PATTERNS,
    Arm,
    Leg,
    Pose,
    contact_sheet,
    render,
    sample_identity,
    sample_pose,
    texture_atlas,
)

SEEDS = range(40)
HANGING = Arm(0.35, 0.1, 0.1, (0.0, 0.2, 1.0))
STANDING = Leg(0.08, 0.0, 0.0)


def standing(heading: float, **changes) -> Pose:
    return Pose(heading=heading, lean=0.0, tilt=0.0, head_turn=0.0, head_nod=0.0, arms=(HANGING, HANGING),
                legs=(STANDING, STANDING), **changes)


@pytest.fixture(scope="module")
def scenes():
    return [render(sample_identity(s), sample_pose(s), (256, 192)) for s in SEEDS]


def test_a_seed_always_draws_the_same_picture_and_another_seed_another():
    first, again, other = (render(sample_identity(s), sample_pose(s)) for s in (5, 5, 6))
    for field in dataclasses.fields(first):
        np.testing.assert_array_equal(getattr(first, field.name), getattr(again, field.name))
    assert np.abs(first.image.astype(int) - other.image).mean() > 3


def test_identities_differ_in_every_kind_of_attribute():
    people = [sample_identity(s).describe() for s in range(300)]
    assert len({p["top"] for p in people}) > 290
    assert {p["top_pattern"] for p in people} == set(range(len(PATTERNS)))
    assert {p["hair_style"] for p in people} == set(range(len(HAIR_STYLES)))
    assert 0.5 < np.mean([p["top_pattern"] == 0 for p in people]) < 0.9  # most cloth is plain
    assert min(sum(p["skin"]) for p in people) < 0.9 and max(sum(p["skin"]) for p in people) > 2.4
    assert min(p["top_period"] for p in people) >= 0.10


def test_the_same_scene_at_two_sizes_agrees(scenes):
    for seed in (0, 7, 11):
        small, large = render(sample_identity(seed), sample_pose(seed), (128, 96)), scenes[seed]
        np.testing.assert_allclose(small.keypoints * 2, large.keypoints, atol=1e-3)
        # a small pixel's centre is the corner of four large pixels: it must carry the part of one of them
        quads = large.part.reshape(128, 2, 96, 2).transpose(0, 2, 1, 3).reshape(128, 96, 4)
        assert np.mean((quads == small.part[..., None]).any(-1)) > 0.99
        assert np.mean(quads[..., 0] == small.part) > 0.97
        pooled = large.image.reshape(128, 2, 96, 2, 3).mean((1, 3))
        assert np.abs(pooled - small.image).mean() < 1.5


def test_a_wider_canvas_shows_the_same_scene_centred():
    narrow, wide = (render(sample_identity(3), sample_pose(3), (128, w)) for w in (96, 128))
    np.testing.assert_array_equal(wide.part[:, 16:112], narrow.part)
    np.testing.assert_allclose(wide.keypoints - [16, 0], narrow.keypoints, atol=1e-3)


def test_the_part_map_lies_on_the_picture(scenes):
    background = np.rint(np.array(BACKGROUND) * 255)
    for scene in scenes[:10]:
        drawn = np.abs(scene.image - background).max(-1) > 0
        body = scene.part > 0
        assert not (body & ~drawn).sum() > 0.01 * body.sum()  # white cloth may equal the background by chance
        # moved by one pixel, the map fits the picture worse in every direction
        fit = np.mean(body == drawn)
        for shift in ((0, 1), (0, -1), (1, 0), (-1, 0)):
            assert np.mean(np.roll(body, shift, (0, 1)) == drawn) < fit


def test_visible_joints_lie_on_parts_of_their_own_limb(scenes):
    own = {2: (1, 2, 16, 18), 3: (16, 18, 20, 22), 4: (20, 22, 3), 5: (1, 2, 15, 17), 6: (15, 17, 19, 21), 7: (19, 21, 4),
           9: (7, 9, 11, 13), 10: (11, 13, 6), 12: (8, 10, 12, 14), 13: (12, 14, 5), 0: (23, 24), 14: (23, 24), 15: (23, 24)}
    seen = 0
    for scene in scenes:
        for joint, parts in own.items():
            if scene.visible[joint]:
                x, y = scene.keypoints[joint].astype(int)
                near = scene.part[max(0, y - 2):y + 3, max(0, x - 2):x + 3]
                assert np.isin(near, parts).any(), joint
                seen += 1
    assert seen > 300


def test_right_is_the_persons_right():
    front, back = (render(sample_identity(1), standing(h), (256, 192)) for h in (0.0, math.pi))
    for right, left in ((2, 5), (4, 7), (8, 11), (10, 13)):
        assert front.keypoints[right, 0] < front.keypoints[left, 0]
        assert back.keypoints[right, 0] > back.keypoints[left, 0]
    for right, left in ((3, 4), (6, 5), (22, 21), (23, 24)):  # parts seen from the front, by their mean column
        assert np.nonzero(front.part_mask(right))[1].mean() < np.nonzero(front.part_mask(left))[1].mean()
    assert front.part_mask(2).sum() > 500 > front.part_mask(1).sum()
    assert back.part_mask(1).sum() > 500 > back.part_mask(2).sum()


def test_the_atlas_at_part_u_v_has_the_hue_of_the_picture(scenes):
    for seed in range(12):
        scene, atlas = scenes[seed], texture_atlas(sample_identity(seed), 128)
        # interior: the colour in the atlas is the same all around the texel, and the part is the same all around the pixel
        part, row, column = scene.part, (scene.v * 127.99).astype(int), (scene.u * 127.99).astype(int)
        inside = part > 0
        for shift in ((0, 1), (0, -1), (1, 0), (-1, 0)):
            inside &= np.roll(part, shift, (0, 1)) == part
        p, r, c = part[inside] - 1, row[inside], column[inside]
        expected = atlas[p, r, c]
        flat = np.ones(len(p), bool)
        for dr in (-3, 0, 3):
            for dc in (-4, 0, 4):
                flat &= np.abs(atlas[p, np.clip(r + dr, 0, 127), np.clip(c + dc, 0, 127)] - expected).max(-1) < 1e-3
        found, expected = scene.image[inside][flat].astype(float) / 255, expected[flat]
        shade = (found * expected).sum(-1) / (expected ** 2).sum(-1)
        right = np.abs(found - expected * shade[:, None]).max(-1) < 0.03
        assert flat.mean() > 0.5 and right.mean() > 0.97
        bright = right & (expected.max(-1) > 0.4)  # where rounding to 8 bits does not matter
        low, high = np.quantile(shade[bright], (0.005, 0.995))
        assert 0.72 < low and high < 1.01


def test_front_and_back_of_plain_cloth_have_one_colour():
    who = next(p for p in map(sample_identity, range(99)) if p.top_pattern == 0 and p.letter >= 0)
    atlas = texture_atlas(who)
    rows = slice(int(0.35 * 64), int(0.45 * 64))
    assert np.abs(atlas[0, rows] - who.top).max() < 1e-6  # the back is plain, the letter is on the front alone
    assert (np.abs(atlas[1, rows] - who.letter_rgb).max(-1) < 1e-6).any()
    plain = np.abs(atlas[1] - who.top).max(-1) < 1e-6
    assert plain[rows, 0].all() and plain[rows, -1].all()


def test_a_letter_reads_from_left_to_right():
    who = dataclasses.replace(sample_identity(2), top_pattern=0, letter=1, top=(0.0, 0.0, 1.0), letter_rgb=(1.0, 1.0, 0.0))
    scene = render(who, standing(0.0), (256, 192))
    chest = scene.part_mask(2) & (scene.image[..., 1] > 150) & (scene.image[..., 2] < 100)
    columns, torso = np.nonzero(chest)[1], np.nonzero(scene.part_mask(2) & chest.any(1)[:, None])[1]
    # an E has its spine on the left of the picture, so its mean lies left of its middle
    assert columns.mean() < (columns.min() + columns.max()) / 2
    assert np.ptp(columns) >= 0.6 * np.ptp(torso)


def test_the_face_box_holds_the_eyes_in_front_and_is_none_behind():
    for seed in range(8):
        who = dataclasses.replace(sample_identity(seed), eyes=(0.0, 1.0, 0.0), hair=(0.2, 0.1, 0.1), skin=(0.8, 0.6, 0.5))
        front, back = (render(who, standing(h), (256, 192)) for h in (0.2, math.pi))
        assert back.face_box is None and not back.detected[[0, 14, 15]].any()
        x0, y0, x1, y1 = front.face_box
        image = front.image.astype(int)
        green = front.part_mask(23, 24) & (image[..., 1] > image[..., 0] + 60) & (image[..., 1] > image[..., 2] + 60)
        rows, columns = np.nonzero(green)
        assert len(rows) >= 4
        assert x0 < columns.min() and columns.max() < x1 and y0 < rows.min() and rows.max() < y1
        for eye in (14, 15):  # and the keypoints of the eyes are where the green is
            distance = np.hypot(columns + 0.5 - front.keypoints[eye, 0], rows + 0.5 - front.keypoints[eye, 1])
            assert distance.min() < 2.0


def test_all_24_parts_occur_and_charts_stay_in_range(scenes):
    assert set(np.unique([s.part for s in scenes])) == set(range(25))
    for scene in scenes[:5]:
        for chart in (scene.u, scene.v):
            assert chart.dtype == np.float32 and 0 <= chart.min() and chart.max() <= 1
            assert not chart[scene.part == 0].any()
        iuv = scene.iuv()
        np.testing.assert_array_equal(iuv[..., 0], scene.part)
        assert np.abs(iuv[..., 1] / 255 - scene.u).max() <= 0.5 / 255 + 1e-6


def test_u_is_the_angle_around_the_limb_and_v_the_way_along_it():
    who = dataclasses.replace(sample_identity(4), bottom_kind=2, leg=1.0)
    apart = Leg(0.25, 0.0, 0.0)
    scene = render(who, dataclasses.replace(standing(0.0), legs=(apart, apart)), (512, 384))
    row = int(scene.keypoints[[8, 9], 1].mean())
    columns = np.flatnonzero(scene.part[row] == 9)  # the front of the right thigh, seen square on: x = r cos(angle)
    middle, radius = columns.mean(), (np.ptp(columns) + 1) / 2
    angle = np.arccos((columns - middle) / radius) / math.pi
    assert np.abs(scene.u[row, columns] - angle).max() < 0.06
    below = scene.v[row + 20, columns[len(columns) // 2]]
    assert 0.3 < scene.v[row, columns[len(columns) // 2]] < below < 0.7


def test_the_whole_body_and_every_visible_joint_is_in_the_frame():
    for seed in range(200):
        scene = render(sample_identity(seed), sample_pose(seed), (64, 48))
        part, joints = scene.part, scene.keypoints[scene.visible]
        edge = np.concatenate([part[0], part[-1], part[:, 0], part[:, -1]])
        assert not edge.any(), seed
        assert (joints >= 0).all() and (joints < (48, 64)).all()
        assert not (scene.visible & ~scene.detected).any()
        assert scene.detected[1:14].all()


def test_headings_favour_the_front():
    degrees = np.degrees([sample_pose(s).heading for s in range(2000)])
    assert 0.40 < np.mean(np.abs(degrees) <= 50) < 0.50
    assert 0.16 < np.mean(np.abs((degrees % 360) - 180) <= 40) < 0.24 + 0.01


def test_a_contact_sheet_is_a_grid_of_pictures():
    sheet = contact_sheet(2, 3, (64, 48), seed=4)
    assert sheet.shape == (2 * 64 + 2, 3 * 48 + 4, 3) and sheet.dtype == np.uint8
    np.testing.assert_array_equal(sheet[:64, :48], render(sample_identity(4), sample_pose(4000), (64, 48)).image)
