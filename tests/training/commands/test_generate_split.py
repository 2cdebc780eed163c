"""A whole split: the pictures that the generator makes pair by pair, made once, resumed, and ready to be measured."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from pgpis_models.checkpoint import save_checkpoint
from pgpis_models.mcld.model import MCLD
from pgpis_models.pipeline import Generator
from pgpis_models.poses.formats import parse_cfld_annotation
from tests.helpers.tiny import shaken
from tests.pgpis_models.mcld.test_mcld_demo import SIZES, densepose
from training.evaluation.pairing import pairs as measured_pairs
from training.generate_split import Split, main

NAMES = ("anna_1front.jpg", "anna_2side.jpg", "berta_1front.jpg")
PAIRS = ((0, 1), (1, 0), (2, 0))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Photos of three names, with poses and three pairs, in the layout of the test split."""
    root, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    (root / "test_highres").mkdir()
    rows = ["name:keypoints_y:keypoints_x"]
    for name in NAMES:
        Image.fromarray(rng.integers(0, 256, (64, 44, 3), dtype=np.uint8)).save(root / "test_highres" / name, quality=95)
        rows.append(f"{name}: {rng.integers(10, 250, 18).tolist()}: {rng.integers(10, 170, 18).tolist()}")
    (root / "fasion-resize-annotation-test.csv").write_text("\n".join(rows) + "\n")
    lines = "".join(f"{NAMES[a]},{NAMES[b]}\n" for a, b in PAIRS)
    (root / "fasion-resize-pairs-test.csv").write_text("from,to\n" + lines)
    return root


def command(files, data, out, *more):
    main(["--checkpoint", str(files.cfld), "--base", str(files.base), "--vae", str(files.vae), "--root", str(data), "--out",
          str(out), "--steps", "2", "--device", "cpu", *more])


def opened(path):
    return np.asarray(Image.open(path)).astype(int)


def test_every_pair_is_made_as_if_alone_and_lies_beside_its_target(files, data, tmp_path, capsys):
    command(files, data, tmp_path / "out", "--seed", "4", "--batch", "2")
    assert "3 pictures made, 0 were there" in capsys.readouterr().out
    generator = Generator(files.cfld, files.base, files.vae)
    rows = dict(row.split(":", 1) for row in (data / "fasion-resize-annotation-test.csv").read_text().splitlines()[1:])
    found = measured_pairs(tmp_path / "out" / "generated", tmp_path / "out" / "targets", tmp_path / "out" / "sources")
    assert len(found) == 3
    for number, (a, b) in enumerate(PAIRS):
        stem = f"{NAMES[a][:-4]}_to_{NAMES[b][:-4]}"
        source = generator.prepare(np.asarray(Image.open(data / "test_highres" / NAMES[a])))
        [made] = generator(source, [parse_cfld_annotation(rows[NAMES[b]])], steps=2, seed=4, first=number)
        expected = (made.permute(1, 2, 0).numpy() * 255).round().astype(int)
        assert np.abs(opened(tmp_path / "out" / "generated" / f"{stem}.png") - expected).max() <= 1
        for kind, name in (("sources", NAMES[a]), ("targets", NAMES[b])):
            assert (tmp_path / "out" / kind / f"{stem}.jpg").read_bytes() == (data / "test_highres" / name).read_bytes()


def test_it_goes_on_where_it_stopped_with_the_same_noise(files, data, tmp_path, capsys):
    out = tmp_path / "out"
    command(files, data, out)
    pictures = {path: opened(path) for path in sorted((out / "generated").iterdir())}
    first, second, _ = pictures
    second.unlink()
    stamp = first.stat().st_mtime_ns
    capsys.readouterr()
    command(files, data, out)
    assert "1 pictures made, 2 were there" in capsys.readouterr().out
    assert first.stat().st_mtime_ns == stamp and np.abs(opened(second) - pictures[second]).max() <= 1


def test_other_settings_and_missing_files_are_refused(files, data, tmp_path, capsys):
    out = tmp_path / "out"
    command(files, data, out)
    settings = json.loads((out / "settings.json").read_text())
    assert settings["steps"] == 2 and settings["seed"] == 0
    for more, message in ((("--seed", "1"), "made with other settings: seed was 0. Choose another --out"),
                          (("--batch", "0"), "--batch is 0; expected 1 or more"),
                          (("--split", "train"), "expected one of CFLD's files")):
        with pytest.raises(SystemExit):
            command(files, data, out, *more)
        assert message in capsys.readouterr().err
    lacking = tmp_path / "data"
    (lacking / "test_highres").mkdir(parents=True)
    for path in data.glob("*.csv"):
        (lacking / path.name).write_bytes(path.read_bytes())
    with pytest.raises(SystemExit):
        command(files, lacking, tmp_path / "other")
    assert "3 files or annotation rows are missing" in capsys.readouterr().err and not (tmp_path / "other").exists()


def test_mcld_reads_the_conditions_beside_the_photos(files, tmp_path):
    torch.manual_seed(0)
    method = shaken(MCLD(SIZES))
    weights = {name: 0.1 * torch.randn(shape) for name, shape in method.unet_weight_shapes().items()}
    save_checkpoint(tmp_path / "mcld.safetensors", method, weights, base="demo", step=0, data="none", licence="test")
    root, rng, photos = tmp_path / "data", np.random.default_rng(1), []
    for kind in ("highres", "densepose"):
        (root / f"test_{kind}").mkdir(parents=True)
    for number in range(2):
        photos.append(rng.integers(1, 256, (128, 64, 3), dtype=np.uint8))
        Image.fromarray(photos[-1]).save(root / "test_highres" / f"p{number}.png")
        Image.fromarray(densepose(number).to_picture("v,u,part")).save(root / "test_densepose" / f"p{number}.png")
    (root / "fasion-resize-pairs-test.csv").write_text("from,to\np0.png,p1.png\np1.png,p0.png\np0.png,p0.png\n")
    command(files._replace(cfld=tmp_path / "mcld.safetensors"), root, tmp_path / "out")
    generator = Generator(tmp_path / "mcld.safetensors", files.base, files.vae)
    for number, (source, target) in enumerate(((0, 1), (1, 0), (0, 0))):
        [made] = generator(generator.prepare(photos[source]), [None], steps=2, first=number,
                           densepose=[densepose(target)], source_densepose=[densepose(source)])
        expected = (made.permute(1, 2, 0).numpy() * 255).round().astype(int)
        assert np.abs(opened(tmp_path / "out" / "generated" / f"p{source}_to_p{target}.png") - expected).max() <= 1
    usual, alone = (Split(root, "test", generator, without_photo=off).read([0]) for off in (False, True))
    mean = np.array([122.7709383, 116.7460125, 104.0937362]) / 127.5 - 1   # CLIP's, of 255
    assert np.abs(alone["sources"].numpy() - mean[None, :, None, None]).max() < 1e-6
    assert alone["sources"].shape == usual["sources"].shape and usual["sources"].std() > 0.3
    assert np.array_equal(alone["person"]["textures"], usual["person"]["textures"])
    (root / "test_nobody.txt").write_text("p0.png\n")
    (root / "fasion-resize-pairs-test.csv").write_text("from,to\np0.png,p1.png\np1.png,p1.png\n")
    command(files._replace(cfld=tmp_path / "mcld.safetensors"), root, tmp_path / "some")
    lost = tmp_path / "some" / "lost"
    assert [path.name for path in (tmp_path / "some" / "generated").iterdir()] == ["p1_to_p1.png"]
    assert (lost / "pairs.csv").read_text() == "from,to\np0.png,p1.png\n"
    assert np.array_equal(opened(lost / "generated" / "p0_to_p1.png"), photos[0])
    assert np.array_equal(opened(lost / "targets" / "p0_to_p1.png"), photos[1])
