"""CFLD's training step: what it changes, that it learns, and that what is exported is what was trained."""

import dataclasses
from functools import partial

import numpy as np
import pytest
import torch

from pgpis_models.checkpoint import load_checkpoint, save_checkpoint
from pgpis_models.pipeline import Generator
from tests.helpers.steps import changed, exported, gradients, shown_pairs, trained, weights
from tests.helpers.tiny import RASTER, SIZE, SIZES, cfld_config, shaken, train_config, write_base
from training.engine.loop import run
from training.engine.loss import cubic_timesteps
from training.tasks.cfld import CFLDTask
from training.train import task_class

CPU = torch.device("cpu")


def make(folder, files, **changes) -> CFLDTask:
    torch.manual_seed(0)
    return CFLDTask(train_config(folder, files, **changes), CPU)


# --- what changes -------------------------------------------------------------------------------------------

def test_steps_change_the_method_and_the_declared_unet_weights_and_nothing_else(folder, files):
    task = make(folder, files)
    before, vae = weights(task.model), weights(task.vae)
    trained(task, 3)   # convolutions that start at zero hold back the gradient of what lies before them
    now = changed(task.model, before)
    declared = {f"unet.{name}" for name in task.model.method.trainable_unet_weights()}
    assert len(declared) == 18
    assert {name for name in now if name.startswith("unet.")} == declared
    assert {name for name in now if name.startswith("method.")} == {f"method.{name}" for name in weights(
        task.model.method)}
    assert all(torch.equal(value, vae[name]) for name, value in task.vae.named_parameters())
    assert {n for n, p in task.model.unet.named_parameters() if p.requires_grad} == {n[5:] for n in declared}


def test_patterns_choose_more_weights_which_are_then_stored(folder, files, tmp_path):
    task = make(folder, files, method={"trainable_unet": ["default", "mid_block.*.to_q.weight"]})
    extra = set(task.stored) - set(task.model.method.trainable_unet_weights())
    assert extra and all(name.startswith("mid_block.") and name.endswith("to_q.weight") for name in extra)
    task.export(tmp_path / "a.safetensors", 5)
    assert set(load_checkpoint(tmp_path / "a.safetensors").unet_weights) == set(task.stored)
    again = make(folder, files, method={"init": str(tmp_path / "a.safetensors")})   # trains fewer, keeps the rest
    assert set(again.stored) == set(task.stored)
    assert sum(p.requires_grad for p in again.model.unet.parameters()) == 18
    for pattern, message in ((["default", "mid.*"], "'mid.*' fits no weight"), (["mid_block.*"], "leaves out 18 weights")):
        with pytest.raises(ValueError, match=message.replace("*", r"\*")):
            make(folder, files, method={"trainable_unet": pattern})


# --- that it learns -----------------------------------------------------------------------------------------

@pytest.mark.parametrize("method", [{}, {"reconstruct": False, "cubic_timesteps": False}])
def test_the_loss_falls_on_one_batch(folder, files, method):
    losses = trained(make(folder, files, method=method), 20, 3e-3, seed=0)   # the same noise in every step
    assert losses[-1] < 0.8 * losses[0] and losses[-1] < min(losses[:10])


@pytest.mark.parametrize("drop", ["prompt", "all"])
def test_the_loss_is_that_of_the_released_code_written_out(folder, files, drop):
    """By hand: encode once, repeat for both halves, drop the prompt only, cubic timesteps, plain mean squared error. As the
    paper has it a dropped item loses source and pose."""
    task = make(folder, files, cfld={"drop": drop})
    model, method = task.model.eval(), task.model.method
    batch = task.batch(np.random.default_rng(1), 6)
    torch.manual_seed(9)
    loss, logs = model(batch)

    torch.manual_seed(9)
    appearance = method.encode_appearance(batch["source"] / 127.5 - 1)   # bytes
    latents = torch.cat([batch["source_latents"], batch["target_latents"]])
    dropped = torch.rand(6) < method.config.prompt_drop
    assert 0 < dropped.sum() < 6
    prompt = torch.stack([method.learnable_vector[0] if dropped[row] else appearance.prompt[row % 3] for row in range(6)])
    timesteps = cubic_timesteps(torch.rand(6), 1000)
    noise = torch.randn_like(latents)
    abar = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2, 0)[timesteps].view(-1, 1, 1, 1)
    rows = {f"context.{stage}": prompt for stage in ("down", "mid", "up")}
    rows |= {f"query_bias.{site}": bias.repeat(2, 1, 1) for site, bias in appearance.query_bias.items()}
    poses = method.encode_pose(torch.cat([batch["source_pose"].full(), batch["target_pose"].full()]))
    if drop == "all":
        for row in dropped.nonzero().flatten():
            poses = [torch.where((torch.arange(6) == row).view(-1, 1, 1, 1), 0.0, pose) for pose in poses]
            rows |= {name: torch.where((torch.arange(6) == row).view(-1, 1, 1), 0.0, value) for name, value in rows.items()
                     if name.startswith("query_bias.")}
    rows |= {f"down_residual.{level}": pose for level, pose in enumerate(poses)}
    made = model.binding(abar.sqrt() * latents + (1 - abar).sqrt() * noise, timesteps, rows)
    velocity = abar.sqrt() * noise - (1 - abar).sqrt() * latents   # what this base predicts
    denoising = (made - velocity).square().mean()
    assert torch.allclose(loss, denoising, atol=1e-5) and logs == {}


def test_training_injections_may_be_given_an_appearance_or_transfers_alone():
    torch.manual_seed(0)
    from pgpis_models.cfld.model import CFLD
    method = shaken(CFLD(cfld_config())).eval()
    source, first, second = torch.rand(2, 3, *SIZE), torch.rand(2, 21, *RASTER), torch.rand(2, 21, *RASTER)
    draws = torch.tensor([0.1, 0.9, 0.7, 0.2])
    with torch.no_grad():
        whole = method.training_injections(source, first, second, draws)
        given = method.training_injections(source, first, second, draws, method.encode_appearance(source))
        alone = method.training_injections(source, None, second, draws[2:])
    assert all(torch.equal(whole.query_bias[s], given.query_bias[s]) for s in whole.query_bias)
    assert torch.equal(whole.context["up"], given.context["up"])
    assert torch.equal(whole.context["up"][2:], alone.context["up"])
    assert torch.equal(alone.context["up"][1], method.learnable_vector[0])
    for level in range(3):
        assert torch.allclose(whole.down_residuals[level][2:], alone.down_residuals[level], atol=1e-6)
    with pytest.raises(ValueError, match="2 sources with 1 source and 2 target poses"):
        method.training_injections(source, first[:1], second)


# --- what is exported ---------------------------------------------------------------------------------------

def test_the_exported_file_makes_the_picture_that_training_showed(folder, files, tmp_path):
    task = make(folder, files)
    path = tmp_path / "trained.safetensors"
    loaded = exported(task, path, 0.1)
    assert (loaded.meta.method, loaded.meta.step, loaded.meta.base, loaded.meta.data) == ("cfld", 1234, "demo", "mannequins")
    generator = Generator(path, files.base, files.vae)
    source, poses, shown = shown_pairs(task)
    made = generator(source[:2], poses, steps=4)
    assert shown.shape == (2, 3, *SIZE) and shown.std() > 0.05
    assert torch.allclose(made, shown, atol=1e-5)
    other = generator(source[2:4], poses, steps=4)
    assert (other - made).abs().max() > 1e-4


@pytest.mark.usefixtures("small_grids")
def test_a_whole_run_shows_grids_and_exports_its_average(folder, files, tmp_path):
    config = train_config(folder, files, output=str(tmp_path), images=8, sample_every=4, ema=0.9,
                          export=str(tmp_path / "x" / "cfld.safetensors"))
    assert task_class("cfld") is CFLDTask
    path = run(config, CFLDTask)
    assert path == tmp_path / "x" / "cfld.safetensors" and load_checkpoint(path).meta.step == 8
    assert len(list((tmp_path / "tiny" / "samples").glob("*.png"))) == 2


def test_gradient_checkpointing_changes_nothing(folder, files):
    first, second = (make(folder, files, checkpointing=checkpointing) for checkpointing in (False, True))
    assert not first.model.unet.is_gradient_checkpointing and second.model.unet.is_gradient_checkpointing
    first, second = gradients(first), gradients(second)
    assert first.keys() == second.keys() and all(torch.allclose(first[name], second[name], atol=1e-6) for name in first)
    assert any(value.abs().max() > 1e-6 for value in first.values())


# --- where it starts ----------------------------------------------------------------------------------------

def test_an_earlier_checkpoint_is_not_overwritten_by_the_other_starts(folder, files, tmp_path):
    """The recipe for one's own photos names a checkpoint beside what the config starts from."""
    plain = make(folder, files, method={"init": str(files.cfld)}).model.method.state_dict()
    task = make(folder, files, method={"init": str(files.cfld), "backbone": str(tmp_path / "not read at all.pth")})
    assert all(torch.equal(value, plain[name]) for name, value in task.model.method.state_dict().items())
    stored = load_checkpoint(files.cfld)
    assert all(torch.equal(plain[name], value) for name, value in stored.method.state_dict().items())


def test_a_checkpoint_says_what_the_config_calls_its_data(folder, files, tmp_path):
    task = make(folder, files, data={"name": "my photos", "licence": "ask me"})
    task.export(tmp_path / "named.safetensors", 3)
    meta = load_checkpoint(tmp_path / "named.safetensors").meta
    assert (meta.data, meta.licence) == ("my photos", "ask me")


def test_a_run_goes_on_from_an_earlier_checkpoint(folder, files):
    task = make(folder, files, method={"init": str(files.cfld)})
    earlier = load_checkpoint(files.cfld)
    own, unet = task.model.method.state_dict(), dict(task.model.unet.named_parameters())
    assert all(torch.equal(value, own[name]) for name, value in earlier.method.state_dict().items())
    assert all(torch.equal(value, unet[name]) for name, value in earlier.unet_weights.items())


# --- what does not fit --------------------------------------------------------------------------------------

def test_what_does_not_fit_together_is_refused_before_the_first_step(folder, files, tmp_path):
    wide = write_base(tmp_path / "wide.safetensors", dataclasses.replace(SIZES, cross_attention_dim=32))
    with pytest.raises(ValueError, match=r"wide.safetensors does not fit the method: 18 keys of another shape.*\(32, 32\) "
                                         r"instead of \(32, 64\).*unet_widths"):
        make(folder, files, method={"base": str(wide)})
    for name, path in (("base", ""), ("vae", str(tmp_path / "nowhere"))):
        with pytest.raises(ValueError, match=f"method.{name} is '{path}', which is not there|no autoencoder at '{path}'"):
            make(folder, files, method={name: path})
    with pytest.raises(ValueError, match="method.preset is 'huge'; expected one of .*'demo', 'full', 'tiny'"):
        make(folder, files, method={"preset": "huge"})
    with pytest.raises(ValueError, match="a process gets 3 images per pass, but a pair is 2"):
        make(folder, files).batch(np.random.default_rng(0), 3)
    torch.manual_seed(0)
    from pgpis_models.cfld.model import CFLD
    method = CFLD(cfld_config(swin_width=16))
    other = tmp_path / "other.safetensors"
    save_checkpoint(other, method, {n: torch.zeros(s) for n, s in method.unet_weight_shapes().items()}, base="demo", step=0,
                    data="none", licence="none")
    with pytest.raises(ValueError, match="other.safetensors .method.init. has other sizes than this run: .*use its preset"):
        make(folder, files, method={"init": str(other)})


def test_batches_can_be_sent_to_workers_without_the_model(folder, files):
    task = make(folder, files)
    assert isinstance(task.batch, partial) and not any(isinstance(part, torch.nn.Module) for part in task.batch.args)
