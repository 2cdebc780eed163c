"""Pose Transfer gives what each method's own nodes give, says what is missing, and warns of what cannot go well."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from tests.host.test_any_size import shrunk
from tests.host.test_nodes_run import ROW, ksampler, saved
from training.world.bank import HELD_OUT, pose_seed
from training.world.drawing import render
from training.world.poses import sample_pose
from training.world.wardrobe import sample_identity

SIZE = (128, 96)


@pytest.fixture(scope="module")
def nodes(host):
    return SimpleNamespace(**{name: host.pack(f"nodes.{name}") for name in (
        "loaders", "appearance", "fusion", "queries", "sampling", "transfer", "embedding", "framing")})


@pytest.fixture(scope="module")
def model(nodes, demo):
    return nodes.loaders.LoadDemoBase.execute().result[0]


@pytest.fixture(scope="module")
def methods(nodes, demo, tiny, tiny_method):
    return {"cfld": nodes.loaders.LoadCheckpoint.execute("cfld_tiny.safetensors").result[0],
            "fpdm": tiny_method("fpdm", "FPDM", "fpdm_transfer", 31, context=tiny.context),
            "qen": tiny_method("qen", "QEN", "qen_transfer", 33, unet_heads=tiny.heads, prompt_width=tiny.context)}


def frames(count=2):
    xy = np.random.default_rng(3).uniform(10, 90, (count, 18, 2))
    return [{"people": [{"pose_keypoints_2d": np.concatenate([one, np.ones((18, 1))], 1).ravel().tolist()}],
             "canvas_height": SIZE[0], "canvas_width": SIZE[1]} for one in xy]


def drawn(number=118, size=SIZE):
    identity = sample_identity(HELD_OUT + number)
    picture = render(identity, sample_pose(pose_seed(HELD_OUT + number, 1)), size).image
    return torch.from_numpy(picture).float()[None] / 255


def transfer(nodes, model, method, photo, **given):
    """MODEL, positive, negative, LATENT of photo and pose as they are, unless fit says otherwise."""
    return nodes.transfer.PoseTransfer.execute(model, method=method, image=photo, **{"fit": False} | given).result[:4]


def by_experts(nodes, name, model, method, photo, mask):
    """The method's embedding node, then Apply PGPIS."""
    pose = frames()
    if name == "cfld":
        cond = nodes.appearance.AppearanceEmbedding.execute(method, photo, pose, -1).result[0]
    elif name == "fpdm":
        cond = nodes.fusion.FusionEmbedding.execute(method, photo, pose, -1, "error").result[0]
    else:
        cond = nodes.queries.QueryEmbedding.execute(method, photo, pose, -1, 0.7, 0.0, 1.0, mask=mask).result[0]
    return nodes.sampling.Apply.execute(model, cond).result


def sampled(patched, positive, negative, latent):
    import comfy.sample
    samples = latent["samples"]
    with torch.inference_mode():
        return comfy.sample.sample(patched, comfy.sample.prepare_noise(samples, 3), 2, 2.0, "euler", "normal", positive,
                                   negative, samples, disable_pbar=True, seed=3)


OTHER_LAYOUTS = ((16,), (4, 3))   # channels of another family; frames of a video


def refused_layouts(patched, positive, negative, latent):
    """Sampling with latents of each of OTHER_LAYOUTS, which must end in a sentence."""
    for layout in OTHER_LAYOUTS:
        samples = torch.ones(len(latent["samples"]), *layout, *latent["samples"].shape[-2:])
        words = rf"latents are \({', '.join(map(str, samples.shape))}\); expected \(batch, 4, height, width\).*Connect"
        with pytest.raises(ValueError, match=words):
            sampled(patched, positive, negative, {"samples": samples})


@pytest.mark.hosts
@pytest.mark.parametrize("name", ["cfld", "fpdm", "qen"])
def test_latents_of_another_family_or_of_a_video_are_refused_whatever_the_method(name, nodes, model, methods):
    refused_layouts(*transfer(nodes, model, methods[name], drawn(), pose=frames()))


@pytest.mark.hosts
def test_cfld_runs_under_deep_shrink_in_either_order(nodes, model, methods):
    whole = transfer(nodes, model, methods["cfld"], drawn(), pose=frames())
    behind = sampled(shrunk(whole[0]), *whole[1:])
    before = sampled(*transfer(nodes, shrunk(model), methods["cfld"], drawn(), pose=frames()))
    assert torch.isfinite(behind).all() and torch.allclose(behind, before, atol=1e-4)
    assert not torch.allclose(behind, sampled(*whole), atol=1e-2)


@pytest.mark.hosts
@pytest.mark.parametrize("name", ["cfld", "fpdm", "qen"])
def test_it_gives_what_the_methods_own_nodes_give(name, nodes, model, methods):
    photo, mask = drawn(), torch.zeros(1, 40, 30)
    mask[:, 5:30, 8:20] = 1
    given = {"mask": mask, "control_strength": 0.7} if name == "qen" else {}
    ours = sampled(*transfer(nodes, model, methods[name], photo, pose=frames(), **given))
    theirs = sampled(*by_experts(nodes, name, model, methods[name], photo, mask))
    assert ours.shape == (2, 4, 16, 12) and torch.equal(ours, theirs)
    other = sampled(*transfer(nodes, model, methods[name], drawn(104), pose=frames(), **given))
    assert not torch.equal(ours, other), "the person is seen"
    if name == "qen":
        assert not torch.equal(ours, sampled(*transfer(nodes, model, methods[name], photo, pose=frames(), mask=mask)))


@pytest.mark.parametrize(("yaw", "zoom", "words"), [(20, 0.86, ""), (175, 0.86, "seen from a view turned by 1"),
                                                    (0, 0.4, "the face of target 1 is small")])
def test_what_will_be_a_guess_is_said_with_the_advice(nodes, model, methods, caplog, yaw, zoom, words):
    from pgpis_models.body.camera import Camera
    from pgpis_models.body.picture import see
    from pgpis_models.body.state import State
    from pgpis_models.poses.formats import to_pose_keypoint
    front, target = (to_pose_keypoint(see(State(root=(float(turn), 0, 0), camera=Camera(zoom=size)), (256, 192)).pose)
                     for turn, size in ((0, 0.86), (yaw, zoom)))
    with caplog.at_level(logging.INFO):
        transfer(nodes, model, methods["fpdm"], drawn(), pose=target, source_pose=front)
    [said] = [record for record in caplog.records if "steps at cfg" in record.getMessage()]
    assert words in said.getMessage()
    # the tiny model's pictures are 128 high, where a figure's eyes are 5 pixels apart
    expected = [sentence for sentence, there in (("turned by", yaw > 120), ("is small", yaw < 90)) if there]
    assert [sentence for sentence in ("turned by", "is small") if sentence in said.getMessage()] == expected


@pytest.mark.parametrize("found", ["by its pose", "by a mask", "before a plain ground"])
def test_fit_is_what_fit_person_gives(found, nodes, model, methods):
    """A wide photo with the person at its left, the pose from a canvas of another shape."""
    photo = drawn()[:, :1, :1].repeat(1, 160, 300, 1)
    photo[:, 20:148, 30:126] = drawn()
    mask = torch.zeros(1, 160, 300)
    mask[:, 30:140, 50:100] = 1
    here = {"by its pose": {"source_pose": [person_at(30, 20, 160, 300)]}, "by a mask": {"source_mask": mask}}.get(found, {})
    fit = nodes.framing.FitPerson.execute(methods["cfld"], photo, pose=here.get("source_pose"),
                                          mask=here.get("source_mask"), target_pose=frames()).result
    model_out, *ours, frame = nodes.transfer.PoseTransfer.execute(model, method=methods["cfld"], image=photo, pose=frames(),
                                                                  **here).result
    theirs = transfer(nodes, model, methods["cfld"], fit[0], pose=fit[4])
    assert torch.equal(sampled(model_out, *ours), sampled(*theirs))
    assert frame == fit[6] and fit[0].shape[1:3] == SIZE
    as_it_is = transfer(nodes, model, methods["cfld"], photo, pose=frames())
    assert not torch.equal(sampled(model_out, *ours), sampled(*as_it_is))


def person_at(left, top, height, width):
    """The OpenPose frame of `drawn()`, moved to where it is pasted."""
    view = render(sample_identity(HELD_OUT + 118), sample_pose(pose_seed(HELD_OUT + 118, 1)), SIZE)
    rows = np.concatenate([view.keypoints + [left, top], view.detected[:, None]], 1).astype(float)
    return {"people": [{"pose_keypoints_2d": rows.ravel().tolist()}], "canvas_height": height, "canvas_width": width}


def test_without_fit_the_frame_says_that_it_is_empty(nodes, model, methods):
    from comfy_execution.graph_utils import ExecutionBlocker
    frame = nodes.transfer.PoseTransfer.execute(model, method=methods["cfld"], image=drawn(), pose=frames(), fit=False)[4]
    assert isinstance(frame, ExecutionBlocker) and "turn it on" in frame.message


def test_it_takes_a_method_that_it_was_not_written_for(nodes, model, methods, monkeypatch):
    """One whose name is in the registry alone: by its `encode_pictures`."""
    import dataclasses
    method = methods["cfld"]
    encode = nodes.embedding.picture_encoder("cfld")
    monkeypatch.setattr(nodes.embedding, "picture_encoder", lambda name: {"tint": encode}[name])
    meta = dataclasses.replace(method.checkpoint.meta, method="tint")
    renamed = dataclasses.replace(method, checkpoint=dataclasses.replace(method.checkpoint, meta=meta))
    assert transfer(nodes, model, renamed, drawn(), pose=frames())[3]["samples"].shape == (2, 4, 16, 12)


def graph(**more):
    nodes = {
        "base": ("PGPISLoadDemoBase", {}), "method": ("PGPISLoadCheckpoint", {"file": "cfld_tiny.safetensors"}),
        "photo": ("LoadImage", {"image": "transfer.png"}),
        "pose": ("PGPISLoadPose", {"file": "(the text below)", "text": ROW, "canvas_width": 0, "canvas_height": 0}),
        "apply": ("PGPISPoseTransfer", {"model": ["base", 0], "method": ["method", 0], "image": ["photo", 0],
                                        "pose": ["pose", 0], "fit": False}),
        "sampler": ksampler(2), "decode": ("VAEDecode", {"samples": ["sampler", 0], "vae": ["base", 1]}),
        "save": ("SaveImage", {"images": ["decode", 0], "filename_prefix": "t"})} | more
    return {name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in nodes.items()}


@pytest.mark.hosts
def test_four_links_make_a_picture_in_a_graph(host, demo):
    """No widget is needed: load, photo, pose, picture."""
    Image.fromarray((drawn()[0].numpy() * 255).astype(np.uint8)).save(host.base / "input" / "transfer.png")
    picture, = saved(host, host.run(graph()))
    assert picture.shape == (*SIZE, 3)
    cond = ("PGPISAppearanceEmbedding", {"method": ["method", 0], "source": ["photo", 0], "pose": ["pose", 0], "person": -1})
    expert, = saved(host, host.run(graph(cond=cond, apply=("PGPISApply", {"model": ["base", 0], "cond": ["cond", 0]}))))
    assert np.array_equal(picture, expert)


# --- what is missing ----------------------------------------------------------------------------------------

def test_what_is_missing_is_named_with_its_input(nodes, model, methods):
    with pytest.raises(ValueError, match="has a densepose but no pose; .*POSE_KEYPOINT at the input pose"):
        transfer(nodes, model, methods["fpdm"], drawn(), densepose=(object(),))
    with pytest.raises(ValueError, match="2 sources and 3 poses; expected equal numbers, or one of either.*Repeat"):
        transfer(nodes, model, methods["cfld"], drawn().repeat(2, 1, 1, 1), pose=frames(3))
    with pytest.raises(ValueError, match="2 sources, 2 poses, 3 masks; expected equal numbers, or one of each that differs"):
        transfer(nodes, model, methods["qen"], drawn().repeat(2, 1, 1, 1), pose=frames(2), mask=torch.ones(3, 8, 8))


# --- warnings -----------------------------------------------------------------------------------------------

def told(nodes, model, method, photo, caplog, **given):
    caplog.clear()
    with caplog.at_level(logging.INFO):
        transfer(nodes, model, method, photo, pose=frames(1), **given)
    return caplog.text


def test_a_photo_at_a_demo_checkpoint_is_told_and_a_mannequin_is_not(nodes, model, methods, caplog):
    noisy = torch.rand(1, 300, 200, 3, generator=torch.Generator().manual_seed(0))
    shaded = torch.linspace(0.2, 0.8, 300)[:, None, None].expand(300, 200, 3) + 0.04 * noisy   # a wall, a camera's noise
    for name, method in methods.items():
        for photo in (noisy, shaded):
            said = told(nodes, model, method, photo, caplog)
            assert "knows drawn mannequins alone, and this looks like a photo" in said, name
        for number in (118, 104, 7):
            for size in (SIZE, (256, 192), (512, 384)):
                said = told(nodes, model, method, drawn(number, size), caplog)
                assert "looks like a photo" not in said, (name, number, size)


def test_a_black_mask_is_told(nodes, model, methods, caplog):
    qen, black, half = methods["qen"], torch.zeros(2, 40, 30), torch.zeros(2, 40, 30)
    half[:, 10:30] = 1
    mixed = torch.stack([half[0], black[0]])
    assert "MASK 1, 2 of 2 is all black, which masks nothing" in told(nodes, model, qen, drawn(), caplog, mask=black)
    assert "MASK 2 of 2 is all black" in told(nodes, model, qen, drawn(), caplog, mask=mixed)
    assert "all black" not in told(nodes, model, qen, drawn(), caplog, mask=half)


def test_what_suits_the_sampler_is_said(nodes, model, methods, caplog):
    assert "cfld_tiny.safetensors (cfld on base demo): 16 steps at cfg 1.5 suit it." in told(
        nodes, model, methods["cfld"], drawn(), caplog)
