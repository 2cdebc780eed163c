"""Preparing folders of people: pairs, splits and poses, made again without harm."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pgpis_models.poses.formats import to_pose_keypoint
from pgpis_models.poses.keypoints import Keypoints
from tests.helpers.preparing import jpeg, prepared
from training.data.deepfashion import DeepFashion
from training.data.people import pairs_of, read_people, split_people


def pose_file(path: Path, canvas: tuple[int, int], shift: float = 0.0) -> Keypoints:
    height, width = canvas
    xy = np.stack([np.linspace(0.2, 0.8, 18) * width + shift, np.linspace(0.1, 0.9, 18) * height], 1)
    present = np.arange(18) != 4
    pose = Keypoints(xy, present, canvas)
    path.write_text(json.dumps(to_pose_keypoint(pose)))
    return pose


@pytest.fixture
def album(tmp_path):
    """Four people with two or three photos each, and one with a single photo."""
    root = tmp_path / "album"
    for number, person in enumerate(("anna", "ben", "carla", "dora")):
        for view in range(2 + number % 2):
            jpeg(root / person / f"photo {view}.jpg", 10 * number + view, (40, 30))
            pose_file(root / person / f"photo {view}.json", (40, 30), view)
    jpeg(root / "eve" / "only.jpg", 99)
    pose_file(root / "eve" / "only.json", (30, 20))
    (root / "notes.txt").write_text("not a person")
    return root


def test_a_folder_of_people_becomes_pairs_within_people_and_a_split_between_them(album, tmp_path, capsys):
    out = tmp_path / "out"
    code, said, _ = prepared(capsys, "folder", "--root", album, "--out", out, "--test-share", "0.3")
    assert code == 0 and "left out 1 people with a single photo: eve" in said
    splits = {split: DeepFashion(out, split) for split in ("train", "test")}
    people = {split: {name.split("__")[0] for pair in data.pairs for name in pair} for split, data in splits.items()}
    assert people["train"] | people["test"] == {"anna", "ben", "carla", "dora"} and not people["train"] & people["test"]
    assert people["train"] and people["test"]
    for data in splits.values():
        assert all(source.split("__")[0] == target.split("__")[0] and source != target for source, target in data.pairs)
    # 2, 3, 2 and 3 photos: n (n - 1) ordered pairs each
    assert sum(len(data) for data in splits.values()) == 2 + 6 + 2 + 6
    item = splits["train"].item(0)
    assert item["source"].shape == (3, 512, 512) and item["source_pose"][3:].amax((1, 2)).eq(1).sum() == 17


def test_poses_arrive_where_they_were_in_the_photo(album, tmp_path, capsys):
    """CFLD's frame is 256x176: a joint keeps its share of height and width, and a missing one stays missing."""
    expected = pose_file(album / "anna" / "photo 1.json", (40, 30), 5.0)
    prepared(capsys, "folder", "--root", album, "--out", tmp_path / "out")
    split = "train" if (tmp_path / "out/train_highres/anna__photo_1.jpg").is_file() else "test"
    pose = DeepFashion(tmp_path / "out", split).poses["anna__photo_1.jpg"]
    assert pose.canvas == (256, 176) and pose.present.tolist() == expected.present.tolist()
    shares, wanted = pose.xy / (176, 256), expected.xy / (30, 40)
    assert np.allclose(shares[pose.present], wanted[pose.present], atol=1e-4)


def test_again_and_with_more_people_nobody_changes_sides(album, tmp_path, capsys):
    out = tmp_path / "out"
    prepared(capsys, "folder", "--root", album, "--out", out, "--test-share", "0.4")
    before = {p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.is_file()}
    code, _, err = prepared(capsys, "folder", "--root", album, "--out", out, "--test-share", "0.4")
    assert (code, err.count("Error")) == (0, 0)
    assert before == {p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.is_file()}
    names = [f"person{n}" for n in range(40)]
    few, many = split_people(names[:30], 0.2), split_people(names, 0.2)
    assert set(few[0]) <= set(many[0]) and set(few[1]) <= set(many[1])
    assert 2 <= len(many[1]) <= 16


def test_a_split_always_has_both_sides():
    for share in (0.01, 0.99):
        train, test = split_people(["a", "b", "c"], share)
        assert train and test and sorted(train + test) == ["a", "b", "c"]
    for people, share in ((["a"], 0.1), (["a", "b"], 0.0), (["a", "b"], 1.0)):
        with pytest.raises(ValueError, match=f"{len(people)} people .* test share of {share}"):
            split_people(people, share)


def test_turned_and_transparent_photos_are_written_upright_over_white(album, tmp_path, capsys):
    turned = Image.new("RGB", (40, 30), "red")
    turned.paste("blue", (0, 0, 20, 30))   # left half blue; held so that left becomes top
    exif = Image.Exif()
    exif[0x0112] = 6   # turn by 90 degrees clockwise to show
    turned.save(album / "anna" / "photo 0.jpg", exif=exif, quality=95)
    pose_file(album / "anna" / "photo 0.json", (40, 30))
    clear = Image.new("RGBA", (30, 40), (0, 0, 0, 0))
    clear.save(album / "anna" / "clear.png")
    pose_file(album / "anna" / "clear_keypoints.json", (40, 30))   # OpenPose's own ending
    assert prepared(capsys, "folder", "--root", album, "--out", tmp_path / "out")[0] == 0
    found = {p.name: p for p in (tmp_path / "out").rglob("anna__*")}
    assert found.keys() == {"anna__photo_0.png", "anna__photo_1.jpg", "anna__clear.png"}
    upright = Image.open(found["anna__photo_0.png"])
    assert upright.size == (30, 40) and upright.mode == "RGB"
    top, bottom = (np.asarray(upright)[row].mean(0) for row in (5, 35))
    assert top[2] > 200 > 60 > top[0] and bottom[0] > 200 > 60 > bottom[2]
    assert (np.asarray(Image.open(found["anna__clear.png"])) == 255).all()


def test_photos_without_poses_stop_the_run_or_are_left_out(album, tmp_path, capsys):
    for n in range(12):
        jpeg(album / "ben" / f"nopose{n:02}.jpg", n)
    (album / "carla" / "photo 0.json").write_text("{}")
    code, _, err = prepared(capsys, "folder", "--root", album, "--out", tmp_path / "out")
    assert code == 2 and "13 of 23 photos cannot be used: ben/nopose00.jpg: no nopose00.json beside it" in err
    assert "--detect" in err and not (tmp_path / "out").exists() and "carla" not in err   # ten names at most
    code, said, _ = prepared(capsys, "folder", "--root", album, "--out", tmp_path / "out", "--skip")
    assert code == 0 and "left out 13 of 23 photos" in said and "people with a single photo: carla; eve" in said


def test_poses_are_detected_where_there_is_no_file(album, monkeypatch):
    for path in album.rglob("*.json"):
        path.unlink()
    seen = []

    def detect(_path, image):
        seen.append(image.shape)
        return Keypoints(np.ones((18, 2)), np.ones(18, bool), image.shape[:2])

    people = read_people(album, detect)
    assert {name: len(photos) for name, photos in people.items()} == {"anna": 2, "ben": 3, "carla": 2, "dora": 3}
    assert seen == [(40, 30, 3)] * 10 + [(30, 20, 3)]
    assert people["anna"][0].pose.canvas == (40, 30)
    first, second = "anna__photo_0.jpg", "anna__photo_1.jpg"
    assert pairs_of(people["anna"]) == [(first, second), (second, first)]


def test_names_with_separators_of_the_csv_files_become_harmless(album, tmp_path, capsys):
    (album / "ben").rename(album / "ben, the: 2nd")
    assert prepared(capsys, "folder", "--root", album, "--out", tmp_path / "out")[0] == 0
    assert [p.name for p in sorted((tmp_path / "out").rglob("ben*"))][0] == "ben_the_2nd__photo_0.jpg"
    jpeg(album / "anna" / "photo_0.jpg", 5)
    pose_file(album / "anna" / "photo_0.json", (30, 20))
    assert "makes the name anna__photo_0.jpg too" in prepared(capsys, "folder", "--root", album, "--out", tmp_path / "o")[2]


def test_folders_that_do_not_suit_are_refused(album, tmp_path, capsys):
    assert "lies in --root" in prepared(capsys, "folder", "--root", album, "--out", album / "out")[2]
    assert "is not a folder" in prepared(capsys, "folder", "--root", album / "nowhere", "--out", tmp_path / "out")[2]
    jpeg(tmp_path / "out" / "train_highres" / "stranger.jpg", 1)
    err = prepared(capsys, "folder", "--root", album, "--out", tmp_path / "out")[2]
    assert "holds 1 files that are not of this data: stranger.jpg" in err
    (tmp_path / "empty").mkdir()
    assert "0 people with two photos or more" in prepared(
        capsys, "folder", "--root", tmp_path / "empty", "--out", tmp_path / "o")[2]


# --- other layouts ------------------------------------------------------------------------------------------

def test_names_say_who_is_on_a_photo(tmp_path, capsys):
    """Market-1501: persons 0000 and -1 are distractors and junk, which no group fits."""
    root = tmp_path / "Market-1501"
    standing = Keypoints(np.stack([np.full(18, 10.0), np.linspace(4, 27, 18)], 1), np.ones(18, bool), (30, 20))
    names = {"train": ("0002_c1s1_000451_03", "0002_c2s1_000301_01", "0007_c1s6_028546_01", "0007_c3s3_077419_03"),
             "test": ("0001_c1s1_001051_00", "0001_c2s1_000976_01", "0000_c1s1_000151_01", "-1_c1s1_000401_03")}
    for split, stems in names.items():
        for seed, stem in enumerate(stems):
            jpeg(root / f"bounding_box_{split}" / f"{stem}.jpg", seed)
            (root / f"bounding_box_{split}" / f"{stem}.json").write_text(json.dumps(to_pose_keypoint(standing)))
    pattern = r"bounding_box_(?P<split>train|test)/(?P<person>(?!0000)\d{4})_.*"
    code, out, err = prepared(capsys, "folder", "--root", root, "--out", tmp_path / "out", "--pattern", pattern)
    assert code == 0 and "6 of 8 pictures fit" in out and "train: 2 people, 4 photos, 4 pairs" in out, err
    assert {name for pair in DeepFashion(tmp_path / "out", "test").pairs for name in pair} == {
        "0001__0001_c1s1_001051_00.jpg", "0001__0001_c2s1_000976_01.jpg"}
    for wrong, message in ((r"(?P<person>\d)(", "is not a regular expression"), (r"\d+", "has no group `person`"),
                           (r"(?P<person>x+)", "fits none of 8 pictures")):
        code, _, err = prepared(capsys, "folder", "--root", root, "--out", tmp_path / "no", "--pattern", wrong)
        assert code == 2 and message in err


def test_a_table_says_who_is_on_a_photo_and_which_pose_is_whose(tmp_path, capsys):
    """As one would list DeepFashion2, with hands."""
    frame = {"canvas_width": 20, "canvas_height": 30, "people": [{
        "pose_keypoints_2d": [value for joint in range(18) for value in (10.0, 4 + 1.3 * joint, 1.0)],
        "hand_left_keypoints_2d": [value for point in range(21) for value in (15.0, 8.0 + point / 2, 1.0)]}]}
    rows = ["person,picture,pose"]
    for number in range(4):
        jpeg(tmp_path / "image" / f"00000{number}.jpg", number)
        (tmp_path / "poses").mkdir(exist_ok=True)
        (tmp_path / "poses" / f"{number}.json").write_text(json.dumps(frame))
        rows.append(f"shop/{number // 2},image/00000{number}.jpg,poses/{number}.json")
    (tmp_path / "list.csv").write_text("\n".join(rows))
    options = ("folder", "--root", tmp_path, "--csv", tmp_path / "list.csv", "--hands")
    code, _, err = prepared(capsys, *options, "--out", tmp_path.parent / f"{tmp_path.name}-out")
    assert code == 0, err
    train = DeepFashion(tmp_path.parent / f"{tmp_path.name}-out", "train")
    [name, _] = train.pairs[0]
    points = np.load(train.folder.with_name("train_wholebody") / f"{name[:-4]}.npy")
    assert name.startswith("shop_") and points[91:112, 2].all() and np.allclose(points[95, :2], (15, 10))
    assert not points[112:, 2].any() and points[9, 2]
    (tmp_path / "list.csv").write_text("\n".join(rows + ["shop/0,image/lost.jpg,"]))
    code, _, err = prepared(capsys, *options, "--out", tmp_path / "other")
    assert code == 2 and "names 1 files that are not there" in err
