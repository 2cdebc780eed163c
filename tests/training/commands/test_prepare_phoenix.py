"""Sign language, from the published layout to figures: prepared, both stages of FPDM trained, measured by sequence."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pgpis_models.checkpoint import load_checkpoint
from pgpis_models.fpdm.whole_drawing import draw_whole
from tests.helpers.documented import block, here, settings
from tests.helpers.documented import run as command
from tests.helpers.fpdm_tiny import FUSION, MODEL, train_config
from tests.helpers.tiny import SIZES, write_diffusers, write_vae
from training.data.deepfashion import DeepFashion
from training.data.fpdm_pairs import Pairs
from training.data.phoenix import Sequence, drawn_pairs, first_to_rest, read_sequences
from training.data.whole_points import from_rows
from training.prepare import main as prepare
from training.tasks.fpdm import FPDMTask
from training.tasks.fpdm_fusion import FusionTask
from training.world.signing import FRAMES, TABLES, write_split

SIZE, COUNT = (65, 52), 4
TINY = {"images": 8, "batch": 4, "precision": "no", "data": {"workers": 0}}   # of a training config


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """The published layout, a level above its own folder as the archive has it; three signers who sign two videos in all."""
    root = tmp_path_factory.mktemp("phoenix") / "PHOENIX-2014-T-release-v3"
    for split, first, videos in (("train", 0, 3), ("test", 3, 2)):
        write_split(root / "PHOENIX-2014-T", split, first, videos, COUNT, SIZE)
    table = root / "PHOENIX-2014-T" / TABLES.format("train")
    table.write_text(table.read_text().replace("gezeichnet", 'und "nun" das wetter'))   # quotes mean nothing there
    return root


@pytest.fixture(scope="module")
def data(release, tmp_path_factory):
    out = tmp_path_factory.mktemp("signs")
    points = release / "PHOENIX-2014-T" / "points"
    options = ["phoenix", "--root", release, "--points", points, "--out", out, "--pairs", 3, "--test-frames", 2]
    prepare([str(option) for option in options])
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.png")}
    prepare([str(option) for option in options])
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*.png")}
    return out


def test_frames_poses_and_pairs_are_those_of_the_release(release, data):
    home = release / "PHOENIX-2014-T"
    train, test = (DeepFashion(data, split) for split in ("train", "test"))
    assert len(train.pairs) == 9 and len(test.pairs) == 4
    for source, target in train.pairs + test.pairs:
        assert source != target and source.partition("__")[0] == target.partition("__")[0]
    assert {source.rpartition("__")[2] for source, _ in test.pairs} == {"images0001.png"}
    name = test.pairs[0][1]
    sequence, _, frame = name.partition("__")
    assert (data / "test_highres" / name).read_bytes() == (home / FRAMES / "test" / sequence / frame).read_bytes()
    rows = np.load(home / "points" / "test" / f"{sequence}.npy")[int(frame[6:10]) - 1]
    pictures = Pairs(train_config(data, files_of_none(), "fpdm_fusion", data={"kind": "deepfashion", "root": str(data)}))
    assert np.array_equal(pictures.pair(test, 0).pose.xy, test.poses[name].xy)   # 18 joints unless the method draws more
    pictures.whole = True
    pair = pictures.pair(test, 0)
    inside = rows[:, 2] > 0
    assert np.array_equal(pair.pose.seen, inside) and 60 < inside.sum() < 133   # no feet
    assert np.allclose(pair.pose.points[inside], rows[inside, :2], atol=1e-4)
    assert np.allclose(pair.pose.scaled_to((256, 176)).xy, test.poses[name].xy, atol=0.02)
    assert not np.allclose(pair.pose.points[inside], pair.source_pose.points[inside], atol=0.05)


def files_of_none():
    from pathlib import Path

    from tests.helpers.tiny import Files
    return Files(*(Path(),) * 3)


def test_pairs_are_the_same_at_every_run_and_all_frames_can_be_targets():
    sequence = Sequence("a", "Signer01", tuple(range(5)))
    pairs = drawn_pairs(sequence, 100)
    assert sorted(pairs) == [(a, b) for a in range(5) for b in range(5) if a != b]
    assert drawn_pairs(sequence, 7) == drawn_pairs(sequence, 7) != drawn_pairs(Sequence("b", "", tuple(range(5))), 7)
    assert first_to_rest(sequence, 0) == [(0, 1), (0, 2), (0, 3), (0, 4)] and first_to_rest(sequence, 2) == [(0, 1), (0, 4)]


@pytest.mark.usefixtures("small_grids")
def test_drawn_people_sign_and_are_trained_on_by_the_pages_commands(files, tmp_path, monkeypatch, capsys):
    draw, prepare_all, first, second, make, score = block("papers.md", "training/world/signing.py --out")
    here(tmp_path, monkeypatch)
    command(draw, "--sequences", 1, 1, "--frames", 2)
    folder = tmp_path / "output" / "data" / "signing"
    [sequence] = read_sequences(folder, "test")
    assert len(sequence.frames) == 2 and sequence.speaker == "Signer01"
    assert Image.open(sequence.frames[0]).size == (210, 260)
    trained, tested = (np.load(folder / "points" / split / f"drawn_{split}_0000.npy") for split in ("train", "test"))
    assert trained.shape == (2, 133, 3) and not np.allclose(trained, tested)   # other signs
    hands = trained[0, 91:]
    assert np.ptp(hands[:21, 0]) > 4 and np.ptp(hands[21:, 0]) > 4   # pixels
    with pytest.raises(SystemExit):
        command(draw, "--frames", 0)
    assert "expected 1 or more" in capsys.readouterr().err
    command(prepare_all)
    model = FUSION | {"points": 133}
    command(first, *settings(**TINY, method={"model": model}))
    tiny = {"model": MODEL | {"fusion": model, "pose_canvas": [256, 192]}, "base": str(files.base), "vae": str(files.vae),
            "backbone": ""}
    made = command(second, *settings(**TINY | {"data": {"workers": 0, "size": [64, 64]}}, method=tiny))
    assert made.samefile("output/train/demo_fpdm_signs/demo_fpdm_signs.safetensors")
    assert load_checkpoint(made).method.config.whole
    command(make, "--steps", 1, "--base", files.base, "--vae", files.vae)
    command(score)
    assert json.loads(Path("output/signs.json").read_text())["by_sequence"]


def test_what_is_no_release_is_named(release, tmp_path, capsys):
    with pytest.raises(FileNotFoundError, match="has no features/fullFrame-210x260px; expected the unpacked release"):
        read_sequences(tmp_path, "train")
    with pytest.raises(FileNotFoundError, match="PHOENIX-2014-T.dev.corpus.csv is not there"):
        read_sequences(release, "dev")
    home = tmp_path / "PHOENIX-2014-T"
    (home / FRAMES / "train").mkdir(parents=True)
    (home / TABLES.format("train")).parent.mkdir(parents=True)
    (home / TABLES.format("train")).write_text("name|speaker\nlost|Signer01\n")
    with pytest.raises(FileNotFoundError, match="1 of 1 sequences .* have no frames .*: lost"):
        read_sequences(tmp_path, "train")
    (home / TABLES.format("train")).write_text("name,speaker\nlost,Signer01\n")
    with pytest.raises(ValueError, match="expected name|video"):
        read_sequences(tmp_path, "train")
    with pytest.raises(SystemExit):
        prepare(["phoenix", "--root", str(release), "--out", str(tmp_path / "out"), "--points", str(tmp_path)])
    assert "expected the points of each sequence, or --detect" in capsys.readouterr().err


def test_a_frame_without_a_person_is_left_out_with_its_pairs(release, tmp_path, capsys):
    from training.prepare_phoenix import prepare_phoenix
    nobody, size = np.zeros((133, 2)), (65, 52)
    drawn = np.random.default_rng(0).uniform(5, 50, (133, 2))

    def find(sequence, split, number):
        return None if number == 2 else from_rows(nobody if split == "test" and number == 3 else drawn, size)
    prepare_phoenix(release, tmp_path, find, pairs=100, test_frames=0)
    names = {name.rpartition("__")[2] for split in ("train", "test") for pair in DeepFashion(tmp_path, split).pairs
             for name in pair}
    assert names == {"images0001.png", "images0002.png", "images0004.png"} and len(DeepFashion(tmp_path, "test").pairs) == 2
    assert "left out 3 frames of train" in capsys.readouterr().out


@pytest.mark.usefixtures("small_grids")
def test_the_pages_commands_lead_from_the_release_to_figures_by_sequence(release, files, tmp_path, monkeypatch, capsys):
    """As they stand there, with tiny models; and hands reach both stages."""
    prepare_all, first, second, split, measured = block("papers.md", "prepare.py phoenix --root PHOENIX")
    here(tmp_path, monkeypatch)
    (tmp_path / "PHOENIX-2014-T-release-v3").symlink_to(release)
    write_vae(write_diffusers(tmp_path / "models" / "sd21", SIZES))
    command(prepare_all, "--points", release / "PHOENIX-2014-T" / "points", "--pairs", 3, "--test-frames", 2)
    data, model = tmp_path / "data" / "phoenix", FUSION | {"points": 133}
    tiny = {"preset": "demo", "model": model}
    one = command(first, *settings(**TINY, method=tiny, fpdm={"clip": ""}))
    assert load_checkpoint(one).method.config.whole
    own = {"dinov2": "", "freeze_source": False}
    tiny["model"] = MODEL | {"fusion": model, "pose_canvas": [260, 210]}
    small = TINY | {"data": {"workers": 0, "size": [64, 64]}}
    made = command(second, *settings(**small, method=tiny, fpdm=own))
    loaded = load_checkpoint(made)
    assert loaded.method.config.whole and loaded.meta.step == 8 and made.samefile("models/fpdm_phoenix.safetensors")
    kind, own = {"kind": "deepfashion", "root": str(data)}, {"fusion": str(one), "freeze_source": False}
    config = train_config(tmp_path, files, "fpdm", data=kind, fpdm=own, method={"model": MODEL | {"fusion": model}})
    task = FPDMTask(config, torch.device("cpu"))
    batch = task.batch(np.random.default_rng(0), 2)
    pairs = [task.pictures.pair(task.pictures.train, n) for n in range(9)]
    drawn = [draw_whole(pair.pose, (128, 128)) for pair in pairs]
    lit = np.mean([picture.any(2).mean() for picture in drawn])   # noise and scale leave about as much
    assert abs((batch["pose"] > 30).any(1).float().mean() / lit - 1) < 0.25
    with pytest.raises(ValueError, match="was trained on poses of 133 points, this run draws 18"):
        FPDMTask(train_config(tmp_path, files, "fpdm", data=kind, fpdm=own), torch.device("cpu"))
    with pytest.raises(ValueError, match="the method draws 133 points, but data.kind=mannequins at no root has 18"):
        FusionTask(train_config(tmp_path, files, "fpdm_fusion", method={"model": model}), torch.device("cpu"))
    command(split, "--steps", 2)
    command(measured, "--json", "a.json", "--csv", "a.csv")
    found = json.loads((tmp_path / "a.json").read_text())["by_sequence"]
    values = {}
    for row in csv.DictReader((tmp_path / "a.csv").open()):
        values.setdefault(row["target"].split("_to_")[1].split("__")[0], []).append(float(row["psnr"]))
    assert len(values) == found["sequences"] == found["counted"]["psnr"] == 2
    assert found["psnr"] == pytest.approx(np.mean([np.mean(one) for one in values.values()]))
    assert "Of each sequence first, then over 2 sequences" in capsys.readouterr().out
    Image.new("RGB", (60, 60)).save(tmp_path / "lone.png")
    with pytest.raises(SystemExit):
        command(measured, "--generated", tmp_path, "--targets", tmp_path)
    assert "lone.png does not say its sequence" in capsys.readouterr().err
