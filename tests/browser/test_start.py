"""The path of a person who only wants the picture: the first workflow, a photo of one's own dropped onto it, Run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pgpis_models.body.frames import Figure, seen_whole, to_frames
from pgpis_models.body.library import library
from pgpis_models.framing.boxes import layout_of
from pgpis_models.framing.fitting import fit_person
from pgpis_models.generate import main
from pgpis_models.pipeline import DEMO_FOLDER
from pgpis_models.poses.formats import from_pose_keypoint
from pgpis_models.qen.config import CONFIGS
from tests.browser.own_photo import SEED, own_photo
from tests.helpers.workflows import SAME_PSNR, psnr
from tests.host.http_host import demo_is_trained
from tests.host.saved_workflows import subgraphs

ROOT = Path(__file__).resolve().parents[2]
METHOD = DEMO_FOLDER / "demo_qen.safetensors"
LIBRARY = ROOT / "web" / "pose_library" / "poses.json"
PERSON = 60           # RGB distance from the ground, summed over the channels, from which a pixel is the person's
LIMBS = ((2, 3), (3, 4), (5, 6), (6, 7), (8, 9), (9, 10), (11, 12), (12, 13))    # arms and legs, by OpenPose's joints


@pytest.fixture(scope="module")
def own(seen):
    return seen["own"]


@pytest.fixture(scope="module")
def made(own) -> np.ndarray:
    """The saved picture, (1536, 1024, 3) uint8."""
    assert own["execution"] == "execution_success", own["error"]
    [path] = (own["base"] / "output").glob("own_*.png")
    return np.asarray(Image.open(path).convert("RGB"))


@pytest.fixture(scope="module")
def pose(own) -> list[dict]:
    """POSE_KEYPOINT of the pose that the workflow names, of the library's own data."""
    [(name, width, height, _)] = [node["widgets_values"] for node in own["saved"]["nodes"]
                                  if node["type"] == "PGPISPoseLibrary"]
    figure = seen_whole(Figure(library(LIBRARY)[name].state), (height, width))
    return to_frames([figure], [figure.draw((height, width))])


@pytest.fixture(scope="module")
def fitted(pose):
    """What of the photo is framed, and the pose there, worked out from the person's true outline."""
    photo, targets = own_photo(), from_pose_keypoint(pose)
    return fit_person(photo.picture, layout_of(CONFIGS["demo"]), mask=photo.mask, targets=targets)


def share_of_limbs_on(person: np.ndarray, joints: np.ndarray) -> float:
    """How much of arms and legs lies on a mask. joints: (18, 2) in its pixels."""
    along = np.linspace(0, 1, 21)[:, None]
    points = np.concatenate([joints[a] * (1 - along) + joints[b] * along for a, b in LIMBS]).astype(int)
    return float(person[points[:, 1], points[:, 0]].mean())


def test_the_first_workflow_shows_its_own_picture_before_anybody_uploads_one(seen):
    one = seen["00_start_here"]
    [shown] = [image["sizes"] for image in one["images"]
               if image["id"] == next(node["id"] for node in one["nodes"] if node["type"] == "LoadImage")]
    assert shown == [[400, 300]] and one["execution"] == "execution_success", one["error"]
    assert (one["base"] / "input" / "pgpis_photo.png").is_file()
    assert len([node for node in one["nodes"] if node["type"] != "MarkdownNote"]) == 5


def test_the_person_takes_the_pose_in_place_and_the_rest_stays_bit_for_bit(made, fitted):
    photo = own_photo()
    x0, y0, x1, y1 = fitted.frame.box
    outside = np.ones(made.shape[:2], bool)
    outside[max(y0, 0):y1, max(x0, 0):x1] = False
    assert made.shape == photo.picture.shape and outside.mean() > 0.6
    assert np.array_equal(made[outside], photo.picture[outside])
    if not demo_is_trained():
        pytest.skip("models/demo is not complete, so that the picture shows noise")
    joints = fitted.targets[0].xy / fitted.frame.scale + (x0, y0)
    ground = np.median(photo.picture.reshape(-1, 3), axis=0)
    now, before = (np.abs(one.astype(float) - ground).sum(-1) > PERSON for one in (made, photo.picture))
    found, was = share_of_limbs_on(now, joints), share_of_limbs_on(before, joints)
    print(f"arms and legs of the pose on the person: {found:.2f}, of the photo {was:.2f}")
    assert found > 0.85 and was < 0.7


def test_the_command_line_makes_the_same_picture(pose, own, made, fitted, tmp_path):
    """KSampler's cfg weighs pose and appearance alike, so the command line is told one weight for both."""
    photo, result = own_photo(), tmp_path / "result.png"
    [sampler] = [node for graph in subgraphs(own["saved"]).values() for node in graph["nodes"] if node["type"] == "KSampler"]
    cfg = sampler["widgets_values"][3]
    Image.fromarray(photo.picture).save(tmp_path / "own.png")
    (tmp_path / "pose.json").write_text(json.dumps(pose))
    main(["--checkpoint", str(METHOD), "--source", str(tmp_path / "own.png"), "--pose", str(tmp_path / "pose.json"),
          "--paste", "--weight", f"pose={cfg}", "--weight", f"appearance={cfg}", "--seed", str(SEED), "--out", str(result)])
    other = np.asarray(Image.open(result).convert("RGB"))
    x0, y0, x1, y1 = (max(end, 0) for end in fitted.frame.box)
    outside = np.ones(made.shape[:2], bool)
    outside[y0:y1, x0:x1] = False
    assert np.array_equal(other[outside], made[outside])
    assert not np.array_equal(other[y0:y1, x0:x1], photo.picture[y0:y1, x0:x1])
    found = psnr(other[y0:y1, x0:x1], made[y0:y1, x0:x1])
    print(f"PSNR between the two: {found:.1f} dB")
    assert found > SAME_PSNR
