"""Poses that cannot be of their photo, photos that cannot be decoded, and preparation that is killed and run again."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pgpis_models.poses.formats import from_pose_keypoint, to_pose_keypoint
from pgpis_models.poses.full_lists import with_full_lists
from pgpis_models.poses.keypoints import Keypoints
from tests.helpers.photos import figure
from tests.helpers.preparing import prepared as run
from training.data.deepfashion import DeepFashion, left_out
from training.data.fitting import misfit, same_aspect
from training.data.remembered import RememberedPoses

ROOT = Path(__file__).resolve().parents[3]
SAMPLES = ROOT.parent / "shared" / "samples" / "deepfashion"


@pytest.fixture(scope="module")
def people():
    """Photos of mannequins with their true poses: (picture (256, 176, 3), pose)."""
    drawn = [figure(seed, (256, 176)) for seed in range(4)]
    return [(one.image, Keypoints(one.keypoints, one.detected, (256, 176))) for one in drawn]


def row(name: str, pose: Keypoints) -> str:
    xy = np.where(pose.present[:, None], pose.xy, -1)
    return f"{name}: {xy[:, 1].tolist()}: {xy[:, 0].tolist()}\n"


@pytest.fixture
def album(tmp_path, people):
    root = tmp_path / "album"
    for number, (picture, pose) in enumerate(people):
        for person in ("anna", "ben"):
            (root / person).mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).resize((352, 512)).save(root / person / f"{number}.jpg")
            (root / person / f"{number}.json").write_text(json.dumps(to_pose_keypoint(pose)))   # a copy of half the size
    return root


def openpose(pose: Keypoints, key: str = "pose_keypoints_2d") -> str:
    """As OpenPose writes it: in pixels, without the canvas."""
    flat = np.concatenate([pose.xy, pose.present[:, None]], 1).ravel().tolist()
    return json.dumps({"version": 1.3, "people": [{key: flat}]})


# What is written beside a photo of 512x352 -> what is said of it.
WRONG = {
    "six times larger": (lambda pose: openpose(pose.scaled_to((6 * 512, 6 * 352))), "the pose is of a larger picture"),
    "twice as large": (lambda pose: openpose(pose.scaled_to((1024, 704))), "the pose is of a larger picture"),
    "a thumbnail's": (lambda pose: openpose(pose.scaled_to((32, 22))), "the pose is of a smaller picture"),
    "padded to a square": (lambda pose: json.dumps(to_pose_keypoint(Keypoints(pose.xy + (40, 0), pose.present, (256, 256)))),
                           "is on a canvas of 256x256, the photo has 352x512 pixels"),
    "without joints": (lambda pose: json.dumps([{"people": [{"pose_keypoints_2d": [0] * 54}], "canvas_width": 176,
                                                 "canvas_height": 256}]), "No person in 1.json"),
    "of unknown names": (lambda pose: openpose(pose, "keypoints25"), "has 'keypoints25', which are not known"),
    "canvas of another picture": (lambda pose: json.dumps(to_pose_keypoint(pose)[0] | {"canvas_width": 640,
                                                                                       "canvas_height": 480}),
                                  "which is another aspect"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_poses_that_cannot_be_of_their_photo_are_named_and_left_out_when_asked(kind, album, tmp_path, capsys, people):
    write, said = WRONG[kind]
    (album / "anna" / "1.json").write_text(write(people[1][1]))
    code, _, err = run(capsys, "folder", "--root", album, "--out", tmp_path / "out")
    assert code == 2 and "1 of 8 photos cannot be used: anna/1.jpg" in err and said in err
    assert not (tmp_path / "out").exists()
    code, out, _ = run(capsys, "folder", "--root", album, "--out", tmp_path / "out", "--skip")
    assert code == 0 and "left out 1 of 8 photos: anna/1.jpg" in out


@pytest.mark.parametrize("write", [
    lambda pose: openpose(pose.scaled_to((512, 352))), lambda pose: openpose(pose.scaled_to((512, 352)), "pose_keypoints"),
    lambda pose: json.dumps(to_pose_keypoint(pose.scaled_to((3072, 2112)))),
    lambda pose: json.dumps(to_pose_keypoint(pose.scaled_to((768, 512)))),   # sides rounded to 64
    lambda pose: openpose(Keypoints(pose.xy / (176, 256), pose.present, (256, 176)))], ids=[
        "OpenPose", "OpenPose 1.0", "six times, with its canvas", "rounded", "shares"])
def test_poses_at_any_scale_that_is_known_are_taken(write, album, tmp_path, capsys, people):
    (album / "anna" / "1.json").write_text(write(people[1][1]))
    code, out, err = run(capsys, "folder", "--root", album, "--out", tmp_path / "out")
    assert code == 0, err
    sheet = tmp_path / "out" / "skeletons.png"
    assert str(sheet) in out and Image.open(sheet).size == (6 * 220, 2 * (320 + 14))
    data = {name: pose for split in ("train", "test") for name, pose in DeepFashion(tmp_path / "out", split).poses.items()}
    pose, true = data["anna__1.jpg"], people[1][1]
    assert np.abs(pose.xy - true.xy)[true.present].max() < 0.05


def test_every_sample_of_the_real_download_fits():
    if not SAMPLES.is_dir():
        pytest.skip("no photos of DeepFashion here")
    files = sorted((SAMPLES / "pose").rglob("*.txt"))
    for path in files:
        xy = np.loadtxt(path)
        pose = Keypoints(xy - (40, 0), (xy != -1).all(1), (256, 176))
        with Image.open(SAMPLES / "img" / path.relative_to(SAMPLES / "pose").with_suffix(".jpg")) as photo:
            assert misfit(pose, photo.size[::-1]) == "", path
            assert misfit(pose.scaled_to((1101, 750)), photo.size[::-1]) == ""
            larger = Keypoints(pose.scaled_to((1101, 750)).xy, pose.present, (256, 176))
            assert "larger picture" in misfit(larger, photo.size[::-1])
    assert len(files) == 14


def test_aspects_agree_at_any_scale():
    rng = np.random.default_rng(0)
    for _ in range(500):
        height, width = rng.integers(64, 4000, 2)
        scale = rng.uniform(64, 2000) / min(height, width)
        assert same_aspect((max(1, round(height * scale)), max(1, round(width * scale))), (height, width))
        stepped = max(64, round(height * scale / 64) * 64), max(64, round(width * scale / 64) * 64)
        assert same_aspect(stepped, (height, width))
        assert not same_aspect((1000, round(1300 * width / height)), (height, width)) or width / height > 20


def test_the_body_of_openpose_1_0_reaches_every_reader(people):
    pose = people[0][1]
    frame = json.loads(openpose(pose, "pose_keypoints")) | {"canvas_width": 176, "canvas_height": 256}
    for frames in ([frame], with_full_lists([frame])):
        assert np.allclose(from_pose_keypoint(frames)[0].xy, pose.xy)
    with pytest.raises(ValueError, match="'keypoints', 'score', which are not known"):
        from_pose_keypoint([frame | {"people": [{"keypoints": [], "score": 1}]}])


# --- DeepFashion --------------------------------------------------------------------------------------------

@pytest.fixture
def download(tmp_path, people):
    """Two photos per split in img_highres, 550x374 pixels, with their rows."""
    root, at = tmp_path / "fashion", 0
    for split in ("train", "test"):
        names = [f"fashionWOMENDressesid0000000{at + n}0{n}_1front.jpg" for n in range(2)]
        for n in range(2):
            path = root / "img_highres" / f"WOMEN/Dresses/id_0000000{at + n}/0{n}_1_front.jpg"
            path.parent.mkdir(parents=True)
            Image.fromarray(people[at + n][0]).resize((374, 550)).save(path)
        (root / f"fasion-resize-pairs-{split}.csv").write_text(f"from,to\n{names[0]},{names[1]}\n{names[1]},{names[1]}\n")
        (root / f"fasion-resize-annotation-{split}.csv").write_text(
            "name:keypoints_y:keypoints_x\n" + "".join(row(name, people[at + n][1]) for n, name in enumerate(names)))
        at += 2
    return root


def changed_row(root: Path, number: int, change) -> None:
    path = root / "fasion-resize-annotation-train.csv"
    lines = path.read_text().splitlines(keepends=True)
    name, ys, xs = lines[1 + number].split(":")
    xy = np.stack([json.loads(xs), json.loads(ys)], 1)
    new = change(xy)
    lines[1 + number] = f"{name}: {new[:, 1].tolist()}: {new[:, 0].tolist()}\n"
    path.write_text("".join(lines))


@pytest.mark.parametrize("change, said", [
    (lambda xy: np.full((18, 2), -1), "no joint is known"),
    (lambda xy: np.where(xy == -1, -1, xy * 4.3), "larger picture"),
    (lambda xy: np.where(xy == -1, -1, xy / 12), "smaller picture")])
def test_rows_that_do_not_fit_are_refused_or_their_pairs_left_out(change, said, download, capsys):
    changed_row(download, 0, change)
    code, _, err = run(capsys, "deepfashion", "--root", download)
    assert code == 2
    assert "1 of 4 photos have annotations that do not fit: train_highres/fashionWOMENDressesid0000000000_1" in err
    assert said in err and not (download / "train_highres").exists()
    code, out, _ = run(capsys, "deepfashion", "--root", download, "--skip")
    assert code == 0 and "train: 1 of 2 pairs are not used" in out and "skeletons.png" in out
    assert len(DeepFashion(download, "train")) == 1 and len(left_out(download, "train")) == 1


def test_photos_padded_to_a_square_are_refused(download, capsys):
    for path in (download / "img_highres").rglob("*.jpg"):
        with Image.open(path) as photo:
            square = Image.new("RGB", (550, 550), "white")
            square.paste(photo, (88, 0))
        square.save(path)
    code, _, err = run(capsys, "deepfashion", "--root", download, "--skip")
    assert code == 2 and "4 of 4 photos" in err and "the photo has 550x550 pixels, which is another aspect" in err


def test_photos_cut_off_are_named_and_the_rest_is_in_place(download, capsys):
    path = next((download / "img_highres").rglob("*00/00_1_front.jpg"))
    whole = path.read_bytes()
    path.write_bytes(whole[:len(whole) // 2])
    code, _, err = run(capsys, "deepfashion", "--root", download)
    assert code == 2 and "1 of 4 photos cannot be decoded: train_highres/fashionWOMENDressesid0000000000_1front.jpg" in err
    code, out, _ = run(capsys, "deepfashion", "--root", download, "--skip")
    assert code == 0 and "0 photos placed, 3 were there" in out and len(DeepFashion(download, "train")) == 1
    path.write_bytes(whole)   # got anew
    code, out, _ = run(capsys, "deepfashion", "--root", download)
    assert code == 0 and len(DeepFashion(download, "train")) == 2 and not left_out(download, "train")


def test_photos_in_several_folders_are_refused_where_nothing_tells_them_apart(download, capsys):
    (download / "img_highres").rename(download / "photos")
    for path in list((download / "photos").rglob("*.jpg"))[:1]:
        other = download / "skeletons" / path.relative_to(download / "photos")
        other.parent.mkdir(parents=True)
        Image.new("RGB", (750, 1101)).save(other)
    code, _, err = run(capsys, "deepfashion", "--root", download)
    assert code == 2 and "1 photos stand in several folders" in err and "skeletons" in err and "--photos" in err
    code, _, err = run(capsys, "deepfashion", "--root", download, "--photos", download / "photos")
    assert code == 0, err


# --- again --------------------------------------------------------------------------------------------------

def content(folder: Path) -> dict:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


KILLED = """
import os, random, shutil, signal, sys, time
from training.prepare import main
lasts, out, moments, kills = float(sys.argv[1]), sys.argv[-1], random.Random(0), 0
while kills < 10:
    child = os.fork()   # after the imports, so that the kills fall into the work
    if not child:
        sys.stdout = sys.stderr = open(os.devnull, "w")
        main(sys.argv[2:])
        os._exit(0)
    time.sleep(lasts * moments.random())
    os.kill(child, signal.SIGKILL)
    if os.waitpid(child, 0)[1] == signal.SIGKILL:
        kills += 1
    else:   # it had ended: from the start again
        shutil.rmtree(out)
print(kills, "kills")
"""


def test_killed_ten_times_at_random_moments_and_run_again_it_ends_with_the_same_bytes(album, tmp_path, capsys):
    Image.fromarray(np.full((512, 352, 4), 200, np.uint8)).save(album / "anna" / "4.png")   # one that is written anew
    (album / "anna" / "4.json").write_text((album / "anna" / "1.json").read_text())
    began = time.monotonic()
    assert run(capsys, "folder", "--root", album, "--out", tmp_path / "once")[0] == 0
    lasts = time.monotonic() - began
    done = subprocess.run([sys.executable, "-c", KILLED, str(lasts), "folder", "--root", str(album), "--out",
                           str(tmp_path / "often")], cwd=ROOT, text=True, capture_output=True, check=True, timeout=300)
    assert "10 kills" in done.stdout
    part = tmp_path / "often" / "train_highres" / "anna__4.png.0a1b2c3d.part"
    part.parent.mkdir(parents=True, exist_ok=True)
    part.write_bytes(b"half")   # as a kill at the worst moment leaves it
    code, _, err = run(capsys, "folder", "--root", album, "--out", tmp_path / "often")
    assert code == 0, err
    assert content(tmp_path / "often") == content(tmp_path / "once")


def test_what_a_detector_found_is_kept(album, tmp_path):
    calls = []

    def detect(picture):
        calls.append(picture.shape)
        return Keypoints(np.full((18, 2), 7.5), np.arange(18) != 3, picture.shape[:2])
    photo = album / "anna" / "0.jpg"
    picture = np.zeros((512, 352, 3), np.uint8)

    def remembered(name="rtmlib"):
        return RememberedPoses(tmp_path / "out" / "detected", album, detect, name)(photo, picture)
    first, second = remembered(), remembered()
    assert len(calls) == 1 and np.array_equal(first.xy, second.xy) and second.canvas == (512, 352)
    assert np.array_equal(first.present, second.present)
    remembered("controlnet-aux")
    assert len(calls) == 2
    os.utime(photo, (1, 1))
    remembered("controlnet-aux")
    assert len(calls) == 3
    next((tmp_path / "out").rglob("*.json")).write_text("{")   # cut
    remembered("controlnet-aux")
    assert len(calls) == 4


def test_a_photo_of_a_folder_that_is_cut_off_is_named_and_left_out_when_asked(album, tmp_path, capsys):
    path = album / "ben" / "2.jpg"
    path.write_bytes(path.read_bytes()[:-2000])
    code, _, err = run(capsys, "folder", "--root", album, "--out", tmp_path / "out")
    assert code == 2 and "1 of 8 photos cannot be used: ben/2.jpg" in err and "cannot be read as a picture" in err
    code, out, _ = run(capsys, "folder", "--root", album, "--out", tmp_path / "out", "--skip")
    assert code == 0 and "left out 1 of 8 photos: ben/2.jpg" in out and not list((tmp_path / "out").rglob("ben__2*"))
