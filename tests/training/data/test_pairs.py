"""Photo pairs in the DeepFashion layout: what a batch holds, what is flipped, and how latents are drawn."""

import dataclasses
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from pgpis_models.checkpoint import load_checkpoint
from pgpis_models.poses.drawing import cfld_raster
from pgpis_models.poses.formats import CFLD_FRAME
from pgpis_models.unet.autoencoder import load_vae
from tests.helpers.tiny import RASTER, SIZE, SIZES, Files, cfld_config, train_config, write_diffusers, write_files, write_vae
from training.data.arrays import NewArray
from training.data.kinds import pairs_class
from training.data.pairs import Pairs
from training.engine.loop import run
from training.engine.loss import draw, posterior
from training.tasks.cfld import CFLDTask
from training.world.drawing import render
from training.world.poses import sample_pose
from training.world.wardrobe import sample_identity

CPU = torch.device("cpu")
PEOPLE = {"train": (0, 1), "test": (2,)}
VIEWS = 3


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two people to train on and one to test on, three photos each, in CFLD's layout."""
    root = tmp_path_factory.mktemp("photos")
    for split, people in PEOPLE.items():
        (root / f"{split}_highres").mkdir()
        rows, pairs = ["name:keypoints_y:keypoints_x"], ["from,to"]
        for person in people:
            names = [f"person{person}_{view}.jpg" for view in range(VIEWS)]
            for view, name in enumerate(names):
                scene = render(sample_identity(person), sample_pose(10 * person + view), (96, 66))
                Image.fromarray(scene.image).save(root / f"{split}_highres" / name, format="PNG")  # exact pixels
                xy = np.where(scene.detected[:, None], (scene.keypoints * (256 / 96)).astype(int), -1)
                rows.append(f"{name}: {xy[:, 1].tolist()}: {xy[:, 0].tolist()}")
            pairs += [f"{a},{b}" for a in names for b in names if a != b]
        (root / f"fasion-resize-annotation-{split}.csv").write_text("\n".join(rows))
        (root / f"fasion-resize-pairs-{split}.csv").write_text("\n".join(pairs))
    return root


@pytest.fixture(scope="module")
def vae_folder(tmp_path_factory):
    return write_vae(tmp_path_factory.mktemp("sd"))


@pytest.fixture(scope="module")
def config(root, vae_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    sizes = dataclasses.replace(SIZES, prediction="epsilon")
    files = Files(write_diffusers(folder / "base", sizes), vae_folder, folder / "none")
    return train_config(folder, files, data={"kind": "deepfashion", "root": str(root), "flip": True},
                        batch=4, images=8)


def changed(config, part, **changes):
    return dataclasses.replace(config, **{part: dataclasses.replace(getattr(config, part), **changes)})


def opened(config) -> Pairs:
    return pairs_class(config.data.kind, "pairs")(config, cfld_config(), CPU)


def picture(root, split, name, size):
    image = Image.open(root / f"{split}_highres" / name).convert("RGB").resize((size[1], size[0]), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1) / 127.5 - 1


def test_a_batch_holds_both_pictures_both_poses_and_the_encoders_source(config, root):
    pairs = opened(changed(config, "data", flip=False))
    rng = np.random.default_rng(5)
    chosen = [pairs.train.pairs[i] for i in np.random.default_rng(5).integers(len(pairs.train), size=6)]
    batch = pairs.batch(rng, 6)
    assert batch.keys() == {"source", "source_image", "target_image", "source_pose", "target_pose"}
    assert len(set(chosen)) > 2 and pairs.loader_workers == 0
    for row, (source, target) in enumerate(chosen):
        assert source != target and source.split("_")[0] == target.split("_")[0]
        assert torch.allclose(batch["source"][row], picture(root, "train", source, SIZE), atol=1e-6)
        assert torch.allclose(batch["source_image"][row], picture(root, "train", source, SIZE), atol=1e-6)
        assert torch.allclose(batch["target_image"][row], picture(root, "train", target, SIZE), atol=1e-6)
        for kind, name in (("source", source), ("target", target)):
            pose = pairs.train.poses[name]
            assert pose.canvas == CFLD_FRAME
            assert torch.equal(batch[f"{kind}_pose"][row], cfld_raster(pose, RASTER))
    assert all(value.device == CPU and value.dtype == torch.float32 for value in batch.values())


def test_sizes_of_encoder_picture_and_pose_are_the_methods(config):
    method = cfld_config(image_size=[32, 32], window=[2, 2], patch=2, pose_unshuffle=4)   # latents stay 8x8
    batch = Pairs(config, method, CPU).batch(np.random.default_rng(0), 1)
    shapes = {name: tuple(value.shape[1:]) for name, value in batch.items()}
    assert shapes == {"source": (3, 32, 32), "source_image": (3, 64, 64), "target_image": (3, 64, 64),
                      "source_pose": (21, 32, 32), "target_pose": (21, 32, 32)}


def test_only_the_encoders_input_is_flipped_and_about_half_of_them(config):
    plain, flipping = opened(changed(config, "data", flip=False)), opened(config)
    first, second = (pairs.batch(np.random.default_rng(1), 40) for pairs in (plain, flipping))
    for name in first.keys() - {"source"}:
        assert torch.equal(first[name], second[name]), name
    same = [torch.equal(a, b) for a, b in zip(first["source"], second["source"], strict=True)]
    mirrored = [torch.equal(a.flip(-1), b) for a, b in zip(first["source"], second["source"], strict=True)]
    assert all(a != b for a, b in zip(same, mirrored, strict=True)) and 10 <= sum(mirrored) <= 30


def test_batches_follow_from_the_generator_and_pairs_can_be_sent_to_workers(config):
    pairs = opened(config)
    copy = pickle.loads(pickle.dumps(pairs))
    one, two, other = (p.batch(np.random.default_rng(seed), 4) for p, seed in ((pairs, 3), (copy, 3), (pairs, 4)))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["target_image"], other["target_image"])


def test_held_out_pairs_are_of_the_test_split_and_never_flipped(config, root):
    pairs = opened(config)
    held = pairs.held_out()
    assert len(held["source"]) == 6
    names = pairs.test.pairs
    assert all(name.startswith("person2") for pair in names for name in pair)
    for row, (source, target) in enumerate(names):   # six pairs there are, so all in order
        assert torch.allclose(held["source"][row], picture(root, "test", source, SIZE), atol=1e-6)
        assert torch.allclose(held["target"][row], picture(root, "test", target, SIZE), atol=1e-6)
        assert torch.equal(held["target_pose"][row], cfld_raster(pairs.test.poses[target], RASTER))


# --- latents ------------------------------------------------------------------------------------------------

@torch.no_grad()
def test_latents_are_random_samples_of_the_posterior(vae_folder):
    vae = load_vae(vae_folder)
    pictures = torch.rand(10, 3, 32, 32, generator=torch.Generator().manual_seed(2)) * 2 - 1   # more than one chunk
    stored = posterior(vae, pictures)
    dist = vae.encode(pictures).latent_dist
    noise = torch.randn(10, 4, 4, 4, generator=torch.Generator().manual_seed(3))
    expected = dist.sample(generator=torch.Generator().manual_seed(3)) * 0.18215   # diffusers' own draw
    assert torch.allclose(draw(stored, noise), expected, atol=1e-6)
    many = torch.stack([draw(stored, torch.randn_like(noise)) for _ in range(400)])
    assert torch.allclose(many.mean(0), dist.mean * 0.18215, atol=0.05) and dist.std.mean() > 0.3
    assert (many.std(0) / (dist.std * 0.18215)).mean() == pytest.approx(1.0, abs=0.02)


def test_an_autoencoder_without_posterior_gives_its_latents(tmp_path):
    vae = load_vae(write_files(tmp_path).vae)
    pictures = torch.rand(3, 3, 16, 16)
    with torch.no_grad():
        stored = posterior(vae, pictures)
        assert torch.equal(draw(stored, torch.randn(3, 4, 2, 2)), vae.encode(pictures).latents)


def test_cached_latents_are_drawn_from_the_stored_posteriors(config, root, vae_folder, monkeypatch, tmp_path):
    config = changed(config, "data", cache_latents=True, cache=str(tmp_path / "cache"))
    pairs = opened(config)
    assert [p.suffix for p in (tmp_path / "cache").iterdir()] == [".npy"]
    batch = pairs.batch(np.random.default_rng(7), 5)
    assert batch.keys() == {"source", "source_pose", "target_pose", "source_latents", "target_latents"}
    plain = opened(changed(config, "data", cache_latents=False)).batch(np.random.default_rng(7), 5)
    for name in ("source", "source_pose", "target_pose"):
        assert torch.equal(batch[name], plain[name]), name
    rng = np.random.default_rng(7)
    rng.integers(len(pairs.train), size=5)
    rng.random(5)
    for kind in ("source", "target"):
        with torch.no_grad():
            stored = posterior(load_vae(vae_folder), plain[f"{kind}_image"])
        noise = torch.from_numpy(rng.standard_normal((5, 4, 8, 8), dtype=np.float32))
        assert torch.allclose(batch[f"{kind}_latents"], draw(stored, noise), atol=2e-3), kind   # stored in half precision

    def fail(*_):
        raise AssertionError("encoded or opened the target again")

    monkeypatch.setattr("training.data.latents.posterior", fail)
    again = opened(config)
    assert torch.equal(again.batch(np.random.default_rng(7), 5)["target_latents"], batch["target_latents"])
    sent = pickle.loads(pickle.dumps(again))
    assert torch.equal(sent.batch(np.random.default_rng(7), 5)["target_latents"], batch["target_latents"])
    assert len(pickle.dumps(again.posteriors)) < 2000   # the file is mapped again, not sent
    source = root / "train_highres" / "person0_0.jpg"
    content = source.read_bytes()
    source.write_bytes(content + b"\0")   # another file of that name has other latents
    try:
        with pytest.raises(AssertionError, match="again"):
            opened(config)
    finally:
        source.write_bytes(content)


def test_another_autoencoder_never_meets_old_latents(config, vae_folder, tmp_path):
    config = changed(config, "data", cache_latents=True, cache=str(tmp_path / "cache"))
    opened(config)
    vae = load_vae(vae_folder)
    with torch.no_grad():
        vae.encoder.conv_in.weight[0, 0, 0, 0] += 0.01
    vae.save_pretrained(tmp_path / "other")
    opened(changed(config, "method", vae=str(tmp_path / "other")))
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_an_array_file_appears_only_when_it_is_complete(tmp_path):
    with pytest.raises(KeyboardInterrupt), NewArray(tmp_path / "a.npy", (2, 3), np.float32) as array:
        array[0] = 1
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())
    with NewArray(tmp_path / "a.npy", (2, 3), np.float32) as array:
        array[:] = 5
    assert (np.load(tmp_path / "a.npy") == 5).all() and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(ValueError, match="part is closed; expected to be written within its block"):
        array[0] = 1


@pytest.mark.skipif(not Path("/proc/self/maps").is_file(), reason="the kernel does not list this process's maps here")
def test_no_map_of_an_array_file_is_open_when_it_gets_its_name(tmp_path, monkeypatch):
    """Windows would refuse to rename it."""
    mapped, rename = [], Path.replace

    def replace(path, target):
        mapped.append(path.name in Path("/proc/self/maps").read_text())
        return rename(path, target)

    monkeypatch.setattr(Path, "replace", replace)
    with NewArray(tmp_path / "a.npy", (1000, 1000), np.float32) as array:
        array[1] = 5
        assert array.path.name in Path("/proc/self/maps").read_text()
    assert mapped == [False] and np.load(tmp_path / "a.npy").sum() == 5000


# --- the whole way ------------------------------------------------------------------------------------------

@pytest.mark.usefixtures("small_grids")
@pytest.mark.parametrize("cached", [False, True])
def test_a_run_on_photos_trains_with_the_autoencoder_outside_the_model(config, tmp_path, cached):
    config = dataclasses.replace(changed(config, "data", cache_latents=cached), output=str(tmp_path), images=8, batch=4)
    made = []

    def task(*arguments):
        made.append(CFLDTask(*arguments))
        return made[-1]

    path = run(config, task)
    assert {name.split(".")[0] for name in made[0].model.state_dict()} == {"method", "unet"}
    loaded = load_checkpoint(path)
    assert (loaded.meta.base, loaded.meta.data, loaded.meta.step) == ("sd15", "deepfashion", 8)
    assert "research" in loaded.meta.licence
    assert {value.dtype for value in load_file(path).values()} == {torch.float32}
    workers = changed(config, "data", workers=1)
    again = run(dataclasses.replace(workers, output=str(tmp_path / "again")), CFLDTask)
    first, second = load_file(path), load_file(again)
    assert all(torch.equal(first[name], second[name]) for name in first)   # workers and all


def test_what_photos_cannot_give_is_refused(config, root, tmp_path):
    with pytest.raises(ValueError, match="data.cache_latents keeps latents of full size, but method.halved wants others"):
        opened(changed(changed(config, "method", halved=True), "data", cache_latents=True))
    with pytest.raises(ValueError, match=r"data.size is \(128, 128\), the method makes pictures of \(64, 64\)"):
        opened(changed(config, "data", size=(128, 128)))
    with pytest.raises(ValueError, match="data.kind is 'video'; expected one of mannequins, deepfashion"):
        dataclasses.replace(config, data=dataclasses.replace(config.data, kind="video"))
    with pytest.raises(FileNotFoundError, match="has neither fasion-resize-pairs-train.csv nor fashion"):
        opened(changed(config, "data", root=str(tmp_path)))
    for path in root.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "fasion-resize-pairs-test.csv").unlink()
    (tmp_path / "fasion-resize-pairs-test.csv").write_text("from,to\n")
    with pytest.raises(ValueError, match="12 training and 0 test pairs; expected at least one of each"):
        opened(changed(config, "data", root=str(tmp_path)))


def test_unseen_photos_are_those_of_the_test_split(config, root):
    pairs = opened(changed(config, "data", flip=False, cache_latents=True)).unseen()
    chosen = [pairs.test.pairs[i] for i in np.random.default_rng(5).integers(len(pairs.test), size=6)]
    batch = pairs.batch(np.random.default_rng(5), 6)
    assert batch.keys() == {"source", "source_image", "target_image", "source_pose", "target_pose"}
    for row, (source, target) in enumerate(chosen):
        assert torch.allclose(batch["source_image"][row], picture(root, "test", source, SIZE), atol=1e-6)
        assert torch.allclose(batch["target_image"][row], picture(root, "test", target, SIZE), atol=1e-6)
