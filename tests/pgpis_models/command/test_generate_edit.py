"""The command line with a second person: clothes by a mask, and both people mixed."""

import json

import numpy as np
import pytest
from PIL import Image

from pgpis_models.garments.outline import transfer_mask
from pgpis_models.poses.formats import to_pose_keypoint
from tests.helpers.drawn_parts import grown
from tests.helpers.dressed import densepose_of, pose_of, swap
from tests.pgpis_models.command.test_generate import command, folder, opened  # noqa: F401 - folder is a fixture


@pytest.fixture(scope="module")
def people(folder):  # noqa: F811
    """The folder, with two drawn people's photos, DensePose and poses in it, these at another scale, and their drawings."""
    person, donor, _ = swap(302, 1, 2)
    for name, drawn in (("kept", person), ("donor", donor)):
        Image.fromarray(drawn.image).save(folder / f"{name}.png")
        Image.fromarray(densepose_of(drawn).to_picture("v,u,part")).save(folder / f"{name}_iuv.png")
        height, width = drawn.part.shape
        pose = pose_of(drawn).scaled_to((height * 3 // 2, width * 3 // 2))
        (folder / f"{name}.json").write_text(json.dumps(to_pose_keypoint(pose)))
    Image.fromarray(255 - opened(folder / "person.png")).save(folder / "other.png")
    return folder, person, donor


def edited(folder, *flags, **files):  # noqa: F811
    command(folder, "--steps", "1", *(str(folder / flag) if (folder / flag).exists() else flag for flag in flags), **files)


def test_a_garment_changes_old_and_new_outline_and_nothing_else(people):
    work, person, donor = people
    edited(work, "--donor", "donor.png", "--donor-pose", "donor.json", "--garment", "all", "--mask-grow", "0.01",
           source="kept.png", target="kept.json", out="worn.png")
    made = opened(work / "worn.png")
    mask = transfer_mask(person.image, "all clothes", None, pose_of(person), donor.image, None, pose_of(donor))
    assert made.shape == person.image.shape and np.array_equal(made[~grown(mask, 2)], person.image[~grown(mask, 2)])
    assert (made[mask] != person.image[mask]).any(-1).mean() > 0.9


def test_densepose_beside_the_poses_makes_the_mask_that_the_node_makes_of_both(people):
    work, person, donor = people
    edited(work, "--donor", "donor.png", "--donor-pose", "donor.json", "--donor-densepose", "donor_iuv.png", "--garment",
           "all", "--source-densepose", "kept_iuv.png", "--mask-grow", "0", "--mask-feather", "0", source="kept.png",
           target="kept.json", out="both.png")
    photo, pose, lent, theirs = person.image, pose_of(person), donor.image, pose_of(donor)
    changed = (opened(work / "both.png") != photo).any(-1)
    both = transfer_mask(photo, "all clothes", densepose_of(person), pose, lent, densepose_of(donor), theirs)
    alone = transfer_mask(photo, "all clothes", None, pose, lent, None, theirs)
    assert not changed[~both].any() and changed[both].mean() > 0.9 and (alone & ~both).sum() > 200


def test_a_mask_that_is_black_gives_the_photo_and_a_white_one_the_donor(people):
    work, person, _ = people
    Image.fromarray(np.zeros((64, 48), np.uint8)).save(work / "black.png")
    edited(work, "--donor", "donor.png", "--mask", "black.png", source="kept.png", out="black_made.png")
    assert np.array_equal(opened(work / "black_made.png"), person.image)
    edited(work, source="donor.png", out="plain.png")
    size = opened(work / "plain.png").shape[:2]
    Image.fromarray(person.image).resize(size[::-1]).save(work / "small.png")
    Image.fromarray(np.full(size, 255, np.uint8)).save(work / "white.png")
    edited(work, "--donor", "donor.png", "--mask", "white.png", source="small.png", out="white_made.png")
    assert np.array_equal(opened(work / "white_made.png"), opened(work / "plain.png"))


def test_a_row_starts_and_ends_with_the_two_people(people):
    work, *_ = people
    for source, out in (("person.png", "first.png"), ("other.png", "last.png")):
        edited(work, source=source, out=out)
    edited(work, "--donor", "other.png", "--blend-steps", "3", out="row")
    row = [opened(work / "row" / f"p1_{step}.png").astype(int) for step in range(3)]
    assert np.abs(row[0] - opened(work / "first.png")).max() <= 1
    assert np.abs(row[2] - opened(work / "last.png")).max() <= 1
    assert np.abs(row[1] - row[0]).max() > 2 < np.abs(row[1] - row[2]).max()
    edited(work, "--donor", "other.png", "--blend", "0.5", out="half.png")
    assert np.abs(row[1] - opened(work / "half.png")).max() <= 1
    edited(work, "--donor", "other.png", "--blend-steps", "2", target="poses", out="grid")
    assert sorted(path.name for path in (work / "grid").iterdir()) == [f"p{pose}_{step}.png" for pose in range(3)
                                                                        for step in range(2)]


WORN = ("--source", "kept.png", "--pose", "kept.json", "--donor", "donor.png", "--garment", "all")


@pytest.mark.parametrize("flags, message", [
    (("--garment", "upper", "--blend", "0.5"), "--garment, --blend came without --donor"),
    (("--donor", "other.png"), "--donor came without a use; expected --garment or --mask for clothes, or --blend"),
    (("--donor", "other.png", "--garment", "all", "--mask", "other.png"), "--mask, --garment came together; expected one"),
    (("--donor", "other.png", "--blend", "0.5", "--blend-steps", "3"), "--blend, --blend-steps came together"),
    (("--donor", "other.png", "--blend", "1.5"), "--blend is 1.5; expected a weight of 0 to 1"),
    (("--donor", "other.png", "--blend", "nan"), "--blend is nan; expected a weight of 0 to 1"),
    (("--donor", "other.png", "--blend-steps", "1"), "--blend-steps is 1; expected a weight of 0 to 1, or 2 or more steps"),
    (("--donor", "other.png", "--blend", "0.5", "--mask-grow", "0.1"), "--mask-grow came without --mask and --garment"),
    (("--donor", "other.png", "--mask", "other.png", "--mask-feather", "-1"), "--mask-feather is -1.0; expected a share"),
    (("--donor", "other.png", "--mask", "other.png", "--fit"), "--mask came with --fit or --paste"),
    (("--donor", "other.png", "--blend", "0.5", "--sequence"), "--donor came with --sequence; expected the one pose"),
    (("--donor", "other.png", "--blend", "0.5", "--source", "poses"), "--donor came with a folder of photos; expected"),
    (("--donor", "nobody.png", "--blend", "0.5"), "nobody.png"),
    (WORN, "--garment came without --donor-pose and --donor-densepose; expected one of them, of the donor's photo"),
    (("--donor", "other.png", "--mask", "other.png", "--donor-pose", "donor.json"), "--donor-pose came without --garment"),
    (("--donor", "other.png", "--blend", "0.5", "--donor-densepose", "donor_iuv.png"),
     "--donor-densepose came without --garment and --fit, which read it; cfld does not"),
    ((*WORN, "--donor-pose", "donor.json", "--pose", "wide.json"),
     "--pose wide.json is on a canvas of 90x30 pixels and the photo has 192x256; expected one shape"),
    ((*WORN, "--donor-pose", "donor.json", "--source", "busy.png", "--pose", "wide.json", "--fit"),
     "--pose wide.json is on a canvas of 90x30 pixels and the photo has 44x64; expected one shape"),
    ((*WORN, "--donor-pose", "wide.json"),
     "--donor-pose wide.json is on a canvas of 90x30 pixels and the donor's photo has 192x256; expected one shape"),
    ((*WORN, "--donor-pose", "nobody.json"), "--donor-pose nobody.json shows nobody; expected joints of confidence 0.3 or "
     "more. Use a photo that shows a person, or its DensePose by --donor-densepose"),
    ((*WORN, "--donor-densepose", "donor_iuv.png", "--source", "busy.png", "--pose", "busy.json", "--source-densepose",
      "kept_iuv.png"), "--source-densepose kept_iuv.png is of 192x256 pixels and the photo has 44x64; expected one size"),
    (("--donor", "other.png", "--mask", "wide.png"), "wide.png is 90x30 pixels and the photo 60x80; expected one shape"),
])
def test_what_cannot_be_edited_is_said(flags, message, people, capsys):
    work, *_ = people
    Image.fromarray(np.full((30, 90), 255, np.uint8)).save(work / "wide.png")
    Image.fromarray(np.random.default_rng(3).integers(0, 256, (64, 44, 3)).astype(np.uint8)).save(work / "busy.png")
    [frame] = to_pose_keypoint(pose_of(people[1]).scaled_to((30, 90)))
    for name, changes in (("wide", {}), ("busy", {"canvas_height": 64, "canvas_width": 44}), ("nobody", {"people": []})):
        (work / f"{name}.json").write_text(json.dumps(frame | changes))
    with pytest.raises(SystemExit):
        edited(work, *flags)
    assert message in capsys.readouterr().err
