"""`generate --photos`: several photos of one person on the command line, as the generator takes them."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from pgpis_models.pipeline import Generator
from pgpis_models.poses.formats import to_pose_keypoint
from pgpis_models.surface.facing import photo_weights
from tests.pgpis_models.command.test_generate import command, folder, opened, pose  # noqa: F401 - folder is a fixture


@pytest.fixture(scope="module")
def photos(folder):  # noqa: F811
    """The folder with a second photo of another size and other colours, and poses of both photos."""
    Image.fromarray(np.random.default_rng(1).integers(0, 90, (70, 90, 3)).astype(np.uint8)).save(folder / "back.png")
    for name, number in (("person.json", 5), ("back.json", 7)):
        (folder / name).write_text(json.dumps(to_pose_keypoint(pose(number))))
    return folder


def together(folder, *flags, **files):  # noqa: F811
    command(folder, "--steps", "2", "--seed", "5", *(str(folder / flag) if "." in flag else flag for flag in flags), **files)


def test_a_photo_given_twice_makes_its_picture_and_two_make_another(photos, capsys):
    for name, flags in (("one", []), ("twice", ["--photos", "person.png"]), ("two", ["--photos", "back.png"])):
        together(photos, *flags, out=f"{name}.png")
        said = "note: the photos were not compared, and two people's would not be told: give --source-pose and --photos-pose"
        assert (said in capsys.readouterr().out) == bool(flags)
    one, twice, two = (opened(photos / f"{name}.png").astype(int) for name in ("one", "twice", "two"))
    assert np.abs(twice - one).max() <= 1 and np.abs(two - one).max() > 3


def test_they_are_read_as_the_generator_reads_them_and_weigh_by_their_poses(photos, capsys):
    together(photos, "--photos", "back.png", "--source-pose", "person.json", "--photos-pose", "back.json", "--batch", "2",
             target="poses", out="both")
    assert "note: photos 1 and 2 differ in the colours of skin and clothes" in capsys.readouterr().out
    generator = Generator(*(photos / f"demo_{name}.safetensors" for name in ("cfld", "base", "vae")))
    sources = torch.cat([generator.prepare(opened(photos / name)) for name in ("person.png", "back.png")])
    targets = [pose(n) for n in range(3)]
    weights = photo_weights([pose(5), pose(7)], targets)
    assert not torch.allclose(weights, torch.full((3, 2), 0.5), atol=0.02), "the poses say something"
    made = generator(sources, targets, steps=2, seed=5, one_person=weights)
    for number, picture in enumerate(made):
        expected = (picture.permute(1, 2, 0).numpy() * 255).round()
        assert np.abs(opened(photos / "both" / f"p{number}.png") - expected).max() <= 1


@pytest.mark.parametrize("flags, message", [
    (["--photos-pose", "back.json"], "--photos-pose came without --photos"),
    (["--photos", "back.png", "--source-pose", "person.json", "--photos-pose", "back.json", "person.json"],
     "--photos-pose came with 2 files, --photos with 1; expected one for each of --photos, and --source-pose for --source"),
    (["--photos", "back.png", "--photos-pose", "back.json"], "--photos-pose came with none for --source"),
    (["--photos", "back.png", "--sequence"], "--photos came with --sequence; expected one photo there"),
    (["--photos", "back.png", "--source-pose", "person.json", "--photos-pose", "none.json"],
     "--photos-pose none.json shows nobody; expected joints of confidence 0.3 or more. Use a photo that shows a person, or "
     "leave --photos-pose and --source-pose out"),
    (["--seen", "map.png"], "--seen came without --photos"),
    (["--photos", "back.png", "--seen", "map.png"], "--seen came with a checkpoint of cfld; expected one of mcld"),
    (["--photos", "nobody.png"], "nobody.png is not there"),
    (["--photos", "back.png", "--source-mask", "person.png"], "--source-mask came without --fit"),
])
def test_flags_that_do_not_go_with_several_photos_say_so(flags, message, photos, capsys):
    (photos / "none.json").write_text(json.dumps({"people": [], "canvas_height": 70, "canvas_width": 90}))
    with pytest.raises(SystemExit):
        together(photos, *flags)
    assert message in capsys.readouterr().err
