"""Multi-Focal Embedding: what it encodes, what may be left out, batches, whole generations, and bad input."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.host.mcld.helpers import Clip, embed, face_of, largest_error, rows_of, sampled, texture_of


@pytest.mark.hosts
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


def test_published_weights_run_whole_on_clip_smpl_maps_and_insightfaces_numbers(nodes, pack, files, base, people, demo):
    """The route of real photos: CLIP of the host on photo and texture map, 512 face numbers, SMPL layout, the host's
    reference network and the authors' schedule, against the same on diffusers."""
    source, target, _ = people
    published = nodes.loaders.LoadCheckpoint.execute("mcld_smpl.safetensors").result[0]
    texture, clip = torch.rand(1, 512, 512, 3, generator=torch.Generator().manual_seed(1)), Clip(64)
    texture = (texture * 255).round() / 255
    face = nodes.types.FaceEmbeds(torch.randn(1, 512, generator=torch.Generator().manual_seed(2)))
    given = {"texture": texture, "face": face, "clip_vision": clip, "vae": base.vae, "model": base.model}
    cond = nodes.multifocal.MultiFocalEmbedding.execute(published, source.image, target.densepose, 0.5, **given).result[0]
    assert len(clip.seen) == 2 and cond.encoded.reference and cond.encoded.texture.any()
    ours = sampled(nodes, base, cond, steps=4, seed=3 * 1_000_003)
    generator = pack.pipeline.Generator(*(demo.folder / f"{name}.safetensors" for name in
                                          ("mcld_smpl", "demo_base", "demo_vae")))
    assert generator.schedule is not generator.sizes.schedule() and generator.method.noise_schedule() is not None
    photo = generator.prepare(source.raw)
    pictures = generator(photo, [None], weights={"appearance": 2.0}, steps=4, seed=3, densepose=target.densepose,
                         textures=(texture.numpy() * 255).round().astype(np.uint8), faces=face.vectors,
                         clip=lambda squares: nodes.multifocal.embeds(Clip(64), squares, 64))
    decoded = base.vae.decode(ours).movedim(-1, 1).clamp(0, 1)
    print(f"difference {(decoded - pictures).abs().mean():.1e}, spread {pictures.std():.2f}")
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
    with pytest.raises(ValueError, match="FACE_EMBEDS holds list; expected that of Face Embedding"):
        embed(nodes, method, base, source, target, face=[torch.zeros(512)])
    with pytest.raises(ValueError, match="1 sources, 2 textures, 3 faces, 1 poses; expected equal numbers.*Repeat or drop"):
        embed(nodes, method, base, source, target, texture=texture_of(nodes, source).expand(2, -1, -1, -1),
              face=nodes.types.FaceEmbeds(torch.zeros(3, 64)))
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


def test_a_photo_of_750x1101_has_the_pixels_that_the_command_line_reads(host):
    """Whatever Pillow's version: both go over the width first."""
    photo = np.random.default_rng(0).integers(0, 256, (1101, 750, 3)).astype(np.uint8)
    squashed, read_photo = host.pack("nodes.multifocal").squashed, host.pack("pgpis_models.pipeline").read_photo
    for size in ((512, 512), (256, 192)):
        assert torch.equal(squashed(photo[None], size), read_photo(photo, size))
