"""MCLD with encoders of its own: sizes, aggregations, what is left out, its schedule, and the command line."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from pgpis_models.checkpoint import load_checkpoint, save_checkpoint
from pgpis_models.command.mcld import sequence_iuvs
from pgpis_models.generate import main
from pgpis_models.mcld.config import CONFIGS
from pgpis_models.mcld.inputs import as_input, encode_faces, encode_pictures, face_crops, image_tokens, texture_maps
from pgpis_models.mcld.model import MCLD
from pgpis_models.mcld.schedule import sampling_schedule
from pgpis_models.mcld.vision import FaceReader
from pgpis_models.parts.swin_tower import SwinSizes
from pgpis_models.pipeline import DEFAULTS, METHOD_DEFAULTS, Generator
from pgpis_models.surface.carrying import carried_by
from pgpis_models.surface.densepose import IUV
from pgpis_models.surface.layout import tiles
from pgpis_models.surface.provenance import COLOURS, INVENTED
from tests.helpers.tiny import shaken, write_files

# With 8 x 8 latents the middle of the UNet would be one pixel, which GroupNorm refuses.
VISION = SwinSizes((128, 64), (4, 2), 8, (1, 1, 1, 1), (1, 1, 2, 2), tokens=3, token_width=64, decoder_depth=1,
                   decoder_heads=2, reads="all")
SIZES = dataclasses.replace(
    CONFIGS["demo"], image_size=(128, 64), unet_widths=(32, 32, 32, 32), unet_heads=2, pose_widths=(4, 6, 8, 10),
    face_dim=16, face_depth=1, face_heads=1, face_head_width=16, face_width=8, face_pixels=16, face_widths=(4, 4, 4),
    vision=VISION, image_tokens=3)
CPU = torch.device("cpu")


def densepose(seed, size=(128, 64)):
    rng = np.random.default_rng(seed)
    part = np.zeros(size, np.uint8)
    part[10:60, 20:44] = 2
    part[4:14, 26:38] = 23
    return IUV(part, *(rng.integers(0, 256, size).astype(np.float32) / np.float32(255) * (part > 0) for _ in "uv"))


@pytest.fixture(scope="module")
def method():
    torch.manual_seed(0)
    return shaken(MCLD(SIZES)).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, method):
    """Checkpoint with base and autoencoder, a photo with its DensePose, two poses."""
    folder = tmp_path_factory.mktemp("work")
    write_files(folder)
    weights = {name: 0.1 * torch.randn(shape) for name, shape in method.unet_weight_shapes().items()}
    save_checkpoint(folder / "demo_mcld.safetensors", method, weights, base="demo", step=0, data="none", licence="test")
    photo = np.random.default_rng(0).integers(1, 256, (128, 64, 3), dtype=np.uint8)
    Image.fromarray(photo).save(folder / "person.png")
    (folder / "poses").mkdir()
    for path, seed in ((folder / "person_iuv.png", 1), (folder / "poses" / "a.png", 2), (folder / "poses" / "b.png", 3)):
        Image.fromarray(densepose(seed).to_picture("v,u,part")).save(path)
    return folder


def test_published_sizes_bring_no_encoders_and_the_demo_stays_in_its_budget():
    assert not CONFIGS["full"].own_vision and CONFIGS["full"].image_tokens == 1
    with torch.device("meta"):
        demo = MCLD(CONFIGS["demo"])
    numbers = sum(value.numel() for value in demo.parameters())
    numbers += sum(int(np.prod(shape)) for shape in demo.unet_weight_shapes().values())
    assert 2 * numbers < 25e6   # bytes in half precision


def test_tokens_depend_on_where_things_are_and_on_absolute_colour():
    torch.manual_seed(1)
    reader = MCLD(SIZES).vision.tower.eval()
    picture = torch.zeros(1, 3, 128, 64)
    picture[:, 0, :, :32] = 0.8   # red on the left
    with torch.no_grad():
        made = [reader(one) for one in (picture, picture.flip(-1), picture - 0.5, picture.repeat(2, 1, 1, 1))]
    assert made[0].shape == (1, 3, 64) and torch.allclose(made[3][1:], made[0], atol=1e-5)
    assert not torch.allclose(made[0], made[1], atol=1e-3) and not torch.allclose(made[0], made[2], atol=1e-3)
    with pytest.raises(ValueError, match=r"\(1, 3, 64, 128\); expected \(B, 3, 128, 64\)"):
        reader(torch.zeros(1, 3, 64, 128))
    with pytest.raises(ValueError, match="face crop has shape"):
        FaceReader(16, (4, 4, 4), 8)(torch.zeros(1, 3, 16, 24))
    with pytest.raises(ValueError, match="face_widths is .8, 8.; expected three"):
        FaceReader(16, (8, 8), 8)
    with pytest.raises(ValueError, match=r"vision reads \(128, 64\) into 3 tokens of 64; expected .* image_tokens 4"):
        dataclasses.replace(SIZES, image_tokens=4)


def encoded_by(method, **given):
    generator = torch.Generator().manual_seed(4)
    inputs = {"image": torch.randn(2, 3, 64, generator=generator), "texture": torch.randn(2, 3, 64, generator=generator),
              "face": torch.randn(2, 8, generator=generator), "pose": torch.rand(2, 3, 128, 64, generator=generator)} | given
    with torch.no_grad():
        return method.encode(**inputs)


@pytest.mark.parametrize("aggregation, use_face, tokens", [
    ("stages", True, {"down": 3, "mid": 6, "up": 3}), ("stages", False, {"down": 3, "mid": 6, "up": 3}),
    ("image", True, {"down": 3, "mid": 3, "up": 3}), ("concat", True, {"down": 10, "mid": 10, "up": 10}),
    ("concat", False, {"down": 6, "mid": 6, "up": 6})])
def test_each_aggregation_shows_its_tokens_and_its_null_row_shows_zeros(aggregation, use_face, tokens):
    torch.manual_seed(0)
    method = MCLD(dataclasses.replace(SIZES, aggregation=aggregation, use_face=use_face))
    encoded = encoded_by(method)
    shown, null = method.injections(encoded), method.null_injections(encoded)
    for stage, count in tokens.items():
        assert shown.context[stage].shape == (2, count, 64)
        assert null.context[stage].shape[1:] == (count, 64) and not null.context[stage].any()
        expected = {"down": [encoded.image], "mid": [encoded.image, encoded.texture], "up": [encoded.texture]}[stage]
        if aggregation == "image":
            expected = [encoded.image]
        elif aggregation == "concat":
            expected = [encoded.image, encoded.texture, *([encoded.face] if use_face else [])]
        assert torch.equal(shown.context[stage], torch.cat(expected, 1))
    assert bool(shown.extra_attention) == (aggregation == "stages" and use_face) == bool(null.extra_attention)


def test_unknown_choices_are_refused():
    for name in ("aggregation", "schedule", "texture_layout"):
        with pytest.raises(ValueError, match=f"{name} is 'other'; expected one of"):
            dataclasses.replace(SIZES, **{name: "other"})


def test_fewer_unet_weights_may_belong_to_the_method():
    method = MCLD(dataclasses.replace(SIZES, trained_unet=("*attn1*", "conv_in.*")))
    names = set(method.unet_weight_shapes())
    assert names == {name for name in MCLD(SIZES).unet_weight_shapes() if "attn1" in name or name.startswith("conv_in.")}
    assert len(method.reference_weight_shapes()) == len(MCLD(SIZES).reference_weight_shapes())


def test_the_reference_networks_weights_can_be_taken_out():
    torch.manual_seed(0)
    method = shaken(MCLD(SIZES))
    before = {name: value.detach().clone() for name, value in method.reference_unet.named().items()}
    taken = method.take_reference()
    assert taken.keys() == before.keys() and all(torch.equal(taken[name], before[name]) for name in taken)
    assert not list(method.reference_unet.parameters())


def test_what_is_not_given_is_the_null(method, folder):
    generator = Generator(*(folder / f"demo_{name}.safetensors" for name in ("mcld", "base", "vae")))
    photo = np.asarray(Image.open(folder / "person.png"))
    iuv, target, source = densepose(1), [densepose(2)], as_input(photo[None])
    with torch.no_grad():
        bare = encode_pictures(method, source, [None], CPU, densepose=target)
        full = encode_pictures(method, source, [None], CPU, densepose=target, vae=generator.vae, source_densepose=[iuv])
        crops, found = face_crops(source, [iuv], 16)
        assert torch.equal(full.face, method.encode_face(encode_faces(method, crops, found)))
        assert torch.equal(bare.face, method.encode_face(None))
    assert not bare.texture.any() and not bare.reference and len(full.reference) == 16
    assert torch.equal(bare.image, full.image) and torch.equal(bare.pose, full.pose)
    with pytest.raises(ValueError, match="through the autoencoder, which was not given"):
        encode_pictures(method, source, [None], CPU, densepose=target, source_densepose=[iuv])
    published = MCLD(dataclasses.replace(SIZES, vision=None, image_tokens=1))
    with pytest.raises(ValueError, match="CLIP ViT-L/14, which was not given"):
        image_tokens(published, source)
    assert image_tokens(published, source, lambda pictures: torch.full((len(pictures), 64), 2.0)).shape == (1, 64)


def test_a_methods_own_schedule_and_settings_are_used(folder):
    files = [folder / f"demo_{name}.safetensors" for name in ("mcld", "base", "vae")]
    generator = Generator(*files)
    assert generator.schedule == generator.sizes.schedule() and generator.defaults == DEFAULTS["demo"]
    own = load_checkpoint(files[0])
    method = MCLD(dataclasses.replace(SIZES, schedule="authors"))
    method.load_state_dict(own.method.state_dict())
    save_checkpoint(folder / "authors.safetensors", method, own.unet_weights, base="sd15", step=0, data="none", licence="-")
    other = Generator(folder / "authors.safetensors", *files[1:])
    assert other.schedule == sampling_schedule() and other.defaults == METHOD_DEFAULTS["mcld"]


def test_the_command_line_makes_the_generators_pictures(folder, method, capsys):
    def command(*more, out="made.png", pose="poses/b.png"):
        main(["--checkpoint", str(folder / "demo_mcld.safetensors"), "--base", str(folder / "demo_base.safetensors"),
              "--vae", str(folder / "demo_vae.safetensors"), "--source", str(folder / "person.png"),
              "--pose", str(folder / pose), "--source-densepose", str(folder / "person_iuv.png"),
              "--out", str(folder / out), "--steps", "1", "--device", "cpu", *more])
    command("--seed", "3")
    generator = Generator(*(folder / f"demo_{name}.safetensors" for name in ("mcld", "base", "vae")))
    photo = np.asarray(Image.open(folder / "person.png"))
    made = generator(as_input(photo[None]), [None], steps=1, seed=3, densepose=[densepose(3)],
                     source_densepose=[densepose(1)])
    expected = (made[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    assert np.abs(np.asarray(Image.open(folder / "made.png")).astype(int) - expected).max() <= 1
    command(pose="poses", out="all")
    assert sorted(path.name for path in (folder / "all").iterdir()) == ["a.png", "b.png"]
    Image.fromarray(texture_maps(SIZES, photo[None], [densepose(1)])[0]).save(folder / "texture.png")
    command("--seed", "3", "--texture", str(folder / "texture.png"), out="same.png")
    assert np.array_equal(np.asarray(Image.open(folder / "same.png")), np.asarray(Image.open(folder / "made.png")))
    with pytest.raises(SystemExit):
        command(pose="person.png")   # no IUV picture
    (folder / "poses" / "a.json").write_text("{}")   # as from the keypoints of the same photo
    command(pose="poses", out="again")
    assert sorted(path.name for path in (folder / "again").iterdir()) == ["a.png", "b.png"]
    capsys.readouterr()
    for more, message in ((("--frame", "1", "--person", "0"), "--frame, --person came with a checkpoint of mcld"),
                          (("--sequence",), "--out is made.png, a .png file; expected one of .webp, .gif")):
        with pytest.raises(SystemExit):
            command(*more)
        assert message in capsys.readouterr().err


def test_further_photos_on_the_command_line_are_read_as_the_generator_reads_them(folder, capsys):
    """The second photo shows the back, and the other half of the head: each part comes from one photo."""
    photo, front, back = np.asarray(Image.open(folder / "person.png")), densepose(1), densepose(4)
    back = dataclasses.replace(back, part=np.choose(back.part // 2, [0, 1] + 9 * [0] + [24]).astype(np.uint8))
    Image.fromarray(255 - photo).save(folder / "back.png")
    Image.fromarray(back.to_picture("v,u,part")).save(folder / "back_iuv.png")
    files = {name: str(folder / name) for name in ("person.png", "person_iuv.png", "back.png", "back_iuv.png", "seen.png")}

    def command(*more):
        main(["--checkpoint", str(folder / "demo_mcld.safetensors"), "--base", str(folder / "demo_base.safetensors"),
              "--vae", str(folder / "demo_vae.safetensors"), "--source", files["person.png"], "--photos", files["back.png"],
              "--source-densepose", files["person_iuv.png"], "--pose", str(folder / "poses" / "b.png"),
              "--out", str(folder / "both.png"), "--steps", "1", "--device", "cpu", *more])
    command("--photos-densepose", files["back_iuv.png"], "--seen", files["seen.png"])
    generator = Generator(*(folder / f"demo_{name}.safetensors" for name in ("mcld", "base", "vae")))
    [both], [one] = (generator(as_input(np.stack(photos)), [None], steps=1, densepose=[densepose(3)],
                               source_densepose=iuvs, **more)
                     for photos, iuvs, more in (([photo, 255 - photo], [front, back],
                                                 {"one_person": torch.full((1, 2), 0.5)}), ([photo], [front], {})))
    made = np.asarray(Image.open(folder / "both.png")).astype(int)
    of_both, of_one = ((picture.permute(1, 2, 0).numpy() * 255).round() for picture in (both, one))
    assert np.abs(made - of_both).max() <= 1 and 10 * np.abs(made - of_both).sum() < np.abs(made - of_one).sum()
    seen = tiles(np.asarray(Image.open(files["seen.png"])))
    for number, tile in enumerate(seen, start=1):
        shown = {1: "sky blue", 2: "orange", 23: "orange", 24: "sky blue"}.get(number)
        colours = {tuple(colour) for colour in np.unique(tile.reshape(-1, 3), axis=0).tolist()}
        assert colours == ({COLOURS[shown], INVENTED} if shown else {(0, 0, 0)}), number
    for more, message in (((), "1 DensePose came for 2 photos; expected --photos-densepose, one file for each of --photos"),
                          (("--seen", files["seen.png"]), "--seen came without --photos-densepose"),
                          (("--seen", "map.txt"), "--seen is map.txt, a .txt file; expected one of .png"),
                          (("--seen", files["seen.png"], "--texture", files["seen.png"]), "--seen came with --texture")):
        with pytest.raises(SystemExit):
            command(*more)
        assert message in capsys.readouterr().err


def test_a_folder_of_iuv_pictures_is_a_sequence(folder):
    """The frames that the same person and pictures make at once; the one without a person holds the one before it."""
    frames, nobody = folder / "frames", IUV(np.zeros((128, 64), np.uint8), *(np.zeros((128, 64), np.float32),) * 2)
    frames.mkdir()
    for number, iuv in ((1, densepose(2)), (2, densepose(3)), (9, nobody), (10, densepose(5))):   # as people count
        Image.fromarray(iuv.to_picture("v,u,part")).save(frames / f"{number}.png")
    main(["--checkpoint", str(folder / "demo_mcld.safetensors"), "--base", str(folder / "demo_base.safetensors"),
          "--vae", str(folder / "demo_vae.safetensors"), "--source", str(folder / "person.png"), "--pose", str(frames),
          "--source-densepose", str(folder / "person_iuv.png"), "--out", str(folder / "film"), "--steps", "1", "--seed", "3",
          "--device", "cpu", "--sequence", "--batch", "3", "--empty", "hold", "--noise", "body", "--first-frame", "1"])
    generator = Generator(*(folder / f"demo_{name}.safetensors" for name in ("mcld", "base", "vae")))
    source = as_input(np.asarray(Image.open(folder / "person.png"))[None])
    poses, person = [densepose(seed) for seed in (2, 3, 3, 5)], {"source_densepose": [densepose(1)]}
    [made] = generator.sequence(source, poses, steps=1, seed=3, carried=carried_by(poses, SIZES.latent_size),
                                first_frame=1.0, person=person)
    alone = generator(source, [None], steps=1, seed=3, densepose=poses[:1], **person)
    assert (made[:1] - alone).abs().max() < 1e-4 < 1e-2 < (made[3] - alone).abs().max()
    for number, picture in enumerate((made.movedim(1, -1).numpy() * 255).round()):
        assert np.abs(np.asarray(Image.open(folder / "film" / f"{number:05d}.png")) - picture).max() <= 1
    with pytest.raises(ValueError, match="9.png: no pixel belongs to a body part"):
        sequence_iuvs(frames)
