"""The poses of the command line: files of a folder and their order, frames, people, and what is wrong by name."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from pgpis_models.command.poses import Choice, natural, picture_files, pose_files, read_pose, sequence_files, sequence_poses
from pgpis_models.poses.formats import to_pose_keypoint
from pgpis_models.poses.keypoints import Keypoints
from tests.helpers.tiny import SIZE


def pose(seed, shift=0.0):
    return Keypoints(np.random.default_rng(seed).uniform(5, 60, (18, 2)) + (shift, 0), np.ones(18, bool), SIZE)


def write(path, *poses):
    """A POSE_KEYPOINT file with a frame for each: None is nobody, a list several people, and a number its seed."""
    frames = []
    for one in poses:
        people = [] if one is None else one if isinstance(one, list) else [one]
        people = [pose(person) if isinstance(person, int) else person for person in people]
        frames.append({"canvas_height": SIZE[0], "canvas_width": SIZE[1],
                       "people": [to_pose_keypoint(person)[0]["people"][0] for person in people]})
    path.write_text(json.dumps(frames))
    return path


def same(first, second):
    return np.array_equal(first.xy, second.xy) and np.array_equal(first.present, second.present)


# --- one pose -----------------------------------------------------------------------------------------------

def test_a_file_of_several_frames_wants_one_chosen(tmp_path):
    path = write(tmp_path / "walk.json", 0, 1, None)
    with pytest.raises(ValueError, match="walk.json has 3 frames; expected one pose. Add --sequence .*--frame N, 1 to 3"):
        read_pose(path)
    assert [same(read_pose(path, Choice(frame=n)), pose(n - 1)) for n in (1, 2)] == [True, True]   # the third is not asked
    with pytest.raises(ValueError, match="No person in frame 3 of 3 of walk.json"):
        read_pose(path, Choice(frame=3))
    with pytest.raises(ValueError, match=r"--frame is 4, but walk.json has 3 frame\(s\); expected 1 to 3"):
        read_pose(path, Choice(frame=4))
    assert same(read_pose(write(tmp_path / "one.json", 5)), pose(5))


def test_files_without_a_frame_or_person_are_named(tmp_path):
    with pytest.raises(ValueError, match="No person in a.json"):
        read_pose(write(tmp_path / "a.json", None))
    np.save(tmp_path / "b.npy", np.zeros((0, 133, 2)))
    for read in (read_pose, sequence_poses):
        with pytest.raises(ValueError, match="b.npy has no frames; expected one at least"):
            read(tmp_path / "b.npy", Choice(canvas=SIZE))


def test_a_person_may_be_chosen(tmp_path):
    small = pose(1).scaled(0.5)
    path = write(tmp_path / "two.json", [pose(0), small])
    assert same(read_pose(path), pose(0)) and np.allclose(read_pose(path, Choice(person=1)).xy, small.xy)
    with pytest.raises(ValueError, match="Person 2 asked for, but two.json has 2 with a body"):
        read_pose(path, Choice(person=2))


def test_faint_joints_are_kept_where_asked_for(tmp_path):
    rows = [value for n, joint in enumerate(pose(0).xy) for value in (*joint, 0.05 * n)]
    frame = {"canvas_height": SIZE[0], "canvas_width": SIZE[1], "people": [{"pose_keypoints_2d": rows}]}
    (tmp_path / "a.json").write_text(json.dumps(frame))
    for threshold, first in ((None, 6), (0.12, 3), (0.0, 1)):   # a confidence of 0 is a missing joint always
        read = read_pose(tmp_path / "a.json", Choice(min_confidence=threshold))
        assert np.flatnonzero(read.present).tolist() == list(range(first, 18))


def test_a_pose_off_its_canvas_is_refused(tmp_path):
    path = write(tmp_path / "far.json", pose(0, shift=100))
    with pytest.raises(ValueError, match="no joint lies on the canvas of 64x64 .*those of far.json are at x 1.*--canvas"):
        read_pose(path)
    edge = pose(0, shift=64 - pose(0).xy[:, 0].min() - 1)   # one joint is left in the last column
    assert same(read_pose(write(tmp_path / "edge.json", edge)), edge)


def test_openpose_files_without_a_canvas_are_read_with_one(tmp_path):
    person = to_pose_keypoint(pose(1))[0]["people"][0]
    path = tmp_path / "pose.JSON"
    path.write_text(json.dumps({"version": 1.3, "people": [person]}))
    assert np.allclose(read_pose(path, Choice(canvas=SIZE)).xy, pose(1).xy)
    with pytest.raises(ValueError, match="pose.JSON has canvas_width = None.*lack the canvas"):
        read_pose(path)


def test_photos_are_detected_upright(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("pgpis_models.poses.detection.detect_pose", lambda image: seen.append(image) or pose(0))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (30, 20)).save(tmp_path / "turned.png", exif=exif)
    assert read_pose(tmp_path / "turned.png", Choice(canvas=SIZE)) is not None
    assert seen[0].shape == (30, 20, 3) and seen[0].dtype == np.uint8
    monkeypatch.setattr("pgpis_models.poses.detection.detect_pose", lambda image: pose(0, shift=100))
    with pytest.raises(ValueError, match="no joint lies on the canvas.*those of turned.png"):
        read_pose(tmp_path / "turned.png")
    with pytest.raises(ValueError, match="--frame, --person came with turned.png, a photo"):
        read_pose(tmp_path / "turned.png", Choice(frame=1, person=0))


# --- sequences ----------------------------------------------------------------------------------------------

def test_a_sequence_follows_one_person(tmp_path, capsys):
    """Whoever is listed first, and the larger, is another one in every frame; one of several frames is not followed."""
    near, far = pose(0).scaled(0.5), pose(1).scaled(0.45).shifted(28, 30)
    walk = [(near.shifted(n, 0), far.shifted(-n, 0)) for n in range(4)]
    listed = [pair[::-1] if number % 2 else pair for number, pair in enumerate(walk)]
    path = write(tmp_path / "walk.json", *map(list, listed))
    for person in (0, 1):
        followed = sequence_poses(path, Choice(person=person))
        assert all(np.allclose(one.xy, pair[person].xy) for one, pair in zip(followed, walk, strict=True)), person
        assert "Followed through 4 of 4 frames" in capsys.readouterr().out
    wild = write(tmp_path / "cuts.json", 0, 1, 2)
    assert [same(read, pose(n)) for n, read in enumerate(sequence_poses(wild))] == [True] * 3
    assert not capsys.readouterr().out


def test_the_frames_of_a_folder_are_in_natural_order_and_named(tmp_path):
    for number, seed in ((10, 3), (2, 2), (1, None)):
        write(tmp_path / f"f{number}.json", seed)
    write(tmp_path / "f1.json", 0, 1)
    assert [same(read, pose(n)) for n, read in enumerate(sequence_poses(tmp_path))] == [True] * 4
    write(tmp_path / "f2.json", None)
    with pytest.raises(ValueError, match="No person in f2.json"):
        sequence_poses(tmp_path)
    write(tmp_path / "f2.json", 2)
    write(tmp_path / "f1.json", 0, None)
    with pytest.raises(ValueError, match="No person in frame 2 of 2 of f1.json"):
        sequence_poses(tmp_path)
    (tmp_path / "f2.json").write_text(json.dumps({"people": []}))
    with pytest.raises(ValueError, match="f2.json has canvas_width = None"):
        sequence_poses(tmp_path, empty="hold")


def test_frames_off_the_canvas_are_errors_or_held(tmp_path):
    far = pose(7, shift=500)
    path = write(tmp_path / "walk.json", far, 0, None, far, 1, far)
    with pytest.raises(ValueError, match="No person in frame 3 of 6 of walk.json"):
        sequence_poses(path)
    held = sequence_poses(path, empty="hold")
    assert [same(read, pose(seed)) for read, seed in zip(held, (0, 0, 0, 0, 1, 1), strict=True)] == [True] * 6
    with pytest.raises(ValueError, match="no joint lies on the canvas.*those of frame 2 of 2 of off.json"):
        sequence_poses(write(tmp_path / "off.json", 0, far))
    with pytest.raises(ValueError, match="no joint lies on the canvas.*those of frame 1 of 2 of off.json"):
        sequence_poses(write(tmp_path / "off.json", far, None), empty="hold")


# --- folders ------------------------------------------------------------------------------------------------

def touched(folder, *names):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name in names:
        (folder / name).touch()
    return folder


def listed(function, folder):
    return [path.name for path in function(folder)]


def test_a_photo_with_a_json_file_beside_it_is_one_pose(tmp_path):
    folder = touched(tmp_path / "poses", "a.jpg", "a.json", "b.png", "readme.md")
    assert listed(pose_files, folder) == ["a.json", "b.png"]
    assert listed(picture_files, folder) == ["a.jpg", "b.png"] and listed(sequence_files, folder) == ["a.json"]
    (folder / "b.jpg").touch()
    with pytest.raises(ValueError, match="b.jpg and b.png differ in their endings alone; expected one file for each"):
        pose_files(folder)
    folder = touched(tmp_path / "empty")
    for function, kinds in ((pose_files, ".json, .png"), (picture_files, ".png, .jpg"), (sequence_files, ".json, .txt")):
        with pytest.raises(ValueError, match=f"no poses in .*empty; expected files ending in {kinds}"):
            function(folder)


def test_no_kind_of_pose_file_is_left_out_silently(tmp_path):
    folder = touched(tmp_path / "poses", "1.txt", "2.npy", "10.csv")
    assert listed(pose_files, folder) == listed(sequence_files, folder) == ["1.txt", "2.npy", "10.csv"]
    for other in ("0.json", "0.png"):
        (folder / other).touch()
        with pytest.raises(ValueError, match="poses holds photos or JSON files beside 1.txt, 2.npy, 10.csv, which would be"):
            pose_files(folder)
        (folder / other).unlink()
    (folder / "0.json").touch()
    (folder / "0.png").touch()
    assert listed(sequence_files, folder) == ["0.json", "1.txt", "2.npy", "10.csv"]
    (folder / "1.json").touch()
    with pytest.raises(ValueError, match="1.json and 1.txt differ in their endings alone"):
        sequence_files(folder)
    folder = touched(tmp_path / "many", "a.json", *(f"{n}.txt" for n in range(12)))
    with pytest.raises(ValueError, match="beside 0.txt, 1.txt, .*, 9.txt and 2 more, which would be left out"):
        pose_files(folder)


def test_names_are_in_natural_order(tmp_path):
    names = ["1.json", "2.json", "10.json", "a.json", "a1.json", "a2b10.json", "a10b2.json", "b.json", "b007.json"]
    folder = touched(tmp_path / "poses", *reversed(names))
    assert listed(pose_files, folder) == listed(sequence_files, folder) == names
    assert sorted(map(tmp_path.joinpath, ("01.json", "1.json", "0.json")), key=natural)[0].name == "0.json"
