"""The command line: pictures on disk, and messages instead of tracebacks."""

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from pgpis_models.generate import main, save
from pgpis_models.pipeline import Generator
from pgpis_models.poses.formats import to_pose_keypoint
from pgpis_models.poses.keypoints import Keypoints
from tests.helpers.tiny import SIZE, write_files


def pose(seed):
    return Keypoints(np.random.default_rng(seed).uniform(5, 60, (18, 2)), np.ones(18, bool), SIZE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint with base and autoencoder, a photo, and a folder of three poses."""
    folder = tmp_path_factory.mktemp("work")
    write_files(folder)
    rgb = np.random.default_rng(0).integers(0, 256, (80, 60, 3)).astype(np.uint8)
    Image.fromarray(rgb).save(folder / "person.png")
    (folder / "poses").mkdir()
    for n in range(3):
        (folder / "poses" / f"p{n}.json").write_text(json.dumps(to_pose_keypoint(pose(n))))
    (folder / "walk.json").write_text(json.dumps(to_pose_keypoint([pose(n) for n in range(3)])))
    return folder


def command(folder, *more, source="person.png", target="poses/p1.json", out="made.png"):
    main(["--checkpoint", str(folder / "demo_cfld.safetensors"), "--base", str(folder / "demo_base.safetensors"),
          "--vae", str(folder / "demo_vae.safetensors"), "--source", str(folder / source), "--pose", str(folder / target),
          "--out", str(folder / out), "--device", "cpu", *more])


def opened(path):
    return np.asarray(Image.open(path))


def test_one_pose_makes_the_generators_picture(folder):
    command(folder, "--steps", "2", "--seed", "5", "--weight", "appearance=1.5", "--weight", "pose=2")
    generator = Generator(*(folder / f"demo_{name}.safetensors" for name in ("cfld", "base", "vae")))
    source = generator.prepare(opened(folder / "person.png"))
    made = generator(source, [pose(1)], steps=2, seed=5, weights={"appearance": 1.5, "pose": 2.0})
    expected = (made[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    assert np.array_equal(opened(folder / "made.png"), expected) and expected.shape == (*SIZE, 3)


def test_a_frame_of_many_makes_the_picture_of_its_own_file(folder):
    command(folder, "--steps", "1", out="own.png")
    command(folder, "--steps", "1", "--frame", "2", target="walk.json", out="chosen.png")
    command(folder, "--steps", "1", "--frame", "3", target="walk.json", out="other.png")
    assert np.array_equal(opened(folder / "chosen.png"), opened(folder / "own.png"))
    assert not np.array_equal(opened(folder / "other.png"), opened(folder / "own.png"))


def test_a_folder_of_poses_makes_the_same_pictures_in_any_batches(folder):
    command(folder, "--steps", "2", "--batch", "2", target="poses", out="two")
    command(folder, "--steps", "2", "--batch", "1", target="poses", out="one")
    assert sorted(p.name for p in (folder / "one").iterdir()) == ["p0.png", "p1.png", "p2.png"]
    for name in ("p0.png", "p1.png", "p2.png"):
        assert np.abs(opened(folder / "one" / name).astype(int) - opened(folder / "two" / name)).max() <= 1
    assert np.abs(opened(folder / "one" / "p0.png").astype(int) - opened(folder / "one" / "p2.png")).max() > 3


def test_photos_of_other_kinds_are_read(folder):
    picture = Image.open(folder / "person.png")
    command(folder, "--steps", "1", out="rgb.png")
    for name, other in {"opaque.png": picture.convert("RGBA"), "wide.tif": picture}.items():
        other.save(folder / name)
        command(folder, "--steps", "1", source=name, out="other.png")
        assert np.array_equal(opened(folder / "other.png"), opened(folder / "rgb.png")), name
    deep = np.asarray(picture)[..., 0].astype(np.uint16) * 257
    Image.fromarray(deep).save(folder / "deep.png")
    picture.getchannel(0).save(folder / "grey.png")
    for name in ("deep.png", "grey.png"):
        command(folder, "--steps", "1", source=name, out=f"of_{name}")
    assert np.array_equal(opened(folder / "of_deep.png"), opened(folder / "of_grey.png"))
    assert not np.array_equal(opened(folder / "of_grey.png"), opened(folder / "rgb.png"))


@pytest.mark.parametrize("arguments, files, message", [
    ([], {"source": "nobody.png"}, "nobody.png"),
    ([], {"source": "poses/p0.json"}, "cannot identify image file"),
    ([], {"target": "person.doc"}, "is a .doc file; expected one of .json, .png"),
    ([], {"target": "poses/p9.json"}, "p9.json"),
    ([], {"target": "person.png"}, "controlnet-aux"),
    (["--weight", "appearance"], {}, "--weight 'appearance'; expected TERM=NUMBER"),
    (["--weight", "style=2"], {}, "no scale ['style']"),
    (["--mode", "everything"], {}, "unknown guidance mode 'everything'"),
    (["--canvas", "256"], {}, "--canvas is '256'; expected HEIGHTxWIDTH"),
    (["--base", "nowhere"], {}, "no file nowhere"),
    (["--steps", "0"], {}, "--steps is 0; expected 1 or more"),
    (["--batch", "-1"], {"target": "poses"}, "--batch is -1; expected 1 or more"),
    (["--fps", "8", "--empty", "hold"], {}, "--empty, --fps came without --sequence"),
    (["--noise", "frame"], {}, "--noise came without --sequence"),
    (["--sequence", "--frame", "1"], {}, "--frame came with --sequence, which makes all frames"),
    (["--sequence", "--fps", "0"], {}, "--fps is 0.0; expected frames per second above 0"),
    (["--frame", "0"], {}, "--frame is 0; expected 1 or more"),
    (["--person", "-1"], {}, "--person is -1; expected 0 or more"),
    (["--min-confidence", "nan"], {}, "--min-confidence is nan; expected 0 to 1"),
    (["--face", "f.npy", "--source-densepose", "d.png"], {}, "--source-densepose, --face came with a checkpoint of cfld"),
    (["--canvas", "0x64"], {}, "--canvas is ('0', '64'); expected (H, W), each 1 pixel or more"),
    ([], {"target": "walk.json"}, "walk.json has 3 frames; expected one pose. Add --sequence"),
])
def test_what_cannot_be_done_is_said_in_one_line(folder, capsys, monkeypatch, arguments, files, message):
    (folder / "person.doc").touch()
    monkeypatch.setitem(sys.modules, "controlnet_aux", None)
    with pytest.raises(SystemExit) as stopped:
        command(folder, *arguments, **files)
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and "Traceback" not in said
    assert message in said and said.splitlines()[-1].startswith("python -m pgpis_models.generate: ")


def test_a_picture_that_exists_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    save(torch.zeros(3, 4, 4), path)
    before = path.read_bytes()

    def breaks_off(self, part, **_):
        part.write_bytes(b"half")
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", breaks_off)
        with pytest.raises(OSError, match="disk full"):
            save(torch.ones(3, 4, 4), path)
    assert path.read_bytes() == before
    save(torch.ones(3, 4, 4), path)
    assert (opened(path) == 255).all()
    save(torch.full((3, 4, 4), 0.5), tmp_path / "b.jpg")
    assert Image.open(tmp_path / "b.jpg").format == "JPEG"


def test_each_photo_of_a_folder_comes_in_poses_and_keeps_its_label(folder, capsys):
    """A re-identification set in Market-1501's names: person, camera and sequence, frame, box."""
    names = ("0002_c1s1_000451_03", "0002_c2s1_000301_01", "-1_c3s2_000001_02")
    (folder / "market").mkdir()
    for seed, name in enumerate(names):
        rgb = np.random.default_rng(seed).integers(0, 256, (128, 64, 3)).astype(np.uint8)
        Image.fromarray(rgb).save(folder / "market" / f"{name}.jpg")
    more = ("--each", "2", "--batch", "2", "--steps", "1", "--seed", "4")
    command(folder, *more, source="market", target="poses", out="augmented")
    made = sorted(path.stem for path in (folder / "augmented").iterdir())
    assert len(made) == 6 and all(sum(one.startswith(f"{name}_p") for one in made) == 2 for name in names)
    assert [one.split("_")[0] for one in made].count("0002") == 4
    assert len({tuple(one.rsplit("_", 1)[1] for one in made if one.startswith(name)) for name in names}) > 1
    before = {name: opened(folder / "augmented" / f"{name}.png") for name in made}
    (folder / "augmented" / f"{made[0]}.png").unlink()   # what is lacking is made again, the same whatever batch it is in
    stamps = {name: (folder / "augmented" / f"{name}.png").stat().st_mtime_ns for name in made[1:]}
    command(folder, *more, source="market", target="poses", out="augmented")
    assert np.abs(opened(folder / "augmented" / f"{made[0]}.png").astype(int) - before[made[0]]).max() <= 1
    assert stamps == {name: (folder / "augmented" / f"{name}.png").stat().st_mtime_ns for name in made[1:]}
    first, second = (before[one] for one in made if one.startswith(names[0]))
    assert (first != second).any()
    for wrong, message in ((("--each", "9"), "--each is 9, but --pose has 3 pose(s)"),
                           (("--source-pose", "x.json"), "--source is a folder of photos; expected one photo")):
        with pytest.raises(SystemExit):
            command(folder, *wrong, source="market", target="poses", out="none")
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        command(folder, "--each", "1")
    assert "--each came with one photo" in capsys.readouterr().err
