"""The method of docs/new_method.md in a ComfyUI: its node is found, and its trained checkpoint samples as with diffusers."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pgpis_models.checkpoint import load_checkpoint, save_checkpoint
from pgpis_models.methods import picture_encoder
from pgpis_models.poses.formats import from_pose_keypoint
from pgpis_models.unet.base import BaseSizes, load_unet
from pgpis_models.unet.diffusers_binding import DiffusersBinding, swap_weights
from tests.helpers.new_method import HERE, SIZE, added, config, small, write
from tests.helpers.small import shrink
from training.engine.loop import run
from training.train import task_class

TOLERANCE = 1e-4   # of the largest value
WEIGHT = 1.7       # of the appearance


@pytest.fixture(scope="module")
def page(host, tiny, tmp_path_factory):
    """The host's pack and this one with the page's files in them; a checkpoint of four steps, and the base it fits."""
    folder = write(tmp_path_factory.mktemp("page"))
    sizes = BaseSizes(tiny.widths, heads=tiny.heads, cross_attention_dim=tiny.context, prediction="v_prediction")
    overrides = small(folder, sizes, tiny.unet())
    with added(folder, HERE), added(folder, {name: host.pack(name) for name in ("pgpis_models", "nodes")}):
        settings = config(folder, overrides)
        with pytest.MonkeyPatch.context() as patch:
            shrink(patch)
            trained = load_checkpoint(run(settings, task_class(settings.task)))
        torch.nn.init.normal_(trained.method.pose_guider.conv_out.weight)   # after four steps still all but zero
        file = host.base / "models" / "pgpis" / "tint.safetensors"
        save_checkpoint(file, trained.method, trained.unet_weights, base="demo", step=16, data="none", licence="none")
        nodes = SimpleNamespace(**{name: host.pack(f"nodes.{name}") for name in ("loaders", "sampling", "tint")})
        yield SimpleNamespace(nodes=nodes, file=file, base=load_unet(folder / "base.safetensors")[0])
        file.unlink()


@pytest.fixture(scope="module")
def photo():
    return torch.rand(1, *SIZE, 3, generator=torch.Generator().manual_seed(1))


def poses(seed: int, count: int = 2) -> list[dict]:
    """POSE_KEYPOINT of frames with one person each."""
    xy = np.random.default_rng(seed).uniform(6, 42, (count, 18, 2))
    return [{"people": [{"pose_keypoints_2d": np.concatenate([one, np.ones((18, 1))], 1).ravel().tolist()}],
             "canvas_height": SIZE[0], "canvas_width": SIZE[1]} for one in xy]


@torch.no_grad()
def by_nodes(page, tiny, photo, pose, x, sigmas):
    """Sampled latents of the node chain: load, embed, PGPIS Guider."""
    import comfy.samplers
    method = page.nodes.loaders.LoadCheckpoint.execute("tint.safetensors").result[0]
    [cond] = page.nodes.tint.TintEmbedding.execute(method, photo, pose, -1).result
    assert cond.latent_size == (SIZE[0] // 8, SIZE[1] // 8) and cond.batch == len(pose)
    model = tiny.model(page.base, prediction="V_PREDICTION")
    guider = page.nodes.sampling.GuiderNode.execute(model, cond, "default", appearance=WEIGHT).result[0]
    return guider.sample(x, torch.zeros_like(x), comfy.samplers.sampler_object("euler"), sigmas, disable_pbar=True)


@torch.no_grad()
def by_diffusers(page, photo, pose, x, sigmas):
    """The same with diffusers: the checkpoint's weights in its UNet, and Euler's method written out for v-prediction."""
    loaded = load_checkpoint(page.file)
    encode = picture_encoder("tint")
    encoded = encode(loaded.method, photo.movedim(-1, 1) * 2 - 1, from_pose_keypoint(pose, "largest"), torch.device("cpu"))
    before, binding = swap_weights(page.base, loaded.unet_weights), DiffusersBinding(page.base)
    denoise = binding.denoiser(loaded.method.guidance(encoded, appearance=WEIGHT), len(x))
    betas = torch.linspace(0.00085 ** 0.5, 0.012 ** 0.5, 1000, dtype=torch.float64) ** 2
    kept = torch.cumprod(1 - betas, 0)
    noise_of = ((1 - kept) / kept).sqrt()   # sigma of each timestep
    x = x * (sigmas[0] ** 2 + 1) ** 0.5     # how the host scales noise at the start
    for sigma, following in zip(sigmas.tolist()[:-1], sigmas.tolist()[1:], strict=True):
        t = int((noise_of.log() - np.log(sigma)).abs().argmin())
        out = denoise(x / (sigma ** 2 + 1) ** 0.5, t)
        x0 = x / (sigma ** 2 + 1) - out * sigma / (sigma ** 2 + 1) ** 0.5
        x = x + (x - x0) / sigma * (following - sigma)
    binding.release()
    swap_weights(page.base, before)
    return x / 0.18215                      # what a host's sampler gives: latents before the autoencoder's factor


def test_its_node_is_in_the_menu(host, page):
    import asyncio
    loop = asyncio.new_event_loop()
    found = loop.run_until_complete(host.pack("nodes").PGPISExtension().get_node_list())
    loop.close()
    assert page.nodes.tint.TintEmbedding in found
    assert page.nodes.tint.TintEmbedding.define_schema().node_id == "PGPISTintEmbedding"


def test_both_bindings_sample_the_same(page, tiny, photo):
    import comfy.samplers
    sigmas = comfy.samplers.calculate_sigmas(tiny.model(page.base).model.model_sampling, "normal", 4)
    x = torch.randn(2, 4, SIZE[0] // 8, SIZE[1] // 8, generator=torch.Generator().manual_seed(5))
    ours = by_nodes(page, tiny, photo, poses(0), x, sigmas)
    theirs = by_diffusers(page, photo, poses(0), x, sigmas)
    assert float((ours - theirs).abs().max() / theirs.abs().max()) < TOLERANCE
    for seen, pose in ((photo, poses(1)), (photo.flip(1), poses(0))):
        other = by_nodes(page, tiny, seen, pose, x, sigmas)
        assert float((ours - other).abs().max() / theirs.abs().max()) > 10 * TOLERANCE, "pose and photo are seen"
