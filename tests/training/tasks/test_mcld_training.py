"""MCLD's training step: its data, what it changes and drops, and that what is exported is what was trained."""

import dataclasses

import numpy as np
import pytest
import torch

from pgpis_models.checkpoint import load_checkpoint
from pgpis_models.mcld.config import CONFIGS
from pgpis_models.mcld.inputs import face_crops, head_box, squashed_textures, texture_maps
from pgpis_models.mcld.schedule import training_schedule
from pgpis_models.pipeline import Generator
from pgpis_models.surface.densepose import IUV, pose_pictures
from pgpis_models.surface.layout import TILE, tiles
from tests.helpers.configs import MCLD_MODEL as MODEL
from tests.helpers.configs import MCLD_SIZE as SIZE
from tests.helpers.configs import mcld_config as config
from tests.helpers.steps import changed, gradients, trained, weights
from tests.helpers.tiny import shaken
from training.engine.loop import run
from training.tasks.mcld import MCLDTask, face_mask, mcld_loss
from training.train import task_class
from training.world.focal import iuvs, poses

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("small_grids")


def make(folder, files, **changes) -> MCLDTask:
    torch.manual_seed(0)
    return MCLDTask(config(folder, files, **changes), CPU)


# --- data ---------------------------------------------------------------------------------------------------

def test_a_batch_shows_what_the_nodes_would_make_of_the_same_pictures(folder, files):
    task = make(folder, files)
    pairs, sizes = task.pairs, task.model.method.config
    batch = task.batch(np.random.default_rng(3), 4)
    rng = np.random.default_rng(3)   # the same draws
    who = rng.integers(pairs.bank.people, size=4)
    source = rng.integers(pairs.bank.views, size=4)
    target = (source + rng.integers(1, pairs.bank.views, size=4)) % pairs.bank.views
    seen = iuvs(pairs.bank, who, source)
    assert batch["pose"].dtype == torch.uint8
    assert torch.equal(batch["pose"] / 255, pose_pictures(iuvs(pairs.bank, who, target), SIZE))
    maps = squashed_textures(sizes, texture_maps(sizes, np.array(pairs.bank.image[who, source]), seen))
    assert torch.equal(batch["texture"], torch.from_numpy(maps).permute(0, 3, 1, 2))
    assert torch.equal(batch["source"], torch.from_numpy(pairs.bank.image[who, source]).permute(0, 3, 1, 2))
    assert torch.equal(batch["target_latents"], pairs.latents[who, target])
    assert (source != target).all() and batch["found"].shape == (4,)
    [box] = [head_box(seen[0])]
    assert (box is not None) == bool(batch["found"][0])


def test_a_texture_map_is_reduced_by_the_mean_of_its_texels():
    sizes = dataclasses.replace(CONFIGS["demo"], image_size=(120, 80), vision=None)   # 20 x 20 cells of 10 x 10 texels
    atlas = np.random.default_rng(0).integers(0, 256, (1, 1200, 800, 3), dtype=np.uint8)
    small = squashed_textures(sizes, atlas)[0]
    expected = tiles(atlas[0]).reshape(24, 20, TILE // 20, 20, TILE // 20, 3).astype(np.float64).mean((2, 4))
    for part in range(24):
        row, column = part % 6 * 20, part // 6 * 20
        assert np.abs(small[row:row + 20, column:column + 20] - expected[part]).max() <= 1
    with pytest.raises(ValueError, match="layout 'smpl'; this checkpoint expects 'atlas'"):
        squashed_textures(sizes, np.zeros((1, 512, 512, 3), np.uint8))


def test_a_face_crop_is_the_square_around_the_head():
    part = np.zeros((40, 30), np.uint8)
    part[10:18, 12:20] = 23
    zero = np.zeros(part.shape, np.float32)
    box = head_box(IUV(part, zero, zero))
    assert box[2] - box[0] == box[3] - box[1] and box[0] <= 12 and box[2] >= 20 and box[1] <= 10 and box[3] >= 18
    ramp = torch.arange(30.0).expand(1, 3, 40, 30).contiguous()
    crop, found = face_crops(ramp, [IUV(part, zero, zero)], 16)
    # pixel centres lie at +0.5, so the ramp's value at x is x - 0.5
    expected = box[0] + (torch.arange(16) + 0.5) / 16 * (box[2] - box[0]) - 0.5
    assert bool(found) and torch.allclose(crop[0, 0, 5], expected, atol=1e-4)
    none, found = face_crops(ramp, [IUV(np.zeros_like(part), zero, zero)], 16)
    assert not found.any() and not none.any()
    with pytest.raises(ValueError, match="picture is 30x40, its DensePose 4x4"):
        face_crops(ramp, [IUV(*(value[:4, :4] for value in (part, zero, zero)))], 16)


# --- what changes -------------------------------------------------------------------------------------------

def test_steps_change_all_but_the_references_last_block_and_the_autoencoder(folder, files):
    task = make(folder, files)
    before, vae = weights(task.model), weights(task.vae)
    trained(task, 3)   # convolutions that start at zero hold back the gradient of what lies before them
    same = set(before) - changed(task.model, before)
    frozen = {f"method.reference_unet.{name}" for name in task.model.method.frozen_reference_weights()}
    # What lies behind the last norm1 that is read has no say; only the last block holds such weights.
    assert same == frozen and len(frozen) == 114
    assert all(torch.equal(value, vae[name]) for name, value in task.vae.named_parameters())
    # The network that runs holds the method's own parameters.
    inside = dict(task.model.reference.unet.named_parameters())
    assert all(value is inside[name] for name, value in task.model.method.reference_unet.named().items())


def test_a_reference_network_that_is_not_trained_gets_no_gradient(folder, files):
    task = make(folder, files, mcld={"train_reference": False})
    task.model(task.batch(np.random.default_rng(0), 4))[0].backward()
    grads = {name: value.grad is not None for name, value in task.model.named_parameters()}
    assert not any(on for name, on in grads.items() if name.startswith("method.reference_unet."))
    assert all(on for name, on in grads.items() if name.startswith(("method.vision.", "unet.", "method.pose_guider.")))


def test_gradient_checkpointing_of_both_unets_changes_nothing(folder, files):
    found = []
    for checkpointing in (False, True):
        task = make(folder, files, checkpointing=checkpointing)
        for unet in (task.model.unet, task.model.reference.unet):
            assert unet.is_gradient_checkpointing == checkpointing
        found.append(gradients(task, every=False))
    first, second = found
    assert first.keys() == second.keys() and all(torch.allclose(first[name], second[name], atol=1e-5) for name in first)
    for part in ("unet.down_blocks.0.", "method.reference_unet.down_blocks.0."):
        assert any(value.abs().max() > 1e-6 for name, value in first.items() if name.startswith(part))


def test_dropped_rows_are_the_null_row_of_sampling(folder, files):
    task = make(folder, files)
    model, batch = task.model.eval(), task.batch(np.random.default_rng(1), 2)
    off = torch.tensor([False, True])
    with torch.no_grad():
        dropped, full = model.encode_batch(batch, off, off), model.encode_batch(batch)
        null = model.method.null_injections(full)
        shown = model.method.injections(dropped)
    for stage, tokens in null.context.items():
        assert not shown.context[stage][0].any() and shown.context[stage][1].any() and not tokens.any()
    site = "up.2.0"
    assert not shown.extra_attention[site].tokens[0].any() and shown.extra_attention[site].tokens[1].any()
    assert torch.equal(dropped.pose, full.pose)
    # The reference network runs on all rows; which see it, a step says to the UNet.
    ours, theirs = dropped.reference[site][1], full.reference[site][1]
    assert (ours - theirs).abs().max() <= 2**-10 * theirs.abs().max()


def test_rows_without_reference_features_do_not_see_them(folder, files, monkeypatch):
    """Reference dropout: with all rows dropped the loss does not depend on the texture map's latents."""
    task = make(folder, files, mcld={"reference_drop": 1.0, "uncond_drop": 0.0, "image_drop": 0.0})
    other = make(folder, files, mcld={"reference_drop": 0.0, "uncond_drop": 0.0, "image_drop": 0.0})
    batch = task.batch(np.random.default_rng(1), 2)
    changed = batch | {"texture_latents": torch.randn_like(batch["texture_latents"])}
    losses = []
    with torch.no_grad():
        for model in (task.model, other.model):
            for item in (batch, changed):
                torch.manual_seed(4)
                losses.append(float(model(item)[0]))
    assert losses[0] == losses[1] and losses[2] != losses[3]


def test_mean_pixels_replace_dropped_pictures_where_asked(folder, files):
    task = make(folder, files, mcld={"drop": "pixels"})
    batch, rows = task.batch(np.random.default_rng(1), 2), torch.tensor([True, False])
    grey = torch.tensor((0.48145466, 0.4578275, 0.40821073)).view(1, 3, 1, 1).expand(1, 3, *SIZE) * 2 - 1
    with torch.no_grad():
        found = task.model.tokens(batch, "source", rows)
        expected = task.model.method.vision.tower(torch.cat([batch["source"][:1] / 127.5 - 1, grey]))
    assert torch.allclose(found, expected, atol=1e-6)


def test_the_loss_is_the_one_of_the_spec_on_the_bases_schedule(folder, files):
    task = make(folder, files)
    assert task.model.schedule == task.sizes.schedule()
    published = dict(MODEL) | {"schedule": "authors"}
    assert make(folder, files, method={"model": published}).model.schedule == training_schedule()
    g = torch.Generator().manual_seed(0)
    prediction, target = (torch.randn(2, 4, 3, 3, generator=g) for _ in "pt")
    face, t = torch.rand(2, 1, 3, 3, generator=g) > 0.5, torch.tensor([10, 800])
    schedule = training_schedule()
    abar = schedule.alphas_cumprod.double()[t]
    snr = abar / (1 - abar)
    error = (prediction.double() - target.double()) ** 2
    per_row = (error + error * face).flatten(1).mean(1)
    expected = (per_row * torch.minimum(snr + 1, torch.tensor(5.0)) / (snr + 1)).mean()
    assert torch.allclose(mcld_loss(prediction, target, t, schedule, face).double(), expected, rtol=1e-5)


def test_the_face_counts_twice_where_the_mask_is_and_gamma_0_leaves_it_out():
    prediction, target, t = torch.zeros(1, 4, 2, 2), torch.ones(1, 4, 2, 2), torch.tensor([999])
    face = torch.tensor([[[[True, False], [False, False]]]])
    schedule = training_schedule()
    assert float(mcld_loss(prediction, target, t, schedule)) == 1.0  # zero SNR: weight 1
    assert float(mcld_loss(prediction, target, t, schedule, face)) == 1.25
    assert float(mcld_loss(prediction, target, t, schedule, face, gamma=0)) == 1.0
    assert float(mcld_loss(prediction, target, t, schedule, face, 0, weighted_face=False)) == 1.25   # eq. 6 of the paper
    weight, early = 5 * (1 - float(schedule.alphas_cumprod[1])), torch.tensor([1])   # 5 / (snr + 1)
    assert weight < 0.02 and abs(float(mcld_loss(prediction, target, early, schedule, face, 5)) - 1.25 * weight) < 1e-6
    assert abs(float(mcld_loss(prediction, target, early, schedule, face, 5, weighted_face=False)) - weight - 0.25) < 1e-6
    with pytest.raises(ValueError, match=r"face mask has shape \(1, 1, 8, 8\); expected \(1, 1, 2, 2\)"):
        mcld_loss(prediction, target, t, schedule, torch.ones(1, 1, 8, 8))
    with pytest.raises(ValueError, match="expected integers"):
        face_mask(torch.zeros(1, 8, 8), (1, 1))


def loss_of(task, batch, seed=3):
    """(loss, latents' noisy form, timesteps, rows) of a step whose UNet answers with zeros."""
    seen = {}

    def silent(noisy, t, rows):
        seen.update(noisy=noisy, t=t, rows=rows)
        return torch.zeros_like(noisy)
    task.model.binding = silent
    torch.manual_seed(seed)
    return float(task.model(batch)[0].detach()), seen["noisy"].double(), seen["t"], seen["rows"]


def test_a_step_weighs_by_snr_counts_heads_twice_and_shifts_the_noise(folder, files):
    """From what reaches the UNet, the loss of the task written out; every part of it changes the number."""
    drops = {"uncond_drop": 0.0, "image_drop": 0.0, "reference_drop": 0.0}
    plain = {"cubic_timesteps": False}   # weights below 1 are of little noise
    noises, losses, seed = {}, {}, 3
    for name, own in {"full": {}, "no offset": {"noise_offset": 0.0}, "no face": {"face_loss": False},
                      "no snr": {"snr_gamma": 0.0}, "plain face": {"face_term": "plain"}}.items():
        task = make(folder, files, method=plain, mcld=drops | own)
        batch = task.batch(np.random.default_rng(2), 4)
        loss, noisy, t, _ = loss_of(task, batch, seed)
        while t.min() > 100:   # one row at least with a weight below 1
            seed += 1
            loss, noisy, t, _ = loss_of(task, batch, seed)
        latents, abar = batch["target_latents"].double(), task.model.schedule.alphas_cumprod.double()[t].view(-1, 1, 1, 1)
        noise = (noisy - abar.sqrt() * latents) / (1 - abar).sqrt()
        error = (abar.sqrt() * noise - (1 - abar).sqrt() * latents) ** 2   # of the velocity
        stride = SIZE[0] // latents.shape[2]
        part = batch["pose"][:, 2, ::stride, ::stride]
        head = ((part == 23) | (part == 24))[:, None]
        assert 0 < head.double().mean() < 0.2
        snr = (abar / (1 - abar)).flatten() + 1
        weight = snr.clamp(max=5.0) / snr
        per_row = {"no face": error, "no snr": error}.get(name, error * (1 + head)).flatten(1).mean(1)
        expected = per_row.mean() if name == "no snr" else (per_row * weight).mean()
        if name == "plain face":
            expected = (error.flatten(1).mean(1) * weight).mean() + (error * head).mean()
        assert abs(loss - float(expected)) < 1e-4 * loss, name
        noises[name], losses[name] = noise, loss
    shift = noises["full"] - noises["no offset"]
    assert shift.std((2, 3)).max() < 1e-3 and 0.01 < shift.mean((2, 3)).std() < 0.15   # one number for each channel
    assert len({round(loss, 5) for loss in losses.values()}) == 5


@pytest.mark.parametrize("drop", ["uncond_drop", "image_drop"])
def test_dropped_conditions_reach_the_unet_as_nothing(folder, files, drop):
    task = make(folder, files, mcld={"uncond_drop": 0.0, "image_drop": 0.0, "reference_drop": 0.0, drop: 1.0})
    shaken(task.model.method)
    batch = task.batch(np.random.default_rng(2), 4)
    _, _, _, rows = loss_of(task, batch)
    tokens = task.model.method.config.image_tokens
    down, mid, up = (rows[f"context.{stage}"] for stage in ("down", "mid", "up"))
    assert not down.any() and not mid[:, :tokens].any()
    whole = drop == "uncond_drop"
    assert bool(mid[:, tokens:].any()) != whole and bool(up.any()) != whole
    assert bool(rows["self_reference_on"].any()) != whole
    faces = [value for name, value in rows.items() if name.startswith("extra_k.")]
    assert faces and all(bool(value.any()) != whole for value in faces)


@pytest.mark.parametrize("aggregation, use_face, silent", [
    ("image", False, ("method.face_", "method.vision.face")),
    ("concat", True, ("method.face_attention",)), ("stages", False, ("method.face_", "method.vision.face"))])
def test_each_ablation_trains_exactly_what_it_uses(folder, files, aggregation, use_face, silent):
    model = MODEL | {"aggregation": aggregation, "use_face": use_face}
    task = make(folder, files, method={"model": model})
    trained(task, 2)
    for name, value in task.model.named_parameters():
        assert value.requires_grad == (value.grad is not None), name
        assert not (name.startswith(silent) and value.requires_grad), name
    assert task.sample(task.pairs.held_out(), steps=1).shape[1:] == (3, *SIZE)


# --- runs ---------------------------------------------------------------------------------------------------

def test_the_loss_falls_on_one_batch(folder, files):
    task = make(folder, files, mcld={"uncond_drop": 0.0, "image_drop": 0.0, "reference_drop": 0.0})
    losses = trained(task, 12, 2e-3, seed=1)
    assert losses[-1] < 0.8 * losses[0]


def test_a_run_exports_a_checkpoint_that_generates(folder, files, tmp_path):
    settings = dataclasses.replace(config(folder, files, name="mcld"), export=str(tmp_path / "demo_mcld.safetensors"))
    path = run(settings, task_class("mcld"))
    loaded = load_checkpoint(path, expect_method="mcld")
    assert loaded.meta.base == "demo" and set(loaded.unet_weights) == set(loaded.method.unet_weight_shapes())
    generator = Generator(path, files.base, files.vae)
    task = make(folder, files)
    who, view = np.arange(2), np.zeros(2, int)
    made = generator(task.pairs.test.images(who, view), [None] * 2, steps=1,
                     densepose=iuvs(task.pairs.test, who, view + 1), source_densepose=iuvs(task.pairs.test, who, view))
    assert made.shape == (2, 3, *SIZE)
    # What the task samples itself from the same weights is the same picture.
    again = make(folder, files, method={"init": str(path)})
    held = {name: value[:2] for name, value in again.pairs.held_out().items()}
    sampled = again.sample(held, steps=1)
    weight = {"appearance": 1.5}
    other = generator(held["source"], [None] * 2, steps=1, weights=weight, densepose=iuvs(task.pairs.test, who, view + 1),
                      source_densepose=iuvs(task.pairs.test, who, view))
    assert (sampled - other).abs().max() < 0.02
    assert torch.equal(poses(task.pairs.test, who, view + 1), held["pose"])
