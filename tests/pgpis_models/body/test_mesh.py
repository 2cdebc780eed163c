"""The pieces that pictures are made of, compared with slower or simpler ways to the same."""

import dataclasses

import numpy as np
import pytest

from pgpis_models.body.figure import Cut, build_figure
from pgpis_models.body.mesh import Grids, columns, follow, grid_normals, ring, smooth, tube
from pgpis_models.body.raster import trace
from pgpis_models.body.skeleton import DOWNWARDS, Bone, Build, Leg, build_skeleton
from training.world.motion import walking_pose
from training.world.poses import sample_pose


def triangles(count: int):
    """Random triangles that face the camera; rows go down, so their area is negative in columns and rows."""
    rng = np.random.default_rng(3)
    points = np.concatenate([rng.uniform(-4, 28, (count * 3, 2)), rng.uniform(0, 1, (count * 3, 1))], axis=1)
    index = np.arange(count * 3).reshape(count, 3)
    a, b, c = (points[index[:, i], :2] for i in range(3))
    area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    index[area > 0] = index[area > 0][:, [0, 2, 1]]
    return index.astype(np.int32), points.astype(np.float32), rng.random((2, count * 3)).astype(np.float32)


def slowly(index, points, values, height, width):
    """Depth, triangle and values of each sample, one triangle and one sample at a time."""
    depth, owner, out = np.full((height, width), -np.inf), np.full((height, width), -1), np.zeros((2, height, width))
    for number, corners in enumerate(index):
        (ax, ay, az), (bx, by, bz), (cx, cy, cz) = points[corners].astype(np.float64)
        matrix = np.array([[ax, bx, cx], [ay, by, cy], [1, 1, 1]])
        for y in range(height):
            for x in range(width):
                weights = np.linalg.solve(matrix, (x + 0.5, y + 0.5, 1))
                z = weights @ (az, bz, cz)
                if (weights >= 0).all() and z > depth[y, x]:
                    depth[y, x], owner[y, x], out[:, y, x] = z, number, values[:, corners] @ weights
    return depth, owner, out


def test_the_nearest_triangle_of_every_sample_is_found():
    index, points, values = triangles(14)
    depth, owner, expected = slowly(index, points, values, 20, 24)
    hits = trace(index, points, values, 20, 24)
    found = np.full(20 * 24, -1)
    found[hits.sample] = hits.triangle
    np.testing.assert_array_equal(found.reshape(20, 24), owner)
    np.testing.assert_allclose(hits.depth, depth.ravel()[hits.sample], atol=1e-4)
    np.testing.assert_allclose(hits.values, expected.reshape(2, -1)[:, hits.sample], atol=1e-4)


def test_wanted_cells_are_looked_at_as_a_whole_canvas_would_be():
    index, points, values = triangles(14)
    wanted = np.random.default_rng(1).random((7, 8)) < 0.3
    whole, some = trace(index, points, values, 21, 24), trace(index, points, values, 21, 24, wanted, 3)
    canvas = np.full(21 * 24, -1)
    canvas[whole.sample] = whole.triangle
    cells = canvas.reshape(7, 3, 8, 3).transpose(0, 2, 1, 3).reshape(7 * 8, 9)[np.flatnonzero(wanted)]
    found = np.full(cells.size, -1)
    found[some.sample] = some.triangle
    np.testing.assert_array_equal(found.reshape(cells.shape), cells)


def test_the_normals_of_a_cylinder_and_of_a_ball_point_outwards():
    turn, s = DOWNWARDS, np.linspace(0, 1, 9)
    points = tube(s[:, None] * turn[:, 2], turn[:, 0], turn[:, 1], 0 * s + 0.2, 0 * s + 0.2, ring(columns(24)))
    np.testing.assert_allclose(grid_normals(points), (points - s[:, None, None] * turn[:, 2]) / 0.2, atol=1e-6)
    t = np.linspace(0.001, np.pi - 0.001, 33)
    ball = tube(-np.cos(t)[:, None] * turn[:, 2], turn[:, 0], turn[:, 1], np.sin(t), np.sin(t), ring(columns(24)))
    assert ((grid_normals(ball) * ball).sum(2) > 0.985).all()


def test_a_smooth_curve_goes_through_its_points_and_never_leaves_their_range():
    places, values = (0.0, 0.1, 0.5, 0.6, 1.0), (0.0, 1.0, 1.0, 0.2, 0.3)
    np.testing.assert_allclose(smooth(np.array(places), places, values), values, atol=1e-12)
    between = smooth(np.linspace(-0.5, 1.5, 301), places, values)
    assert between.min() >= -1e-12 and between.max() <= 1 + 1e-12
    with_ends = smooth(np.array([-1.0, 2.0]), places, values)
    np.testing.assert_allclose(with_ends, (0.0, 0.3))


def test_a_bent_limb_follows_its_bones():
    bones = build_skeleton(Build(), dataclasses.replace(walking_pose(0.2), legs=(Leg(0.1, 0.6, 1.2), Leg(0.1, 0.0,
                                                                                                         0.0)))).legs[0]
    length = bones[0].length + bones[1].length
    stations = np.array([0.0, 0.1, bones[0].length, length - 0.05, length])
    centres, left, front = follow(bones, stations, 0.04)
    np.testing.assert_allclose(centres[0], bones[0].origin, atol=1e-9)
    np.testing.assert_allclose(centres[-1], bones[1].end, atol=1e-9)
    assert 0.001 < np.linalg.norm(centres[2] - bones[1].origin) < 0.02   # the corner is cut, a little
    for i in range(5):
        np.testing.assert_allclose((left[i] @ left[i], front[i] @ front[i], left[i] @ front[i]), (1, 1, 0), atol=1e-9)
    np.testing.assert_allclose(left[-1], bones[1].frame[:, 0], atol=1e-9)


def test_bones_keep_their_length_and_their_frames_are_rotations():
    builds = (Build(), Build(height=1.04, shoulders=1.1, limbs=0.9, head=1.1))
    for seed in range(40):
        skeleton = build_skeleton(builds[seed % 2], sample_pose(seed))
        for first, second in (*skeleton.arms, *skeleton.legs):
            assert np.linalg.norm(second.origin - first.origin) == pytest.approx(first.length)
            for bone in (first, second):
                np.testing.assert_allclose(bone.frame.T @ bone.frame, np.eye(3), atol=1e-9)
                assert isinstance(bone, Bone) and np.linalg.det(bone.frame) == pytest.approx(1.0)
        for frame in (skeleton.pelvis, skeleton.chest, skeleton.head, *skeleton.feet):
            np.testing.assert_allclose(frame.T @ frame, np.eye(3), atol=1e-9)


def test_normals_of_a_whole_body_agree_with_its_triangles():
    cuts = (Cut(), Cut(sleeve=0.34, leg=1.0, fit=0.8, hair="long"), Cut(skirt=0.8, flare=0.5, hair="afro"))
    for seed, cut in enumerate(cuts):
        mesh = build_figure(Build(), build_skeleton(Build(), sample_pose(seed)), cut)
        corners = mesh.points[mesh.triangles].astype(np.float64)
        faces = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        size = np.linalg.norm(faces, axis=1)
        agree = (faces * mesh.normals[mesh.triangles].mean(1)).sum(1) > 0
        assert agree[size > 1e-6].mean() > 0.97
        assert np.isfinite(mesh.points).all() and np.abs(np.linalg.norm(mesh.normals, axis=1) - 1).max() < 1e-3
        assert mesh.chart[:, 0].min() >= -1 and mesh.chart.max() <= 1 and mesh.chart[:, 1].min() >= 0


def test_a_grid_of_another_shape_than_its_chart_is_refused():
    with pytest.raises(ValueError):
        Grids().add(0, np.zeros((3, 5, 3)), np.zeros((3, 5, 3)), columns(6), np.zeros(3))
