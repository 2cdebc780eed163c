"""Pose files and pose text of every kind, what is refused, and frames that are empty."""

import json

import numpy as np
import pytest

from pgpis_models.poses.files import checked, load_poses, parse_poses
from pgpis_models.poses.formats import EmptyFrame, from_pose_keypoint, to_pose_keypoint
from pgpis_models.poses.keypoints import Keypoints
from pgpis_models.poses.padded_rows import parse_fpdm_txt
from pgpis_models.poses.wholebody import wholebody_to_pose_keypoint

ROW = ("a.jpg: [30, 50, 50, 80, 110, 50, 80, 110, 115, 160, 210, 115, 160, 210, 25, 25, -1, 28]: "
       "[88, 88, 66, 58, 55, 110, 118, 120, 75, 74, 72, 100, 102, 104, 84, 92, 78, 98]")
LINES = "".join(f"{40 + 8 * n} {20 + 10 * n}\n" for n in range(16)) + "-1 -1\n60 70\n"


def someone(x: float = 0.0) -> Keypoints:
    return Keypoints(np.random.default_rng(0).uniform(10, 50, (18, 2)) + (x, 0), np.ones(18, bool), (64, 64))


def test_each_kind_gives_the_pose_that_its_own_reader_gives(tmp_path):
    points = np.random.default_rng(1).uniform(20, 200, (3, 133, 2))
    kinds = {"text.txt": LINES, "rows.csv": f"name:keypoints_y:keypoints_x\n{ROW}\n{ROW}\n", "rows.txt": ROW,
             "open.json": json.dumps(to_pose_keypoint(someone())), "points.json": json.dumps(points.tolist()),
             "points.txt": "\n".join(f"{x}, {y}" for x, y in points[0])}
    for name, text in kinds.items():
        (tmp_path / name).write_text(text)
    np.save(tmp_path / "points.npy", points)
    read = {name: load_poses(tmp_path / name, (260, 210)) for name in (*kinds, "points.npy")}
    assert read["text.txt"] == to_pose_keypoint(parse_fpdm_txt(LINES)) == parse_poses(LINES)
    [first, second] = from_pose_keypoint(read["rows.csv"])
    assert first.canvas == (256, 176) and first.xy[3].tolist() == [58, 80] and not first.present[16]
    assert read["rows.csv"][1:] == read["rows.txt"] == parse_poses(ROW)
    assert read["open.json"] == to_pose_keypoint(someone())
    whole = wholebody_to_pose_keypoint(points, (260, 210))
    assert read["points.npy"] == read["points.json"] == whole == parse_poses(kinds["points.json"], (260, 210))
    assert read["points.txt"] == whole[:1]


def test_text_as_numpy_writes_it_is_read(tmp_path):
    """The authors' own files are of np.savetxt: 1.280000000000000000e+02."""
    xy = np.array([[float(v) for v in line.split()] for line in LINES.splitlines()])
    np.savetxt(tmp_path / "pose.txt", xy)
    assert "e+0" in (tmp_path / "pose.txt").read_text()
    assert load_poses(tmp_path / "pose.txt") == parse_poses(LINES)
    points = np.random.default_rng(1).uniform(20, 200, (133, 2))
    np.savetxt(tmp_path / "points.txt", points)
    assert load_poses(tmp_path / "points.txt", (260, 210)) == wholebody_to_pose_keypoint(points[None], (260, 210))


@pytest.mark.parametrize("name", ["open.json", "points.json", "rows.csv", "text.txt"])
def test_a_byte_order_mark_changes_nothing(tmp_path, name):
    text = {"open.json": json.dumps(to_pose_keypoint(someone())), "rows.csv": f"name:keypoints_y:keypoints_x\n{ROW}\n",
            "points.json": json.dumps(np.random.default_rng(1).uniform(20, 200, (2, 133, 2)).tolist()), "text.txt": LINES}
    (tmp_path / name).write_text(text[name], encoding="utf-8")
    plain = load_poses(tmp_path / name, (260, 210))
    (tmp_path / name).write_text(text[name], encoding="utf-8-sig")
    assert load_poses(tmp_path / name, (260, 210)) == plain == parse_poses("\ufeff" + text[name], (260, 210))


def test_18_lines_may_have_commas():
    assert parse_poses(LINES.replace(" ", ", ")) == parse_poses(LINES.replace(" ", ",")) == parse_poses(LINES)


def test_a_canvas_of_null_is_one_that_is_not_said():
    frame = to_pose_keypoint(someone())[0]
    text = json.dumps(frame | {"canvas_width": None, "canvas_height": None})
    assert parse_poses(text, (64, 64)) == [frame]
    assert parse_poses(json.dumps(frame), (9, 9)) == [frame]   # the frame's own wins


def test_a_bad_annotation_row_is_named_by_line_and_picture(tmp_path):
    path = tmp_path / "rows.csv"
    for bad, message in ((": [1, 2]: [3, 4]", "expected 18 numbers"), (": [{}]: [3]", "not a number"), (":", "expected"),
                         (": [1, 2: [3]", "is not JSON"), (f": {[None] * 18}: {[4] * 18}".replace("None", "null"), "nose")):
        path.write_text(f"name:keypoints_y:keypoints_x\n{ROW}\n\nb.jpg{bad}\n{ROW}\n")
        name = " .b.jpg." if bad.count(":") > 1 else ""
        with pytest.raises(ValueError, match=f"^rows.csv: line 4{name}: .*{message}"):
            load_poses(path)


@pytest.mark.parametrize(("name", "content", "message"), [
    ("a.txt", "1 2\n" * 17, "a.txt has 17 lines; expected 18"),
    ("a.txt", "1 2\n" * 132, "a.txt: 132 lines with points; expected 133"),
    ("a.txt", "hello\n", "a.txt begins with 'hello'; expected"),
    ("a.txt", "", "a.txt is empty; expected"),
    ("a.txt", ",\n1 2\n", "a.txt begins with ','; expected"),
    ("a.txt", "nan 2\n", "a.txt begins with 'nan 2'; expected"),
    ("a.txt", "a: [1, 2]: [3, 4]", "a.txt: line 1 .a.: CFLD annotation.*expected 18 numbers"),
    ("a.json", "{", "a.json is not JSON"),
    ("a.json", "[[1, 2]]", r"a.json: whole-body points have shape"),
    ("a.doc", "", "a.doc is a .doc file; expected one of .json, .txt, .npy, .csv"),
    ("a.npy", "nothing", "a.npy")])
def test_what_is_no_pose_is_refused_by_name(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        load_poses(tmp_path / name, (256, 176))


def test_a_pose_off_its_canvas_is_refused():
    """As where pixels of a video came with the canvas of a smaller picture. One frame on it is enough for a sequence."""
    off, on = to_pose_keypoint(someone(100))[0], to_pose_keypoint(someone())[0]
    empty = on | {"people": []}
    assert checked([empty, off, on]) == [empty, off, on]
    x = someone(100).xy
    where = f"of the first frame are at x {x[:, 0].min():.0f} to {x[:, 0].max():.0f}, y {x[:, 1].min():.0f}"
    with pytest.raises(ValueError, match=f"no joint lies on the canvas of 64x64 .*{where}.*Set canvas_width"):
        checked([empty, off])
    faint = on | {"people": [{"pose_keypoints_2d": [value for joint in someone().xy for value in (*joint, 0.2)]}]}
    assert checked([faint], min_confidence=0.1) == [faint]
    with pytest.raises(EmptyFrame, match="confidence 0.3 or more.*lower min_confidence"):
        checked([faint])


def test_points_need_the_size_of_their_picture(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((2, 133, 2)))
    with pytest.raises(ValueError, match="a.npy holds points without the size of their picture; .* give the canvas"):
        load_poses(tmp_path / "a.npy")


def test_empty_frames_are_named_or_held():
    first, second = to_pose_keypoint(someone()), to_pose_keypoint(someone(5))
    nobody = first[0] | {"people": []}
    unseen = to_pose_keypoint(Keypoints(np.zeros((18, 2)), np.zeros(18, bool), (64, 64)))[0]
    frames = [nobody, *first, unseen, *second, nobody]
    with pytest.raises(EmptyFrame, match="No person in frame 1 of 5"):
        from_pose_keypoint(frames)
    with pytest.raises(EmptyFrame, match="No person in frame 2 of 4"):
        from_pose_keypoint(frames[1:])
    held = from_pose_keypoint(frames, empty="hold")
    assert [pose.xy[0, 0] - someone().xy[0, 0] for pose in held] == [0, 0, 0, 5, 5]
    with pytest.raises(EmptyFrame, match="No person in frame 1 of 2"):
        from_pose_keypoint([nobody, unseen], empty="hold")
    with pytest.raises(ValueError, match="canvas_width = None"):
        from_pose_keypoint([*first, {"people": []}], empty="hold")   # of another form, not empty
    with pytest.raises(ValueError, match="empty is 'skip'; expected one of"):
        from_pose_keypoint(first, empty="skip")
    other = [first[0] | {"people": first[0]["people"] * 2}, first[0]]
    assert len(from_pose_keypoint(other, person=1, empty="hold")) == 2
    with pytest.raises(EmptyFrame, match="Person 1 asked for, but frame 2 of 2 has 1"):
        from_pose_keypoint(other, person=1)
    shown = from_pose_keypoint(frames, empty="nobody")
    assert [bool(pose.present.any()) for pose in shown] == [False, True, False, True, False]
    assert all(pose.canvas == (64, 64) for pose in shown)
    assert not any(pose.present.any() for pose in from_pose_keypoint([nobody, unseen], empty="nobody"))
    assert [bool(pose.present.any()) for pose in from_pose_keypoint(other, person=1, empty="nobody")] == [True, False]
    with pytest.raises(EmptyFrame, match="Person 7 asked for, but frame 1 of 2 has 2"):
        from_pose_keypoint(other, person=7, empty="nobody")   # a number that nobody has is a mistake
