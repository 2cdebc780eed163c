"""MCLD's nodes: DensePose, texture maps, faces, the reference network as a UNet of the host, and the schedule."""

from __future__ import annotations

import dataclasses
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from training.data import mannequins
from training.data.bank import HELD_OUT, pose_seed

SIZE = (128, 96)
TOLERANCE = 1e-4   # of the largest value; 1e-6 is usual


@pytest.fixture(scope="module")
def nodes(host):
    return SimpleNamespace(**{name: host.pack(f"nodes.{name}") for name in (
        "loaders", "densepose", "texture", "face", "multifocal", "reference", "sampling", "schedule", "types",
        "appearance")})


@pytest.fixture(scope="module")
def pack(host):
    return SimpleNamespace(**{name: host.pack(f"pgpis_models.{name}") for name in (
        "base", "checkpoint", "densepose", "texture", "face", "mcld", "mcld_inputs", "mcld_loss", "mcld_parts", "schedule",
        "diffusers_binding", "injections", "sampling", "pipeline")})


def shaken(module, seed=31):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in module.parameters():   # what starts at zero would hide what it is given
            value += 0.05 * torch.randn(value.shape, generator=generator)
    return module.requires_grad_(False)


@pytest.fixture(scope="module")
def files(demo, pack, tiny):
    """mcld_tiny: as the demo's, mcld_published: with CLIP and insightface outside and the authors' schedule."""
    configs = {"mcld_tiny": dataclasses.replace(
        pack.mcld.CONFIGS["demo"], unet_widths=tiny.widths, unet_heads=tiny.heads, prompt_width=tiny.context)}
    configs["mcld_published"] = dataclasses.replace(
        configs["mcld_tiny"], image_size=(128, 128), vision_widths=(), image_tokens=1, face_width=512, schedule="authors")
    made = {}
    for name, config in configs.items():
        torch.manual_seed(7)
        method = pack.mcld.MCLD(config)
        method.start_reference({key: value.clone() for key, value in tiny.unet(5).state_dict().items()})
        weights = dict(tiny.unet(6).state_dict())
        pack.checkpoint.save_checkpoint(demo.folder / f"{name}.safetensors", shaken(method), weights, base="demo", step=0,
                                        data="none", licence="none")
        made[name] = SimpleNamespace(method=method.eval(), weights=weights, config=config)
    return made


@pytest.fixture(scope="module")
def base(nodes, demo):
    return SimpleNamespace(**dict(zip(("model", "vae"), nodes.loaders.LoadDemoBase.execute().result, strict=True)))


@pytest.fixture(scope="module")
def method(nodes, files):
    return nodes.loaders.LoadCheckpoint.execute("mcld_tiny.safetensors").result[0]


@pytest.fixture(scope="module")
def people(pack):
    """Drawn people with their true DensePose: image (1, H, W, 3) in 0..1 and a DENSEPOSE of one."""
    def person(number, view):
        identity = mannequins.sample_identity(HELD_OUT + number)
        drawn = mannequins.render(identity, mannequins.sample_pose(pose_seed(HELD_OUT + number, view)), SIZE)
        return SimpleNamespace(image=torch.from_numpy(drawn.image).float()[None] / 255, raw=drawn.image,
                               densepose=(pack.densepose.IUV.from_picture(drawn.iuv()),), iuv=drawn.iuv())
    return [person(118, 1), person(118, 0), person(104, 5)]


def texture_of(nodes, person):
    return nodes.texture.WarpTexture.execute(person.image, person.densepose, "atlas", "fast", "all").result[0]


def face_of(nodes, method, person):
    return nodes.face.FaceEmbedding.execute(person.image, nodes.face.OWN, 0, method, person.densepose).result[0]


def embed(nodes, method, base, source, target, **changes):
    given = {"texture": texture_of(nodes, source), "vae": base.vae, "model": base.model} | changes
    given.setdefault("face", None if "face" in changes else face_of(nodes, method, source))
    weight = given.pop("face_weight", 0.5)
    return nodes.multifocal.MultiFocalEmbedding.execute(method, source.image, target.densepose, weight, **given).result[0]


def rows_of(encoded):
    return {"image": encoded.image, "texture": encoded.texture, "face": encoded.face, "pose": encoded.pose,
            **{f"reference {site}": value for site, value in encoded.reference.items()}}


def largest_error(ours, theirs):
    assert ours.keys() == theirs.keys()
    return max(float((ours[name] - theirs[name]).abs().max() / theirs[name].abs().max().clamp(min=1e-9)) for name in ours)


# --- the reference network ----------------------------------------------------------------------------------

def test_the_hosts_reference_network_equals_diffusers(nodes, pack, files, base, method, tiny):
    network = nodes.reference.reference_of(method, base.model)
    generator = torch.Generator().manual_seed(3)
    latent, context = (torch.randn(*shape, generator=generator) for shape in ((5, 4, *tiny.latent), (5, 16, tiny.context)))
    ours = network(latent, context)   # more people than run at once
    reference = pack.mcld_parts.ReferenceWriter(files["mcld_tiny"].method.reference().eval())
    with torch.no_grad():
        theirs = reference(latent, context)
    error = largest_error(ours, theirs)
    print(f"reference network: {error:.1e}")
    assert error < TOLERANCE and len(ours) == 16
    assert (ours["up.3.2"][0] - ours["up.3.2"][1]).abs().max() > 0.01


def test_the_reference_network_is_the_hosts_to_move_and_is_made_once(nodes, base, method):
    import comfy.model_management as management
    network = nodes.reference.reference_of(method, base.model)
    assert nodes.reference.reference_of(method, base.model.clone()) is network
    assert not method.side_weights and not list(method.checkpoint.method.reference_unet.parameters())
    management.unload_all_models()
    network(torch.zeros(1, 4, 16, 12), torch.zeros(1, 16, 64))
    assert network.patcher in [loaded.model for loaded in management.current_loaded_models]
    assert network.patcher.model is not base.model.model


# --- encoding -----------------------------------------------------------------------------------------------

def test_the_embedding_equals_the_one_made_without_the_host(nodes, pack, files, base, method, people):
    source, target, _ = people
    cond = embed(nodes, method, base, source, target)
    other = files["mcld_tiny"].method
    vae = pack.base.load_vae(nodes.loaders._path_of("demo_vae.safetensors"))
    with torch.no_grad():
        encoded = pack.mcld_inputs.encode_pictures(
            other, source.image.movedim(-1, 1) * 2 - 1, [None], torch.device("cpu"), densepose=target.densepose, vae=vae,
            source_densepose=source.densepose)
    assert cond.batch == 1 and cond.latent_size == (16, 12) and cond.encoded.face_weight == encoded.face_weight
    assert largest_error(rows_of(cond.encoded), rows_of(encoded)) < 2e-3   # features pass through float16
    assert cond.encoded.texture.any() and cond.encoded.pose.any()


def test_texture_and_face_left_out_are_the_methods_null(nodes, files, base, method, people):
    source, target, _ = people
    bare = embed(nodes, method, base, source, target, texture=None, face=None, vae=None, model=None).encoded
    full = embed(nodes, method, base, source, target).encoded
    assert not bare.texture.any() and not bare.reference and torch.equal(bare.image, full.image)
    module = files["mcld_tiny"].method
    with torch.no_grad():
        assert torch.allclose(bare.face, module.encode_face(None), atol=1e-6)
    assert not torch.allclose(full.face, bare.face, atol=1e-3)


def test_face_weight_0_leaves_the_face_out(nodes, base, method, people):
    source, target, other = people
    conds = [embed(nodes, method, base, source, target, face_weight=0.0, face=face_of(nodes, method, who))
             for who in (source, other)]
    made = [sampled(nodes, base, cond) for cond in conds]
    assert torch.equal(*made)
    seen = [sampled(nodes, base, embed(nodes, method, base, source, target, face_weight=2.0,
                                       face=face_of(nodes, method, who))) for who in (source, other)]
    assert not torch.allclose(*seen, atol=1e-4)


def sampled(nodes, base, cond, steps=2, cfg=2.0, seed=5):
    import comfy.sample
    patched, positive, negative, latent = nodes.sampling.Apply.execute(base.model, cond).result
    noise = comfy.sample.prepare_noise(latent["samples"], seed)
    return comfy.sample.sample(patched, noise, steps, cfg, "euler", "sgm_uniform", positive, negative, latent["samples"],
                               disable_pbar=True, seed=seed)


def test_a_whole_generation_equals_the_one_on_diffusers(nodes, pack, files, base, method, people, demo):
    """KSampler with euler on sgm_uniform against DDIM on trailing timesteps: spacings differ by less than a timestep."""
    source, target, _ = people
    ours = sampled(nodes, base, embed(nodes, method, base, source, target), steps=8, seed=3 * 1_000_003)
    generator = pack.pipeline.Generator(*(demo.folder / f"{name}.safetensors" for name in
                                          ("mcld_tiny", "demo_base", "demo_vae")))
    pictures = generator(source.image.movedim(-1, 1) * 2 - 1, [None], weights={"appearance": 2.0}, steps=8, seed=3,
                         densepose=target.densepose, source_densepose=source.densepose)
    decoded = base.vae.decode(ours).movedim(-1, 1).clamp(0, 1)
    assert (decoded - pictures).abs().mean() < 0.01 < pictures.std()


def test_batches_pair_as_everywhere(nodes, base, method, people):
    source, target, other = people
    poses = target.densepose + other.densepose
    two = SimpleNamespace(densepose=poses)
    one_many = embed(nodes, method, base, source, two)
    assert one_many.batch == 2 and sampled(nodes, base, one_many).shape[0] == 2
    pair = SimpleNamespace(image=torch.cat([source.image, other.image]), densepose=source.densepose + other.densepose)
    many_one = embed(nodes, method, base, pair, target)
    assert many_one.batch == 2 and sampled(nodes, base, many_one).shape[0] == 2
    alone = embed(nodes, method, base, other, target)
    assert torch.allclose(many_one.encoded.texture[1:], alone.encoded.texture, atol=1e-5)
    three = SimpleNamespace(densepose=poses + target.densepose)
    with pytest.raises(ValueError, match="2 sources.*3 poses.*equal numbers"):
        embed(nodes, method, base, pair, three)


# --- schedule -----------------------------------------------------------------------------------------------

def test_published_weights_sample_on_their_own_schedule_and_the_demo_on_its_bases(nodes, pack, files, base, method, people):
    source, target, _ = people
    patched = nodes.sampling.Apply.execute(base.model, embed(nodes, method, base, source, target)).result[0]
    assert patched.get_model_object("model_sampling") is base.model.get_model_object("model_sampling")
    published = nodes.loaders.LoadCheckpoint.execute("mcld_published.safetensors").result[0]
    cond = nodes.multifocal.MultiFocalEmbedding.execute(published, source.image, target.densepose, 0.5,
                                                        clip_vision=Clip(64)).result[0]
    patched = nodes.sampling.Apply.execute(base.model, cond).result[0]
    sampling = patched.get_model_object("model_sampling")
    betas = np.linspace(0.00085, 0.012, 1000)   # written out: linear, rescaled to zero terminal SNR
    root = np.sqrt(np.cumprod(1 - betas))
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    expected = np.sqrt(1 - root[:-1] ** 2) / root[:-1]
    assert np.allclose(sampling.sigmas[:-1].numpy(), expected, rtol=2e-3)
    assert sampling.sigmas[-1] > 4000
    x, sigma = torch.randn(1, 4, 2, 2), torch.tensor([3.0])
    v = torch.randn(1, 4, 2, 2)
    denoised = x / 10 - v * 3 / 10 ** 0.5   # x = sqrt(1 + sigma^2) x_t; x0 = alpha x_t - sigma_t v
    assert torch.allclose(sampling.calculate_denoised(sigma, v, x), denoised, atol=1e-6)
    assert base.model.get_model_object("model_sampling") is not sampling


class Clip:
    """Stands for the host's CLIP_VISION: mean colours of a grid, which say what was given."""

    image_size = 32

    def __init__(self, width):
        self.width, self.seen = width, []

    def encode_image(self, image, crop=True):
        self.seen.append(image)
        return {"image_embeds": torch.nn.functional.adaptive_avg_pool2d(image.movedim(-1, 1), 8).flatten(1)[:, :self.width]}


def test_clip_sees_the_squashed_photo(nodes, files, people):
    source, target, _ = people
    published = nodes.loaders.LoadCheckpoint.execute("mcld_published.safetensors").result[0]
    clip = Clip(64)
    nodes.multifocal.MultiFocalEmbedding.execute(published, source.image, target.densepose, 0.5, clip_vision=clip)
    from PIL import Image
    expected = Image.fromarray(source.raw).resize((128, 128), Image.Resampling.BICUBIC).resize((32, 32),
                                                                                               Image.Resampling.BICUBIC)
    assert np.array_equal((clip.seen[0][0] * 255).round().byte().numpy(), np.asarray(expected))
    with pytest.raises(ValueError, match="CLIP ViT-L/14, which was not given"):
        nodes.multifocal.MultiFocalEmbedding.execute(published, source.image, target.densepose, 0.5)
    with pytest.raises(ValueError, match="embeddings of 32 numbers, the checkpoint expects 64"):
        nodes.multifocal.MultiFocalEmbedding.execute(published, source.image, target.densepose, 0.5, clip_vision=Clip(32))


# --- DensePose ----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("order", ["v,u,part", "part,u,v"])
def test_iuv_pictures_are_read_and_written(order, nodes, people):
    person = people[0]
    picture = person.iuv if order == "part,u,v" else person.iuv[..., ::-1].copy()
    image = torch.from_numpy(picture).float()[None] / 255
    densepose, written, mask, parts = nodes.densepose.ReadIUV.execute(image, order, "head, 2").result
    assert np.array_equal(densepose[0].to_picture(), person.iuv)
    assert np.array_equal((written[0] * 255).round().byte().numpy(), person.iuv[..., ::-1])
    assert np.array_equal(mask[0].bool().numpy(), np.isin(person.iuv[..., 0], (2, 23, 24)))
    assert parts.shape == (24, *SIZE)
    assert np.array_equal(parts.bool().numpy(), person.iuv[..., 0] == np.arange(1, 25)[:, None, None])


class TwoPeople(torch.nn.Module):
    """A TorchScript stand-in of the public models: a small person listed first, a large one second."""

    def forward(self, image: torch.Tensor):
        boxes = torch.tensor([[2.0, 2.0, 22.0, 32.0], [40.0, 10.0, 90.0, 120.0]])
        coarse = torch.zeros(2, 2, 8, 8)
        coarse[:, 1] = 1.0
        fine = torch.zeros(2, 25, 8, 8)
        fine[0, 3] = 1.0
        fine[1, 24] = 1.0
        return boxes, coarse, fine, torch.full((2, 25, 8, 8), 0.25), torch.full((2, 25, 8, 8), 0.75)


class Nobody(torch.nn.Module):
    def forward(self, image: torch.Tensor):
        empty = torch.zeros(0, 25, 8, 8)
        return torch.zeros(0, 4), torch.zeros(0, 2, 8, 8), empty, empty, empty


@pytest.fixture(scope="module")
def detectors(host):
    folder = host.base / "models" / "pgpis" / "densepose"
    folder.mkdir(exist_ok=True)
    for name, module in (("two", TwoPeople()), ("nobody", Nobody())):
        torch.jit.script(module).save(str(folder / f"{name}.torchscript"))


def test_the_largest_person_or_an_index_is_estimated(nodes, detectors, people):
    estimate = nodes.densepose.EstimateDensePose.execute
    images = torch.cat([people[0].image, people[1].image])
    densepose, picture, mask, _ = estimate(images, "two.torchscript", -1, "").result
    assert len(densepose) == 2 and densepose[0].part[60, 60] == 24 and not densepose[0].part[:, :40].any()
    assert picture.shape == (2, *SIZE, 3) and mask[0, 60, 60] == 1 and mask[0].sum() == 50 * 110
    [first] = estimate(people[0].image, "two.torchscript", 0, "body").result[0]
    assert first.part[10, 10] == 3 and not first.part[:, 30:].any()
    with pytest.raises(ValueError, match="picture 1 of 1: person is 2, but the photo shows 2"):
        estimate(people[0].image, "two.torchscript", 2, "body")
    with pytest.raises(ValueError, match="picture 1 of 1: nobody found.*Crop"):
        estimate(people[0].image, "nobody.torchscript", -1, "body")
    with pytest.raises(FileNotFoundError, match="no file .*r50_fpn_dl.torchscript in .*densepose.*Download"):
        estimate(people[0].image, "densepose_r50_fpn_dl.torchscript", -1, "body")


# --- texture maps -------------------------------------------------------------------------------------------

def test_a_texture_map_drawn_in_its_own_pose_is_the_photo(nodes, people):
    person = people[0]
    made = nodes.texture.WarpTexture.execute(person.image, person.densepose, "atlas", "exact", "near").result
    assert made[0].shape == (1, 1200, 800, 3) and made[1].shape == (1, 1200, 800)
    picture, mask = nodes.texture.RenderTexture.execute(made[0], person.densepose, 7).result
    inside = person.iuv[..., 0] > 0
    assert np.array_equal(mask[0].bool().numpy(), inside)
    assert torch.allclose(picture[0][~torch.from_numpy(inside)], torch.tensor(7 / 255))
    # pixels that share a texel show the later one, and colours may drop by a level
    near = (picture[0] - person.image[0]).abs()[torch.from_numpy(inside)].amax(-1) <= 1.5 / 255
    assert near.float().mean() > 0.9
    both = nodes.texture.RenderTexture.execute(made[0], person.densepose + people[1].densepose, 0).result[0]
    assert both.shape == (2, *SIZE, 3)


def test_edit_takes_the_named_parts_and_nothing_else(nodes, pack, people):
    own, donor = texture_of(nodes, people[0]), texture_of(nodes, people[2])
    mixed = nodes.texture.EditTexture.execute(own, donor, "torso, 7", False).result[0]
    chosen = torch.from_numpy(np.isin(pack.texture.part_map("atlas"), (1, 2, 7)))
    assert torch.equal(mixed[0][chosen], donor[0][chosen]) and torch.equal(mixed[0][~chosen], own[0][~chosen])
    assert not torch.equal(own[0][chosen], donor[0][chosen])
    mask = torch.zeros(1, 1200, 800)
    mask[:, :300, :100] = 1
    masked = nodes.texture.EditTexture.execute(own, donor, "", False, mask).result[0]
    assert torch.equal(masked[:, :300, :100], donor[:, :300, :100]) and torch.equal(masked[:, :, 100:], own[:, :, 100:])
    known = nodes.texture.EditTexture.execute(own, torch.zeros_like(donor), "body", True).result[0]
    assert torch.equal(known, own)


def test_garments_and_identity_swap_through_texture_and_face(nodes, base, method, people):
    """Paper, section 4.4: the three edits change the picture, each in its own way."""
    source, target, other = people
    own, lent = texture_of(nodes, source), texture_of(nodes, other)
    garment = nodes.texture.EditTexture.execute(own, lent, "clothes", True).result[0]
    head = nodes.texture.EditTexture.execute(own, lent, "head", True).result[0]
    face = face_of(nodes, method, other)
    made = [sampled(nodes, base, embed(nodes, method, base, source, target, **changes)) for changes in (
        {}, {"texture": garment}, {"texture": head, "face": face}, {"face": face})]
    for index, first in enumerate(made):
        for second in made[index + 1:]:
            assert not torch.allclose(first, second, atol=1e-4)


# --- faces --------------------------------------------------------------------------------------------------

class App:
    """Stands for insightface: a dark picture shows nobody, any other two faces, the smaller one first."""

    def get(self, image):
        if image.mean() < 10:
            return []
        box = np.array([10.0, 20.0, 30.0, 45.0])
        return [SimpleNamespace(bbox=box / 2, embedding=np.full(512, 1.0, np.float32)),
                SimpleNamespace(bbox=box, embedding=np.full(512, 2.0, np.float32))]


def test_insightface_embeds_the_largest_face_and_warns_without_one(nodes, people, monkeypatch):
    monkeypatch.setattr(nodes.face, "_app", lambda root, name: App())
    images = torch.cat([people[0].image, torch.zeros_like(people[0].image)])
    with pytest.warns(UserWarning, match="no face found"):
        face, crops, masks = nodes.face.FaceEmbedding.execute(images, "antelopev2", 0).result
    assert face.vectors.shape == (2, 512) and (face.vectors[0] == 2).all() and not face.vectors[1].any()
    assert crops.shape == (2, 224, 224, 3) and crops[0].any() and not crops[1].any()
    assert masks.shape == (2, *SIZE) and masks[0, 30, 20] == 1 and not masks[1].any()
    second = nodes.face.FaceEmbedding.execute(people[0].image, "antelopev2", 1).result[0]
    assert (second.vectors == 1).all()
    with pytest.raises(ValueError, match="face 2 was asked for, but the photo shows 2"):
        nodes.face.FaceEmbedding.execute(people[0].image, "antelopev2", 2)


def test_without_insightface_the_node_says_what_to_install(nodes, people):
    with pytest.raises(ValueError, match="pip install insightface|no face model in .*insightface"):
        nodes.face.FaceEmbedding.execute(people[0].image, "buffalo_l", 0)


def test_the_checkpoints_own_encoder_reads_the_head(nodes, pack, files, method, people):
    face, crops, masks = nodes.face.FaceEmbedding.execute(people[0].image, nodes.face.OWN, 0, method,
                                                          people[0].densepose).result
    head = people[0].densepose[0].part_mask("head")
    assert face.vectors.shape == (1, 64) and face.vectors.any() and crops.shape == (1, 224, 224, 3)
    assert masks[0].numpy()[head].all() and masks[0].mean() < 0.3
    headless = pack.densepose.IUV(np.zeros(SIZE, np.uint8), *(np.zeros(SIZE, np.float32) for _ in "uv"))
    with pytest.warns(UserWarning, match="no head in picture"):
        none = nodes.face.FaceEmbedding.execute(people[0].image, nodes.face.OWN, 0, method, (headless,)).result[0]
    assert not none.vectors.any()
    with pytest.raises(ValueError, match="came with no checkpoint and no densepose.*Connect both"):
        nodes.face.FaceEmbedding.execute(people[0].image, nodes.face.OWN, 0)


def test_embeddings_load_from_npy_files_of_the_input_folder(nodes, host):
    vector = np.random.default_rng(0).standard_normal(512).astype(np.float32)
    np.save(host.base / "input" / "face.npy", vector)
    np.save(host.base / "input" / "short.npy", vector[:100])
    load = nodes.face.LoadFaceEmbedding.execute
    assert np.array_equal(load("face.npy").result[0].vectors[0].numpy(), vector)
    with pytest.raises(ValueError, match="short.npy came as float32 \\(100,\\); expected 512 numbers"):
        load("short.npy")
    with pytest.raises(ValueError, match="no file '../secret.npy'"):
        load("../secret.npy")


# --- bad input ----------------------------------------------------------------------------------------------

def test_bad_input_says_what_came_and_what_to_do(nodes, files, base, method, people, demo):
    source, target, _ = people
    wide = torch.rand(1, 64, 96, 3)
    with pytest.raises(ValueError, match="the photo has 96x64 pixels, its DensePose 96x128; expected the same"):
        nodes.texture.WarpTexture.execute(wide, source.densepose, "atlas", "exact", "near")
    above = torch.full((1, 8, 8, 3), 40 / 255)
    with pytest.raises(ValueError, match="reaches 40 .*expected 0 to 24.*other channel order"):
        nodes.densepose.ReadIUV.execute(above, "v,u,part", "body")
    with pytest.raises(ValueError, match="part 'elbow' is not known"):
        nodes.densepose.ReadIUV.execute(torch.zeros(1, 8, 8, 3), "v,u,part", "elbow")
    with pytest.raises(ValueError, match="layout 'smpl'; this checkpoint expects 'atlas' \\(1200x800"):
        embed(nodes, method, base, source, target, texture=torch.rand(1, 512, 512, 3))
    with pytest.raises(ValueError, match="shape \\(1, 64, 96, 3\\); expected the atlas"):
        embed(nodes, method, base, source, target, texture=wide)
    with pytest.raises(ValueError, match="\\(1, 512\\); expected \\(B, 64\\)"):
        embed(nodes, method, base, source, target, face=nodes.types.FaceEmbeds(torch.zeros(1, 512)))
    with pytest.raises(ValueError, match="vae and model is not connected.*leave the texture out"):
        embed(nodes, method, base, source, target, vae=None, model=None)
    with pytest.raises(ValueError, match="DENSEPOSE holds str; expected that of Estimate DensePose"):
        embed(nodes, method, base, source, SimpleNamespace(densepose=["another pack's"]))
    cfld = nodes.loaders.LoadCheckpoint.execute("cfld_tiny.safetensors").result[0]
    with pytest.raises(ValueError, match="cfld_tiny.safetensors .*expects one of method mcld"):
        embed(nodes, cfld, base, source, target, face=None)
    with pytest.raises(ValueError, match="CFLD Appearance Embedding expects one of method cfld"):
        nodes.appearance.AppearanceEmbedding.execute(method, source.image, [], -1)
    with pytest.raises(ValueError, match="nothing was chosen"):
        nodes.texture.EditTexture.execute(texture_of(nodes, source), texture_of(nodes, source), "", True)
    with pytest.raises(ValueError, match="mask has the shape"):
        nodes.texture.EditTexture.execute(texture_of(nodes, source), texture_of(nodes, source), "", True,
                                          torch.ones(1, 64, 64))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert embed(nodes, method, base, source, target).batch == 1   # nothing was lost by the errors


def test_a_model_of_another_width_is_refused(nodes, files, base, people, tiny):
    source, target, _ = people
    other = base.model.clone()
    config = SimpleNamespace(unet_config={**base.model.model.model_config.unet_config, "model_channels": 64})

    class Wide(torch.nn.Module):
        model_config = config
    other.model = Wide()
    fresh = nodes.loaders.LoadCheckpoint.execute("mcld_tiny.safetensors").result[0]
    with pytest.raises(ValueError, match="widths \\(32, 64, 128, 128\\), this MODEL \\(64, 128, 256, 256\\).*Load the base"):
        embed(nodes, fresh, base, source, target, model=other, face=None)
