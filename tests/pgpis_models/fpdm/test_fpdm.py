"""FPDM's networks, guidance and drops against plain formulas and other implementations."""

from __future__ import annotations

import pytest
import torch

from pgpis_models.fpdm.config import CONFIGS, FPDMConfig
from pgpis_models.fpdm.model import FPDM, Source
from pgpis_models.parts.vision_tower import TowerSizes, VisionTower, published_tower_name


@pytest.fixture(scope="module")
def tiny() -> FPDM:
    torch.manual_seed(0)
    model = FPDM(CONFIGS["tiny"])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model.eval()


def pixels(config: FPDMConfig, batch: int, seed: int = 1):
    """(source, clip_source, pose, clip_pose) of random values."""
    random = torch.Generator().manual_seed(seed)
    sizes = (config.source_size, config.fusion.image, config.image_size, config.fusion.image)
    return tuple(torch.rand((batch, 3, *size), generator=random) for size in sizes)


# --- networks -----------------------------------------------------------------------------------------------

def test_the_towers_equal_those_of_transformers_at_their_own_size():
    transformers = pytest.importorskip("transformers")
    sizes = TowerSizes((42, 42), 14, 32, 2, 4, 64)
    common = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, image_size=42, patch_size=14)
    clip = transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig(
        **common, intermediate_size=64, projection_dim=24, hidden_act="quick_gelu")).eval()
    dino = transformers.Dinov2Model(transformers.Dinov2Config(**common, mlp_ratio=2)).eval()
    # transformers 5 calls DINOv2's projections q_proj; older ones as the published files do.
    newer = {"attention.attention.query": "attention.q_proj", "attention.attention.key": "attention.k_proj",
             "attention.attention.value": "attention.v_proj", "attention.output.dense": "attention.o_proj"}
    x = torch.randn(2, 3, 42, 42)
    for kind, model, prefix in (("clip", clip, "vision_model."), ("dinov2", dino, "")):
        tower, state = VisionTower(sizes, kind).eval(), model.state_dict()
        own = {}
        for name, value in tower.state_dict().items():
            key = prefix + published_tower_name(name, kind)
            if key not in state:
                for old, new in newer.items():
                    key = key.replace(old, new)
            own[name] = state[key].reshape(value.shape)
        tower.load_state_dict(own)
        with torch.no_grad():
            if kind == "clip":
                theirs, ours = clip(x).image_embeds, clip.visual_projection(tower.norm_out(tower.hidden(x)[:, 0]))
            else:
                theirs, ours = dino(x).last_hidden_state, tower(x)
        assert (theirs - ours).abs().max() < 1e-5, kind


def test_clip_pixels_of_another_size_are_refused(tiny):
    with pytest.raises(ValueError, match=r"\(70, 70\).*expected \(56, 56\)|positions"):
        tiny.fusion.embed(torch.rand(1, 3, 70, 70))
    with pytest.raises(ValueError, match=r"\(1, 3, 32, 48\); expected \(B, 3, 64, 48\)"):
        tiny.encode_pose(torch.rand(1, 3, 32, 48))


def test_one_source_with_many_poses_is_each_pose_alone(tiny):
    source, clip_source, pose, clip_pose = pixels(tiny.config, 3)
    with torch.no_grad():
        one = tiny.encode_source(source[:1], clip_source[:1])
        many = tiny.encode(one, pose, clip_pose)
        for row in range(3):
            alone = tiny.encode(one, pose[row:row + 1], clip_pose[row:row + 1])
            assert torch.allclose(many.fusion[row], alone.fusion[0], atol=1e-6)
            assert torch.allclose(many.pose_map[row], alone.pose_map[0], atol=1e-6)
        assert tiny.encode(tiny.encode_source(source, clip_source), pose[:1], clip_pose[:1]).fusion.shape[0] == 3
        with pytest.raises(ValueError, match="2 sources and 3 poses"):
            tiny.encode(Source(one.tokens.expand(2, -1, -1), one.embedding.expand(2, -1)), pose, clip_pose)


def test_equal_weights_telescope_to_two_terms_with_the_same_result_in_float64(tiny):
    source, clip_source, pose, clip_pose = pixels(tiny.config, 2)
    with torch.no_grad():
        encoded = tiny.encode(tiny.encode_source(source, clip_source), pose, clip_pose)

    def prediction(injections):
        """Stands for a UNet: any function that tells all inputs apart."""
        return (torch.sin(injections.context["mid"].double().sum((1, 2))) + injections.stem.double().pow(2).sum((1, 2, 3))
                + injections.time_embedding.double().sum(1).cos())

    for w_src, w_fus, terms in ((2.0, 2.0, 2), (1.0, 1.0, 1), (2.0, 3.5, 3)):
        chain = tiny.guidance(encoded, source=w_src, fusion=w_fus)
        null, seen, full = (prediction(term.injections) for term in chain.terms)
        expected = null + w_src * (seen - null) + w_fus * (full - seen)
        short = chain.needed()
        assert len(short.terms) == terms
        made = short.combine([prediction(term.injections) for term in short.terms])
        assert torch.allclose(made, expected.expand_as(made), atol=1e-10, rtol=1e-12)
    null = chain.terms[0].injections
    assert not null.stem.any() and not null.context["up"].any() and null.time_embedding.any()
    with pytest.raises(ValueError, match=r"no scale \['appearance'\]; it uses \['source', 'fusion'\]"):
        tiny.guidance(encoded, appearance=1.5)


def test_drops_are_per_batch_or_per_sample(tiny):
    batch = 4
    tokens = torch.randn(batch, 17, tiny.config.source.width)
    pose, fusion = pixels(tiny.config, batch)[2], torch.randn(batch, tiny.config.fusion.embed)
    drop_u = torch.ones(3, batch)
    drop_u[0, 1] = drop_u[1, 2] = drop_u[2, 3] = 0.0
    with torch.no_grad():
        kept = tiny.training_injections(tokens, pose, fusion, torch.ones(3, 1))
        told = tiny.training_injections(tokens, pose, fusion, drop_u)
        null = tiny.class_mlp(torch.zeros(1, tiny.config.fusion.embed))[0]
    for row in range(batch):
        assert torch.equal(told.stem[row], torch.zeros_like(kept.stem[0]) if row == 1 else kept.stem[row])
        assert told.context["up"][row].any() == (row != 2)
        assert torch.allclose(told.time_embedding[row], null if row == 3 else kept.time_embedding[row], atol=1e-6)
    with pytest.raises(ValueError, match=r"drop_u has shape \(3, 2\)"):
        tiny.training_injections(tokens, pose, fusion, torch.ones(3, 2))
    assert tiny.train().training and not tiny.class_mlp.training and tiny.fusion.combiner.training
    tiny.eval()
