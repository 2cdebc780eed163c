"""Preparing DeepFashion: the layout that training reads, made whole, and made again without harm."""

from pathlib import Path

import pytest

from tests.helpers.preparing import jpeg, prepared
from training.data.deepfashion import DeepFashion
from training.data.placing import place
from training.prepare import find_photos, names_of

# photos of the download by split, and their flat names as CFLD's tool makes them
TREE = {
    "train": {"WOMEN/Blouses_Shirts/id_00001530/02_7_additional.jpg":
              "fashionWOMENBlouses_Shirtsid0000153002_7additional.jpg",
              "WOMEN/Blouses_Shirts/id_00001530/02_1_front.jpg": "fashionWOMENBlouses_Shirtsid0000153002_1front.jpg",
              "MEN/Tees_Tanks/id_00004047/01_1_front.jpg": "fashionMENTees_Tanksid0000404701_1front.jpg"},
    "test": {"WOMEN/Dresses/id_00007132/04_4_full.jpg": "fashionWOMENDressesid0000713204_4full.jpg",
             "WOMEN/Dresses/id_00007132/04_3_back.jpg": "fashionWOMENDressesid0000713204_3back.jpg"},
}
POSE = [10 * joint for joint in range(18)]


@pytest.fixture
def download(tmp_path):
    """The folder as a user has it: photos below img_highres, csv and lst files beside."""
    root = tmp_path / "fashion"
    for number, path in enumerate(path for paths in TREE.values() for path in paths):
        jpeg(root / "img_highres" / path, number)
        jpeg(root / "img" / path, number, (8, 6))   # the low resolution, which must not be taken
    for split, paths in TREE.items():
        names = list(paths.values())
        (root / f"{split}.lst").write_text("\n".join(names) + "\n")
        (root / f"fasion-resize-pairs-{split}.csv").write_text(f"from,to\n{names[0]},{names[1]}\n{names[1]},{names[0]}\n")
        rows = "".join(f"{name}: {POSE}: {POSE[::-1]}\n" for name in names)
        (root / f"fasion-resize-annotation-{split}.csv").write_text("name:keypoints_y:keypoints_x\n" + rows)
    return root


def test_the_download_becomes_the_layout_that_training_reads(download, capsys):
    code, out, _ = prepared(capsys, "deepfashion", "--root", download)
    assert code == 0 and "5 photos placed, 0 were there" in out
    assert "train: 2 pairs (the papers: 101966), 3 photos (48674)" in out and f"data.root={download}" in out
    for split, paths in TREE.items():
        folder = download / f"{split}_highres"
        assert {p.name for p in folder.iterdir()} == set(paths.values())
        for path, name in paths.items():
            assert (folder / name).read_bytes() == (download / "img_highres" / path).read_bytes()
            assert (folder / name).stat().st_ino == (download / "img_highres" / path).stat().st_ino   # no second copy
        assert len(DeepFashion(download, split)) == 2


def test_a_second_run_changes_nothing_even_when_the_originals_are_gone(download, capsys):
    prepared(capsys, "deepfashion", "--root", download)
    files = {p: p.stat().st_mtime_ns for p in download.rglob("*_highres/*.jpg")}
    assert "0 photos placed, 5 were there" in prepared(capsys, "deepfashion", "--root", download)[1]
    for path in [*(download / "img_highres").rglob("*.jpg"), *(download / "img").rglob("*.jpg")]:
        path.unlink()
    code, out, _ = prepared(capsys, "deepfashion", "--root", download)
    assert code == 0 and "0 photos placed, 5 were there" in out
    assert files == {p: p.stat().st_mtime_ns for p in download.rglob("*_highres/*.jpg")}


def test_a_photo_of_another_size_is_replaced_and_copies_serve_where_links_cannot(download, capsys, monkeypatch):
    target = download / "test_highres" / "fashionWOMENDressesid0000713204_4full.jpg"
    target.parent.mkdir()
    target.write_bytes(b"half")

    def refuse(*_):
        raise OSError("another file system")

    monkeypatch.setattr("training.data.placing.os.link", refuse)
    assert prepared(capsys, "deepfashion", "--root", download)[0] == 0
    original = download / "img_highres/WOMEN/Dresses/id_00007132/04_4_full.jpg"
    assert target.read_bytes() == original.read_bytes() and target.stat().st_ino != original.stat().st_ino


def test_nothing_half_written_is_left(tmp_path, monkeypatch):
    jpeg(tmp_path / "a.jpg", 0)

    def breaks_off(source, part):
        Path(part).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("training.data.placing.os.link", breaks_off)
    with pytest.raises(KeyboardInterrupt):
        place(tmp_path / "a.jpg", tmp_path / "to" / "b.jpg")
    assert not list((tmp_path / "to").iterdir())


def test_missing_photos_are_listed_ten_at_most_and_nothing_is_written(download, capsys):
    names = [f"fashionMENShirtsid{n:08}01_1front.jpg" for n in range(15)]
    with open(download / "train.lst", "a") as file:
        file.write("\n".join(names))
    code, _, err = prepared(capsys, "deepfashion", "--root", download)
    assert code == 2 and "15 of 20 photos are missing" in err and err.count("fashionMENShirts") == 10
    assert "unpack img_highres.zip" in err and not (download / "train_highres").exists()


def test_without_lists_the_pairs_photos_are_prepared_and_that_is_said(download, capsys):
    (download / "train.lst").unlink()
    code, out, _ = prepared(capsys, "deepfashion", "--root", download)
    assert code == 0 and "train.lst: only the photos of the pairs are prepared" in out
    assert len(list((download / "train_highres").iterdir())) == 2


@pytest.mark.parametrize("file, text, message", [
    ("fasion-resize-pairs-test.csv", "a;b\n", "is not a pairs file"),
    ("fasion-resize-annotation-test.csv", "name,y,x\n", "is not an annotation file"),
    ("fasion-resize-annotation-test.csv", "name:keypoints_y:keypoints_x\na.jpg: [1]: [2]\n", "expected 18 numbers"),
    ("fasion-resize-annotation-test.csv", "name:keypoints_y:keypoints_x\n", "has no row for 2 of the 2 photos"),
    ("fasion-resize-pairs-train.csv", None, "has neither fasion-resize-pairs-train.csv nor fashion-resize-pairs"),
])
def test_csv_files_are_checked_first(download, capsys, file, text, message):
    (download / file).unlink()
    if text is not None:
        (download / file).write_text(text)
    code, _, err = prepared(capsys, "deepfashion", "--root", download)
    assert code == 2 and message in err and not (download / "train_highres").exists()


def test_a_photo_in_both_splits_is_named_and_a_wrong_root_refused(download, capsys):
    with open(download / "test.lst", "a") as file:
        file.write(TREE["train"]["MEN/Tees_Tanks/id_00004047/01_1_front.jpg"])
    assert "warning: 1 photos are in both splits: fashionMENTees" in prepared(capsys, "deepfashion", "--root", download)[1]
    assert "is not a folder" in prepared(capsys, "deepfashion", "--root", download / "nowhere")[2]


def test_photos_are_found_at_any_depth_and_those_of_img_highres_taken(download, capsys):
    named = {name for paths in TREE.values() for name in paths.values()}
    for path in TREE["train"]:
        jpeg(download / "skeletons" / path, 3, (300, 200))   # larger, and of the same name
        jpeg(download / "img_highres" / Path(path).with_name("05_1_front.jpg"), 4)
    photos = find_photos(download, named)
    said = capsys.readouterr().out
    assert "5 photos are taken from img_highres" in said and str(download / "skeletons") in said
    assert photos.keys() == {name for paths in TREE.values() for name in paths.values()}
    assert all("img_highres" in path.parts for path in photos.values())
    assert names_of(download, "test") == sorted(TREE["test"].values())
