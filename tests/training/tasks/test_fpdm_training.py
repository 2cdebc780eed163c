"""FPDM's second training stage: what it changes, what its loss is, and that it uses what stage 1 made."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pgpis_models.checkpoint import load_checkpoint
from pgpis_models.fpdm.config import CONFIGS, FPDMConfig
from pgpis_models.parts.pixels import CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD
from pgpis_models.settings import build
from tests.helpers.fpdm_tiny import MODEL, tower_file, train_config
from tests.helpers.steps import changed, trained, weights
from tests.helpers.tiny import SIZES, shaken, write_diffusers
from training.engine.config import TrainConfig, load_config
from training.engine.rates import learning_rate
from training.engine.task import configured
from training.tasks.fpdm import FPDMTask, identical
from training.tasks.fpdm_fusion import FusionTask, load_published

CPU = torch.device("cpu")
CONFIG_FOLDER = Path(__file__).resolve().parents[3] / "training" / "configs"


# --- stage 2 ------------------------------------------------------------------------------------------------

def stage2(folder, files, fusion, **changes):
    torch.manual_seed(0)
    own = {"fusion": fusion} | changes.pop("fpdm", {})
    method = {"backbone": tower_file(folder)} | changes.pop("method", {})
    return FPDMTask(train_config(folder, files, "fpdm", fpdm=own, method=method, **changes), CPU)


def normalised(batch):
    """The bytes of a batch as the towers read them, written out."""
    unit = {name: batch[name] / 255 for name in ("source", "clip_source", "pose", "clip_pose")}
    for name, (mean, std) in {"source": (IMAGENET_MEAN, IMAGENET_STD), "clip_source": (CLIP_MEAN, CLIP_STD),
                              "clip_pose": (CLIP_MEAN, CLIP_STD)}.items():
        unit[name] = (unit[name] - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    return unit


def test_an_earlier_checkpoint_is_not_overwritten_by_other_starts(folder, files, fusion, tmp_path):
    """method.init holds all that the other settings start, trained further."""
    task = stage2(folder, files, fusion)
    shaken(task.model.method)
    task.export(tmp_path / "stage2.safetensors", 1)
    again = stage2(folder, files, fusion, method={"init": str(tmp_path / "stage2.safetensors")})
    expected = load_checkpoint(tmp_path / "stage2.safetensors").method.state_dict()
    own = again.model.method.state_dict()
    assert all(torch.equal(own[name], value) for name, value in expected.items())
    first = FusionTask(train_config(folder, files, "fpdm_fusion"), CPU)
    shaken(first.model.method)
    first.export(tmp_path / "stage1.safetensors", 1)
    settings = train_config(folder, files, "fpdm_fusion", method={"init": str(tmp_path / "stage1.safetensors")})
    next_one = FusionTask(settings, CPU).model.method.state_dict()
    expected = load_checkpoint(tmp_path / "stage1.safetensors").method.state_dict()
    assert all(torch.equal(next_one[name], value) for name, value in expected.items())


def test_the_canvas_of_training_is_the_canvas_of_use(folder, files, fusion, tmp_path):
    task = stage2(folder, files, fusion, fpdm={"pose_canvas": [96, 80]})
    assert task.batch.sizes.pose_canvas == (96, 80)
    task.export(tmp_path / "a.safetensors", 1)
    assert load_checkpoint(tmp_path / "a.safetensors").method.config.pose_canvas == (96, 80)


def test_stage_2_trains_the_unet_and_the_small_networks_and_nothing_else(folder, files, fusion):
    drops = {"pose_drop": 0.0, "source_drop": 0.0, "fusion_drop": 0.0}
    task = stage2(folder, files, fusion, method={"model": MODEL | drops})
    before = weights(task.model)
    trained(task, 3)   # the pose guider's last convolution starts at zero and holds back what lies before it
    now = changed(task.model, before)
    frozen = {name for name in before if name.startswith(("method.fusion.", "method.source_tower."))}
    # Of maps of one pixel a group norm leaves nothing to weigh, and self-attention nothing to choose between.
    still = set(before) - frozen - now
    idle = (".norm", ".attn1.to_q.", ".attn1.to_k.")
    assert frozen and not now & frozen and len(still) < 12
    assert all(any(part in name for part in idle) and name.startswith(("unet.down_blocks.3", "unet.mid_block"))
               for name in still)
    given = load_checkpoint(fusion).method.state_dict()
    assert all(torch.equal(value, given[name]) for name, value in task.model.method.fusion.state_dict().items())


def test_a_part_of_the_unet_may_belong_to_the_method(folder, files, fusion, tmp_path):
    task = stage2(folder, files, fusion, method={"model": MODEL | {"unet_trained": ["down_blocks.0", "attn2"]}})
    before = weights(task.model.unet)
    trained(task, 2)
    now = changed(task.model.unet, before)
    assert now and all("down_blocks.0" in name or "attn2" in name for name in now)
    task.export(tmp_path / "a.safetensors", 4)
    assert set(load_checkpoint(tmp_path / "a.safetensors").unet_weights) == set(task.stored) >= now


def test_modes_are_those_of_the_authors_training(folder, files, fusion):
    for own, combiner, tower in (({}, True, False), ({"fusion_dropout": False}, False, False),
                                 ({"freeze_source": False}, True, True)):
        model = stage2(folder, files, fusion, fpdm=own).model.train()
        method = model.method
        assert method.fusion.combiner.training == combiner and method.source_tower.training == tower
        assert not model.unet.training and not method.fusion.tower.training and not method.class_mlp.training
        assert method.source_mlp.training and method.pose_guider.training
        assert not model.eval().method.fusion.combiner.training


def velocity_error(model, latents, noise, t, rows):
    """Mean squared error of the predicted velocity on latents with this noise at timesteps t."""
    abar = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2, 0)[t].view(-1, 1, 1, 1)
    made = model.binding(abar.sqrt() * latents + (1 - abar).sqrt() * noise, t, rows)
    return (made - (abar.sqrt() * noise - (1 - abar).sqrt() * latents)).square().mean()


def test_the_loss_is_the_formula_written_out(folder, files, fusion):
    """Noise with an offset that belongs to the target, uniform timesteps, velocity, one drop for the whole batch."""
    drops = {"pose_drop": 0.5, "source_drop": 0.5, "fusion_drop": 0.5}
    task = stage2(folder, files, fusion, method={"model": MODEL | drops, "cubic_timesteps": False})
    model, method = task.model.eval(), task.model.method
    batch = task.batch(np.random.default_rng(1), 3)
    assert all(batch[name].dtype == torch.uint8 for name in ("source", "clip_source", "pose", "clip_pose"))
    read, seen = normalised(batch), set()
    for seed in range(6):
        torch.manual_seed(seed)
        loss, logs = model(batch)
        torch.manual_seed(seed)
        context = method.source_mlp(method.source_tower(read["source"]))
        fused = method.fusion.combiner(method.fusion.embed(read["clip_source"]), method.fusion.embed(read["clip_pose"]))
        pose_off, source_off, fusion_off = (torch.rand(3, 1) < 0.5).flatten().tolist()
        seen.add((pose_off, source_off, fusion_off))
        t = torch.randint(1000, (3,))
        latents = batch["target_latents"]
        noise = torch.randn_like(latents)
        noise = noise + 0.1 * torch.randn(3, 4, 1, 1)
        rows = {f"context.{stage}": context * (not source_off) for stage in ("down", "mid", "up")}
        rows |= {"stem": method.pose_guider(read["pose"]) * (not pose_off),
                 "time_embedding": method.class_mlp(fused * (not fusion_off))}
        assert torch.allclose(loss, velocity_error(model, latents, noise, t, rows), atol=1e-5) and logs == {}
    assert len(seen) > 2


@pytest.mark.parametrize("per_sample", [True, False])
def test_drops_are_drawn_item_by_item_where_asked(folder, files, fusion, monkeypatch, per_sample):
    drops = {"pose_drop": 0.5, "source_drop": 0.5, "fusion_drop": 0.5}
    task = stage2(folder, files, fusion, method={"model": MODEL | drops}, fpdm={"per_sample_drops": per_sample})
    shaken(task.model.method.pose_guider)   # its last convolution starts at zero: nothing would be there to drop
    kept, injections = [], task.model.method.injections

    def watched(tokens, pose_map, fused):
        kept.append(torch.stack([value.flatten(1).any(1) for value in (tokens, pose_map, fused)]))
        return injections(tokens, pose_map, fused)

    monkeypatch.setattr(task.model.method, "injections", watched)
    batch = task.batch(np.random.default_rng(0), 4)
    with torch.no_grad():
        for seed in range(8):
            torch.manual_seed(seed)
            task.model(batch)
    kept = torch.stack(kept)   # (passes, conditions, items)
    assert 0.2 < kept.float().mean() < 0.8
    mixed = (kept.any(2) & ~kept.all(2)).any(0)   # within one batch, for each condition
    assert mixed.all() if per_sample else not mixed.any()


@pytest.mark.usefixtures("small_grids")
def test_the_loss_falls_on_one_batch_and_the_export_makes_pictures(folder, files, fusion, tmp_path):
    from pgpis_models.pipeline import DEFAULTS, Generator
    from training.demo import generate
    task = stage2(folder, files, fusion, fpdm={"per_sample_drops": True})
    losses = trained(task, 25, 2e-3, seed=0)   # the same noise in every step
    assert losses[-1] < 0.8 * losses[0]
    task.export(files.base.parent / "demo_fpdm.safetensors", 5)
    loaded = load_checkpoint(files.base.parent / "demo_fpdm.safetensors", expect_method="fpdm")
    assert (loaded.meta.step, loaded.meta.base) == (5, "demo")
    state = task.model.method.state_dict()
    assert all(torch.allclose(value, state[name], atol=1e-3) for name, value in loaded.method.state_dict().items())
    people = task.pictures.test
    made = generate(files.base.parent / "demo_fpdm.safetensors", people, people.people - 1, seed=0, steps=4)
    assert made.shape == (people.people, 3, 64, 64) and made.std() > 0.01
    assert Generator(files.base.parent / "demo_fpdm.safetensors", files.base, files.vae).defaults is DEFAULTS["demo"]
    task.model.eval()
    with torch.no_grad():
        assert task.grid().std() > 5


def test_the_towers_backbone_starts_from_a_file(folder, files, fusion, tmp_path):
    trained = shaken(stage2(folder, files, fusion).model.method.source_tower.backbone).state_dict()
    save_file({f"method.backbone.{name}": value for name, value in trained.items()}, tmp_path / "a.safetensors")
    again = stage2(folder, files, fusion, method={"backbone": str(tmp_path / "a.safetensors")})
    mine = again.model.method.source_tower.backbone.state_dict()
    assert all(torch.equal(mine[name], value) for name, value in trained.items())


# --- settings -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("changes", "message"), [
    ({"fpdm": {"fusion": ""}}, "fpdm.fusion is empty; expected a checkpoint of stage 1"),
    ({"fpdm": {"fusion": "nowhere"}}, "fpdm.fusion is 'nowhere', which is not there; expected the checkpoint of stage 1"),
    ({"fpdm": {"flip": 0.5}}, "latents of mannequins are made once"),
    ({"data": {"size": [128, 96]}}, r"data.size is \(128, 96\), the method makes pictures of \(64, 64\)"),
    ({"method": {"preset": "huge"}}, "method.preset is 'huge'; expected one of"),
    ({"method": {"model": {"fusion": {"swin": {"windows": 3}}}}}, "unknown setting 'method.model.fusion.swin.windows'"),
    ({"method": {"model": MODEL | {"unet_widths": [64, 64, 64, 64]}}}, "does not fit the method"),
    ({"method": {"base": "nowhere"}}, "method.base is 'nowhere', which is not there"),
    ({"method": {"backbone": "nowhere"}}, "method.backbone is nowhere, which is not there"),
    ({"method": {"backbone": ""}}, "fpdm.freeze_source is true, but method.init, .*fpdm.dinov2 are all empty"),
    ({"fpdm": {"dinov2": "dino.safetensors"}}, "fpdm.dinov2 is dino.safetensors, but the tower is a Swin transformer"),
])
def test_settings_that_do_not_fit_are_refused_before_the_first_step(folder, files, fusion, changes, message):
    error = (ValueError, FileNotFoundError)
    with pytest.raises(error, match=message):
        stage2(folder, files, fusion, **changes)


def test_stable_diffusion_2_1_is_trained_on_as_velocity_only(folder, files, fusion, tmp_path):
    """A folder with a context of 1024 is one of 2.x; its scheduler says which."""
    sizes = dataclasses.replace(SIZES, cross_attention_dim=1024, prediction="epsilon")
    method = {"base": str(write_diffusers(tmp_path / "sd", sizes)), "model": MODEL | {"context": 1024}}
    with pytest.raises(ValueError, match="sd predicts epsilon; expected v_prediction: FPDM is made for Stable"):
        stage2(folder, files, fusion, method=method)
    write_diffusers(tmp_path / "sd", dataclasses.replace(sizes, prediction="v_prediction"))
    assert stage2(folder, files, fusion, method=method).base_name == "sd21"


def test_a_source_tower_that_learns_needs_no_start_and_clip_starts_no_swin_tower(folder, files, fusion):
    task = stage2(folder, files, fusion, fpdm={"freeze_source": False}, method={"backbone": ""})
    assert task.model.method.source_tower.training
    with pytest.raises(ValueError, match="fpdm.clip is clip.safetensors, but the tower is a Swin transformer"):
        FusionTask(train_config(folder, files, "fpdm_fusion", fpdm={"clip": "clip.safetensors"}), CPU)


def test_presets_are_overridden_at_any_depth(folder, files):
    config = train_config(folder, files, "fpdm", method={"model": {"source_swin": {"tokens": 20}, "context": 32}})
    made = configured(FPDMConfig, CONFIGS, config.method)
    assert made.source_swin == dataclasses.replace(CONFIGS["demo"].source_swin, tokens=20) and made.context == 32
    assert made.fusion == CONFIGS["demo"].fusion


def test_published_towers_start_ours(tmp_path):
    """Against transformers' own models of tiny sizes."""
    transformers = pytest.importorskip("transformers")
    from pgpis_models.parts.vision_tower import TowerSizes, VisionTower
    torch.manual_seed(0)
    sizes = TowerSizes((28, 28), 14, 32, 2, 2, 64)
    clip = transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14,
        projection_dim=12)).eval()
    named = {name: value.contiguous() for name, value in clip.state_dict().items() if "position_ids" not in name}
    prefix = "" if any(name.startswith("vision_model.") for name in named) else "vision_model."
    named = {name if name.startswith("visual_projection") else prefix + name: value for name, value in named.items()}
    save_file(named | {"text_model.x": torch.zeros(1)}, tmp_path / "clip.safetensors")
    tower, projection = VisionTower(sizes, "clip").eval(), torch.nn.Linear(32, 12, bias=False)
    load_published(tower, projection, str(tmp_path / "clip.safetensors"))
    x = torch.randn(2, 3, 28, 28)
    with torch.no_grad():
        assert torch.allclose(projection(tower.pooled(x)), clip(x).image_embeds, atol=1e-5)
    with pytest.raises(ValueError, match="does not hold the tower of the method.*missing"):
        load_published(VisionTower(sizes, "dinov2"), None, str(tmp_path / "clip.safetensors"))


def test_the_authors_learning_rate(folder, files):
    config = train_config(folder, files, "fpdm", schedule="fpdm", images=1000, batch=10)
    rates = [learning_rate(config, images) for images in (0, 9, 10, 40, 50, 540, 550, 990)]
    assert rates == pytest.approx([0.2, 0.2, 0.4, 1.0, 1.0, 1.0, 0.1, 0.1])


def test_the_full_size_configs_are_the_authors():
    one, two = (load_config(CONFIG_FOLDER / "deepfashion" / f"{name}.yaml") for name in ("fpdm_fusion", "fpdm"))
    assert (one.batch, one.lr, one.weight_decay, one.betas, one.ema, one.seed) == (48, 1e-5, 1e-4, (0.9, 0.999), 0.0, 7)
    assert 0 <= 5 * 101_966 - one.images < one.batch * 5 and one.images % one.batch == 0
    assert {learning_rate(one, images) for images in range(0, one.images, 1000 * one.batch)} == {1.0}
    assert learning_rate(one, one.images - one.batch) == 1.0
    own = one.fpdm
    assert (own.temperature, own.l1_weight, own.input_drop, own.pose_canvas) == (0.07, 1e-4, 0.0, (1101, 750))
    assert own.source_enhanced and not own.gather
    assert (two.batch, two.lr, two.weight_decay, two.schedule, two.ema, two.clip) == (126, 1e-4, 0.0, "fpdm", 0.0, 0.0)
    assert 0 <= 100 * 101_966 - two.images < two.batch and not two.method.cubic_timesteps
    own = two.fpdm
    assert (own.noise_offset, own.joint_noise, own.flip, own.identity, own.low_share) == (0.1, 1.0, 0.5, 0.05, 0.5)
    assert own.freeze_source and own.fusion_dropout and not own.per_sample_drops and own.low_size == (256, 256)
    sizes = configured(FPDMConfig, CONFIGS, two.method)
    assert sizes == CONFIGS["full"] and two.data.size == sizes.image_size == (512, 352)


# --- photos -------------------------------------------------------------------------------------------------

def test_photo_batches_of_both_stages_are_the_authors_tensors(tmp_path):
    """A data set of two people drawn here, in the DeepFashion layout; stage 2 without augmentation, then mirrored."""
    from PIL import Image

    from pgpis_models.fpdm.drawing import draw_fpdm
    from pgpis_models.fpdm.pixels import clip_pixels, source_pixels, target_pixels, unit_tensor
    from pgpis_models.poses.keypoints import Keypoints
    from training.data.fpdm_pairs import Pairs, diffusion_bytes, diffusion_tensors, fusion_tensors, varied
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        (tmp_path / f"{split}_highres").mkdir()
        rows = ["name:keypoints_y:keypoints_x"]
        for name in "ab":
            Image.fromarray(random.integers(0, 256, (110, 75, 3)).astype(np.uint8)).save(
                tmp_path / f"{split}_highres" / f"{name}.png")
            rows.append(f"{name}.png:{random.integers(20, 240, 18).tolist()}:{random.integers(10, 160, 18).tolist()}")
        (tmp_path / f"fasion-resize-annotation-{split}.csv").write_text("\n".join(rows))
        (tmp_path / f"fasion-resize-pairs-{split}.csv").write_text("from,to\na.png,b.png\n")
    config = build(TrainConfig, {"data": {"kind": "deepfashion", "root": str(tmp_path), "workers": 1}}, "")
    photos, full = Pairs(config), CONFIGS["full"]
    [pair] = photos.draw(np.random.default_rng(0), 1)
    source, target = (np.asarray(Image.open(tmp_path / "train_highres" / f"{name}.png")) for name in "ab")
    assert np.array_equal(pair.source, source) and np.array_equal(pair.target, target) and pair.where is None
    [unseen] = photos.unseen().draw(np.random.default_rng(0), 1)
    assert np.array_equal(unseen.target, np.asarray(Image.open(tmp_path / "test_highres" / "b.png")))
    made = fusion_tensors([pair], full.fusion)
    assert torch.equal(made["source"], clip_pixels([source], (224, 224), crop=True))
    assert torch.equal(made["pose"], clip_pixels([draw_fpdm(pair.pose, (1101, 750))], (224, 224)))
    own = config.fpdm
    plain = varied(pair, dataclasses.replace(own, joint_noise=0.0, flip=0.0), np.random.default_rng(0))
    made = diffusion_tensors([plain], full)
    assert torch.equal(made["source"], source_pixels([source])) and made["source"].shape == (1, 3, 512, 512)
    assert made["pose"].shape == (1, 3, 512, 352)
    drawn = draw_fpdm(plain.pose, full.pose_canvas)
    assert torch.equal(made["pose"], unit_tensor([drawn], (512, 352)))
    assert torch.equal(made["clip_pose"], clip_pixels([drawn], (224, 224)))
    assert torch.equal(made["clip_source"], clip_pixels([source], (224, 224), read_size=(512, 512)))
    travelling = diffusion_bytes([plain], full)
    assert travelling.keys() == made.keys() and {value.dtype for value in travelling.values()} == {torch.uint8}
    low = diffusion_tensors([plain], full, low=np.array([True]))["source"]
    assert torch.equal(low, source_pixels([source], read_size=(256, 256))) and not torch.equal(low, made["source"])
    turned = varied(pair, dataclasses.replace(own, joint_noise=0.0, flip=1.0), np.random.default_rng(0))
    assert np.array_equal(turned.source, source[:, ::-1]) and np.array_equal(turned.target, target[:, ::-1])
    right, left = plain.pose.xy[4], turned.pose.xy[7]   # the right wrist becomes the left one
    assert turned.pose.canvas == (550, 375) and np.allclose([375 - right[0], right[1]], left)
    noisy = varied(pair, dataclasses.replace(own, flip=0.0), np.random.default_rng(0))
    apart = (noisy.pose.xy - plain.pose.xy)[noisy.pose.present]
    assert 0.4 < apart.std() < 2.0
    assert isinstance(pair.source_pose, Keypoints) and not np.allclose(pair.source_pose.xy, pair.pose.xy)
    same = {identical(pair, np.random.default_rng(seed)).source is pair.source for seed in range(8)}
    assert same == {True, False}
    for seed in range(8):
        one = identical(pair, np.random.default_rng(seed))
        assert one.source is one.target and np.allclose(one.pose.xy, one.source_pose.xy)
    assert target_pixels([target]).shape == (1, 3, 512, 352)
