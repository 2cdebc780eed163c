"""FPDM's networks, losses and injections against the authors' code (fusion, infonce, source_encoder, unet_cond)."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from pgpis_models.fpdm.config import FPDMConfig, FusionConfig
from pgpis_models.fpdm.convert import published_fusion_names, published_names
from pgpis_models.fpdm.fusion import FusionModel
from pgpis_models.fpdm.model import FPDM
from pgpis_models.fpdm.parts import ClassMLP, SourceMLP
from pgpis_models.parts.pose_guider import PoseGuider
from pgpis_models.parts.vision_tower import TowerSizes, VisionTower, published_tower_name
from pgpis_models.unet.diffusers_binding import DiffusersBinding
from pgpis_models.unet.injections import harmonise
from training.tasks.fpdm_fusion import fusion_loss


def references(golden, prefix: str = "") -> dict[str, Tensor]:
    start = f"ref.{prefix}"
    return {key.removeprefix(start): value for key, value in golden.items() if key.startswith(start)}


def relative(ours: dict, golden: dict) -> dict:
    """Tolerances are relative to the largest value of a tensor: ours scaled so that differences are."""
    scaled = {}
    for key, value in ours.items():
        expected = golden[key].double()
        scaled[key] = expected + (value.detach().double() - expected) / expected.abs().max().clamp(min=1e-30)
    return scaled


def tower(config, mlp: int | None = None) -> TowerSizes:
    return TowerSizes((config["image_size"],) * 2, config["patch_size"], config["hidden_size"],
                      config["num_hidden_layers"], config["num_attention_heads"],
                      mlp or config.get("intermediate_size") or config["mlp_ratio"] * config["hidden_size"])


def test_the_fusion_model_its_loss_and_gradients_are_the_authors(load_case, compare):
    golden, info = load_case("fpdm", "fusion")
    config = FusionConfig(tower(info["clip"]), info["clip"]["projection_dim"], info["projection_dim"], info["hidden_dim"])
    assert info["clip"]["hidden_act"] == "quick_gelu" and config.embed == info["img_feature_dim"]
    model, names = FusionModel(config).eval(), published_fusion_names(config)
    state = references(golden)
    assert {key for key, _ in names.values()} == state.keys()
    model.load_state_dict({ours: state[key] for ours, (key, _) in names.items()})
    source, pose, target = (golden[f"in.{name}_pixels"] for name in ("source", "pose", "target"))
    embeds = {name: model.embed(pixels) for name, pixels in (("source", source), ("pose", pose), ("target", target))}
    fusion = model.combiner(embeds["source"], embeds["pose"])
    assert torch.allclose(fusion, model(source, pose), atol=1e-6)
    loss = fusion_loss(embeds["target"], fusion, embeds["source"], temperature=info["temperature"],
                       l1_weight=info["lambda_l1"]).loss
    loss.backward()
    ours = {f"out.{name}_embed": value for name, value in embeds.items()}
    ours |= {"out.source_last_hidden": model.tower.hidden(source), "out.fusion": fusion, "out.stage1_loss": loss,
             "out.raw": model.combiner.raw(embeds["source"], embeds["pose"])}
    parameters = {names[name][0]: value for name, value in model.named_parameters()}
    for key in (key for key in golden if key.startswith("out.grad.")):
        ours[key] = parameters[key.removeprefix("out.grad.")].grad
    compare(relative(ours, golden), golden, {"out.grad.*": 1e-4, "out.[!g]*": 1e-5})


@pytest.mark.parametrize("kind", ["self", "plain"])
def test_the_contrastive_loss_and_its_gradients_are_the_authors(load_case, compare, kind):
    golden, info = load_case("fpdm", "infonce")
    golden = {key: value for key, value in golden.items() if key.startswith(("in.", f"out.{kind}."))}
    leaves = {name: golden[f"in.{name}"].clone().requires_grad_() for name in ("source", "target", "fusion")}
    result = fusion_loss(leaves["target"], leaves["fusion"], leaves["source"], temperature=info["temperature"],
                         l1_weight=info["lambda_l1"], source_enhanced=kind == "self")
    result.loss.backward()
    ours = {"loss": result.loss, "loss_fushion_l1": result.l1, "fushion_acc_top1": result.top1,
            "fushion_acc_top5": result.top5, "fushion_acc_mean_pos": result.mean_rank,
            # Logged under the contrastive part's name, but it is the whole loss.
            "loss_fushion": result.loss} | {f"grad_{name}": leaf.grad for name, leaf in leaves.items()}
    ours = {f"out.{kind}.{name}": value for name, value in ours.items()}
    compare(relative(ours, golden), golden, {"out.*": 1e-5})


def load_tower(sizes: TowerSizes, kind: str, state: dict[str, Tensor]) -> VisionTower:
    module = VisionTower(sizes, kind)
    own = module.state_dict()
    names = {name: published_tower_name(name, kind) for name in own}
    unused = state.keys() - names.values()
    assert unused <= {"embeddings.mask_token"}, unused
    module.load_state_dict({name: state[key].reshape(own[name].shape) for name, key in names.items()})
    return module.eval()


@torch.no_grad()
def test_the_source_tower_resamples_positions_as_the_authors_version_did(load_case, compare):
    golden, info = load_case("fpdm", "source_encoder")
    model = load_tower(tower(info["dino"]), "dinov2", references(golden))
    assert golden["in.pixels"].shape[-1] == info["input_size"]
    ours = {"out.embeddings": model.embed(golden["in.pixels"]), "out.tokens": model(golden["in.pixels"]),
            "out.tokens_native": model(golden["in.pixels_native"])}
    compare(relative(ours, golden), golden, {"out.*": 1e-5})


def fill(module: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    module.load_state_dict(state)
    return module.eval()


@torch.no_grad()
def test_conditions_reach_the_unet_as_in_the_authors_copy(load_case, compare):
    golden, info = load_case("fpdm", "unet_cond")
    config = dict(info["unet"])
    assert config.pop("class_embed_type") == "mlp"
    embed, hidden = config.pop("class_embed_in"), config.pop("class_embed_hidden")
    state = references(golden, "unet.")
    unet = UNet2DConditionModel(**config)
    unet.load_state_dict({key: value for key, value in state.items() if not key.startswith("class_embedding.")})
    width = config["block_out_channels"][0]
    base = FPDMConfig(fusion=FusionConfig(embed=embed), class_hidden=hidden, context=config["cross_attention_dim"],
                      pose_widths=tuple(info["pose_block_out_channels"]), image_size=tuple(info["image_size_wh"][::-1]),
                      unet_widths=tuple(config["block_out_channels"]))
    method = FPDM.__new__(FPDM)  # without its towers, which this case does not have
    nn.Module.__init__(method)
    method.config = base
    method.source_mlp = fill(SourceMLP(*info["src_proj"]), references(golden, "sd_model.srcimage_proj_model."))
    method.pose_guider = fill(PoseGuider(width, base.pose_widths), references(golden, "sd_model.pose_t_proj."))
    method.class_mlp = fill(ClassMLP(embed, hidden, 4 * width),
                            {key.removeprefix("class_embedding."): value for key, value in state.items()
                             if key.startswith("class_embedding.")})
    assert FPDM.unet_weight_shapes(method) == {name: tuple(value.shape) for name, value in unet.state_dict().items()}

    tokens, pose = method.source_mlp(golden["in.src_tokens"]), method.encode_pose(golden["in.pose"])
    fusion = golden["in.fusion_embed"].squeeze(1)
    binding = DiffusersBinding(unet.eval())

    def predict(tokens=tokens, pose=pose, fusion=fusion):
        rows = harmonise([method.injections(tokens, pose, fusion)], len(golden["in.timesteps"])).stacked()
        return binding(golden["in.noisy_latents"], golden["in.timesteps"], rows)

    no_tokens, no_pose, no_fusion = (torch.zeros_like(value) for value in (tokens, pose, fusion))
    ours = {"out.src_proj": tokens, "out.pose_feat": pose, "out.class_emb": method.class_mlp(fusion),
            "out.class_emb_zero": method.class_mlp(no_fusion), "out.pred": predict(),
            "out.pred_no_fusion": predict(fusion=no_fusion), "out.pred_no_pose": predict(pose=no_pose),
            "out.pred_no_source": predict(tokens=no_tokens), "out.pred_uncond": predict(no_tokens, no_pose, no_fusion)}
    compare(relative(ours, golden), golden, {"out.*": 1e-4})
    # Dropped in training, a condition is null in the same way.
    for which, key in enumerate(("no_pose", "no_source", "no_fusion")):
        drop_u = torch.ones(3, 1)
        drop_u[which] = 0.0
        method.config = replace(base, pose_drop=0.5, source_drop=0.5, fusion_drop=0.5)
        told = method.training_injections(golden["in.src_tokens"], golden["in.pose"], fusion, drop_u)
        made = binding(golden["in.noisy_latents"], golden["in.timesteps"], harmonise([told], len(fusion)).stacked())
        assert torch.allclose(made, ours[f"out.pred_{key}"], atol=1e-6), key


def test_every_published_key_has_a_place_in_full_size(golden_dir):
    """Names of ours to published ones are one to one; the layout itself is held against the manifest elsewhere."""
    names = published_names()
    assert len({key for key, _ in names.values()}) == len(names)
