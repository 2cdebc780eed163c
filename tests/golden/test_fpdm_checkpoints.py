"""Lightning files and the full-size layout of FPDM against the authors' (ckpt_small, manifest_full)."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import pytest
import torch

from pgpis_models.checkpoint import load_checkpoint
from pgpis_models.files.torch_states import read_torch_file
from pgpis_models.fpdm.config import CONFIGS, FUSION_CONFIGS, FPDMConfig, FusionConfig
from pgpis_models.fpdm.convert import (
    ALIASES,
    IGNORED,
    convert,
    published_names,
    required_keys,
    without_aliases,
)
from pgpis_models.parts.vision_tower import TowerSizes
from pgpis_models.unet.weights import difference


@pytest.fixture(scope="module")
def folder(golden_dir):
    return golden_dir / "fpdm"


@pytest.fixture(scope="module")
def small(folder):
    return json.loads((folder / "ckpt_small.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("stage", "config"), [("stage1", FUSION_CONFIGS["full"]), ("stage2", CONFIGS["full"])])
def test_the_full_size_layout_is_the_published_one(folder, stage, config):
    manifest = json.loads((folder / "manifest_full.json").read_text(encoding="utf-8"))[stage]
    layout = {key: tuple(shape) for key, shape, _, _ in manifest["keys"]}
    assert len(layout) == manifest["count"] and {row[2] for row in manifest["keys"]} == {"float32"}
    assert manifest["aliases"].items() <= ALIASES.items()
    # Every key of the manifest is one that we read, a second name for one, or the base's autoencoder.
    second = {key for key in layout if key.startswith(tuple(manifest["aliases"]))}
    for key in second:
        prefix = next(prefix for prefix in manifest["aliases"] if key.startswith(prefix))
        assert layout[key] == layout[manifest["aliases"][prefix] + key.removeprefix(prefix)], key
    read = {key: shape for key, shape in layout.items() if key not in second and not key.startswith(IGNORED)}
    assert difference(required_keys(config), read) == ""
    unique = sum(torch.Size(shape).numel() for key, shape in layout.items() if key not in second)
    assert unique == manifest["unique_parameters"]
    if stage == "stage2":
        trained = sum(torch.Size(shape).numel() for key, shape in read.items()
                      if key.startswith(("unet.", "sd_model.")))
        assert trained == manifest["trainable_parameters"]


@pytest.mark.parametrize("name", ["fusion_small.ckpt", "fpdm_small.ckpt"])
def test_real_lightning_files_load_without_the_classes_in_them(folder, small, name):
    state, expected = read_torch_file(folder / name, inside="state_dict"), small[name]["state_dict"]
    assert "omegaconf" not in sys.modules and "pytorch_lightning" not in sys.modules
    assert state.keys() == expected.keys()
    for key, (shape, total) in expected.items():
        assert list(state[key].shape) == shape, key
        assert abs(state[key].double().abs().sum().item() - total) <= 1e-5 * max(1.0, total), key


def small_config(shapes, clip_prefix: str) -> FusionConfig:
    """The sizes of a file's fusion model; heads do not show in shapes, and 2 divides these widths."""
    vision = f"{clip_prefix}img_encoder.vision_model."
    patch, positions = shapes[f"{vision}embeddings.patch_embedding.weight"], shapes[
        f"{vision}embeddings.position_embedding.weight"][0]
    side = int((positions - 1) ** 0.5) * patch[-1]
    depth = len({key.split(".layers.")[1].split(".")[0] for key in shapes if key.startswith(f"{vision}encoder.layers.")})
    clip = TowerSizes((side, side), patch[-1], patch[0], depth, 2, shapes[f"{vision}encoder.layers.0.mlp.fc1.weight"][0])
    projection, embed = shapes[f"{clip_prefix}combiner.kpt_projection_layer.weight"]
    return FusionConfig(clip, embed, projection, shapes[f"{clip_prefix}combiner.combiner_layer.weight"][0])


def whole_config(shapes) -> FPDMConfig:
    source = "src_image_encoder."
    patch = shapes[f"{source}embeddings.patch_embeddings.projection.weight"]
    side = int((shapes[f"{source}embeddings.position_embeddings"][1] - 1) ** 0.5) * patch[-1]
    depth = len({key.split(".")[3] for key in shapes if key.startswith(f"{source}encoder.layer.")})
    guider = "sd_model.pose_t_proj."
    return FPDMConfig(
        small_config(shapes, "fusion_model."),
        TowerSizes((side, side), patch[-1], patch[0], depth, 2, shapes[f"{source}encoder.layer.0.mlp.fc1.weight"][0]),
        source_hidden=shapes["sd_model.srcimage_proj_model.net.0.weight"][0],
        context=shapes["sd_model.srcimage_proj_model.net.4.weight"][0],
        pose_widths=(shapes[f"{guider}conv_in.weight"][0], *(shapes[f"{guider}blocks.{n}.weight"][0] for n in (1, 3, 5))),
        class_hidden=shapes["unet.class_embedding.net.0.weight"][0],
        unet_widths=tuple(shapes[f"unet.down_blocks.{n}.resnets.0.conv1.weight"][0] for n in range(4)),
        unet_layers=sum(key.startswith("unet.down_blocks.0.resnets.") and key.endswith("conv1.weight") for key in shapes),
        linear_projection=len(shapes["unet.mid_block.attentions.0.proj_in.weight"]) == 2)


@pytest.mark.parametrize("name", ["fusion_small.ckpt", "fpdm_small.ckpt"])
def test_real_files_of_both_stages_become_checkpoints_of_ours(folder, small, tmp_path, name):
    shapes = {key: tuple(row[0]) for key, row in small[name]["state_dict"].items()}
    stage2 = "unet.conv_in.weight" in shapes
    config = whole_config(shapes) if stage2 else replace(CONFIGS["tiny"], fusion=small_config(shapes, ""))
    output = tmp_path / "out.safetensors"
    said, method = convert([folder / name], output, config=config), "fpdm" if stage2 else "fpdm_fusion"
    loaded = load_checkpoint(output, expect_method=method)
    own = len(loaded.method.state_dict())
    assert f"{output}: {own} parameters of {method} and {len(loaded.unet_weights)} UNet weights" in said
    assert loaded.method.config == (config if stage2 else config.fusion)
    published = without_aliases(read_torch_file(folder / name, inside="state_dict"))
    state, taken = loaded.method.state_dict(), set()
    for ours, (key, _) in (published_names(config) if stage2 else
                           {k.removeprefix("fusion."): (v.removeprefix("fusion_model."), s)
                            for k, (v, s) in published_names(config).items() if k.startswith("fusion.")}).items():
        assert torch.equal(state[ours], published[key].reshape(state[ours].shape)), ours
        taken.add(key)
    for key, value in loaded.unet_weights.items():
        assert torch.equal(value, published[f"unet.{key}"])
        taken.add(f"unet.{key}")
    assert taken == published.keys()
