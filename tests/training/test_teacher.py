"""Copying the demo's base, told the truth: what is compared, that it is learned, and when it cannot be had."""

import dataclasses
from functools import partial

import numpy as np
import pytest
import torch

from pgpis_models.base import load_unet
from pgpis_models.injections import everywhere, harmonise
from pgpis_models.pose_factored import join
from pgpis_models.schedule import cubic_timesteps
from tests import fpdm_tiny
from tests.steps import adam, changed, step, weights
from tests.tiny import shaken, train_config, write_base
from training.base import CaptionedUNet, companion
from training.fpdm import FPDMTask
from training.fpdm_fusion import FusionTask
from training.loop import run
from training.mcld import MCLDTask
from training.qen import QENTask
from training.teacher import decoder_inputs, feature_error

CPU = torch.device("cpu")
MODEL = {"image_size": [64, 64], "window": [4, 4], "swin_width": 8, "swin_depths": [1, 1, 1, 1], "swin_heads": [1, 1, 2, 2],
         "fusion_depth": 1, "unet_widths": [32, 32, 32, 32], "prompt_drop": 0.5, "pose_drop": 0.0}   # of a tiny QEN


@pytest.fixture(scope="module")
def fusion(folder, files):
    return str(run(fpdm_tiny.train_config(folder, files, "fpdm_fusion"), FusionTask))


def qen(folder, files, base, model=None, **method):
    torch.manual_seed(0)
    settings = {"model": MODEL | (model or {}), "base": str(base), "teacher": 0.5}
    return QENTask(train_config(folder, files, task="qen", method=settings | method), CPU)


def fpdm(folder, files, base, fusion, **method):
    torch.manual_seed(0)
    drops = {"pose_drop": 0.0, "source_drop": 0.0, "fusion_drop": 0.0}
    settings = {"model": fpdm_tiny.MODEL | drops, "base": str(base), "teacher": 0.5}
    own = {"fusion": fusion, "init_tower": fpdm_tiny.tower_file(folder)}
    return FPDMTask(fpdm_tiny.train_config(folder, files, "fpdm", method=settings | method, fpdm=own), CPU)


def written_out(unet, call):
    """What the decoder is given, taken at another place: from the encoder's outputs, which equal it where no control branch
    adds to them."""
    found = []
    hooks = [block.register_forward_hook(lambda _m, _i, output: found.extend(output[1])) for block in unet.down_blocks]
    hooks.append(unet.mid_block.register_forward_hook(lambda _m, _i, output: found.append(output)))
    result = call()
    for hook in hooks:
        hook.remove()
    return [*found, result]


def test_the_loss_is_the_formula_written_out(folder, files, base, fusion):
    task = fpdm(folder, files, base, fusion)
    model, method = task.model.eval(), task.model.method
    with torch.no_grad():
        shaken(method.pose_guider, 0.2)
        batch = task.batch(np.random.default_rng(1), 3)
        torch.manual_seed(5)
        loss, logs = model(batch)
        torch.manual_seed(5)
        embedding = method.fusion(batch["clip_source"], batch["clip_pose"])
        injected = method.training_injections(method.source_tower(batch["source"]), batch["pose"], embedding)
        t = cubic_timesteps(torch.rand(3), 1000)
        latents = batch["target_latents"]
        noise = torch.randn_like(latents)
        noise = noise + 0.1 * torch.randn(3, 4, 1, 1)
        noisy = model.schedule.add_noise(latents, noise, t)
        rows = harmonise([injected], 3).stacked()
        mine = written_out(model.unet, lambda: model.binding(noisy, t, rows))
        teacher = CaptionedUNet(*load_unet(base), 0.0, 0.0, 1.0).eval()
        teacher.load_companion(companion(base))
        told = {f"context.{stage}": batch["caption"] for stage in ("down", "mid", "up")}
        told |= {f"down_residual.{level}": value for level, value in enumerate(teacher.pose_encoder(batch["raster"].full()))}
        theirs = written_out(teacher.unet, lambda: teacher.binding(noisy, t, told))
    errors = [((a.double() - b.double()).square().mean() / b.double().var()).item()
              for a, b in zip(mine, theirs, strict=True)]
    expected = np.mean(errors[:-1]) + errors[-1]
    assert len(errors) == 13   # eleven skips, the middle, the prediction
    assert expected > 0.01 and abs(logs["teacher"].item() - expected) < 1e-4 * expected
    assert abs(loss.item() - logs["denoising"].item() - 0.5 * expected) < 1e-4 * max(1.0, loss.item())


def test_control_residuals_are_part_of_what_the_decoder_is_given(folder, files, base):
    """QEN's control branch starts with zero convolutions: with them shaken the same call gives other maps."""
    task = qen(folder, files, base, reconstruct=False)
    model, method = task.model.eval(), task.model.method
    batch = task.batch(np.random.default_rng(0), 2)
    noisy, t = torch.randn(2, 4, 8, 8), torch.full((2,), 900)

    def given():
        torch.manual_seed(0)
        rows = harmonise([method.training_injections(batch["source"], None, batch["target_pose"])], 2)
        call = partial(model.binding, noisy, t, rows.stacked())
        with torch.no_grad():
            return decoder_inputs(model.unet, lambda: call(control=rows.control)), decoder_inputs(model.unet, call)
    with_control, without = given()
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(with_control, without, strict=True))
    shaken(method.control, 0.2)
    with_control, without = given()
    assert not any(torch.allclose(a, b, atol=1e-3) for a, b in zip(with_control, without, strict=True))


def test_one_who_does_as_the_base_makes_no_error(folder, files, base):
    """The student's own UNet with the base's adapter and the caption in place of the method."""
    task = qen(folder, files, base, reconstruct=False)
    batch = task.batch(np.random.default_rng(0), 3)
    noisy, t = torch.randn(3, 4, 8, 8), torch.tensor([999, 600, 10])
    wanted = task.model.demo_losses.teacher.features(noisy, t, batch["caption"], batch["target_pose"])
    maps = task.model.demo_losses.teacher.model.pose_encoder(batch["target_pose"])
    rows = {f"context.{stage}": batch["caption"] for stage in ("down", "mid", "up")}
    rows |= {f"down_residual.{level}": value for level, value in enumerate(maps)}
    found = decoder_inputs(task.model.unet, lambda: task.model.binding(noisy, t, rows))
    assert feature_error(found, wanted) < 1e-9
    other = task.model.demo_losses.teacher.features(noisy, t, batch["caption"].flip(0), batch["target_pose"])
    assert feature_error(found, other) > 1e-4


@pytest.mark.parametrize("method", ["qen", "fpdm"])
def test_it_is_learned_and_the_teacher_stays_as_it_is(folder, files, base, fusion, method):
    task = fpdm(folder, files, base, fusion, teacher=5.0) if method == "fpdm" else \
        qen(folder, files, base, model={"prompt_drop": 0.0}, teacher=5.0, reconstruct=False)
    model = task.model.train()
    names, before = set(model.state_dict()), weights(model.demo_losses.teacher.model)
    batch, optimiser = task.batch(np.random.default_rng(0), 4), adam(task, 2e-3)
    errors = [step(task, batch, optimiser)[1]["teacher"].item() for _ in range(25)]
    assert errors[-1] < 0.7 * errors[0]
    assert not changed(model.demo_losses.teacher.model, before) and not any("teacher" in name for name in names)
    assert not any(block._forward_pre_hooks for block in model.unet.up_blocks)


def test_both_halves_of_a_pair_have_their_own_pose(folder, files, base):
    task = qen(folder, files, base, model={"prompt_drop": 0.0})
    batch = task.batch(np.random.default_rng(0), 4)   # two pairs
    seen = {}
    features = task.model.demo_losses.teacher.features

    def watched(noisy, timesteps, caption, raster):
        seen.update(caption=caption, raster=raster)
        return features(noisy, timesteps, caption, raster)
    task.model.demo_losses.teacher.features = watched
    task.model(batch)
    assert torch.equal(seen["caption"], torch.cat([batch["caption"], batch["caption"]]))
    assert torch.equal(seen["raster"].full(), join([batch["source_pose"], batch["target_pose"]]).full())
    assert everywhere(seen["caption"]).keys() == {"down", "mid", "up"}


def test_without_the_adapter_training_goes_on_without_a_teacher_and_says_so(folder, files, fusion, tmp_path, capsys):
    bare = str(write_base(tmp_path / "bare.safetensors"))
    for make in (partial(qen, folder, files, bare), partial(fpdm, folder, files, bare, fusion)):
        task = make()
        said = capsys.readouterr().out
        assert "(for method.teacher) is" in said and "bare_adapter.safetensors, which is not there" in said
        assert "teacher" not in task.model(task.batch(np.random.default_rng(0), 2))[1]


def test_it_says_what_it_needs(folder, files, base):
    with pytest.raises(ValueError, match="reads poses in 21 channels, the method in 3; set method.model.pose_channels=21"):
        qen(folder, files, base, model={"pose_channels": 3})
    config = train_config(folder, files, task="mcld", method={"preset": "demo", "model": {}, "teacher": 1.0})
    with pytest.raises(ValueError, match="method.teacher is 1.0 and method.pixels 0.0; expected 0 of both"):
        MCLDTask(config, CPU)
    photos = dataclasses.replace(config, data=dataclasses.replace(config.data, kind="deepfashion"))
    with pytest.raises(ValueError, match=r"\['teacher'\] need captions or person masks"):
        MCLDTask(photos, CPU)
