"""QEN's training step: what it changes, its loss written out, that it learns, and that the export is what was trained."""

import dataclasses

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pgpis_models.checkpoint import load_checkpoint
from pgpis_models.pipeline import Generator
from pgpis_models.poses.factored import FactoredRasters
from pgpis_models.unet.base import load_unet
from pgpis_models.unet.control_diffusers import network_of
from tests.helpers.configs import qen_config
from tests.helpers.steps import changed, exported, gradients, shown_pairs, trained, weights
from tests.helpers.tiny import SIZE, SIZES, shaken, write_base
from training.engine.loop import run
from training.engine.loss import cubic_timesteps
from training.tasks.pairs import draw_pairs
from training.tasks.qen import QENTask
from training.train import task_class

CPU = torch.device("cpu")


def make(folder, files, **changes) -> QENTask:
    torch.manual_seed(0)
    return QENTask(qen_config(folder, files, **changes), CPU)


def test_steps_change_the_method_and_the_declared_unet_weights_and_nothing_else(folder, files):
    task = make(folder, files)
    before, vae = weights(task.model), weights(task.vae)
    trained(task, 4)   # zero convolutions hold back the gradient of what lies before them
    now = changed(task.model, before)
    declared = {f"unet.{name}" for name in task.model.method.trainable_unet_weights()}
    assert len(declared) == 32
    assert {name for name in now if name.startswith("unet.")} == declared
    # At the deepest level of these sizes a group of the norm is one number, which is normalised to 0 whatever it is.
    lost = {f"method.{name}" for name in weights(task.model.method)} - now
    # There self-attention has nothing to choose between either.
    idle = (".norm", ".attn1.to_q.", ".attn1.to_k.")
    assert all(any(part in name for part in idle) and ("down_blocks.3." in name or "mid_block." in name)
               for name in lost), lost
    assert all(torch.equal(value, vae[name]) for name, value in task.vae.named_parameters())


def test_the_backbone_learns_at_its_own_rate(folder, files):
    task = make(folder, files, qen={"backbone_rate": 0.25})
    rest, backbone = task.groups(1e-3)
    assert (rest["lr"], backbone["lr"]) == (1e-3, 2.5e-4)
    assert {id(p) for p in backbone["params"]} == {id(p) for p in task.model.method.backbone.parameters()}
    trained = [p for p in task.model.parameters() if p.requires_grad]
    assert len(rest["params"]) + len(backbone["params"]) == len(trained)


@pytest.mark.parametrize("method, model", [({}, {}), ({"reconstruct": False, "cubic_timesteps": False},
                                                      {"mask": "simple", "global_queries": 0})])
def test_the_loss_falls_on_one_batch(folder, files, method, model):
    losses = trained(make(folder, files, method=method, model=model), 20, 3e-3, seed=0)   # the same noise in every step
    assert losses[-1] < 0.8 * losses[0] and losses[-1] < min(losses[:10])


def test_the_papers_own_pose_embedding_is_trained(folder, files):
    """ControlNet's convolutions on the drawing alone: three channels, at the picture's own size, as at full size."""
    own = {"pose_embedding": "convolutions", "pose_channels": 3, "pose_unshuffle": 8, "pose_widths": [4, 4, 8, 8]}
    task = make(folder, files, model=own)
    assert task.batch(np.random.default_rng(0), 4)["target_pose"].shape == (2, 3, *SIZE)
    before = weights(task.model)
    losses = trained(task, 20, 3e-3, seed=0)
    assert losses[-1] < 0.9 * losses[0]
    embedding = {name for name in before if name.startswith("method.pose_encoder.")}
    assert embedding and embedding <= changed(task.model, before)


def test_the_loss_is_l_mse_plus_l_rec_written_out(folder, files):
    """Encode once, repeat for both halves, drop tokens and pose apart, and add the two means."""
    task = make(folder, files, model={"pose_drop": 0.5})
    shaken(task.model.method.control, 0.05)
    model, method = task.model.eval(), task.model.method
    batch = task.batch(np.random.default_rng(1), 6)
    torch.manual_seed(1)
    loss, logs = model(batch)

    torch.manual_seed(1)
    tokens = method.encode_appearance(batch["source"] / 127.5 - 1).tokens   # bytes
    latents = torch.cat([batch["source_latents"], batch["target_latents"]])
    draws = torch.rand(6, 2)
    assert 0 < (draws[:, 0] < 0.5).sum() < 6 and 0 < (draws[:, 1] < 0.5).sum() < 6
    shown = torch.stack([method.null_tokens[0] if draws[row, 0] < 0.5 else tokens[row % 3] for row in range(6)])
    timesteps = cubic_timesteps(torch.rand(6), 1000)
    noise = torch.randn_like(latents)
    abar = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2, 0)[timesteps].view(-1, 1, 1, 1)
    noisy = abar.sqrt() * latents + (1 - abar).sqrt() * noise
    velocity = abar.sqrt() * noise - (1 - abar).sqrt() * latents   # what this base predicts
    poses = [batch[name].full() if isinstance(batch[name], FactoredRasters) else batch[name]
             for name in ("source_pose", "target_pose")]
    inputs, region = method.encode_pose(torch.cat(poses))
    skips, middle = network_of(method.control)(noisy, timesteps, shown, region, **inputs)
    on = (draws[:, 1] >= 0.5).float().view(-1, 1, 1, 1)
    rows = {f"context.{stage}": shown for stage in ("down", "mid", "up")}
    made = model.unet(noisy, timesteps, encoder_hidden_states=shown, cross_attention_kwargs={"pgpis": rows},
                      down_block_additional_residuals=tuple(skip * on for skip in skips),
                      mid_block_additional_residual=middle * on, return_dict=False)[0]
    errors = (made - velocity).square().mean((1, 2, 3))
    reconstruction, transfer = errors[:3].mean(), errors[3:].mean()
    assert torch.allclose(loss, reconstruction + transfer, rtol=1e-4)
    assert torch.allclose(logs["mse"], transfer, rtol=1e-4) and torch.allclose(logs["rec"], reconstruction, rtol=1e-4)


def test_the_exported_file_makes_the_picture_that_training_showed(folder, files, tmp_path):
    task = make(folder, files)
    path = tmp_path / "trained.safetensors"
    loaded = exported(task, path, 0.05)
    assert (loaded.meta.method, loaded.meta.step, loaded.meta.base, loaded.meta.data) == ("qen", 1234, "demo", "mannequins")
    generator = Generator(path, files.base, files.vae)
    source, poses, shown = shown_pairs(task)
    made = generator(source[:2], poses, steps=4)
    assert shown.shape == (2, 3, *SIZE) and shown.std() > 0.05
    assert torch.allclose(made, shown, atol=1e-4)
    weak = generator(source[:2], poses, steps=4, strength=0.2)
    assert (weak - made).abs().max() > 1e-3
    again = make(folder, files, method={"init": str(path)})
    own, unet = again.model.method.state_dict(), dict(again.model.unet.named_parameters())
    assert all(torch.equal(value, own[name]) for name, value in loaded.method.state_dict().items())
    assert all(torch.equal(value, unet[name]) for name, value in loaded.unet_weights.items())


@pytest.mark.usefixtures("small_grids")
def test_a_whole_run_shows_grids_and_exports_its_average(folder, files, tmp_path):
    config = qen_config(folder, files, output=str(tmp_path), images=8, sample_every=8, ema=0.9,
                       export=str(tmp_path / "x" / "qen.safetensors"))
    assert task_class("qen") is QENTask
    path = run(config, QENTask)
    assert load_checkpoint(path).meta.step == 8 and len(list((tmp_path / "tiny" / "samples").glob("*.png"))) == 1


def test_gradient_checkpointing_changes_nothing(folder, files):
    found = []
    for checkpointing in (False, True):
        task = make(folder, files, checkpointing=checkpointing)
        torch.manual_seed(3)
        shaken(task.model.method.control, 0.05)
        found.append(gradients(task))
    first, second = found
    assert first.keys() == second.keys() and all(torch.allclose(first[name], second[name], atol=1e-5) for name in first)
    assert any(value.abs().max() > 1e-6 for value in first.values())


def test_its_branch_starts_as_the_bases_encoder_and_its_backbone_from_a_file(folder, files, tmp_path):
    trained = shaken(make(folder, files).model.method.backbone).state_dict()
    save_file({f"backbone.{name}": value for name, value in trained.items()}, tmp_path / "tower.safetensors")
    task = make(folder, files, method={"backbone": str(tmp_path / "tower.safetensors")})
    own, state = task.model.method.state_dict(), load_unet(files.base)[0].state_dict()
    assert all(torch.equal(own[f"backbone.{name}"], value) for name, value in trained.items())
    of_base = {name for name in state if f"control.{name}" in own}
    assert len(of_base) > 200 and all(torch.equal(own[f"control.{name}"], state[name]) for name in of_base)
    assert not own["control.controlnet_mid_block.weight"].any()


def test_what_does_not_fit_together_is_refused_before_the_first_step(folder, files, tmp_path):
    wide = write_base(tmp_path / "wide.safetensors", dataclasses.replace(SIZES, block_out_channels=(32, 32, 32, 64)))
    heads = write_base(tmp_path / "heads.safetensors", dataclasses.replace(SIZES, heads=4))
    for method, model, words in (
            ({"base": str(wide)}, {}, "does not fit a control branch"),
            ({"base": str(heads)}, {}, "has .4, 4, 4, 4. attention heads.*the control branch 2 at all of them"),
            ({"preset": "huge"}, {}, "method.preset is 'huge'; expected one of .*'demo', 'full', 'tiny'"),
            ({"vae": str(tmp_path / "nowhere")}, {}, "no autoencoder at|which is not there")):
        with pytest.raises(ValueError, match=words):
            make(folder, files, method=method, model=model)


def test_a_method_that_reads_the_drawing_alone_gets_no_heat_maps():
    class Some:
        def batch(self, rng, size, share):
            return {"source_pose": torch.rand(size, 21, 8, 8), "source_latents": torch.rand(size, 4, 2, 2)}
    batch = draw_pairs(Some(), 2, 3, np.random.default_rng(0), 4)
    assert batch["source_pose"].shape == (2, 3, 8, 8) and batch["source_latents"].shape == (2, 4, 2, 2)
