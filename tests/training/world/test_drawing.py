"""The demo world says the truth about its own pictures."""

import dataclasses
import math

import numpy as np
import pytest

from pgpis_models.body.figure import HEAD, L_ARM, L_LEG, R_ARM, R_LEG, build_figure
from pgpis_models.body.skeleton import Arm, Leg, Pose, build_skeleton
from training.world.drawing import contact_sheet, render
from training.world.motion import walk_keypoints, walking_pose
from training.world.paint import texture_atlas
from training.world.poses import sample_pose
from training.world.wardrobe import BACKGROUND, COLLARS, HAIR_STYLES, PATTERNS, distance_to_ground, sample_identity

SEEDS = range(40)
HANGING = Arm(0.35, 0.1, 0.1, (0.0, 0.2, 1.0))
STANDING = Leg(0.08, 0.0, 0.0)


def standing(heading: float, **changes) -> Pose:
    return Pose(heading=heading, lean=0.0, tilt=0.0, head_turn=0.0, head_nod=0.0, arms=(HANGING, HANGING),
                legs=(STANDING, STANDING), **changes)


@pytest.fixture(scope="module")
def scenes():
    return [render(sample_identity(s), sample_pose(s)) for s in SEEDS]


@pytest.fixture(scope="module")
def poses():
    """400 poses, and the skeletons of one person in them."""
    found = [sample_pose(seed) for seed in range(400)]
    return found, [build_skeleton(sample_identity(0).build, pose) for pose in found]


def test_a_seed_always_draws_the_same_picture_and_another_seed_another():
    first, again, other = (render(sample_identity(s), sample_pose(s)) for s in (5, 5, 6))
    for field in dataclasses.fields(first):
        np.testing.assert_array_equal(getattr(first, field.name), getattr(again, field.name))
    assert np.abs(first.image.astype(int) - other.image).mean() > 3


def test_identities_differ_in_every_kind_of_attribute():
    people = [sample_identity(s).describe() for s in range(300)]
    assert len({p["top"] for p in people}) > 200
    assert {p["top_pattern"] for p in people} == set(range(len(PATTERNS)))
    assert {p["hair_style"] for p in people} == set(range(len(HAIR_STYLES)))
    assert {p["collar"] for p in people} == set(range(len(COLLARS)))
    assert {p["bottom_kind"] for p in people} == set(range(5)) and any(p["belt"] for p in people)
    assert 0.5 < np.mean([p["top_pattern"] == 0 for p in people]) < 0.9  # most cloth is plain
    assert min(sum(p["skin"]) for p in people) < 0.9 and max(sum(p["skin"]) for p in people) > 2.4


def test_the_same_scene_at_two_sizes_agrees(scenes):
    for seed in (0, 7, 11, 12):
        small, large = render(sample_identity(seed), sample_pose(seed), (128, 96)), scenes[seed]
        np.testing.assert_allclose(small.keypoints * 2, large.keypoints, atol=1e-3)
        np.testing.assert_allclose(small.eyes * 2, large.eyes, atol=1e-3)
        # a small pixel's centre is the corner of four large pixels: it must carry the part of one of them
        quads = large.part.reshape(128, 2, 96, 2).transpose(0, 2, 1, 3).reshape(128, 96, 4)
        assert np.mean((quads == small.part[..., None]).any(-1)) > 0.99
        assert np.mean(quads[..., 0] == small.part) > 0.95
        pooled = large.image.reshape(128, 2, 96, 2, 3).mean((1, 3))
        assert np.abs(pooled - small.image).mean() < 1.5


def test_a_wider_canvas_shows_the_same_scene_centred():
    narrow, wide = (render(sample_identity(3), standing(0.3), (128, w)) for w in (96, 128))
    np.testing.assert_array_equal(wide.part[:, 16:112], narrow.part)
    np.testing.assert_allclose(wide.keypoints - [16, 0], narrow.keypoints, atol=1e-3)


def test_a_closer_view_is_the_same_body_scaled():
    who, pose = sample_identity(7), standing(0.4)
    full, closer = render(who, pose), render(who, dataclasses.replace(pose, zoom=2.0, y=0.07))
    # a similarity: one factor and one shift explain all joints
    scale = np.ptp(closer.keypoints, axis=0) / np.ptp(full.keypoints, axis=0)
    np.testing.assert_allclose(scale, 2.0, rtol=1e-4)
    shift = closer.keypoints - 2 * full.keypoints
    np.testing.assert_allclose(shift, shift[:1].repeat(18, 0), atol=1e-2)
    assert (full.zoom, closer.zoom) == (1.0, 2.0)
    # the head is at the top with a margin, the legs are cut
    rows = np.flatnonzero(closer.part_mask(23, 24).any(1))
    assert 0.055 * 256 < rows[0] < 0.085 * 256
    assert closer.part[-1].any() and not closer.detected[[10, 13]].any() and closer.detected[[1, 2, 5]].all()
    # and the charts are the same at the same places of the body
    points = full.keypoints[[1, 3, 6]]
    for x, y, (x2, y2) in zip(*points.T, closer.keypoints[[1, 3, 6]], strict=True):
        assert full.part[int(y), int(x)] == closer.part[int(y2), int(x2)]


def test_the_part_map_lies_on_the_picture(scenes):
    ground = np.array(BACKGROUND)
    for scene in scenes:
        drawn = np.linalg.norm(scene.image / 255 - ground, axis=2) > 0.07
        body = scene.part > 0
        assert np.mean(drawn == body) > 0.985
        inner = body.copy()
        for shift in ((0, 1), (0, -1), (1, 0), (-1, 0)):
            inner &= np.roll(body, shift, (0, 1))
        assert not (inner & ~drawn).sum() > 0.002 * inner.sum()
        fit = np.mean(body == drawn)   # moved by one pixel, the map fits the picture worse in every direction
        for shift in ((0, 1), (0, -1), (1, 0), (-1, 0)):
            assert np.mean(np.roll(body, shift, (0, 1)) == drawn) < fit


def test_no_colour_comes_near_the_ground_under_any_shade():
    """The person's mask is measured as distance from the ground, so nothing worn and no skin may look like it."""
    for seed in range(200):
        atlas = texture_atlas(sample_identity(seed), 48)
        assert distance_to_ground(atlas).min() > 0.118, seed


def test_shadow_and_box_stay_faint():
    for seed in range(120):
        who, pose = sample_identity(seed), sample_pose(seed)
        scene = render(who, pose, (128, 96))
        far = np.ones(scene.part.shape, bool)
        for shift in np.ndindex(3, 3):
            far &= np.roll(scene.part == 0, np.array(shift) - 1, (0, 1))
        assert np.linalg.norm(scene.image / 255 - np.array(BACKGROUND), axis=2)[far].max() < 0.05, seed


def test_visible_joints_lie_on_parts_of_their_own_limb(scenes):
    own = {2: (1, 2, 16, 18), 3: (16, 18, 20, 22), 4: (20, 22, 3), 5: (1, 2, 15, 17), 6: (15, 17, 19, 21), 7: (19, 21, 4),
           8: (1, 2, 7, 9), 9: (7, 9, 11, 13), 10: (11, 13, 6), 11: (1, 2, 8, 10), 12: (8, 10, 12, 14), 13: (12, 14, 5),
           0: (23, 24), 14: (23, 24), 15: (23, 24)}
    seen = 0
    for scene in scenes:
        for joint, parts in own.items():
            if scene.visible[joint]:
                x, y = scene.keypoints[joint].astype(int)
                near = scene.part[max(0, y - 2):y + 3, max(0, x - 2):x + 3]
                assert np.isin(near, parts).any(), joint
                seen += 1
    assert seen > 250


def test_joints_lie_within_their_own_surfaces():
    """Measured on the mesh: a joint is no farther from its limb's axis points than the limb is thick, whatever the pose."""
    limbs = {2: R_ARM[:2], 3: R_ARM[:2], 4: R_ARM[1:], 5: L_ARM[:2], 6: L_ARM[:2], 7: L_ARM[1:], 8: R_LEG[:1], 9: R_LEG[:2],
             10: R_LEG[1:], 11: L_LEG[:1], 12: L_LEG[:2], 13: L_LEG[1:], 0: (HEAD,), 14: (HEAD,), 15: (HEAD,)}
    for seed in range(20):
        who = sample_identity(seed)
        skeleton = build_skeleton(who.build, sample_pose(seed))
        mesh = build_figure(who.build, skeleton, who.cut)
        for joint, segments in limbs.items():
            points = mesh.points[np.unique(mesh.triangles[np.isin(mesh.segment, segments)])]
            assert np.linalg.norm(points - skeleton.joints[joint], axis=1).min() < (0.06 if joint else 0.012), (seed, joint)
            if joint in (0, 14, 15):
                assert np.linalg.norm(points - skeleton.joints[joint], axis=1).min() < 0.012


def test_right_is_the_persons_right():
    front, back = (render(sample_identity(1), standing(h)) for h in (0.0, math.pi))
    for right, left in ((2, 5), (4, 7), (8, 11), (10, 13)):
        assert front.keypoints[right, 0] < front.keypoints[left, 0]
        assert back.keypoints[right, 0] > back.keypoints[left, 0]
    assert front.eyes[0, 0] < front.eyes[1, 0]
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
        assert flat.mean() > 0.3 and right.mean() > 0.97
        bright = right & (expected.max(-1) > 0.4)  # where rounding to 8 bits does not matter
        low, high = np.quantile(shade[bright], (0.005, 0.995))
        assert 0.42 < low and high < 1.01


def test_a_picture_coloured_from_its_own_charts_is_the_picture_without_its_shade(scenes):
    for seed in range(6):
        scene, atlas = scenes[seed], texture_atlas(sample_identity(seed), 256)
        body = scene.part > 0
        colour = atlas[scene.part[body] - 1, (scene.v[body] * 255.99).astype(int), (scene.u[body] * 255.99).astype(int)]
        found = scene.image[body].astype(float) / 255
        shade = (found * colour).sum(-1) / np.maximum((colour ** 2).sum(-1), 1e-6)
        error = found - colour * np.clip(shade, 0.4, 1.0)[:, None]
        assert -10 * np.log10((error ** 2).mean()) > 26   # edges are smoothed in the picture, not in the charts


def test_front_and_back_of_plain_cloth_have_one_colour():
    who = next(p for p in map(sample_identity, range(199)) if p.top_pattern == 0 and p.letter >= 0)
    atlas = texture_atlas(who)
    rows = slice(int(0.35 * 64), int(0.45 * 64))
    assert np.abs(atlas[0, rows] - who.top).max() < 1e-6  # the back is plain, the letter is on the front alone
    assert (np.abs(atlas[1, rows] - who.letter_rgb).max(-1) < 1e-6).any()
    plain = np.abs(atlas[1] - who.top).max(-1) < 1e-6
    assert plain[rows, 0].all() and plain[rows, -1].all()


def test_a_letter_reads_from_left_to_right():
    who = dataclasses.replace(sample_identity(2), top_pattern=0, letter=1, top=(0.0, 0.0, 1.0), letter_rgb=(0.0, 1.0, 0.0),
                              collar=0, hair=(0.1, 0.1, 0.1), hair_style=0)
    scene = render(who, standing(0.0))
    chest = scene.part_mask(2) & (scene.image[..., 1] > 120) & (scene.image[..., 0] < 60)
    columns, torso = np.nonzero(chest)[1], np.nonzero(scene.part_mask(2) & chest.any(1)[:, None])[1]
    # an E has its spine on the left of the picture, so its mean lies left of its middle
    assert columns.mean() < (columns.min() + columns.max()) / 2
    assert np.ptp(columns) >= 0.45 * np.ptp(torso)


def test_the_face_box_holds_the_eyes_in_front_and_is_none_behind():
    for seed in range(8):
        who = dataclasses.replace(sample_identity(seed), eyes=(0.0, 1.0, 0.0), hair=(0.2, 0.1, 0.1), skin=(0.8, 0.6, 0.5))
        front, back = (render(who, standing(h, zoom=2.0, y=0.06)) for h in (0.2, math.pi))
        assert back.face_box is None and not back.detected[[0, 14, 15]].any() and not back.eyes_visible.any()
        x0, y0, x1, y1 = front.face_box
        image = front.image.astype(int)
        green = front.part_mask(23, 24) & (image[..., 1] > image[..., 0] + 40) & (image[..., 1] > image[..., 2] + 40)
        rows, columns = np.nonzero(green)
        assert len(rows) >= 4 and front.eyes_visible.all()
        assert x0 < columns.min() and columns.max() < x1 and y0 < rows.min() and rows.max() < y1
        for x, y in front.eyes:  # the centre of each iris, measured in the picture
            near = np.hypot(columns + 0.5 - x, rows + 0.5 - y) < 9
            assert np.hypot(columns[near].mean() + 0.5 - x, rows[near].mean() + 0.5 - y) < 2.0


def test_eyes_are_where_white_and_iris_show_and_only_when_they_show(scenes):
    """Contrast in a small disc around a visible eye of a closer view: white and dark lie side by side."""
    checked = 0
    for scene in scenes:
        if scene.zoom == 1:
            continue
        for (x, y), shown in zip(scene.eyes, scene.eyes_visible, strict=True):
            if shown:
                patch = scene.image[int(y) - 4:int(y) + 5, int(x) - 5:int(x) + 6].astype(float).mean(-1)
                assert np.ptp(patch) > 45
                checked += 1
    assert checked >= 20
    back = render(sample_identity(0), standing(math.pi))
    side = render(sample_identity(0), standing(math.pi / 2))
    assert not back.eyes_visible.any()
    assert side.eyes_visible.tolist() == [True, False] or side.eyes_visible.tolist() == [False, True]


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
    assert np.abs(scene.u[row, columns] - angle).max() < 0.08
    below = scene.v[row + 20, columns[len(columns) // 2]]
    assert 0.3 < scene.v[row, columns[len(columns) // 2]] < below < 0.8


def test_full_figures_stay_in_the_frame_and_closer_views_keep_the_head():
    for seed in range(200):
        pose = sample_pose(seed)
        scene = render(sample_identity(seed), pose, (64, 48))
        joints = scene.keypoints[scene.detected]
        assert (joints >= 0).all() and (joints < (48, 64)).all()
        assert not (scene.visible & ~scene.detected).any()
        if pose.zoom == 1:
            part = scene.part
            assert not np.concatenate([part[0], part[-1], part[:, 0], part[:, -1]]).any(), seed
            assert scene.detected[1:14].all()
        else:
            head = np.flatnonzero(scene.part_mask(23, 24).any(1))
            assert 1 <= head[0] <= 16 and scene.part[-1].any(), seed


def test_half_of_the_poses_are_closer_views_and_most_faces_look_at_the_camera(poses):
    poses, skeletons = poses
    zooms = np.array([p.zoom for p in poses])
    assert np.mean(zooms > 1) == 0.5 and zooms.max() <= 2.3 and zooms[zooms > 1].min() >= 1.6
    assert 0.14 < np.mean([p.seated for p in poses]) < 0.30
    # the nose points at the camera within 75 degrees
    turned = [skeleton.head[2, 2] > math.cos(math.radians(75)) for skeleton in skeletons]
    assert np.mean(turned) > 0.68


def test_a_sitter_sits_on_the_box_and_crossed_legs_cross(poses):
    poses, skeletons = poses
    seated = [s for s in range(400) if poses[s].seated and poses[s].zoom == 1]
    for seed in seated[:20]:
        skeleton = build_skeleton(sample_identity(seed).build, poses[seed])
        for thigh, shank in skeleton.legs:   # knees are about as high as hips, feet are below
            assert abs(thigh.end[1] - thigh.origin[1]) < 0.16 and shank.end[1] < -0.1
    crossed = 0
    for skeleton in skeletons:
        ankles = [bones[1].end @ skeleton.pelvis[:, 0] for bones in skeleton.legs]
        crossed += ankles[0] > ankles[1]   # the right one lies to the person's left
    assert crossed > 30


def test_a_walk_ends_where_it_began():
    assert walking_pose(0.0).legs[0].flex == pytest.approx(walking_pose(1.0).legs[0].flex)
    frames = walk_keypoints(sample_identity(1), 4, (128, 96))
    assert len(frames) == 4 and all(frame.present[1:14].all() for frame in frames)


def test_a_contact_sheet_is_a_grid_of_pictures():
    sheet = contact_sheet(2, 3, (64, 48), seed=4)
    assert sheet.shape == (2 * 64 + 2, 3 * 48 + 4, 3) and sheet.dtype == np.uint8
    number = next(n for n in range(256, 300) if sample_pose(n).zoom == 1)
    np.testing.assert_array_equal(sheet[:64, :48], render(sample_identity(4), sample_pose(number), (64, 48)).image)
