"""MCLD on its own: what each term shows the UNet, what is left out, batches, and the converter for the published files."""

import dataclasses

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel

from pgpis_models.checkpoint import load_checkpoint, save_checkpoint
from pgpis_models.convert import main
from pgpis_models.mcld.config import CONFIGS
from pgpis_models.mcld.convert import KINDS, convert, published_layout
from pgpis_models.mcld.model import MCLD
from pgpis_models.mcld.pixels import clip_pixels
from pgpis_models.mcld.reference import ReferenceWriter
from pgpis_models.unet.diffusers_binding import DiffusersBinding
from pgpis_models.unet.injections import Injections, harmonise
from pgpis_models.unet.sites import SITES
from tests.helpers.published import manifest

TINY = CONFIGS["tiny"]


@pytest.fixture(scope="module")
def method():
    torch.manual_seed(0)
    built = MCLD(TINY).eval()
    for parameter in built.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return built


@pytest.fixture(scope="module")
def unet():
    torch.manual_seed(1)
    return UNet2DConditionModel(
        block_out_channels=TINY.unet_widths, cross_attention_dim=TINY.prompt_width, attention_head_dim=TINY.unet_heads,
        norm_num_groups=TINY.unet_groups).eval()


@pytest.fixture(scope="module")
def binding(unet):
    bound = DiffusersBinding(unet)
    yield bound
    bound.release()


@pytest.fixture(scope="module")
def writer(method):
    return ReferenceWriter(method.reference().eval())


def inputs(batch=2, seed=2):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(batch, *shape, generator=generator)

    return {"image": normal(20), "pose": torch.rand(batch, 3, 64, 64, generator=generator), "texture": normal(20),
            "texture_latent": normal(4, 8, 8), "face": normal(12)}


@torch.no_grad()
def predict(binding, injections, batch=2):
    x = torch.randn(batch, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    return binding(x, torch.tensor(500), harmonise([injections], batch).stacked())


@torch.no_grad()
def encode(method, writer, batch=2, **changes):
    return method.encode(**(inputs(batch) | {"reference": writer} | changes))


# --- what each term shows ----------------------------------------------------------------------------------------

def test_each_stage_sees_what_the_paper_gives_it(method, writer):
    encoded = encode(method, writer)
    shown = method.injections(encoded)
    assert torch.equal(shown.context["down"], encoded.image) and torch.equal(shown.context["up"], encoded.texture)
    assert torch.equal(shown.context["mid"], torch.cat([encoded.image, encoded.texture], 1))
    assert set(shown.extra_attention) == set(shown.self_reference) == set(SITES)
    for site, extra in shown.extra_attention.items():
        width = TINY.unet_widths[SITES[site].level]
        assert extra.tokens is encoded.face and extra.scale == 0.5
        assert extra.to_k.shape == extra.to_v.shape == (width, TINY.prompt_width)
        assert shown.self_reference[site].shape == (2, (8 // 2 ** SITES[site].level) ** 2, width)


def test_face_weight_0_equals_a_unet_without_the_face_branch(method, writer, binding):
    encoded = encode(method, writer)
    none = method.injections(dataclasses.replace(encoded, face_weight=0))
    assert not none.extra_attention
    built = Injections(context=none.context, self_reference=encoded.reference, stem=encoded.pose)
    # The same once more with the branch run and multiplied by 0.
    branch = {site: dataclasses.replace(extra, scale=0.0)
              for site, extra in method.injections(encoded).extra_attention.items()}
    bare = predict(binding, built)
    assert torch.equal(predict(binding, none), bare)
    assert (predict(binding, dataclasses.replace(built, extra_attention=branch)) - bare).abs().max() < 1e-6
    assert (predict(binding, method.injections(encoded)) - bare).abs().max() > 1e-3
    # Without the branch another face changes nothing.
    other = encode(method, writer, face=inputs(seed=9)["face"])
    assert torch.equal(predict(binding, method.injections(dataclasses.replace(other, face_weight=0))), bare)


def test_the_null_row_sees_no_reference_features_and_keeps_its_pose(method, writer, binding):
    encoded = encode(method, writer)
    guidance = method.guidance(encoded)
    null, full = (term.injections for term in guidance.terms)
    assert [(term.name, term.weight) for term in guidance.terms] == [("pose", 1.0), ("pose+appearance", 3.5)]
    assert not null.self_reference and torch.equal(null.stem, encoded.pose)
    assert {stage: tuple(x.shape[1:]) for stage, x in null.context.items()} == {
        stage: tuple(x.shape[1:]) for stage, x in full.context.items()}
    assert not any(x.any() for x in (*null.context.values(), *(e.tokens for e in null.extra_attention.values())))
    # In one batched call with the full row it is what it is alone, whatever the features.
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    alone = predict(binding, null)
    for factor in (1.0, 50.0):
        features = {site: factor * value for site, value in encoded.reference.items()}
        terms = [null, dataclasses.replace(full, self_reference=features)]
        with torch.no_grad():
            rows = binding(x.repeat(2, 1, 1, 1), torch.tensor(500), harmonise(terms, 2).stacked())
        assert (rows[:2] - alone).abs().max() < 1e-5
    # The face branch of zero tokens adds exactly nothing.
    bare = Injections(context=null.context, stem=null.stem)
    assert (predict(binding, bare) - alone).abs().max() < 1e-6
    other_pose = encode(method, writer, pose=inputs(seed=9)["pose"])
    assert (predict(binding, method.null_injections(other_pose)) - alone).abs().max() > 1e-3


def test_a_texture_left_out_is_a_zero_token_and_no_features(method, writer, binding):
    encoded = encode(method, writer, texture=None, texture_latent=None, reference=None)
    assert not encoded.reference and not encoded.texture.any()
    plain = dataclasses.replace(method.injections(encode(method, writer, texture=torch.zeros(2, 20))), self_reference={})
    assert torch.equal(predict(binding, method.injections(encoded)), predict(binding, plain))
    only_latent = encode(method, writer, texture=None)
    assert only_latent.reference and not only_latent.texture.any()


def test_a_face_left_out_is_the_zero_embedding(method, writer):
    encoded, zeros = encode(method, writer, face=None), encode(method, writer, face=torch.zeros(2, 1, 12))
    assert encoded.face.any() and torch.allclose(encoded.face.expand(2, -1, -1), zeros.face, atol=1e-6)


def test_one_source_with_several_poses_equals_one_by_one(method, writer, binding):
    one, poses = inputs(1), inputs(3)["pose"]
    with torch.no_grad():
        appearance = method.encode_appearance(one["image"], one["texture"], one["texture_latent"], one["face"], writer)
        together = method.guidance(appearance.with_pose(method.encode_pose(poses)))
        x = torch.randn(3, 4, 8, 8)
        made = binding.denoiser(together, 3)(x, 500)
        for row in range(3):
            alone = method.guidance(appearance.with_pose(method.encode_pose(poses[row:row + 1])))
            assert (binding.denoiser(alone, 1)(x[row:row + 1], 500) - made[row]).abs().max() < 1e-4


# --- the reference network ---------------------------------------------------------------------------------------

def test_the_reference_network_is_any_callable_and_runs_once(method):
    calls = []

    def reference(latent, context):
        calls.append((latent.shape, context.shape))
        return {site: torch.full((len(latent), 4, 8), 1 / 3) for site in SITES}

    encoded = encode(method, reference, texture_latent=torch.zeros(1, 4, 8, 8))
    assert calls == [((2, 4, 8, 8), (2, 1, 20))]
    assert float(encoded.reference["mid.0"][0, 0, 0]) == float(torch.tensor(1 / 3).half())
    with pytest.raises(ValueError, match=r"sites differ from ours by \['mid.0'\]"):
        encode(method, lambda *_: {site: torch.zeros(2, 4, 8) for site in SITES if site != "mid.0"})


def test_gradients_reach_the_weights_that_the_method_holds():
    torch.manual_seed(0)
    method = MCLD(TINY)
    torch.nn.init.normal_(method.pose_guider.conv_out.weight)
    generator = torch.Generator().manual_seed(4)
    base = {name: 0.2 * torch.randn(shape, generator=generator) for name, shape in method.unet_weight_shapes().items()}
    method.start_reference(base)
    named = method.reference_unet.named()
    assert all(torch.equal(value, base[name]) for name, value in named.items())
    injections = method(**inputs(), reference=ReferenceWriter(method.reference()))
    # So small a gradient would be 0 in float16.
    (1e-9 * sum(value.sum() for value in injections.self_reference.values())).backward()
    assert named["conv_in.weight"].grad.abs().max() > 0
    frozen = method.frozen_reference_weights()
    assert set(frozen) < set(named) and all(name.startswith("up_blocks.3.") for name in frozen)
    with pytest.raises(ValueError, match="1 of 682 weights of the base are missing"):
        method.start_reference({name: value for name, value in base.items() if name != "conv_in.weight"})


# --- bad input ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("change, message", [
    ({"image": torch.zeros(2, 21)}, r"source photo's CLIP embedding has shape \(2, 21\); expected \(B, 20\)"),
    ({"texture": torch.zeros(2, 3, 20)}, r"texture map's CLIP embedding has shape \(2, 3, 20\)"),
    ({"face": torch.zeros(2, 512)}, r"face embedding has shape \(2, 512\); expected \(B, 12\)"),
    ({"face": torch.zeros(3, 12)}, "2 sources, 2 textures, 3 faces.*expected equal numbers, or one"),
    ({"pose": torch.zeros(3, 3, 64, 64)}, "3 poses; expected equal numbers, or one"),
    ({"pose": torch.zeros(2, 3, 64, 60)}, "sides that are multiples of 8"),
    ({"texture_latent": torch.zeros(2, 3, 8, 8)}, r"texture latent has shape \(2, 3, 8, 8\); expected \(B, 4, h, w\)"),
    ({"reference": None}, "without a reference network"),
])
def test_bad_input_says_what_came_and_what_was_expected(method, writer, change, message):
    with pytest.raises(ValueError, match=message):
        encode(method, writer, **change)


def test_bad_pictures_are_refused():
    with pytest.raises(ValueError, match=r"float64 \(1, 4, 5, 3\); expected uint8"):
        clip_pixels(np.zeros((1, 4, 5, 3)))


# --- checkpoints and the converter --------------------------------------------------------------------------------

@pytest.fixture
def published(tmp_path, method, unet):
    """The four files in the authors' layout, small; the folder is `release`."""
    folder = tmp_path / "release"
    folder.mkdir()
    own = {name: method.get_submodule(part).state_dict() for name, part in
           (("reference_unet.pth", "reference_unet"), ("pose_guider.pth", "pose_guider"),
            ("image_projector.pth", "face_projector"), ("denoising_unet.pth", "face_attention"))}
    own["denoising_unet.pth"] = plain(unet) | own["denoising_unet.pth"]
    for name, state in own.items():
        torch.save(dict(state), folder / name)
    return [folder / kind for kind in KINDS]


def plain(unet):
    return dict(unet.state_dict())


def check(path, method, unet, writer):
    loaded = load_checkpoint(path, expect_method="mcld")
    assert loaded.meta.base == "sd15"
    whole = plain(unet)
    assert loaded.unet_weights.keys() == whole.keys()
    assert all(torch.equal(value, whole[name]) for name, value in loaded.unet_weights.items())
    theirs, ours = method.state_dict(), loaded.method.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in theirs)
    # Mapped weights lie elsewhere in memory, so the last bit may differ, and with it how a feature rounds to float16.
    mine = encode(loaded.method, ReferenceWriter(loaded.method.reference()))
    other = encode(method, writer)
    assert torch.allclose(mine.pose, other.pose, atol=1e-5) and torch.allclose(mine.face, other.face, atol=1e-5)
    assert all(torch.allclose(mine.reference[site], other.reference[site], atol=4e-3) for site in SITES)


def test_a_saved_method_comes_back_whole(method, unet, writer, tmp_path):
    save_checkpoint(tmp_path / "m.safetensors", method, plain(unet), base="sd15", step=3, data="none", licence="none")
    check(tmp_path / "m.safetensors", method, unet, writer)


computed: set[bytes] = set()   # files whose numbers were compared: the same bytes compute the same


@pytest.mark.parametrize("how", ["reversed", "folder", "other name"])
def test_a_converted_checkpoint_computes_what_the_published_files_do(published, method, unet, writer, tmp_path, how):
    files = list(published)
    if how == "reversed":
        files = files[::-1]
        torch.save({f"module.{key}": value for key, value in torch.load(files[0]).items()}, files[0])
    if how == "other name":
        files[3].rename(files[3].with_name("image_proj_model.pth"))
    if how in ("folder", "other name"):
        files = [files[0].parent]
    said = convert(files, tmp_path / "out.safetensors", config=TINY)
    assert "and 686 UNet weights" in said
    made = (tmp_path / "out.safetensors").read_bytes()
    if made not in computed:
        check(tmp_path / "out.safetensors", method, unet, writer)
        computed.add(made)


def test_the_layout_derived_from_the_module_is_that_of_the_published_files():
    published, layout = manifest("mcld"), published_layout()
    assert set(layout) == set(published["files"])
    for name, rows in published["files"].items():
        assert layout[name] == {row["key"]: tuple(row["shape"]) for row in rows}, name
        assert len(layout[name]) == published["totals"][name]["tensors"]
        assert sum(int(np.prod(shape)) for shape in layout[name].values()) == published["totals"][name]["parameters"]
    with torch.device("meta"):
        full = MCLD(CONFIGS["full"])
    frozen = {row["key"] for row in published["files"]["reference_unet.pth"] if not row["trainable"]}
    assert set(full.frozen_reference_weights()) == frozen
    assert all(row["trainable"] for name, rows in published["files"].items() if name != "reference_unet.pth" for row in rows)


def changed(path, change):
    state = torch.load(path)
    change(state)
    torch.save(state, path)


def test_files_that_do_not_fit_are_refused(published, tmp_path, capsys):
    output = tmp_path / "out.safetensors"
    denoising, reference, guider, face = published
    with pytest.raises(ValueError, match="3 input files; expected the folder of the release, or its four"):
        convert(published[:3], output, config=TINY)
    with pytest.raises(ValueError, match="both look like pose_guider.pth"):
        convert([denoising, guider, guider, face], output, config=TINY)
    with pytest.raises(ValueError, match="denoising_unet.pth, does not fit MCLD: .*instead of"):
        convert(published, output)  # sizes of the authors'
    changed(reference, lambda s: (s.pop("conv_in.bias"), s.update({"conv_out.bias": torch.zeros(4)})))
    with pytest.raises(ValueError, match="reference_unet.pth, does not fit MCLD: 1 keys missing: conv_in.bias; 1 keys "
                                         "unexpected: conv_out.bias"):
        convert(published, output, config=TINY)
    torch.save({"a": torch.zeros(1)}, reference)
    with pytest.raises(ValueError, match=r"none of MCLD's files .* its 1 keys start with \['a'\]"):
        convert(published, output, config=TINY)
    face.unlink()
    with pytest.raises(FileNotFoundError, match="has no image_projector.pth or image_proj_model.pth"):
        convert([face.parent], output, config=TINY)
    assert not output.exists()
    assert main(["mcld", str(face.parent), str(output)]) == 2 and "error: " in capsys.readouterr().err
