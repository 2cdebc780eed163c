"""`generate --fit` and `--paste`: photos of any size on the command line, with the demo's layout and random weights."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from pgpis_models.framing.boxes import layout_of
from pgpis_models.framing.fitting import fit_person
from pgpis_models.framing.pasting import pasted_picture
from pgpis_models.generate import main
from pgpis_models.pipeline import DEMO_FOLDER, Generator
from pgpis_models.poses.formats import to_pose_keypoint
from tests.helpers.photos import figure, photo
from tests.helpers.tiny import write_files

SIZE = (1536, 1024)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny checkpoint of 64x64 pictures, a photo of 1024x1536 with a mannequin small at one side, its pose, and a pose of
    somebody else on another canvas."""
    folder = tmp_path_factory.mktemp("person")
    write_files(folder)
    one = photo(SIZE, (figure(3), 20, 900))
    Image.fromarray(one.picture).save(folder / "photo.png")
    Image.fromarray(one.mask.astype(np.uint8) * 255).save(folder / "mask.png")
    (folder / "own.json").write_text(json.dumps(to_pose_keypoint(one.people)))
    other = photo((700, 1100), (figure(5, (600, 450)), 300, 50))
    (folder / "other.json").write_text(json.dumps(to_pose_keypoint(other.people)))
    (folder / "walk.json").write_text(json.dumps(to_pose_keypoint([other.people[0].shifted(10 * n, 0) for n in range(3)])))
    return folder, one, other


def command(folder, *more, target="other.json", out="made.png"):
    main(["--checkpoint", str(folder / "demo_cfld.safetensors"), "--base", str(folder / "demo_base.safetensors"),
          "--vae", str(folder / "demo_vae.safetensors"), "--source", str(folder / "photo.png"),
          "--pose", str(folder / target), "--out", str(folder / out), "--steps", "1", "--seed", "4", "--device", "cpu",
          *map(str, more)])


def opened(path):
    return np.asarray(Image.open(path))


def test_a_fitted_and_pasted_picture_is_the_photo_with_the_person_made_anew(folder):
    folder, one, other = folder
    command(folder, "--paste", "--source-pose", folder / "own.json", "--feather", "6")
    made = opened(folder / "made.png")
    generator = Generator(*(folder / f"demo_{name}.safetensors" for name in ("cfld", "base", "vae")))
    fitted = fit_person(one.picture, layout_of(generator.method.config), people=one.people, targets=other.people)
    pictures = generator(generator.prepare(fitted.photo), fitted.targets, steps=1, seed=4)
    assert np.array_equal(made, pasted_picture(pictures[0], fitted.frame, one.picture, feather=6))
    x0, y0, x1, y1 = fitted.frame.box
    outside = np.ones(SIZE, bool)
    outside[max(y0, 0):y1, max(x0, 0):x1] = False
    assert np.array_equal(made[outside], one.picture[outside]) and not np.array_equal(made, one.picture)
    command(folder, "--fit", "--source-pose", folder / "own.json", out="framed.png")
    assert np.array_equal(opened(folder / "framed.png"),
                          (pictures[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8))
    command(folder, "--paste", "--source-pose", folder / "own.json", "--feather", "6", "--proportions", "as-given")
    fitted = fit_person(one.picture, layout_of(generator.method.config), people=one.people, targets=other.people,
                        proportions="as given")
    pictures = generator(generator.prepare(fitted.photo), fitted.targets, steps=1, seed=4)
    as_given = opened(folder / "made.png")
    assert np.array_equal(as_given, pasted_picture(pictures[0], fitted.frame, one.picture, feather=6))
    assert not np.array_equal(as_given, made)


def test_mask_and_plain_ground_find_the_person_as_well(folder, capsys):
    folder, one, _ = folder
    for name, more in (("mask", ["--source-mask", folder / "mask.png"]), ("ground", [])):
        command(folder, "--paste", *more, out=f"{name}.png")
        changed = np.nonzero((opened(folder / f"{name}.png") != one.picture).any(-1))
        assert changed[0].min() > 800 and changed[1].max() < 500
        assert "the person; the part of" in capsys.readouterr().out


def test_a_movement_is_pasted_frame_by_frame(folder):
    folder, one, _ = folder
    command(folder, "--paste", "--sequence", "--source-pose", folder / "own.json", target="walk.json", out="film")
    frames = [opened(path) for path in sorted((folder / "film").iterdir())]
    assert len(frames) == 3 and all(frame.shape == one.picture.shape for frame in frames)
    assert all(np.array_equal(frame[:800], one.picture[:800]) for frame in frames)
    assert not np.array_equal(frames[0], frames[2])


def test_mclds_densepose_and_target_come_in_the_same_frame(folder):
    """With the shipped checkpoint: texture map and face are taken out of the framed photo, and the result goes back."""
    folder, one, other = folder
    for name, iuv in (("own", one.iuv), ("target", other.iuv)):
        Image.fromarray(iuv.to_picture("v,u,part")).save(folder / f"{name}_iuv.png")
    main(["--checkpoint", str(DEMO_FOLDER / "demo_mcld.safetensors"), "--source", str(folder / "photo.png"),
          "--source-densepose", str(folder / "own_iuv.png"), "--pose", str(folder / "target_iuv.png"), "--paste",
          "--out", str(folder / "mcld.png"), "--steps", "2", "--device", "cpu"])
    changed = np.nonzero((opened(folder / "mcld.png") != one.picture).any(-1))
    assert 800 < changed[0].min() and changed[0].max() < 1400 and changed[1].max() < 420 and len(changed[0]) > 10000


@pytest.mark.parametrize(("more", "said"), [
    (["--source-mask", "mask.png"], "--source-mask came without --fit"),
    (["--proportions", "as-given"], "--proportions came without --fit"),
    (["--source", "gone.png"], "gone.png is not there; expected a file"),
    (["--pose", "gone.json"], "gone.json is not there; expected a file"),
    (["--fit", "--feather", "3"], "--feather came without --paste"),
    (["--fit", "--source-person", "3"], "person is 3, but the photo shows 1"),
    (["--fit", "--source-person", "-1"], "--source-person is -1; expected 0 or more"),
    (["--paste", "--source-pose", "walk.json"], "--source-pose walk.json has 3 frames; expected the one of the photo"),
    (["--paste", "--source-pose", "nobody.json"], "--source-pose nobody.json shows nobody"),
    (["--paste", "--source-pose", "other.json"], "on a canvas of 1100x700 pixels, the photo has 1024x1536"),
    (["--paste", "--source-mask", "small.png"], "the MASK is 8x8 pixels, the photo 1024x1536")])
def test_what_cannot_be_is_a_sentence_and_no_file(folder, capsys, more, said):
    folder = folder[0]
    (folder / "nobody.json").write_text(json.dumps({"people": [], "canvas_height": 1536, "canvas_width": 1024}))
    Image.new("L", (8, 8), 255).save(folder / "small.png")
    files = [folder / item if "." in item else item for item in more]
    with pytest.raises(SystemExit):
        command(folder, *files, out="never.png")
    assert said in capsys.readouterr().err and not (folder / "never.png").exists()


def test_what_is_lacking_of_a_folder_is_made_in_the_frame_that_the_others_had(folder):
    folder, *_ = folder
    (folder / "photos").mkdir()
    (folder / "poses").mkdir()
    for name in ("photo.png", "own.json"):
        (folder / "photos" / name.replace("own", "photo")).write_bytes((folder / name).read_bytes())
    for name in ("own.json", "other.json"):
        (folder / "poses" / name).write_bytes((folder / name).read_bytes())

    def made():
        command(folder, "--fit", "--source", folder / "photos", target="poses", out="several")   # the last --source counts
        return {path.name: opened(path).astype(int) for path in (folder / "several").iterdir()}
    before = made()
    for name in before:
        (folder / "several" / name).unlink()
        assert np.abs(made()[name] - before[name]).max() <= 1, name
    assert sorted(before) == ["photo_other.png", "photo_own.png"]
