"""docs/new_method.md is built as it stands: its method trains, is saved and loaded, and makes pictures with diffusers.
tests/host/test_new_method_nodes.py runs the same checkpoint in a ComfyUI."""

from __future__ import annotations

import ast
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pgpis_models.checkpoint import load_checkpoint
from pgpis_models.pipeline import Generator
from pgpis_models.poses.keypoints import Keypoints
from pgpis_models.unet.base import BaseSizes
from tests.helpers.new_method import HERE, ROOT, SIZE, added, blocks, config, small, write
from tests.helpers.small import shrink
from training.engine.loop import run
from training.train import task_class

SIZES = BaseSizes((32, 32, 32, 32), heads=2, cross_attention_dim=16, prediction="v_prediction")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The pack with the page's files in it, and the page's config on a small base."""
    folder = write(tmp_path_factory.mktemp("page"))
    torch.manual_seed(0)
    overrides = small(folder, SIZES, SIZES.build())
    with added(folder, HERE):
        yield SimpleNamespace(folder=folder, config=lambda *more: config(folder, [*overrides, *more]))


@pytest.fixture(scope="module")
def checkpoint(page):
    """What the page's config trains, in four steps."""
    settings = page.config()
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        return run(settings, task_class(settings.task))


def test_the_page_adds_files_that_are_not_there_and_lines_to_lists_that_are():
    new, additions = blocks()
    assert not [path for path in new if (ROOT / path).exists()]
    assert set(additions) == {("pgpis_models/methods.py", "METHODS"), ("training/train.py", "TASKS"),
                              ("nodes/__init__.py", "FILES")}
    for path, text in new.items():
        if path.endswith(".py"):
            assert ast.get_docstring(ast.parse(text)) and max(map(len, text.splitlines())) <= 125, path
    method = ast.parse(new["pgpis_models/tint/model.py"])
    assert sum(node.end_lineno - node.lineno for node in method.body if isinstance(node, ast.ClassDef)) < 50


def test_its_loss_falls_on_one_batch(page):
    settings = page.config()
    torch.manual_seed(0)
    task = task_class(settings.task)(settings, torch.device("cpu"))
    task.model.train()
    batch, optimiser, losses = task.batch(np.random.default_rng(0), 4), torch.optim.Adam(task.groups(3e-3)), []
    for _ in range(20):
        torch.manual_seed(1)   # the same noise in every step
        loss, _ = task.model(batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    assert all(p.grad is not None and p.grad.any() for p in task.model.parameters() if p.requires_grad)


def test_its_checkpoint_says_what_it_is_and_is_loaded(page, checkpoint):
    loaded = load_checkpoint(checkpoint)
    assert loaded.meta.method == "tint" and loaded.meta.step == 16 and loaded.meta.base == "demo"
    assert type(loaded.method).__name__ == "Tint" and set(loaded.unet_weights) == set(loaded.method.unet_weight_shapes())
    assert {name: tuple(value) if isinstance(value, list) else value for name, value in loaded.meta.config.items()} == \
        asdict(loaded.method.config)
    assert checkpoint.name == "demo_tint.safetensors"
    again = page.config(f"method.init={checkpoint}")
    task = task_class(again.task)(again, torch.device("cpu"))   # training goes on from it
    state = loaded.method.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in task.model.method.state_dict().items())


def test_it_makes_pictures_of_source_and_pose(page, checkpoint):
    with torch.no_grad():   # of four steps: a zero convolution has hardly begun to say something of the pose
        generator = Generator(checkpoint, page.folder / "base.safetensors", page.folder / "vae.safetensors")
        generator.method.pose_guider.conv_out.weight.normal_(std=0.3)
    random = np.random.default_rng(0)
    poses = [Keypoints(random.uniform(4, 44, (18, 2)).astype(np.float32), np.ones(18, bool), SIZE) for _ in range(2)]
    source = torch.rand(1, 3, *SIZE) * 2 - 1
    how = {"steps": 3, "weights": {"appearance": 1.5}, "seed": 3}
    made = generator.latents(source, poses, **how)
    assert generator(source, poses, **how).shape == (2, 3, *SIZE)
    assert torch.equal(generator.latents(source, poses, **how), made)
    for other in (generator.latents(source, poses[::-1], **how), generator.latents(source.flip(2), poses, **how)):
        assert float((other - made).abs().max()) > 1e-3
