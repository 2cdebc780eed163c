"""The ablations at tiny sizes: every row of every method trains, makes pictures and has its measures; CFLD's baselines show
the UNet what their names say."""

from __future__ import annotations

import importlib
import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from pgpis_models.cfld.config import CONFIGS
from pgpis_models.checkpoint import save_checkpoint
from pgpis_models.fpdm.config import CONFIGS as FPDM_CONFIGS
from pgpis_models.fpdm.config import FUSION_CONFIGS, FusionConfig
from pgpis_models.fpdm.fusion import FusionModel
from pgpis_models.fpdm.model import FPDM
from pgpis_models.settings import build
from pgpis_models.unet.autoencoder import save_vae, tiny
from pgpis_models.unet.base import BaseSizes, save_unet
from tests.helpers.small import shrink
from training.world.autoencoder import colour_identity

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
ablation, variants = (importlib.import_module(name) for name in ("ablation", "ablation_parts.cfld"))
making = importlib.import_module("ablation_parts.making")

SIDE = [128, 128]
WIDTHS = [32, 32, 32, 32]
SWIN = {"window": [4, 4], "width": 8, "depths": [1, 1, 1, 1], "heads": [1, 1, 2, 2]}
PAIR = {"image_size": SIDE, **{name if name == "window" else f"swin_{name}": value for name, value in SWIN.items()}}
FUSION = {"swin": {"image": SIDE, **SWIN}, "embed": 24, "projection": 16, "hidden": 16}
TOWER = {"image": SIDE, **SWIN, "decoder_depth": 1, "tokens": 4, "token_width": 64, "decoder_heads": 1}
MODELS = {
    "cfld": {**PAIR, "appearance_widths": [8, 8, 8], "appearance_heads": [1, 1, 1], "decoder_depth": 1,
             "unet_widths": WIDTHS[:3]},
    "qen": {**PAIR, "fusion_depth": 1, "unet_widths": WIDTHS, "unet_heads": 1},
    "mcld": {"image_size": SIDE, "unet_widths": WIDTHS, "unet_heads": 1, "pose_widths": [4, 6, 8, 10], "face_dim": 16,
             "face_depth": 1, "face_heads": 1, "face_head_width": 16, "face_width": 8, "face_pixels": 16,
             "face_widths": [4, 4, 4], "image_tokens": 4, "vision": TOWER},
    "fpdm_fusion": {"crop": False, **FUSION},
    "fpdm": {"fusion": FUSION, "source_swin": TOWER, "source_size": SIDE, "source_hidden": 32, "image_size": SIDE,
             "pose_canvas": SIDE, "pose_widths": [4, 4, 8, 8], "class_hidden": 16, "unet_widths": WIDTHS},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A base, an autoencoder and a fusion model that fit the tiny sizes, and a cache for the people drawn."""
    found = tmp_path_factory.mktemp("ablation")
    torch.manual_seed(0)
    sizes = BaseSizes(tuple(WIDTHS), heads=1, cross_attention_dim=64, prediction="v_prediction", caption_tokens=16)
    save_unet(found / "base.safetensors", sizes.build(), sizes, step=0, data="none")
    save_vae(found / "vae.safetensors", colour_identity(tiny(8)), step=0, data="none")
    fusion = FusionModel(build(FusionConfig, {"dropout": FUSION_CONFIGS["demo"].dropout, "crop": False, **FUSION}))
    save_checkpoint(found / "fusion.safetensors", fusion, {}, base="demo", step=0, data="none", licence="none")
    return found


def page(folder: Path, method: str) -> Path:
    """A training config of tiny sizes, as training/configs/demo has one of each method."""
    tree = {"task": method, "precision": "no", "batch": 4, "warmup_images": 0, "ema": 0.0, "lr": 1e-2,
            "data": {"size": SIDE, "identities": 50, "views": 2, "workers": 0, "cache": str(folder / "cache")},
            "method": {"preset": "demo", "model": MODELS[method], "base": str(folder / "base.safetensors"),
                       "vae": str(folder / "vae.safetensors")},
            "fpdm": {"fusion": str(folder / "fusion.safetensors"), "freeze_source": False, "flip": 0.0, "low_share": 0.0},
            "mcld": {"drop": "tokens"}}
    path = folder / f"{method}.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


# the rows that are made of something that the tests of training do not run
ROWS = {"cfld": "B1,B2,B3,B4,B5", "mcld": "B1,B2,B4", "fpdm": "without,full", "fpdm_fusion": "without,full",
        "qen": "B2,blur 16"}


@pytest.mark.parametrize("method", list(ROWS))
def test_rows_are_trained_and_measured(folder, method, monkeypatch, capsys):
    trained = []
    monkeypatch.setattr(making, "POSES", 2)
    shrink(monkeypatch, {"world.pairs.HELD_OUT_GRID": 2, "world.focal.HELD_OUT_GRID": 2, "tasks.fpdm.SHOWN": 2})
    monkeypatch.setattr(ablation, "run", lambda config, task, run=ablation.run: trained.append(config) or run(config, task))
    arguments = [method, "--config", str(page(folder, method)), "--images", "8", "--people", "3", "--steps", "2", "--out",
                 str(folder / method), "--json", str(folder / f"{method}.json"), "--rows", ROWS[method]]
    table = ablation.main(arguments)
    rows = {name: ablation.ROWS[method][name] for name in ROWS[method].split(",")}
    assert len(trained) == len(rows) and all(config.method.halved and config.data.identities == 2 for config in trained)
    expected = {name for row, one in rows.items() for name in (row, *(f"{row}, {way}" for way in one.also))}
    measures, retrieved = ablation.measures_of(method), method == "fpdm_fusion"
    expected |= {f"{row}, by the photo alone" for row in rows} if retrieved else set()
    assert set(table) == expected | (set() if retrieved else {"copy", "autoencoder"})
    assert all(set(one) == set(measures) for found in table.values() for one in found)
    made = {tuple(found[0].values()) for name, found in table.items() if name in expected}
    # each row is its own, by its loss at least; what is found of six pictures by two steps' embeddings may be the same
    assert retrieved or len(made) == len(expected)
    written = json.loads((folder / f"{method}.json").read_text())
    assert len(written) == len(table) * len(measures) and all(row["versions"]["torch"] for row in written)
    said = capsys.readouterr().out
    assert all(f"| {name} |" in said for name in expected) and "8 images each, 3 people" in said
    ablation.main(arguments)
    assert len(trained) == len(rows)   # nothing is trained twice


def test_without_images_a_row_is_measured_as_it_starts(folder, tmp_path, monkeypatch, capsys):
    """As after a step too small to change anything."""
    shrink(monkeypatch)
    arguments = ["qen", "--config", str(page(folder, "qen")), "--people", "3", "--steps", "1", "--rows", "B2", "--out",
                 str(tmp_path)]
    [started], [still] = (ablation.main([*arguments, *more])["B2"]
                          for more in (["--images", "0"], ["--images", "4", "lr=1e-12"]))
    assert still == pytest.approx(started, abs=1e-6, nan_ok=True) and math.isfinite(started["loss"])
    assert "0 images each, 3 people" in capsys.readouterr().out


def test_more_seeds_are_a_mean_and_a_range_and_what_means_nothing_a_dash():
    assert ablation.said([0.5]) == "0.500" and ablation.said([0.25, 0.75]) == "0.500 (0.250 to 0.750)"
    assert ablation.said([float("nan")]) == "-"
    rows = ablation.json_rows("fpdm", {"full": [dict.fromkeys(ablation.MEASURES, float("nan"))]}, {})
    assert all(row["value"] is None for row in rows)


@pytest.mark.parametrize("arguments", [["qen", "--rows", "B9"], ["qen", "halved"], ["qen", "--people", "0"],
                                       ["qen", "metod.base=x"]])
def test_what_cannot_be_is_refused_before_anything_is_trained(tmp_path, arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        ablation.main([*arguments, "--out", str(tmp_path)])
    assert stopped.value.code == 2 and "expected" in capsys.readouterr().err.replace("did you mean", "expected")


@pytest.mark.parametrize("kind", ["FeaturesAsKeys", "DescriptionAsPrompt", "PromptAlone", "MapAsPrompt"])
def test_cflds_baselines_show_what_their_names_say(kind):
    torch.manual_seed(0)
    config = replace(CONFIGS["tiny"], prompt_drop=0.5, appearance_zero_in=False)
    method = getattr(variants, kind)(config)
    for value in method.parameters():
        torch.nn.init.normal_(value, std=0.1)
    source, pose = torch.rand(2, 3, 64, 64), torch.rand(2, 21, *config.pose_size)
    drawn = torch.tensor([0.1, 0.9, 0.9, 0.9])   # the first of four items is dropped
    made = method.training_injections(source, pose, pose, drawn)
    terms = method.guidance(method.encode(source, pose)).terms
    ups = {name for name in made.context if name.startswith("up.")}
    if kind == "FeaturesAsKeys":
        assert len(ups) == 9 and not made.query_bias and not terms[-1].injections.query_bias
        kept = [bool(made.context["up.3.0"][item].any()) for item in range(4)]
        assert kept == [False, True, True, True] and not made.context["down"].any()
        assert [bool(term.injections.context["up.3.0"].any()) for term in terms] == [False, False, True]
    else:
        # the deepest map of 64 pixels has 2 x 2 cells
        tokens = {"MapAsPrompt": 4, "DescriptionAsPrompt": 1}.get(kind, config.prompt_tokens)
        assert bool(made.query_bias) == (kind == "MapAsPrompt") and made.context["up"].shape == (4, tokens, 24)
        assert torch.equal(made.context["up"][0], method.learnable_vector[0])
        assert not torch.equal(made.context["up"][1], method.learnable_vector[0])
    assert [bool(term.injections.down_residuals) for term in terms] == [False, True, True]


def test_a_row_without_the_photos_tokens_never_sees_them(folder, monkeypatch):
    """B4 of MCLD."""
    seen = []

    class Task:
        device, model, guidance = torch.device("cpu"), torch.nn.Module(), seen.append
    Task.model.encode_batch = lambda batch, keep, keep_image: keep_image
    task = Task()
    task.config = type("C", (), {"data": type("D", (), {"cache": str(folder), "workers": 0})})
    task.model.method = type("M", (), {"config": type("F", (), {"face_pixels": 16})})
    bank = type("B", (), {"images": lambda *_: torch.zeros(2, 3, 8, 8)})()
    for name in ("iuvs", "bank_textures", "poses", "as_input"):
        monkeypatch.setattr(making, name, lambda *_: torch.zeros(2, 2, 8, 8, 3))
    monkeypatch.setattr(making, "face_crops", lambda *_: (torch.zeros(2), torch.zeros(2)))
    who = torch.arange(2).numpy()
    for shown in ({"image": False}, {}):
        making.from_focus(task, bank, who, shown)
    assert seen[0].tolist() == [False, False] and seen[1] is None


def test_what_is_taken_away_of_fpdm_is_null_in_every_term(monkeypatch):
    torch.manual_seed(0)
    method = FPDM(FPDM_CONFIGS["tiny"]).train(False)   # without dropout
    fusion, height, width = method.config.fusion, *method.config.image_size
    given = {"source": torch.rand(2, 3, *method.config.source_size), "pose": torch.rand(2, 3, height, width),
             **{f"clip_{name}": torch.rand(2, 3, *fusion.image) for name in ("source", "pose")}}
    monkeypatch.setattr(making, "diffusion_tensors", lambda *_: given)
    task = type("T", (), {"model": type("M", (), {"method": method}), "device": torch.device("cpu")})()
    null, _, full = making.from_fusion(task, None, torch.arange(0).numpy(), {}).terms
    for shown in ({"fusion": False}, {"tokens": False}, {"fusion": False, "tokens": False}):
        terms = making.from_fusion(task, None, torch.arange(0).numpy(), shown).terms
        assert [term.weight for term in terms[1:]] == [1.5, 1.5]
        left = terms[-1].injections
        assert torch.equal(left.time_embedding[:1], null.injections.time_embedding) == ("fusion" in shown)
        assert bool(left.context["mid"].any()) == ("tokens" not in shown)
        assert torch.equal(left.stem, full.injections.stem)
