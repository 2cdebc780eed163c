"""Sequences of poses: frames in chunks, held poses, and their noise."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from tests.host.fpdm.helpers import FRAMES, embed, sequence, walking


def test_a_sequence_in_chunks_is_what_ksampler_makes_of_all_frames_at_once(host, nodes, model, fpdm, photo):
    import comfy.sample
    cond = embed(nodes, fpdm, photo, walking())[0]
    patched, positive, negative, latent = nodes.sampling.Apply.execute(model, cond).result
    start = comfy.sample.prepare_noise(latent["samples"], 5)
    with torch.inference_mode():
        together = comfy.sample.sample(patched, start, 3, 2.0, "euler", "normal", positive, negative, latent["samples"],
                                       seed=5, disable_pbar=True)
        made = {chunk: sequence(nodes, model, fpdm, photo, walking(), chunk=chunk) for chunk in (0, 1, 2)}
    for chunk, frames in made.items():
        assert frames.shape == (FRAMES, 4, 16, 12)
        assert (frames - together).abs().max() < 1e-4 * together.abs().max(), chunk
    assert (together[0] - together[1]).abs().max() > 0.05


def test_the_same_noise_makes_equal_frames_of_equal_poses(nodes, model, fpdm, photo):
    first, *_ = walking()
    frames = [first, *walking()[1:3], first]
    same = sequence(nodes, model, fpdm, photo, frames, noise=nodes.sequence.SAME)
    own = sequence(nodes, model, fpdm, photo, frames)
    size = same.abs().max()
    assert (same[0] - same[3]).abs().max() < 1e-4 * size and (same[0] - same[1]).abs().max() > 1e-3 * size
    assert (own[0] - own[3]).abs().max() > 0.1 * size
    one = sequence(nodes, model, fpdm, photo, frames[2:3], noise=nodes.sequence.SAME)
    assert (one[0] - same[2]).abs().max() < 1e-4 * size


def test_empty_frames_are_held_or_named(nodes, model, fpdm, photo):
    frames = walking(4)
    for gone in (0, 2):
        frames[gone] = frames[gone] | {"people": []}
    made = sequence(nodes, model, fpdm, photo, frames, noise=nodes.sequence.SAME)
    size = made.abs().max()
    assert (made[0] - made[1]).abs().max() < 1e-4 * size and (made[2] - made[1]).abs().max() < 1e-4 * size
    assert (made[3] - made[1]).abs().max() > 1e-3 * size
    with pytest.raises(ValueError, match="No person in frame 1 of 4"):
        sequence(nodes, model, fpdm, photo, frames, empty_frames="error")
    # beside the sampler in the workflow: no reason to stop
    drawn, = nodes.pose.loading.DrawPose.execute(frames, 0, 0, -1).result
    assert [bool(picture.any()) for picture in drawn] == [False, True, False, True]
    with pytest.raises(ValueError, match="No person in frame 1 of 2"):
        sequence(nodes, model, fpdm, photo, [frames[0], frames[2]])


def test_a_person_who_has_left_the_canvas_is_held_or_named(nodes, model, fpdm, photo):
    frames = walking(3)
    flat = np.array(frames[1]["people"][0]["pose_keypoints_2d"]).reshape(18, 3) + (500, 0, 0)
    frames[1] = frames[1] | {"people": [{"pose_keypoints_2d": flat.ravel().tolist()}]}
    made = sequence(nodes, model, fpdm, photo, frames, noise=nodes.sequence.SAME)
    size = made.abs().max()
    assert (made[1] - made[0]).abs().max() < 1e-4 * size < (made[2] - made[0]).abs().max()
    for refusing in (lambda: sequence(nodes, model, fpdm, photo, frames, empty_frames="error"),
                     lambda: embed(nodes, fpdm, photo, frames)):
        with pytest.raises(ValueError, match="no joint lies on the canvas.*frame 2 of 3"):
            refusing()


@pytest.mark.parametrize("name", ["ddpm", "euler_ancestral", "dpmpp_sde", "dpmpp_2m_sde", "dpmpp_3m_sde_gpu", "er_sde",
                                  "seeds_2", "sa_solver"])
def test_noise_of_the_steps_belongs_to_the_frame_and_not_to_its_chunk(host, nodes, model, fpdm, photo, name):
    import comfy.sample
    first, second = walking(2)
    pose = [second, first, first]   # in chunks of two the last is the first of its own
    with torch.inference_mode():
        still = sequence(nodes, model, fpdm, photo, pose, chunk=2, sampler_name=name, noise=nodes.sequence.SAME)
        moving, parted = (sequence(nodes, model, fpdm, photo, pose, chunk=chunk, sampler_name=name) for chunk in (4, 1))
        assert (parted - moving).abs().max() < 1e-4 * moving.abs().max()
        assert (still[1] - still[2]).abs().max() < 1e-4 * still.abs().max()   # one pose, one noise, one picture
        assert (moving[1] - moving[2]).abs().max() > 0.05
        cond = embed(nodes, fpdm, photo, pose[1:2])[0]
        patched, positive, negative, latent = nodes.sampling.Apply.execute(model, cond).result
        start = comfy.sample.prepare_noise(latent["samples"], 5)
        alone = comfy.sample.sample(patched, start, 3, 2.0, name, "normal", positive, negative, latent["samples"], seed=5,
                                    disable_pbar=True)
    assert (alone - still[1:2]).abs().max() < 1e-4 * alone.abs().max()


def test_the_source_is_read_once_and_no_chunk_holds_more_frames_than_it_says(nodes, model, fpdm, photo):
    method, unet, counts = fpdm.checkpoint.method, model.model.diffusion_model, {}

    def count(name):
        return lambda module, arguments: counts.setdefault(name, []).append(len(arguments[0]))
    hooks = [module.register_forward_pre_hook(count(name)) for name, module in
             (("source", method.source_tower), ("pose", method.pose_guider), ("unet", unet))]
    try:
        sequence(nodes, model, fpdm, photo, walking())
    finally:
        for hook in hooks:
            hook.remove()
    assert counts["source"] == [1] and counts["pose"] == [2, 2, 1]
    assert counts["unet"] == [4] * 6 + [2] * 3  # two terms of each frame in one call


def test_chunks_follow_the_free_memory(nodes, model, monkeypatch):
    import comfy.model_management
    fits = nodes.sequence.chunk_that_fits
    need = model.memory_required([8, 4, 16, 12]) * 1.5 + max(0, model.model_size() - model.loaded_size())
    for free, frames, expected in ((need + 1, 100, 4), (need - 1, 100, 2), (0, 100, 1), (1e15, 100, 16), (1e15, 5, 8),
                                   (1e15, 1, 1)):
        monkeypatch.setattr(comfy.model_management, "get_free_memory", lambda *_, value=free: value)
        assert fits(model, (16, 12), frames) == expected, (free, frames)


def test_the_model_stays_as_it_was(nodes, model, fpdm, photo):
    import comfy.model_management
    comfy.model_management.unload_all_models()  # the weights of the test before
    before = {name: list(patches) for name, patches in model.patches.items()}
    options = json.dumps(sorted(model.model_options["transformer_options"]))
    weight = model.model.diffusion_model.input_blocks[0][0].weight.clone()
    sequence(nodes, model, fpdm, photo, walking(2))
    comfy.model_management.unload_all_models()
    assert before == model.patches and options == json.dumps(sorted(model.model_options["transformer_options"]))
    assert torch.equal(weight, model.model.diffusion_model.input_blocks[0][0].weight)


def test_other_methods_that_read_the_source_apart_make_sequences_too(nodes, model, photo, demo, qen):
    cfld = nodes.loaders.LoadCheckpoint.execute("cfld_tiny.safetensors").result[0]
    for method in (cfld, qen):
        made = sequence(nodes, model, method, photo, walking(3))
        assert made.shape == (3, 4, 16, 12) and torch.isfinite(made).all()
        alone = torch.cat([sequence(nodes, model, method, photo, [frame], noise=nodes.sequence.SAME)
                           for frame in walking(3)])
        together = sequence(nodes, model, method, photo, walking(3), noise=nodes.sequence.SAME)
        assert (alone - together).abs().max() < 1e-4 * together.abs().max()
        assert (together[0] - together[1]).abs().max() > 1e-3 * together.abs().max()
    with pytest.raises(ValueError, match="2 sources for one sequence; expected one"):
        sequence(nodes, model, cfld, photo.expand(2, -1, -1, -1), walking(3))


def test_graphs_with_both_nodes_run_in_the_host(host, demo, fpdm, photo):
    Image.fromarray((photo[0] * 255).byte().numpy()).save(host.base / "input" / "fpdm_source.png")
    text = json.dumps(walking(3))
    nodes = {
        "base": ("PGPISLoadDemoBase", {}), "method": ("PGPISLoadCheckpoint", {"file": "fpdm_tiny.safetensors"}),
        "source": ("LoadImage", {"image": "fpdm_source.png"}),
        "pose": ("PGPISLoadPose", {"file": "(the text below)", "text": text, "canvas_width": 96, "canvas_height": 128}),
        "cond": ("PGPISFusionEmbedding", {"method": ["method", 0], "source": ["source", 0], "pose": ["pose", 0],
                                          "person": -1, "empty_frames": "error", "target": ["source", 0]}),
        "apply": ("PGPISApply", {"model": ["base", 0], "cond": ["cond", 0]}),
        "sampler": ("KSampler", {"model": ["apply", 0], "positive": ["apply", 1], "negative": ["apply", 2],
                                 "latent_image": ["apply", 3], "seed": 1, "steps": 2, "cfg": 2.0, "sampler_name": "euler",
                                 "scheduler": "normal", "denoise": 1.0}),
        "decode": ("VAEDecode", {"samples": ["sampler", 0], "vae": ["base", 1]}),
        "save": ("SaveImage", {"images": ["decode", 0], "filename_prefix": "fpdm"}),
        "frames": ("PGPISPoseSequenceSampler", {
            "model": ["base", 0], "method": ["method", 0], "source": ["source", 0], "pose": ["pose", 0], "person": -1,
            "empty_frames": "hold", "seed": 1, "noise": "same for all frames", "steps": 2, "cfg": 2.0,
            "sampler_name": "euler", "scheduler": "normal", "chunk": 0}),
        "pictures": ("VAEDecode", {"samples": ["frames", 0], "vae": ["base", 1]}),
        "film": ("SaveAnimatedWEBP", {"images": ["pictures", 0], "filename_prefix": "film", "fps": 8.0, "lossless": True,
                                      "quality": 80, "method": "default"})}
    result = host.run({name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in nodes.items()})
    assert result.success, result.errors
    assert len(result.outputs["save"]["images"]) == 3
    [film] = result.outputs["film"]["images"]
    with Image.open(host.base / "output" / film["subfolder"] / film["filename"]) as picture:
        assert picture.n_frames == 3 and picture.size == (96, 128)
