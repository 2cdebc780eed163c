"""CFLD's networks against the authors' code (golden cases cfld/swin, swin_load, decoder, ..., conditioning)."""

import pytest
import torch
from torch import nn

from pgpis_models.cfld.config import CONFIGS, CFLDConfig
from pgpis_models.cfld.model import CFLD, GUIDANCE_MODES
from pgpis_models.cfld.parts import HybridGranularityAppearanceEncoder
from pgpis_models.parts.perception_decoder import PerceptionRefinedDecoder
from pgpis_models.parts.pose_adapter import PoseAdapter
from pgpis_models.parts.swin import SwinBackbone
from pgpis_models.unet.injections import Injections, everywhere


def site(block: int) -> str:
    """Published attention index -> our site."""
    return f"up.{block // 3}.{block % 3}"


def by_scale(values) -> tuple:
    """One value per branch (published order) -> one per scale."""
    assert list(values) == [value for value in values[::3] for _ in range(3)]
    return tuple(values[::3])


def load(module: nn.Module, golden) -> nn.Module:
    """Loads every ref.* tensor; buffers that are rebuilt must equal those of the authors."""
    state = {key.removeprefix("ref."): value for key, value in golden.items() if key.startswith("ref.")}
    buffers = dict(module.named_buffers())
    assert buffers.keys() == {key for key in state if key.endswith(("relative_position_index", "attn_mask"))}
    for key, value in buffers.items():
        assert torch.equal(value, state.pop(key)), key
    module.load_state_dict(state)
    return module.eval()


def swin(config) -> SwinBackbone:
    return SwinBackbone((config["img_size"],) * 2, config["window_size"], config["embed_dim"], config["depths"],
                        config["num_heads"], config["patch_size"], config["mlp_ratio"])


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


def test_swin_returns_the_authors_features(load_case, compare):
    golden, info = load_case("cfld", "swin")
    features = load(swin(info["config"]), golden)(golden["in.image"])
    ours = {f"out.feature{index}": feature for index, feature in enumerate(features, 1)}
    compare(ours | {"out.pooled": features[-1].mean(1)}, golden, {"out.*": 2e-5})


def test_swin_starts_from_a_checkpoint_of_another_window_as_the_authors_do(load_case, compare):
    golden, info = load_case("cfld", "swin_load")
    config = info["config"]
    backbone = swin({**config, **config["target"], "patch_size": 4, "mlp_ratio": 4}).eval()
    backbone.load_imagenet({key.removeprefix("in.ckpt."): value for key, value in golden.items() if "in.ckpt." in key})
    own = backbone.state_dict()
    for key in own:
        assert (own[key] - golden[f"ref.{key}"]).abs().max() <= 1e-6, key
    ours = {f"out.{key}": own[key] for key in own if f"out.{key}" in golden}
    for index, feature in enumerate(backbone(golden["in.image"]), 1):
        ours[f"out.feature{index}"] = feature
    compare(ours, golden, {"out.layers.*": 1e-6, "out.feature*": 2e-5})


def test_decoder_makes_the_authors_prompt(load_case, compare):
    golden, info = load_case("cfld", "decoder")
    config, source = info["config"], golden["in.feature4"]
    decoder = load(PerceptionRefinedDecoder(config["n_ctx"], config["ctx_dim"], config["depth"], config["heads"],
                                            source.shape[1], config["kv_dim"]), golden)
    compare({"out.prompt": decoder(source)}, golden, {"out.prompt": 2e-5})
    maps = decoder.attention_maps(source)
    assert maps.shape == (len(source), config["depth"], config["heads"], config["n_ctx"], source.shape[1])
    # The first block's weights give that block's cross-attention.
    block, context = decoder.blocks[0], source + decoder.kv_pos_embed
    query = block.norm2(decoder.query_feat + decoder.pos_embed).expand(len(source), -1, -1)
    value = block.attn2.to_v(context).unflatten(-1, (config["heads"], -1)).transpose(1, 2)
    rebuilt = block.attn2.to_out[0]((maps[:, 0] @ value).transpose(1, 2).flatten(2))
    assert (rebuilt - block.attn2(query, context)).abs().max() < 1e-5


def test_appearance_encoder_makes_the_authors_query_biases(load_case, compare):
    golden, info = load_case("cfld", "appearance_encoder")
    config = info["config"]
    encoder = load(HybridGranularityAppearanceEncoder(
        by_scale(config["inner_dims"]), by_scale(config["embed_dims"]), by_scale(config["heads"]), config["depth"],
        by_scale(config["ctx_dims"])), golden)
    biases = encoder(tuple(golden[f"in.feature{index}"] for index in (1, 2, 3)))
    assert len(biases) == len(config["block_idx"])
    compare({f"out.block_{block}_cross_attn_q": biases[site(block)] for block in config["block_idx"]}, golden,
            {"out.*": 5e-6})


def test_pose_adapter_makes_the_authors_maps(load_case, compare):
    golden, info = load_case("cfld", "pose_encoder")
    config = info["config"]
    assert config["in_channels"] == config["channels"][0]
    adapter = load(PoseAdapter(config["pose_channels"], config["downscale_factor"], tuple(config["channels"]), 32),
                   golden)
    compare({f"out.pose_feature{index}": value for index, value in enumerate(adapter(golden["in.pose"]), 1)}, golden,
            {"out.*": 1e-5})


def test_the_whole_method_equals_the_authors_in_evaluation_and_training(load_case, compare):
    golden, info = load_case("cfld", "conditioning")
    config = info["config"]
    assert config["layers"] == 2 and len(config["unet_channels"]) == 4
    model = load(CFLD(CFLDConfig(
        image_size=(config["img"],) * 2, window=config["window"], swin_width=config["swin_embed"],
        swin_depths=tuple(config["swin_depths"]), swin_heads=tuple(config["swin_heads"]),
        appearance_widths=by_scale(config["app_embed"]), appearance_heads=by_scale(config["app_heads"]),
        appearance_depth=config["app_depth"], prompt_tokens=config["n_ctx"], prompt_width=config["ctx_dim"],
        decoder_depth=config["dec_depth"], decoder_heads=config["dec_heads"],
        unet_widths=tuple(config["unet_channels"][:3]), prompt_drop=config["u_cond_percent"])), golden)

    encoded = model.encode(golden["in.image"], golden["in.pose_target"])
    null = encoded.null_prompt.expand_as(encoded.prompt)
    ours = outputs("eval", torch.cat([null, encoded.prompt]), encoded.pose_maps, encoded.query_bias)
    trained = model.training_injections(golden["in.image"], golden["in.pose_source"], golden["in.pose_target"],
                                        golden["in.u"])
    assert trained.context.keys() == {"down", "mid", "up"}
    ours |= outputs("train", trained.context["mid"], trained.down_residuals, trained.query_bias)
    compare(ours, golden, {"out.*": 2e-5})


def outputs(mode, context, pose_maps, query_bias):
    ours = {f"out.{mode}.context": context}
    ours |= {f"out.{mode}.pose_feature{index}": value for index, value in enumerate(pose_maps, 1)}
    return ours | {f"out.{mode}.block_{block}_cross_attn_q": query_bias[site(block)] for block in range(3, 12)}


def test_guidance_modes_show_and_weigh_what_the_authors_do(load_case):
    """Predictions made from what each term shows (prompt, pose, biases), held against the authors' formulas."""
    info = load_case("cfld", "sampling")[1]["config"]
    assert set(GUIDANCE_MODES) == set(info["guidance_types"])
    named = info["scales"]
    w = {"pose": named["DOWN_BLOCK_GUIDANCE_SCALE"], "appearance": named["FULL_GUIDANCE_SCALE"],
         "biases": named["ALL_BLOCK_GUIDANCE_SCALE"], "prompt": named["GUIDANCE_SCALE"]}
    model = CFLD(CONFIGS["tiny"]).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    encoded = model.encode(torch.randn(2, 3, 64, 64), torch.rand(2, 21, 64, 64))

    def prediction(injections):
        """Stands for a UNet: any function that tells all inputs apart."""
        bias = sum(value.double().pow(2).sum() for value in injections.query_bias.values())
        pose = sum(value.double().pow(2).sum() for value in injections.down_residuals)
        assert len(injections.query_bias) in (0, 9) and len(injections.down_residuals) in (0, 3)
        assert all(value is injections.context["up"] for value in injections.context.values())
        return torch.sin(injections.context["up"].double().pow(2).sum()) + 3 * bias ** 0.5 + pose ** 0.5

    def shown(prompt, pose, biases):
        return prediction(Injections(everywhere(encoded.prompt if prompt else encoded.null_prompt),
                                     query_bias=encoded.query_bias if biases else {},
                                     down_residuals=encoded.pose_maps if pose else ()))

    null, down, updown = shown(0, 0, 0), shown(0, 1, 0), shown(0, 1, 1)
    cdown, full = shown(1, 1, 0), shown(1, 1, 1)
    expected = {
        "uc_full": null + w["appearance"] * (full - null),
        "updown_full": updown + w["appearance"] * (full - updown),
        "down_full": down + w["appearance"] * (full - down),
        "uc_down_full": null + w["pose"] * (down - null) + w["appearance"] * (full - down),
        "uc_down_updown_cdown": null + w["pose"] * (down - null) + w["biases"] * (updown - down)
        + w["prompt"] * (cdown - down),
        "uc_down_updown_full": null + w["pose"] * (down - null) + w["biases"] * (updown - down)
        + w["appearance"] * (full - updown),
    }
    for mode, value in expected.items():
        used = {link.scale for link in GUIDANCE_MODES[mode][1:]}
        chain = model.guidance(encoded, mode, **{name: w[name] for name in used})
        assert torch.allclose(chain.combine([prediction(term.injections) for term in chain.terms]), value), mode
    assert [term.name for term in model.guidance(encoded).terms] == ["null", "pose", "pose+appearance"]
    assert {term.weight for term in model.guidance(encoded).terms[1:]} == {info["scales_default"]}
    with pytest.raises(ValueError, match=r"no scale \['biases'\].*pose.*appearance"):
        model.guidance(encoded, biases=1.0)
    with pytest.raises(ValueError, match="unknown guidance mode 'cfg'"):
        model.guidance(encoded, "cfg")
