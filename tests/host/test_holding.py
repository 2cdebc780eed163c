"""What holds frames still in the host: noise that follows the body, and the first frame seen by all."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

CELLS, FRAMES = (16, 12), 4


@pytest.fixture(scope="module")
def nodes(host):
    return SimpleNamespace(**{name: host.pack(f"nodes.{name}") for name in
                              ("loaders", "appearance", "sampling", "sequence", "holding")})


@pytest.fixture(scope="module")
def model(nodes, demo):
    return nodes.loaders.LoadDemoBase.execute().result[0]


@pytest.fixture(scope="module")
def cfld(nodes, demo):
    return nodes.loaders.LoadCheckpoint.execute("cfld_tiny.safetensors").result[0]


@pytest.fixture(scope="module")
def photo():
    return torch.rand(1, 128, 96, 3, generator=torch.Generator().manual_seed(2))


def waving(count: int = FRAMES) -> list[dict]:
    """Frames of a person who stands and lifts an arm."""
    joints = [(48, 24), (48, 36), (38, 36), (34, 52), (32, 66), (58, 36), (62, 52), (64, 66), (42, 68), (41, 90), (40, 112),
              (54, 68), (55, 90), (56, 112), (45, 21), (51, 21), (42, 23), (54, 23)]
    frames = []
    for n in range(count):
        moved = [list(joint) for joint in joints]
        moved[6], moved[7] = [62 + 4 * n, 52 - 6 * n], [64 + 8 * n, 66 - 14 * n]
        flat = [value for x, y in moved for value in (x, y, 1)]
        frames.append({"people": [{"pose_keypoints_2d": flat}], "canvas_height": 128, "canvas_width": 96})
    return frames


def sequence(nodes, model, method, photo, pose, **more):
    settings = {"person": -1, "empty_frames": "hold", "seed": 5, "noise": nodes.sequence.BODY, "steps": 2, "cfg": 2.0,
                "sampler_name": "euler", "scheduler": "normal", "chunk": 2}
    return nodes.sequence.PoseSequenceSampler.execute(model, method, photo, pose, **settings | more).result[0]["samples"]


def test_the_sequence_sampler_makes_what_both_nodes_and_any_sampler_make(nodes, model, cfld, photo):
    import comfy.sample
    held = nodes.holding.HoldFirstFrame.execute(model, 0.6).result[0]
    cond = nodes.appearance.AppearanceEmbedding.execute(cfld, photo, waving(), -1).result[0]
    patched, positive, negative, latent = nodes.sampling.Apply.execute(held, cond).result
    noise = nodes.holding.BodyNoiseNode.execute(5, pose=waving()).result[0]
    start = noise.generate_noise(latent)
    with torch.inference_mode():
        together = comfy.sample.sample(patched, start, 2, 2.0, "euler", "normal", positive, negative, latent["samples"],
                                       seed=noise.seed, disable_pbar=True)
        made = {chunk: sequence(nodes, held, cfld, photo, waving(), chunk=chunk) for chunk in (2, 3)}
        plain = sequence(nodes, model, cfld, photo, waving(), noise=nodes.sequence.SAME)
        loose = sequence(nodes, model, cfld, photo, waving())
    size = together.abs().max()
    for frames in made.values():
        assert (frames - together).abs().max() < 1e-4 * size
    assert (together[0] - plain[0]).abs().max() < 1e-4 * size   # the first frame is the picture of that seed
    for other in (plain, loose):
        assert (together[3] - other[3]).abs().max() > 1e-3 * size


@pytest.mark.parametrize("name", ["euler_ancestral", "dpmpp_2m_sde"])
def test_noise_of_the_steps_is_carried_along_in_any_chunks(nodes, model, cfld, photo, name):
    with torch.inference_mode():
        made = [sequence(nodes, model, cfld, photo, waving(3), chunk=chunk, sampler_name=name) for chunk in (1, 4)]
        same = sequence(nodes, model, cfld, photo, waving(3), noise=nodes.sequence.SAME, sampler_name=name)
    size = same.abs().max()
    assert (made[0] - made[1]).abs().max() < 1e-4 * size
    assert (made[0][0] - same[0]).abs().max() < 1e-4 * size < (made[0][2] - same[2]).abs().max()


def test_the_noise_is_the_hosts_where_nothing_moves_and_moves_with_densepose(host, nodes):
    import comfy.sample
    iuv = host.pack("pgpis_models.surface.densepose").IUV

    def block(row):
        part = np.zeros((128, 96), np.uint8)
        maps = [np.zeros(part.shape, np.float32) for _ in "uv"]
        place = np.s_[row:row + 64, 32:64]
        part[place] = 2
        for values, at in zip(maps, np.meshgrid((np.arange(32) + 0.5) / 32, (np.arange(64) + 0.5) / 64), strict=True):
            values[place] = at
        return iuv(part, *maps)
    latent = {"samples": torch.zeros(2, 4, *CELLS)}
    made = nodes.holding.BodyNoiseNode.execute(9, densepose=(block(16), block(40))).result[0].generate_noise(latent)
    drawn = comfy.sample.prepare_noise(torch.zeros(1, 4, *CELLS), 9)[0]
    assert torch.equal(made[0], drawn)
    assert torch.equal(made[1][:, 5:13, 4:8], drawn[:, 2:10, 4:8]) and torch.equal(made[1][:, :2], drawn[:, :2])
    part = nodes.holding.BodyNoiseNode.execute(9, densepose=(block(16), block(40))).result[0].generate_noise(
        {"samples": torch.zeros(1, 4, *CELLS), "batch_index": [1]})
    assert torch.equal(part[0], made[1])


def test_what_does_not_fit_is_said(nodes, model, cfld, photo, host):
    noise = nodes.holding.BodyNoiseNode.execute(5, pose=waving()).result[0]
    with pytest.raises(ValueError, match="the noise follows 4 frames, the sampler runs 3 latents; expected as many"):
        noise.generate_noise({"samples": torch.zeros(3, 4, *CELLS)})
    with pytest.raises(ValueError, match="neither densepose nor pose; expected the frames"):
        nodes.holding.BodyNoiseNode.execute(5)
    with pytest.raises(ValueError, match="strength is -1; expected 0 to 2"):
        nodes.holding.HoldFirstFrame.execute(model, -1)
    iuv = host.pack("pgpis_models.surface.densepose").IUV
    one = iuv(np.ones((128, 96), np.uint8), *(np.zeros((128, 96), np.float32),) * 2)
    with pytest.raises(ValueError, match="1 DENSEPOSE for 4 frames; expected one for each"):
        sequence(nodes, model, cfld, photo, waving(), densepose=(one,))
    mcld = SimpleNamespace(name="m", checkpoint=SimpleNamespace(meta=SimpleNamespace(method="mcld")))
    with pytest.raises(ValueError, match="m takes DensePose rather than keypoints.*MCLD Multi-Focal Embedding"):
        sequence(nodes, model, mcld, photo, waving())


@pytest.mark.hosts
def test_a_graph_with_both_nodes_runs_in_the_host(host, demo):
    prompt = {
        "base": {"class_type": "PGPISLoadDemoBase", "inputs": {}},
        "hold": {"class_type": "PGPISHoldFirstFrame", "inputs": {"model": ["base", 0], "strength": 0.5}},
        "file": {"class_type": "PGPISLoadCheckpoint", "inputs": {"file": "cfld_tiny.safetensors"}},
        "pose": {"class_type": "PGPISLoadPose", "inputs": {"file": "(the text below)", "text": json.dumps(waving(2)),
                 "canvas_width": 96, "canvas_height": 128, "min_confidence": 0.3}},
        "photo": {"class_type": "EmptyImage", "inputs": {"width": 96, "height": 128, "batch_size": 1, "color": 4100}},
        "cond": {"class_type": "PGPISAppearanceEmbedding", "inputs": {"method": ["file", 0], "source": ["photo", 0],
                 "pose": ["pose", 0], "person": -1}},
        "guider": {"class_type": "PGPISGuider", "inputs": {"model": ["hold", 0], "cond": ["cond", 0], "mode": "default",
                   "pose": 2.0, "appearance": 1.5, "biases": 2.0, "prompt": 2.0}},
        "noise": {"class_type": "PGPISBodyNoise", "inputs": {"noise_seed": 3, "pose": ["pose", 0]}},
        "sampler": {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "euler"}},
        "sigmas": {"class_type": "BasicScheduler", "inputs": {"model": ["guider", 2], "scheduler": "normal", "steps": 2,
                   "denoise": 1.0}},
        "sample": {"class_type": "SamplerCustomAdvanced", "inputs": {"noise": ["noise", 0], "guider": ["guider", 0],
                   "sampler": ["sampler", 0], "sigmas": ["sigmas", 0], "latent_image": ["guider", 1]}},
        "decode": {"class_type": "VAEDecode", "inputs": {"samples": ["sample", 0], "vae": ["base", 1]}},
        "out": {"class_type": "PreviewImage", "inputs": {"images": ["decode", 0]}}}
    done = host.run(prompt)
    assert done.success, done.errors
    assert len(done.outputs["out"]["images"]) == 2
