"""Fit Person and Paste Back in the host: a photo of any size, the demo's models, and the photo again."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from pgpis_models.poses.formats import to_pose_keypoint
from tests.helpers.photos import figure, photo

SIZE = (1536, 1024)
CHECKPOINT = "demo_cfld.safetensors"


@pytest.fixture(scope="module")
def scene(host):
    """A photo of 1024x1536 with a mannequin small at one side, and a pose of somebody else, in the input folder."""
    one, other = photo(SIZE, (figure(3), 20, 900)), photo((700, 1100), (figure(5, (600, 450)), 300, 50))
    Image.fromarray(one.picture).save(host.base / "input" / "framing.png")
    (host.base / "input" / "framing_target.json").write_text(json.dumps(to_pose_keypoint(other.people)))
    return one, other


@pytest.fixture(scope="module")
def nodes(host):
    return host.pack("nodes.framing")


@pytest.fixture(scope="module")
def method(host):
    return host.pack("nodes.loaders").LoadCheckpoint.execute(CHECKPOINT).result[0]


def image(picture):
    return torch.from_numpy(picture.copy()).float()[None] / 255


def fit(nodes, method, picture, **inputs):
    return nodes.FitPerson.execute(method, image(picture), **inputs).result


def test_a_small_person_at_one_side_is_made_anew_in_place_and_the_rest_stays_bit_for_bit(host, scene):
    one, _ = scene
    prompt = {
        "load": {"class_type": "PGPISLoadPreset", "inputs": {"preset": "Demo CFLD"}},
        "photo": {"class_type": "LoadImage", "inputs": {"image": "framing.png"}},
        "pose": {"class_type": "PGPISLoadPose", "inputs": {"file": "framing_target.json", "text": "", "canvas_width": 0,
                                                          "canvas_height": 0}},
        "fit": {"class_type": "PGPISFitPerson", "inputs": {"method": ["load", 2], "image": ["photo", 0],
                                                           "target_pose": ["pose", 0]}},
        "embed": {"class_type": "PGPISAppearanceEmbedding", "inputs": {"method": ["load", 2], "source": ["fit", 0],
                                                                       "pose": ["fit", 4], "person": -1}},
        "apply": {"class_type": "PGPISApply", "inputs": {"model": ["load", 0], "cond": ["embed", 0]}},
        "sample": {"class_type": "KSampler", "inputs": {
            "model": ["apply", 0], "positive": ["apply", 1], "negative": ["apply", 2], "latent_image": ["apply", 3],
            "seed": 1, "steps": 3, "cfg": 1.5, "sampler_name": "ddim", "scheduler": "sgm_uniform", "denoise": 1.0}},
        "decode": {"class_type": "VAEDecode", "inputs": {"samples": ["sample", 0], "vae": ["load", 1]}},
        "paste": {"class_type": "PGPISPasteBack", "inputs": {"image": ["decode", 0], "frame": ["fit", 6],
                                                             "original": ["photo", 0], "feather": 12,
                                                             "match_colours": True}},
        "save": {"class_type": "SaveImage", "inputs": {"images": ["paste", 0], "filename_prefix": "framing"}}}
    done = host.run(prompt)
    assert done.success, done.errors
    [saved] = done.outputs["save"]["images"]
    made = np.asarray(Image.open(host.base / "output" / saved["filename"]))
    changed = np.nonzero((made != one.picture).any(-1))
    assert made.shape == one.picture.shape and len(changed[0]) > 10000
    assert changed[0].min() > 800 and changed[0].max() < 1400 and changed[1].max() < 420   # about the mannequin alone
    assert "the part of" in done.outputs["fit"]["text"][0]
    # a person is there: darker or more colourful than the ground, where the old one stood
    person = np.abs(made[900:1300, 60:280].astype(int) - one.picture[0, 0]).sum(-1) > 60
    assert person.mean() > 0.1


def test_outputs_that_nothing_was_given_for_say_so_to_whoever_needs_them(host, nodes, method, scene):
    one, _ = scene
    result = fit(nodes, method, one.picture)
    assert tuple(result[0].shape) == (1, 256, 192, 3) and tuple(result[3].shape) == (1, 256, 192)
    assert "nothing is connected to its pose" in result[1].message and "densepose" in result[2].message
    done = host.run({
        "method": {"class_type": "PGPISLoadCheckpoint", "inputs": {"file": CHECKPOINT}},
        "photo": {"class_type": "LoadImage", "inputs": {"image": "framing.png"}},
        "fit": {"class_type": "PGPISFitPerson", "inputs": {"method": ["method", 0], "image": ["photo", 0]}},
        "draw": {"class_type": "PGPISDrawPose", "inputs": {"pose": ["fit", 4], "width": 0, "height": 0, "person": -1}},
        "save": {"class_type": "PreviewImage", "inputs": {"images": ["draw", 0]}}})
    assert "save" not in done.outputs and "draw" not in done.outputs   # blocked, with that message at Draw Pose


def test_everything_comes_in_one_frame(host, nodes, method, scene):
    one, other = scene
    result = fit(nodes, method, one.picture, pose=to_pose_keypoint(one.people), densepose=(own_iuv(host, one.iuv),),
                 mask=torch.from_numpy(one.mask).float()[None], target_pose=to_pose_keypoint(other.people * 2),
                 target_densepose=(own_iuv(host, other.iuv),) * 2)
    picture, pose, dense, mask, targets, target_dense, frames, info = result
    assert picture.shape[0] == 1 and len(frames) == 1 and len(targets) == len(target_dense) == 2
    assert pose[0]["canvas_height"] == targets[1]["canvas_height"] == 256
    assert dense[0].size == target_dense[1].size == (256, 192)
    assert torch.equal(mask[0], torch.from_numpy(dense[0].part_mask()).float()) and info.startswith("the person")
    assert (picture[0][mask[0] > 0] - picture[0, 0, 0]).abs().sum(-1).mean() > 0.2   # the person is under its mask


def test_a_node_for_whole_transfers_gets_its_inputs_in_the_frame(host, nodes, method, scene):
    """The same pixels, joints and labels as of Fit Person, by the names of the inputs that were connected."""
    one, other = scene
    given = {"source_densepose": (own_iuv(host, one.iuv),), "pose": to_pose_keypoint(other.people * 2)}
    made, frames, said = nodes.framed_inputs(method, image(one.picture), densepose=(own_iuv(host, other.iuv),) * 2, **given)
    assert made.keys() == {"image", "pose", "densepose", "source_densepose"} and len(frames) == 1 and said
    result = fit(nodes, method, one.picture, densepose=given["source_densepose"], target_pose=given["pose"],
                 target_densepose=(own_iuv(host, other.iuv),) * 2)
    assert torch.equal(made["image"], result[0]) and made["pose"] == result[4] and frames == result[6]
    assert np.array_equal(made["densepose"][1].part, result[5][1].part)
    assert nodes.framed_inputs(method, image(one.picture))[0].keys() == {"image"}


def own_iuv(host, iuv):
    """The same of the class that the host has loaded."""
    return host.pack("pgpis_models.surface.densepose").IUV(iuv.part, iuv.u, iuv.v)


def test_batches_of_photos_have_a_frame_each(nodes, method, scene):
    one, other = scene
    second = photo(SIZE, (figure(2), 600, 300))
    both = torch.cat([image(one.picture), image(second.picture)])
    result = nodes.FitPerson.execute(method, both, target_pose=to_pose_keypoint(other.people)).result
    frames = result[6]
    assert result[0].shape[0] == len(frames) == len(result[4]) == 2 and frames[0].box != frames[1].box
    made = torch.rand(2, 256, 192, 3)
    pasted = nodes.PasteBack.execute(made, frames, both).result[0]
    for index, frame in enumerate(frames):
        x0, y0, x1, y1 = frame.box
        outside = torch.ones(SIZE, dtype=torch.bool)
        outside[max(y0, 0):y1, max(x0, 0):x1] = False
        assert torch.equal(pasted[index][outside], both[index][outside])
    with pytest.raises(ValueError, match="3 target poses"):
        nodes.FitPerson.execute(method, both, target_pose=to_pose_keypoint(other.people * 3))
    with pytest.raises(ValueError, match="3 results, 2 frames"):
        nodes.PasteBack.execute(torch.rand(3, 256, 192, 3), frames, both)


def test_a_movement_keeps_its_length_over_frames_without_anybody(nodes, method, scene):
    one, other = scene
    frames = to_pose_keypoint([other.people[0], other.people[0].shifted(30, 0)])
    frames.insert(1, frames[0] | {"people": []})
    targets = fit(nodes, method, one.picture, target_pose=frames, movement=True)[4]
    assert len(targets) == 3 and targets[0] == targets[1] != targets[2]
    with pytest.raises(ValueError, match="frame 2 of 3"):
        fit(nodes, method, one.picture, target_pose=frames)


@pytest.mark.parametrize(("inputs", "said"), [
    ({"mask": torch.ones(64)}, "expected (batch, height, width)"),
    ({"densepose": "iuv"}, "the DENSEPOSE holds str"),
    ({"person": 7}, "person is 7, but the photo shows 1")])
def test_bad_input_is_a_sentence(nodes, method, scene, inputs, said):
    """More of them: test_mistakes.py."""
    with pytest.raises(ValueError) as error:
        fit(nodes, method, scene[0].picture, **inputs)
    assert said in str(error.value)


def test_a_frame_of_something_else_is_refused(nodes, scene):
    with pytest.raises(ValueError, match="the PGPIS_FRAME is str"):
        nodes.PasteBack.execute(torch.rand(1, 256, 192, 3), "frame", image(scene[0].picture))
