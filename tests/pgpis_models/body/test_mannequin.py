"""The posed body: its text, its camera, its DensePose against its joints, and what the node's canvas makes of the same."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from dataclasses import replace
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest

from pgpis_models.body import picture, raster
from pgpis_models.body.camera import Camera, fitted, walked_around
from pgpis_models.body.figure import Cut, build_figure
from pgpis_models.body.frames import KEY, Figure, depth_pictures, figure_of, to_frames
from pgpis_models.body.measured import Proportions, of_person
from pgpis_models.body.picture import _edges, draw, see, surface_points
from pgpis_models.body.raster import trace
from pgpis_models.body.skeleton import Arm, Build, Leg, Lengths, Limb, build_skeleton
from pgpis_models.body.state import State, from_dict, from_text
from pgpis_models.poses.formats import from_pose_keypoint
from pgpis_models.poses.keypoints import MIRROR, Keypoints
from pgpis_models.surface.layout import from_tiles
from pgpis_models.surface.texture import render, warp

WEB = Path(__file__).resolve().parents[3] / "web" / "pose_mannequin"
SIZE = (512, 352)
ASIDE = State(arms=(Arm(0.75, 0.1, 0.15, (-0.15, 0.25, 1.0)).limb(),) * 2, legs=(Leg(0.2, 0.0, 0.05).limb(),) * 2,
              camera=Camera(zoom=0.84))
ROUND = [replace(camera, pitch=pitch) for pitch in (-8.0, 12.0) for camera in walked_around(ASIDE.camera, 12)]


@cache
def seen_by(camera: Camera):
    """The body with its limbs aside, seen once for all tests."""
    return see(replace(ASIDE, camera=camera), SIZE)


def random_state(seed: int) -> State:
    """Any state at all: the two sides are compared, not the pose's sense."""
    rng = np.random.default_rng(seed)

    def limb(foot: bool) -> Limb:
        upper, lower = (one / np.linalg.norm(one) for one in rng.normal(size=(2, 3)))
        return Limb(tuple(upper), tuple(lower), float(rng.uniform(-1, 1)) if foot and seed % 2 else None)

    return State(tuple(rng.uniform(-180, 180, 3)), tuple(rng.uniform(-50, 50, 3)), tuple(rng.uniform(-60, 60, 3)),
                 (limb(False), limb(False)), (limb(True), limb(True)),
                 Camera(*rng.uniform((-180, -80, 0.4, -0.3, -0.3), (180, 80, 2.0, 0.3, 0.3))))


def told_by_node(tmp_path: Path, script: str, given) -> object:
    """What a script says that runs beside the canvas's modules; given: JSON at argv[2]."""
    if not shutil.which("node"):
        pytest.skip("node is not installed (Debian: apt-get install nodejs)")
    for name in ("skeleton.js", "reach.js"):
        shutil.copy(WEB / name, tmp_path)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "given.json").write_text(json.dumps(given))
    (tmp_path / "run.js").write_text('import { readFileSync } from "node:fs"\n'
                                     'const given = JSON.parse(readFileSync("given.json", "utf8"))\n' + script)
    result = subprocess.run(["node", "run.js"], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


# --- the canvas shows what leaves the node -------------------------------------------------------------------

def test_the_canvas_projects_joints_where_the_pictures_have_them(tmp_path):
    states = [State(), ASIDE, *(random_state(seed) for seed in range(60))]
    builds = [(Build(height=0.9 + 0.01 * n, shoulders=1.1 - 0.01 * n, hips=0.8 + 0.01 * n),
               Lengths(1.0 + 0.01 * n, 1.2 - 0.01 * n, 0.8 + 0.01 * n, 1.0 - 0.005 * n)) for n in range(len(states))]
    given = [{"text": state.to_text(), "build": {"height": build.height, "shoulders": build.shoulders, "hips": build.hips,
                                                 "head": build.head, **vars(lengths)}}
             for state, (build, lengths) in zip(states, builds, strict=True)]
    found = told_by_node(tmp_path, """
import { posed, read, view, write } from "./skeleton.js"
console.log(JSON.stringify(given.map(({ text, build }) => {
  const { state } = read(text), eye = view(state.camera, 352, 512)
  return { text: write(state), joints: posed(state, build).joints.map(eye.project),
    back: posed(state, build).joints.map((one) => eye.lift(...eye.project(one))), joints3: posed(state, build).joints }
})))""", given)
    for state, (build, lengths), one, told in zip(states, builds, found, given, strict=True):
        state = from_text(state.to_text())
        joints = state.camera.view(SIZE).project(build_skeleton(build, state.pose(), lengths).joints)
        np.testing.assert_allclose(np.array(one["joints"]), joints, atol=0.01)
        np.testing.assert_allclose(one["back"], one["joints3"], atol=1e-9)
        assert from_text(one["text"]).to_dict() == from_text(told["text"]).to_dict()


def test_a_dragged_wrist_or_ankle_goes_where_it_is_dragged_and_bones_keep_their_lengths(tmp_path):
    rng = np.random.default_rng(5)
    given = [[int(joint), list(map(float, rng.normal(scale=0.12, size=3) + (0, 0.1, 0.15)))]
             for joint in np.tile((4, 7, 10, 13, 3, 6, 9, 12, 0, 1, 2), 20)]
    found = told_by_node(tmp_path, """
import { AVERAGE, add, posed, read } from "./skeleton.js"
import { dragged } from "./reach.js"
console.log(JSON.stringify(given.map(([joint, move]) => {
  const { state } = read(""), goal = add(posed(state).joints[joint], move)
  const made = dragged(state, AVERAGE, joint, goal)
  return { state: made, joints: posed(made).joints, goal }
})))""", given)
    reached = 0
    for (joint, _), one in zip(given, found, strict=True):
        joints, goal = np.array(one["joints"]), np.array(one["goal"])
        for first, lengths in ((2, (0.160, 0.140)), (5, (0.160, 0.140)), (8, (0.245, 0.235)), (11, (0.245, 0.235))):
            np.testing.assert_allclose(np.linalg.norm(np.diff(joints[first:first + 3], axis=0), axis=1), lengths, rtol=1e-3)
        state = from_dict(one["state"])
        for leg in state.legs:   # a knee never bends forwards
            assert np.cross(leg.upper, leg.lower)[0] > -1e-6
        for limb in (*state.arms, *state.legs):
            assert math.degrees(math.acos(np.clip(np.dot(limb.upper, limb.lower), -1, 1))) < 153
        if joint in (4, 7):
            root = joints[joint - 2]
            if 0.09 < np.linalg.norm(goal - root) < 0.295 and (goal - root)[2] > -0.02:
                assert np.linalg.norm(joints[joint] - goal) < 2e-3
                reached += 1
    assert reached > 10


def test_the_mirror_gives_the_flipped_picture(tmp_path):
    states = [random_state(seed) for seed in range(6)]
    found = told_by_node(tmp_path, """
import { read, write } from "./skeleton.js"
import { mirrored } from "./reach.js"
console.log(JSON.stringify(given.map((text) => write(mirrored(read(text).state)))))""", [one.to_text() for one in states])
    for state, text in zip(states, found, strict=True):
        plain, flipped = (one.camera.view(SIZE).project(build_skeleton(Build(), one.pose()).joints)
                          for one in (from_text(state.to_text()), from_text(text)))
        np.testing.assert_allclose(flipped[list(MIRROR), :2], (SIZE[1], 0) - plain[:, :2] * (1, -1), atol=0.15)


# --- DensePose against joints and texture --------------------------------------------------------------------

# joint -> (back, front) parts of the bone that ends there, the straight share of its chart, v at the joint
BONES = {3: ((16, 18), (0.3, 0.8), 1.0), 4: ((20, 22), (0.4, 0.95), 1.0), 6: ((15, 17), (0.3, 0.8), 1.0),
         7: ((19, 21), (0.4, 0.95), 1.0), 9: ((7, 9), (0.4, 0.85), 1.0), 10: ((11, 13), (0.7, 0.95), 0.235 / 0.247),
         12: ((8, 10), (0.4, 0.85), 1.0), 13: ((12, 14), (0.7, 0.95), 0.235 / 0.247)}


def joint_in_charts(iuv, parts: tuple[int, int], straight: tuple[float, float], end: float) -> np.ndarray | None:
    """Where a bone's axis ends (x, y), by part, u and v alone: a ring of the limb is an ellipse in the picture, its middle
    moves evenly along the bone, and u says where on it a pixel lies. None where too little of the bone is seen."""
    rows, columns = np.nonzero(np.isin(iuv.part, parts) & (iuv.v > straight[0]) & (iuv.v < straight[1]))
    u, v = iuv.u[rows, columns].astype(float), iuv.v[rows, columns].astype(float)
    angle = np.pi * np.where(iuv.part[rows, columns] == parts[1], u, -u)
    bins = np.histogram2d(v, angle, bins=(4, 12), range=(straight, (-np.pi, np.pi)))[0] > 0
    if (bins.sum(1) < 5).any():
        return None
    t = v - end
    terms = [np.ones_like(t), t] + [wave * t ** power for wave in (np.cos(angle), np.sin(angle)) for power in range(3)]
    fit = np.linalg.lstsq(np.stack(terms, 1), np.stack([columns, rows], 1) + 0.5, rcond=None)[0]
    return fit[0]


def test_joints_lie_within_a_pixel_of_where_densepose_has_them_from_all_sides():
    measured, far = dict.fromkeys(BONES, 0), []
    for camera in ROUND:
        drawn = seen_by(camera)
        for joint, bone in BONES.items():
            place = joint_in_charts(drawn.iuv, *bone)
            if place is not None:
                measured[joint] += 1
                far.append((float(np.linalg.norm(place - drawn.pose.xy[joint])), joint, camera.yaw, camera.pitch))
    assert min(measured.values()) >= 12 and len(ROUND) == 24
    assert max(far)[0] < 1.0, max(far)


def test_densepose_gives_back_a_texture():
    """A smooth random texture, drawn in a pose and laid out flat again."""
    rng = np.random.default_rng(2)
    tiles = np.stack([cv2.resize(rng.uniform(40, 220, (6, 6, 3)), (200, 200), interpolation=cv2.INTER_CUBIC)
                      for _ in range(24)]).clip(1, 255).astype(np.uint8)
    atlas = from_tiles(tiles)
    for camera in (ROUND[12], ROUND[4]):
        iuv = seen_by(camera).iuv
        picture, mask = render(atlas, iuv)
        assert (mask == (iuv.part > 0)).all()
        flat = warp(picture, iuv, fill="none")
        error = flat.picture[flat.seen].astype(float) - atlas[flat.seen]
        assert flat.seen.sum() > 0.5 * mask.sum()
        assert 10 * np.log10(255 ** 2 / max(float(np.mean(error ** 2)), 1e-9)) >= 35


def test_hidden_parts_are_left_out_and_all_24_are_there_somewhere():
    assert set.union(*(set(np.unique(seen_by(camera).iuv.part)) for camera in ROUND[12::3])) == set(range(25))
    front, back = (seen_by(camera).iuv.part for camera in (ROUND[12], ROUND[18]))
    assert (front == 2).sum() > 40 * (front == 1).sum() and (back == 1).sum() > 40 * (back == 2).sum()
    crossed = replace(ASIDE, arms=(Arm(0.35, 1.2, 1.9, (-1.0, 0.3, 0.4)).limb(), ASIDE.arms[1]))
    free, covered = seen_by(ASIDE.camera).iuv, see(crossed, SIZE).iuv
    assert (covered.part == 2).sum() < (free.part == 2).sum() - 300


def test_mask_depth_and_picture_belong_together():
    drawn = draw(ASIDE, SIZE)
    on = drawn.iuv.part > 0
    assert (np.isfinite(drawn.depth) == on).all()
    assert np.mean((drawn.mask > 0.5) == on) > 0.997 and set(np.unique(drawn.mask)) <= {0, 0.25, 0.5, 0.75, 1}
    assert np.abs(drawn.image[drawn.mask == 0] - (0.90, 0.90, 0.91)).max() < 1e-6
    near = depth_pictures([drawn, seen_by(ROUND[3])])
    assert near.shape == (2, *SIZE) and near.max() == 1 and near[0][~on].max() == 0 and near[0][on].min() > 0.19
    nose, chest = (drawn.pose.xy[joint].astype(int) for joint in (0, 1))
    assert near[0][nose[1], nose[0]] > near[0][chest[1] - 25, chest[0]], "the nose is nearer than the neck"


@pytest.mark.parametrize("state", [State(), ASIDE, State(camera=Camera(yaw=200, zoom=3)),
                                   *(random_state(seed) for seed in range(3))])
def test_pixels_without_an_edge_look_as_if_each_were_traced_at_all_its_points(state, monkeypatch):
    fast = draw(state, SIZE)
    traced = []

    def everywhere(mesh, points, hits, depth):
        traced.append(_edges(mesh, points, hits, depth).mean())
        return np.ones(depth.shape, bool)
    monkeypatch.setattr(picture, "_edges", everywhere)
    whole = draw(state, SIZE)
    assert (fast.mask == whole.mask).all() and traced[0] < 0.35
    assert np.abs(fast.image - whole.image).max() < 2 / 255


def test_a_picture_traced_in_bands_is_the_same(monkeypatch):
    def hits():
        return [trace(mesh.triangles, points * (fine, fine, 1), mesh.chart.T, SIZE[0] * fine, SIZE[1] * fine, wanted, fine)
                for wanted, fine in ((None, 1), (np.random.default_rng(0).random(SIZE) < 0.1, 2))]
    mesh = build_figure(Build(), build_skeleton(Build(), ASIDE.pose()), Cut(hair="none"))
    points = ASIDE.camera.view(SIZE).project(mesh.points)
    at_once = hits()
    monkeypatch.setattr(raster, "BAND", 7 * SIZE[1])
    for one, other in zip(at_once, hits(), strict=True):
        for name in ("sample", "triangle", "depth", "values"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


# --- text, proportions, frames -------------------------------------------------------------------------------

def test_the_text_holds_the_state():
    for seed in range(20):
        state = random_state(seed)
        again = from_text(state.to_text())
        assert again.to_text() == from_text(again.to_text()).to_text()
        for name in ("arms", "legs"):
            for one, other in zip(getattr(state, name), getattr(again, name), strict=True):
                np.testing.assert_allclose((one.upper, one.lower), (other.upper, other.lower), atol=2e-4)
    assert from_text("  ") == State()


@pytest.mark.parametrize("text", ["{", "[]", "3", '{"root": [0, 0]}', '{"root": [0, 0, NaN]}', '{"arms": [{}]}',
                                  '{"legs": [{"upper": [0, 0, 0]}, {}]}', '{"camera": [0, 0, 0, 0, 0]}',
                                  '{"camera": [0, 0, 1, 1e9, 0]}', '{"head": ["a", 0, 0]}', "[" * 5000])
def test_a_text_that_is_no_body_says_so(text):
    with pytest.raises(ValueError, match="the mannequin's state"):
        from_text(text)


def test_a_body_takes_the_proportions_of_a_person():
    """The joints of a body of known build, seen from the front, are all that is told."""
    told = Proportions(Build(shoulders=1.15, hips=0.9), Lengths(0.9, 1.1, 1.05, 0.95))
    flat = replace(ASIDE, camera=Camera(0.0, 0.0, 0.7))
    pose = see(flat, (1024, 704), told).pose
    found = of_person([pose])
    np.testing.assert_allclose([found.build.shoulders, found.build.hips], [1.15, 0.9], rtol=0.04)
    np.testing.assert_allclose(list(vars(found.lengths).values()), [0.9, 1.1, 1.05, 0.95], rtol=0.04)
    upper = Keypoints(pose.xy, pose.present & (np.arange(18) < 8), pose.canvas)
    assert of_person([upper]).lengths.thigh == 1.0, "what is not seen keeps the body's own"
    with pytest.raises(ValueError, match="neither torso nor limbs"):
        of_person([Keypoints(pose.xy, np.arange(18) > 13, pose.canvas)])


def test_frames_remember_their_body():
    figure = Figure(ASIDE, Proportions(Build(hips=1.1), Lengths(thigh=0.9)))
    [frame] = json.loads(json.dumps(to_frames([figure], [figure.draw((128, 96))])))
    again = figure_of(frame)
    assert again.proportions == figure.proportions and again.state.to_text() == ASIDE.to_text()
    assert from_pose_keypoint([frame])[0].present.sum() >= 16, "other readers leave it alone"
    assert figure_of({"people": []}) is None
    frame["people"][0]["pose_keypoints_2d"][3 * 4] += 1.5
    assert figure_of(frame) is None, "a wrist was moved by hand: no body shows it so"
    for bad in (3, {"build": {"height": 0}}, {"lengths": {"tail": 1.0}}, {"state": {"root": 3}}):
        with pytest.raises(ValueError, match=KEY):
            figure_of({KEY: bad})


def test_a_fitted_camera_shows_the_whole_body():
    for seed in range(4):
        state = random_state(seed)
        points = surface_points(state)
        camera = fitted(state.camera, points, SIZE)
        seen = camera.view(SIZE).project(points)[:, :2]
        assert seen.min() > 10 and (seen < np.array(SIZE[::-1]) - 10).all()
        assert min(*seen.min(0), *(np.array(SIZE[::-1]) - seen.max(0))) - 0.03 * SIZE[0] < 0.1, "it fills the picture"
