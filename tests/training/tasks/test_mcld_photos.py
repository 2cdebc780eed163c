"""MCLD on photos: the conditions that are made beside them, how they are read, and a run with CLIP at a tiny size."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from pgpis_models.checkpoint import load_checkpoint
from pgpis_models.mcld.config import MCLDConfig
from pgpis_models.mcld.inputs import as_input, as_pixels
from pgpis_models.surface.densepose import IUV, NobodyFound, pose_pictures
from pgpis_models.surface.texture import warp
from tests.helpers.steps import adam, changed, step, weights
from tests.helpers.tiny import train_config
from training.data.focal import Pairs, usable_pairs
from training.prepare_mcld import embedding, prepare
from training.tasks.mcld import MCLDTask

SIZE = (128, 128)
# Overrides of the preset "full" that fit the tiny base; faces stay 512 numbers, as insightface gives them.
MODEL = {"image_size": [128, 128], "unet_widths": [32, 32, 32, 32], "unet_heads": 2, "prompt_width": 64,
         "pose_widths": [4, 6, 8, 10], "face_dim": 16, "face_depth": 1, "face_heads": 1, "face_head_width": 16,
         "schedule": "base"}


def test_conditions_are_made_once_and_photos_without_a_person_are_named(tmp_path):
    (tmp_path / "train_highres").mkdir()
    rng = np.random.default_rng(0)
    for stem in ("a", "nobody"):
        photo = Image.fromarray(rng.integers(1, 256, (40, 30, 3), dtype=np.uint8))
        photo.save(tmp_path / "train_highres" / f"{stem}.png")
    part = np.zeros((40, 30), np.uint8)
    part[5:30, 5:25] = 2
    iuv = IUV(part, *(rng.integers(0, 256, (40, 30)).astype(np.float32) / np.float32(255) for _ in "uv"))
    nobody = np.array(Image.open(tmp_path / "train_highres" / "nobody.png"))
    seen = []

    def pose(picture):
        seen.append(picture)
        if np.array_equal(picture, nobody):
            raise NobodyFound("nobody found")
        return iuv
    left = prepare(tmp_path, pose, lambda _: np.arange(512, dtype=np.float32), layout="atlas")
    assert left == ["train_highres/nobody.png"] and len(seen) == 2
    written = np.array(Image.open(tmp_path / "train_densepose" / "a.png"))
    assert np.array_equal(IUV.from_picture(written, "v,u,part").to_picture(), iuv.to_picture())
    texture = np.array(Image.open(tmp_path / "train_texture" / "a.png"))
    assert np.array_equal(texture, warp(np.array(Image.open(tmp_path / "train_highres" / "a.png")), iuv, "atlas").picture)
    assert np.load(tmp_path / "train_face" / "a.npy")[5] == 5 and not list(tmp_path.glob("*/*.part"))
    prepare(tmp_path, pose, lambda _: None, layout="atlas")
    assert len(seen) == 3   # only the one without a person is looked at again
    assert (tmp_path / "train_nobody.txt").read_text() == "nobody.png\n"
    (tmp_path / "fasion-resize-pairs-train.csv").write_text("from,to\na.png,nobody.png\na.png,a.png\nnobody.png,a.png\n")
    assert usable_pairs(tmp_path, "train") == [("a.png", "a.png")]
    with pytest.raises(FileNotFoundError, match="no photos in"):
        prepare(tmp_path / "train_face", pose, lambda _: None)
    with pytest.raises(ValueError, match="not DensePose"):   # a wrong model is no reason to call everybody nobody
        prepare(tmp_path, lambda _: (_ for _ in ()).throw(ValueError("not DensePose")), lambda _: None)


def test_a_face_is_embedded_in_the_whole_photo_or_in_its_box_alone():
    class Recogniser:
        """A face in the brightest quarter of any picture; its embedding is the picture's mean and size."""
        def get(self, bgr):
            numbers = np.resize(np.array([bgr.mean(), *bgr.shape[:2]], np.float32), 512)
            return [SimpleNamespace(bbox=np.array([20.0, 10.0, 28.0, 18.0]), embedding=numbers)] if bgr.any() else []
    photo = np.zeros((40, 60, 3), np.uint8)
    photo[8:20, 18:30] = 200   # the box, enlarged by 1.5
    whole, box = (embedding(Recogniser(), photo, read)[:3].tolist() for read in ("photo", "box"))
    assert whole == pytest.approx([200 * 144 / 2400, 40, 60]) and box == [200, 12, 12]
    assert embedding(Recogniser(), np.zeros_like(photo), "box") is None


def test_photos_are_read_with_their_conditions(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "fashion-resize-pairs-train.csv").write_text("from,to\na.jpg,b.jpg\n")
    (tmp_path / "fashion-resize-pairs-test.csv").write_text("from,to\na.jpg,b.jpg\n")
    sizes = MCLDConfig(image_size=(64, 64), unet_widths=(8, 8, 8, 8), unet_heads=1, pose_widths=(4, 4, 4, 4))
    sizes = dataclasses.replace(sizes, image_size=(512, 512))
    for split in ("train", "test"):
        for kind in ("highres", "densepose", "texture", "face"):
            (tmp_path / f"{split}_{kind}").mkdir()
        for stem in "ab":
            photo = Image.fromarray(rng.integers(0, 256, (40, 30, 3), dtype=np.uint8))
            photo.save(tmp_path / f"{split}_highres" / f"{stem}.jpg")
    options = SimpleNamespace(data=SimpleNamespace(root=str(tmp_path), workers=0, size=(512, 512)))
    with pytest.raises(FileNotFoundError, match="2 of 4 files.*train_densepose/b.png.*prepare_mcld"):
        Pairs(options, sizes)
    part = rng.integers(0, 25, (40, 30), dtype=np.uint8)
    iuv = IUV(part, *(rng.integers(0, 256, (40, 30)).astype(np.float32) / np.float32(255) for _ in "uv"))
    texture = rng.integers(0, 256, (512, 512, 3), dtype=np.uint8)
    for split in ("train", "test"):
        Image.fromarray(iuv.to_picture("v,u,part")).save(tmp_path / f"{split}_densepose" / "b.png")
        Image.fromarray(texture).save(tmp_path / f"{split}_texture" / "a.png")
    pairs = Pairs(options, sizes)
    batch = pairs.batch(rng, 2)
    assert torch.equal(batch["pose"][0], pose_pictures([iuv], (512, 512))[0])
    assert torch.equal(batch["texture"][1], as_input(texture[None])[0])
    assert batch["face"].shape == (2, 512) and not batch["face"].any()
    assert batch["source"].shape == batch["target_image"].shape == (2, 3, 512, 512)
    with pytest.raises(ValueError, match=r"data.size is \(512, 512\), the method makes pictures of \(256, 256\)"):
        Pairs(options, dataclasses.replace(sizes, image_size=(256, 256)))
    unseen = Pairs(options, sizes).unseen().batch(rng, 2)
    test_photo = Image.open(tmp_path / "test_highres" / "a.jpg").resize((512, 512), Image.Resampling.BICUBIC)
    expected = torch.from_numpy(np.array(test_photo)).permute(2, 0, 1) / 127.5 - 1
    assert torch.allclose(unseen["source"][0], expected, atol=1e-6)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A folder with a CLIP of random weights, as transformers writes it."""
    transformers = pytest.importorskip("transformers")
    path = tmp_path_factory.mktemp("clip")
    torch.manual_seed(3)
    transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=224, patch_size=56,
        projection_dim=64)).save_pretrained(path)
    return path


def write_photos(root, people="abc"):
    """Photos with all their conditions; the last person has no face."""
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for kind in ("highres", "densepose", "texture", "face"):
            (root / f"{split}_{kind}").mkdir(parents=True)
        for stem in people:
            Image.fromarray(rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)).save(root / f"{split}_highres" / f"{stem}.png")
            part = np.zeros(SIZE, np.uint8)
            part[10:120, 10:50], part[10:40, 20:40] = 2, 23
            iuv = IUV(part, *(rng.random(SIZE).astype(np.float32) for _ in "uv"))
            Image.fromarray(iuv.to_picture("v,u,part")).save(root / f"{split}_densepose" / f"{stem}.png")
            texture = rng.integers(0, 256, (512, 512, 3), dtype=np.uint8)
            Image.fromarray(texture).save(root / f"{split}_texture" / f"{stem}.png")
            if stem != people[-1]:
                np.save(root / f"{split}_face" / f"{stem}.npy", rng.standard_normal(512).astype(np.float32))
        pairs = "".join(f"{a}.png,{b}.png\n" for a in people for b in people if a != b)
        (root / f"fashion-resize-pairs-{split}.csv").write_text("from,to\n" + pairs)
    return root


def test_a_step_on_photos_with_clip_trains_all_but_clip_and_exports_what_it_trained(files, clip, tmp_path, monkeypatch):
    root = write_photos(tmp_path / "fashion")
    torch.manual_seed(0)
    task = MCLDTask(train_config(
        tmp_path, files, task="mcld", data={"kind": "deepfashion", "root": str(root), "size": list(SIZE), "workers": 0},
        method={"preset": "full", "model": MODEL, "cubic_timesteps": False},
        mcld={"image_encoder": str(clip), "drop": "pixels", "std_photos": 16}), torch.device("cpu"))
    batch = task.batch(np.random.default_rng(1), 4)
    clip_before, before = weights(task.model.clip.model), weights(task.model)
    assert not any(name.startswith("clip") for name in before)
    # what the UNet is told is CLIP's own embedding of the photo; with noise of its spread in training only
    task.model.eval()
    with torch.no_grad():
        told = task.model.encode_batch(batch).image
        plain = task.model.clip(as_pixels(batch["source"]))
        assert torch.allclose(told[:, 0], plain, atol=1e-6)
        # of the tokens alone: what comes after them is most of the work
        with monkeypatch.context() as patch:
            patch.setattr(task.model.method, "encode", lambda image, *_: SimpleNamespace(image=image))
            noisy = torch.stack([task.model.train().encode_batch(batch).image[:, 0] - plain for _ in range(40)])
    spread = task.model.std * task.config.mcld.embedding_noise
    assert torch.allclose(noisy.std((0, 1)), spread, rtol=0.4) and (spread > 0).all()
    optimiser = adam(task)
    for seed in range(3):
        loss, _ = step(task, batch, optimiser, seed)
        assert np.isfinite(loss)
    parts = {name.split(".")[1] if name.startswith("method.") else "unet" for name in changed(task.model, before)}
    assert parts == {"unet", "pose_guider", "face_projector", "face_attention", "reference_unet"}
    assert not changed(task.model.clip.model, clip_before)
    task.export(tmp_path / "mcld.safetensors", 12)
    stored = load_checkpoint(tmp_path / "mcld.safetensors", expect_method="mcld")
    own = task.model.method.state_dict()
    assert all(torch.allclose(value, own[name], atol=2e-3) for name, value in stored.method.state_dict().items())
    assert "DeepFashion" in stored.meta.licence
    with pytest.raises(ValueError, match="mcld.image_encoder is .* not a folder"):
        MCLDTask(dataclasses.replace(task.config, mcld=dataclasses.replace(task.config.mcld, image_encoder="none")),
                 torch.device("cpu"))
