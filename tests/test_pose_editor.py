"""The Pose Editor's numbers in the page (web/pose_editor, run by node) against the same computed here in float64."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from pgpis_models.poses import by_hand
from pgpis_models.poses.drawing import JOINT_COLOURS, LIMBS
from pgpis_models.poses.formats import from_pose_keypoint, to_pose_keypoint
from pgpis_models.poses.keypoints import JOINTS, MIRROR, Keypoints

FOLDER = Path(__file__).resolve().parents[1] / "web" / "pose_editor"
PURE = ("skeleton", "posing", "frames", "history", "session")   # modules that know of no page
CANVAS = (480, 360)
PARENT = {child: parent for parent, child in LIMBS}
pytestmark = pytest.mark.skipif(not shutil.which("node"), reason="node is not installed (Debian: apt-get install nodejs)")

SCRIPT = """
import { readFileSync } from "node:fs"
const load = (name) => import(new URL(`./${name}.js`, import.meta.url))
const [skeleton, posing, frames, history, session] = await Promise.all(NAMES.map(load))
const job = JSON.parse(readFileSync(0, "utf8")), said = {}
BODY
console.log(JSON.stringify(said))
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """page(body, job) runs JavaScript with the editor's modules and gives what it put into `said`."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "package.json").write_text('{"type": "module"}')
    for name in PURE:
        shutil.copy(FOLDER / f"{name}.js", folder)

    def run(body: str, job=None) -> dict:
        script = folder / "run.js"
        script.write_text(SCRIPT.replace("NAMES", json.dumps(PURE)).replace("BODY", body))
        result = subprocess.run(["node", str(script)], input=json.dumps(job), capture_output=True, text=True, timeout=60)
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)
    return run


def people(count: int, seed: int = 3) -> list[np.ndarray]:
    """Joints (18, 2) of standing people whose limbs were turned at random."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        xy = by_hand.standing(CANVAS).xy.copy()
        start = xy.copy()
        for parent, child in LIMBS:
            angle = rng.normal(0, 0.5)
            turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
            xy[child] = xy[parent] + turn @ (start[child] - start[parent]) * rng.uniform(0.7, 1.3)
        made.append(xy)
    return made


def as_points(xy: np.ndarray) -> list[dict]:
    return [{"x": float(x), "y": float(y), "c": 1, "placed": True} for x, y in xy]


def as_xy(points: list[dict]) -> np.ndarray:
    return np.array([[one["x"], one["y"]] for one in points])


def below(joint: int) -> list[int]:
    return [joint, *(found for parent, child in LIMBS if parent == joint for found in below(child))]


def dragged(xy: np.ndarray, joint: int, goal: np.ndarray) -> np.ndarray:
    """The same as posing.js, in complex numbers and with the elbow as one of the two points where circles meet."""
    z, target = xy[:, 0] + 1j * xy[:, 1], complex(*goal)
    made = z.copy()
    if joint == JOINTS.index("neck"):
        return xy + (goal - xy[joint])
    parent = PARENT[joint]
    if joint in (4, 7, 10, 13):
        root = PARENT[parent]
        a, b = abs(z[parent] - z[root]), abs(z[joint] - z[parent])
        reach = min(max(abs(target - z[root]), abs(a - b)), a + b)
        made[joint] = z[root] + (target - z[root]) / abs(target - z[root]) * reach
        along = (a * a - b * b + reach * reach) / (2 * reach)
        across = math.sqrt(max(a * a - along * along, 0.0))
        unit = (made[joint] - z[root]) / reach
        choices = [z[root] + unit * (along + side * 1j * across) for side in (-1, 1)]
        bend = ((z[joint] - z[root]).conjugate() * (z[parent] - z[root])).imag
        made[parent] = choices[1 if bend > 0 else 0]
    else:
        place = z[parent] + (target - z[parent]) / abs(target - z[parent]) * abs(z[joint] - z[parent])
        for other in below(joint):
            made[other] = z[other] + place - z[joint] if joint in (2, 5, 8, 11) else \
                z[parent] + (z[other] - z[parent]) * (place - z[parent]) / (z[joint] - z[parent])
    return np.stack([made.real, made.imag], axis=1)


def lengths(xy: np.ndarray) -> np.ndarray:
    return np.array([np.linalg.norm(xy[a] - xy[b]) for a, b in LIMBS])


def test_the_page_knows_the_same_joints_limbs_and_standing_person(page):
    said = page("Object.assign(said, skeleton); said.at = skeleton.standing(300, 900)")
    assert tuple(said["JOINTS"]) == JOINTS and tuple(said["MIRROR"]) == MIRROR
    assert [tuple(limb) for limb in said["LIMBS"]] == list(LIMBS)
    assert [tuple(colour) for colour in said["COLOURS"]] == list(JOINT_COLOURS)
    assert said["PARENT"] == [PARENT.get(joint, -1) for joint in range(18)]
    np.testing.assert_allclose(said["at"], by_hand.standing((900, 300)).xy, atol=1e-9)


def test_a_dragged_joint_holds_all_lengths_and_goes_where_it_can(page):
    rng = np.random.default_rng(5)
    cases = [(xy, joint, rng.uniform(0, 1, 2) * CANVAS[::-1]) for xy in people(12) for joint in range(18)]
    job = [{"points": as_points(xy), "joint": joint, "goal": goal.tolist()} for xy, joint, goal in cases]
    said = page("said.made = job.map(({ points, joint, goal }) => posing.dragged(points, joint, ...goal))", job)
    for (xy, joint, goal), points in zip(cases, said["made"], strict=True):
        made = as_xy(points)
        np.testing.assert_allclose(made, dragged(xy, joint, goal), atol=1e-9, err_msg=JOINTS[joint])
        np.testing.assert_allclose(lengths(made), lengths(xy), rtol=1e-9, err_msg=JOINTS[joint])
        untouched = sorted(set(range(18)) - set(below(joint)) - {PARENT.get(joint)})
        np.testing.assert_array_equal(made[untouched], xy[untouched])


def test_a_wrist_within_reach_gets_there_and_shift_stretches(page):
    [xy] = people(1)
    goal = xy[5] + 0.8 * lengths(xy)[4:6].sum() * np.array([math.cos(0.3), math.sin(0.3)])
    far = xy[5] + 500.0
    said = page("""
said.near = posing.dragged(job.points, 7, ...job.goal)
said.far = posing.dragged(job.points, 7, ...job.far)
said.stretched = posing.dragged(job.points, 7, ...job.far, true)""",
                {"points": as_points(xy), "goal": goal.tolist(), "far": far.tolist()})
    np.testing.assert_allclose(as_xy(said["near"])[7], goal, atol=1e-9)
    arm = as_xy(said["far"])[5:8]
    assert np.linalg.norm(arm[2] - arm[0]) == pytest.approx(lengths(xy)[4:6].sum())   # straight
    stretched = as_xy(said["stretched"])
    np.testing.assert_array_equal(stretched[7], far)
    np.testing.assert_array_equal(np.delete(stretched, 7, 0), np.delete(xy, 7, 0))


def session(body: str) -> str:
    """A session on the job's text, in which `body` is done; what it holds after each step."""
    return f"""
const size = {{ width: {CANVAS[1]}, height: {CANVAS[0]} }}, texts = []
const one = new session.Session({{ size, write: (text) => texts.push(text) }})
one.read(job.text ?? "")
{body}
Object.assign(said, {{ texts, text: one.text, frame: one.frame, person: one.person, problem: one.problem }})"""


def test_mirror_swaps_left_and_right_about_the_persons_own_middle(page):
    for xy in people(4):
        pose = Keypoints(xy, np.arange(18) % 5 != 3, CANVAS)
        placed = xy[pose.present]
        axis = (placed[:, 0].min() + placed[:, 0].max()) / 2
        said = page(session("one.mirror()"), {"text": json.dumps(to_pose_keypoint(pose))})
        [made] = from_pose_keypoint(json.loads(said["text"]))
        expected = pose.mirrored().shifted(2 * axis - (CANVAS[1] - 1), 0)
        np.testing.assert_array_equal(made.present, expected.present)
        np.testing.assert_allclose(made.xy, expected.xy, atol=1e-3)   # thousandths are written


def test_hands_and_face_follow_their_limb_and_are_swapped_by_a_mirror(page):
    [xy] = people(1)
    hand = xy[7] + np.arange(42).reshape(21, 2)
    face = xy[0] + np.random.default_rng(1).normal(0, 9, (70, 2))
    flat = lambda rows: [value for x, y in rows.tolist() for value in (x, y, 1.0)]   # noqa: E731
    [frame] = to_pose_keypoint(Keypoints(xy, np.ones(18, bool), CANVAS))
    frame["people"][0] |= {"hand_left_keypoints_2d": flat(hand), "face_keypoints_2d": flat(face)}
    goal = (xy[5] + [30, -20]).tolist()
    said = page(session(f"""one.startDrag(0, 7, {xy[7, 0]}, {xy[7, 1]}); one.dragTo({goal[0]}, {goal[1]}); one.endDrag()
said.dragged = one.text; one.mirror()"""), {"text": json.dumps([frame])})
    [before], [after] = (json.loads(said[key]) for key in ("dragged", "text"))
    before, after = before["people"][0], after["people"][0]
    body = np.array(before["pose_keypoints_2d"]).reshape(18, 3)[:, :2]
    moved = np.array(before["hand_left_keypoints_2d"]).reshape(21, 3)[:, :2]
    old, new = ((rows[7] - rows[6]) @ [1, 1j] for rows in (xy, body))
    expected = (hand - xy[7]) @ [1, 1j] * (new / abs(new)) / (old / abs(old))
    np.testing.assert_allclose((moved - body[7]) @ [1, 1j], expected, atol=2e-3)
    np.testing.assert_allclose(np.array(before["face_keypoints_2d"]).reshape(70, 3)[:, :2], face, atol=6e-4)
    swapped = np.array(after["hand_right_keypoints_2d"]).reshape(21, 3)[:, :2]
    axis = (body[:, 0].min() + body[:, 0].max()) / 2
    np.testing.assert_allclose(swapped, moved * [-1, 1] + [2 * axis, 0], atol=2e-3)
    assert not any(after.get("hand_left_keypoints_2d") or [])
    mirrored_face = np.array(after["face_keypoints_2d"]).reshape(70, 3)[:, :2]
    for left, right in ((0, 16), (36, 45), (48, 54), (68, 69), (30, 30)):   # jaw, eyes' outer corners, mouth, pupils, nose
        np.testing.assert_allclose(mirrored_face[left], face[right] * [-1, 1] + [2 * axis, 0], atol=2e-3)


def test_undo_and_redo_give_back_every_text_letter_by_letter(page):
    text = json.dumps(to_pose_keypoint(Keypoints(people(1)[0], np.ones(18, bool), CANVAS)), indent=1)
    said = page(session("""
const seen = [one.text]
const steps = [() => one.mirror(), () => one.toggle(7), () => one.addPerson(), () => one.addFrame(),
  () => one.removePerson(), () => one.scale(1.1), () => one.clear()]
for (const step of steps) { step(); seen.push(one.text) }
said.back = [], said.forth = []
for (const text of seen.slice(0, -1).reverse()) { one.undo(); said.back.push(one.text === text) }
one.undo()
for (const text of seen.slice(1)) { one.redo(); said.forth.push(one.text === text) }
said.different = new Set(seen).size
one.undo(); one.turn(0.2); said.cut = one.history.canRedo"""), {"text": text})
    assert said["back"] == [True] * 7 and said["forth"] == [True] * 7 and said["different"] == 8 and said["cut"] is False


def test_a_held_key_is_one_step_and_a_click_is_none(page):
    said = page(session("""
one.startDrag(0, 4, 10, 10); one.endDrag(); said.clicked = one.history.canUndo
one.select(0, 4); for (let i = 0; i < 25; i++) one.nudge(1, 0)
one.undo(); said.after = one.text"""), {})
    assert said["clicked"] is False and said["after"] == ""


def test_the_body_of_a_mannequin_stays_with_its_frame_until_an_edit(page):
    [frame] = to_pose_keypoint(by_hand.standing(CANVAS))
    text = json.dumps([frame | {"pgpis_mannequin": {"state": {}}}])
    said = page(session("one.addFrame(); said.two = one.text; one.toggle(4)"), {"text": text})
    assert [one.get("pgpis_mannequin") for one in json.loads(said["two"])] == [{"state": {}}] * 2
    assert [one.get("pgpis_mannequin") for one in json.loads(said["text"])] == [{"state": {}}, None]


def test_a_hidden_joint_keeps_its_place_and_is_missing_to_the_nodes(page):
    said = page(session("one.toggle(4); said.hidden = one.text; one.toggle(4)"), {})
    hidden, shown = (json.loads(said[key]) for key in ("hidden", "text"))
    row = hidden[0]["people"][0]["pose_keypoints_2d"][12:15]
    np.testing.assert_allclose(row, [*by_hand.standing(CANVAS).xy[4], 0], atol=6e-4)
    assert not from_pose_keypoint(hidden)[0].present[4] and from_pose_keypoint(shown)[0].present.all()


def test_a_joint_that_was_never_found_can_be_brought_in(page):
    pose = by_hand.standing(CANVAS)
    known = Keypoints(pose.xy, np.arange(18) != 4, CANVAS)
    said = page(session("one.select(0, 4); one.toggle()"), {"text": json.dumps(to_pose_keypoint(known))})
    [made] = from_pose_keypoint(json.loads(said["text"]))
    np.testing.assert_allclose(made.xy, pose.xy, atol=1e-3)


def test_a_pose_copied_to_another_frame_replaces_the_same_person_there(page):
    first, second = (Keypoints(xy, np.ones(18, bool), size)
                     for xy, size in zip(people(2), (CANVAS, (960, 720)), strict=True))
    said = page(session("one.copy(); one.goTo(1); one.paste(); said.there = one.text; one.paste()"),
                {"text": json.dumps(to_pose_keypoint([first, second]))})
    frames = json.loads(said["there"])
    assert frames[0] == to_pose_keypoint(first)[0] and len(frames[1]["people"]) == 1
    np.testing.assert_allclose(from_pose_keypoint(frames[1:])[0].xy, first.scaled_to((960, 720)).xy, atol=1e-3)


def test_other_canvases_units_and_editors_are_read_alike_on_both_sides(page):
    pose = Keypoints(people(1)[0], np.arange(18) % 4 != 1, CANVAS)
    [frame] = to_pose_keypoint(pose)
    rows = np.array(frame["people"][0]["pose_keypoints_2d"]).reshape(18, 3)
    wide = np.zeros((25, 3))
    wide[[0, 1, 2, 3, 4, 5, 6, 7, *range(9, 19)]] = rows
    shares = rows / [CANVAS[1], CANVAS[0], 1]
    joints = [[x, y] if seen else [None, None] for x, y, seen in rows.tolist()]
    canvas = {"canvas_width": CANVAS[1], "canvas_height": CANVAS[0]}
    texts = {
        "as it is": json.dumps([frame]), "one frame": json.dumps(frame),
        "OpenPose's own": json.dumps({"version": 1.3, "people": [{"pose_keypoints_2d": wide.ravel().tolist()}]}),
        "in shares": json.dumps([canvas | {"people": [{"pose_keypoints_2d": shares.ravel().tolist()}]}]),
        "OpenPose 1.0": json.dumps(canvas | {"people": [{"pose_keypoints": rows.ravel().tolist()}]}),
        "in triples": json.dumps([canvas | {"people": [{"pose_keypoints_2d": rows.tolist(), "face_keypoints_2d": None}]}]),
        "a list of keypoints": json.dumps({"width": CANVAS[1], "height": CANVAS[0], "keypoints": [joints]}),
        "NaN": json.dumps([canvas | {"people": [{"pose_keypoints_2d": np.where(
            rows[:, 2:] > 0, rows, np.nan).ravel().tolist()}], "note": "NaN, said"}]),
    }
    body = "said.all = Object.fromEntries(Object.entries(job).map(([name, text]) => {" + session(
        "one.move((place) => place)").replace("job.text", "text").replace("said,", "{},") + \
        "\nreturn [name, [one.problem, one.text]] }))"
    for name, (problem, text) in page(body, texts)["all"].items():
        assert problem == "", name
        [page_reads], [node_reads] = (from_pose_keypoint(by_hand.edited_frames(one, CANVAS)) for one in (text, texts[name]))
        for found in (page_reads, node_reads):
            np.testing.assert_array_equal(found.present, pose.present, err_msg=name)
            np.testing.assert_allclose(found.xy, pose.xy, atol=1e-3, err_msg=name)
            assert found.canvas == CANVAS, name
    assert '"NaN, said"' in page(body, texts)["all"]["NaN"][1]


def test_what_is_no_pose_is_said_and_stays(page):
    texts = ["hello", '{"people": 3}', '[{"canvas_width": 4}]', '[{"people": [{"pose_keypoints_2d": [1, 2, 3]}]}]', "[]",
             "[3]", "fashion.jpg: [1]: [2]", '[{"people": [{"keypoints25": [1, 2, 3]}]}]',
             '[{"people": [], "canvas_width": 20000, "canvas_height": 4}]', '[{"people": [], "canvas_width": "wide"}]']
    body = "said.all = job.map((text) => {" + session("""
one.mirror(); one.startDrag(0, 4, 0, 0); one.dragTo(9, 9); one.endDrag()
const kept = one.text; one.clear(); one.undo()""").replace("job.text", "text").replace("said,", "{},") + \
        "\nreturn [one.problem, kept, one.text] })"
    for text, (problem, kept, back) in zip(texts, page(body, texts)["all"], strict=True):
        assert problem and kept == text and back == text
        with pytest.raises(ValueError):   # the node refuses what the page does
            by_hand.edited_frames(text, CANVAS)


def test_frames_without_people_and_a_thousand_frames(page):
    poses = [Keypoints(xy, np.ones(18, bool), CANVAS) for xy in people(1000)]
    frames = to_pose_keypoint(poses)
    for frame in frames[::100]:
        frame["people"] = []
    said = page("const began = performance.now()\n" + session("""
one.goTo(1); said.read = performance.now() - began
for (let i = 0; i < 20; i++) { one.startDrag(0, 4, 0, 0); one.dragTo(5, 5 + i); one.endDrag() }
said.edits = (performance.now() - began - said.read) / 20
one.goTo(500); said.people = one.people.length"""), {"text": json.dumps(frames)})
    made = json.loads(said["text"])
    assert said["people"] == 0 and said["frame"] == 500
    assert [*made[:1], *made[2:]] == [*frames[:1], *frames[2:]] and made[1] != frames[1]
    assert said["edits"] < 100, "milliseconds for an edit among a thousand frames"


def test_the_canvas_can_change_and_people_keep_their_shape(page):
    pose = Keypoints(people(1)[0], np.ones(18, bool), CANVAS)
    said = page(session("one.resize(1000, 480, true)"), {"text": json.dumps(to_pose_keypoint(pose))})
    [made] = from_pose_keypoint(json.loads(said["text"]))
    assert made.canvas == (480, 1000)
    np.testing.assert_allclose(made.xy, by_hand.fitted_to(pose, (480, 1000)).xy, atol=1e-3)
    np.testing.assert_allclose(made.xy, pose.xy + [320, 0], atol=1e-3)
