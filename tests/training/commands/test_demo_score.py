"""The demo's table: perfect for the target itself, and as other libraries say for a copy of the source."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from pgpis_models.checkpoint import save_checkpoint
from pgpis_models.mcld.model import MCLD
from tests.helpers.tiny import shaken, write_files
from tests.pgpis_models.mcld.test_mcld_demo import SIZES
from training import demo
from training.engine.config import DataConfig
from training.world.bank import open_bank
from training.world.faces import score_faces
from training.world.measures import MEASURES, SOURCE_VIEW, TARGET_VIEW, pictures, score


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    data = DataConfig(size=demo.SIZE, views=2, workers=1, cache=str(tmp_path_factory.mktemp("cache")))
    return open_bank(data, held_out=3)


@pytest.fixture(scope="module")
def target(bank):
    return pictures(bank, TARGET_VIEW)


def test_the_target_scores_perfectly_against_itself(bank, target):
    row = score(target, bank, target)
    assert row.keys() == MEASURES.keys() and row["ssim"] == pytest.approx(1.0) and math.isinf(row["psnr"])
    assert row["texel_error_seen"] == 0.0 and row["texel_error_hidden"] == 0.0
    for name in ("mask_iou", "legs", "part_colour", "sharpness", "eyes"):
        assert row[name] == 1.0 or math.isnan(row[name]) and name in ("legs", "eyes"), name   # of those who show any


def test_a_copy_of_the_source_scores_as_other_libraries_say(bank, target):
    source = pictures(bank, SOURCE_VIEW)
    row = score(source, bank)
    made, truth = (x.permute(0, 2, 3, 1).numpy().astype(np.float64) for x in (source, target))
    ssim = [structural_similarity(a, b, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1,
                                  channel_axis=2) for a, b in zip(made, truth, strict=True)]
    assert row["ssim"] == pytest.approx(np.mean(ssim), abs=1e-6)
    assert row["psnr"] == pytest.approx(np.mean([peak_signal_noise_ratio(b, a, data_range=1)
                                                 for a, b in zip(made, truth, strict=True)]), abs=1e-6)
    # people are where they are drawn: the renderer's own maps say so too
    drawn = [bank.part[:, view] > 0 for view in (SOURCE_VIEW, TARGET_VIEW)]
    overlap = [(a & b).sum() / (a | b).sum() for a, b in zip(*drawn, strict=True)]
    assert row["mask_iou"] == pytest.approx(np.mean(overlap), abs=0.01)
    assert row["mask_iou"] < 0.8 and row["part_colour"] < 1
    assert row["texel_error_seen"] > 0 and row["texel_error_hidden"] > 0


def test_hits_and_texels_are_those_of_the_exact_part_maps(bank, target):
    """The largest part of everybody painted black: exactly its pixels carry error, and exactly it misses its colour."""
    part = bank.part[:, TARGET_VIEW]
    painted, missed, asked = target.clone(), 0, 0
    for who in range(bank.people):
        numbers, counts = np.unique(part[who][part[who] > 0], return_counts=True)
        largest = numbers[counts.argmax()]
        painted[who, :, torch.from_numpy(part[who] == largest)] = 0.0
        both = [number for number in numbers if min((bank.part[who, view] == number).sum() for view in (0, 1)) >= 30]
        asked, missed = asked + len(both), missed + (largest in both)
    row = score(painted, bank)
    assert missed and row["part_colour"] == pytest.approx(1 - missed / asked)
    person = torch.from_numpy(part > 0)
    error = (painted - target).abs().mean(1)
    total = error[person].sum().item()
    assert total > 0 and error[~person].sum() == 0
    share = row["texel_error_seen"], row["texel_error_hidden"]
    assert min(share) <= total / int(person.sum()) <= max(share)


def test_pictures_are_quantised_as_a_file_would_hold_them():
    made = demo.quantised(torch.tensor([-1.0, 0.0, 0.5001, 1.0, 2.0]))
    assert torch.equal(made, torch.tensor([0.0, 0.0, 128 / 255, 1.0, 1.0]))


def test_the_demo_writes_grid_and_tables_for_the_methods_that_are_there(bank, tmp_path, capsys):
    write_files(tmp_path).cfld.unlink()
    torch.manual_seed(0)
    method = shaken(MCLD(replace(SIZES, image_size=demo.SIZE, vision=replace(SIZES.vision, image=demo.SIZE))))
    save_checkpoint(tmp_path / "demo_mcld.safetensors", method, {
        n: 0.1 * torch.randn(s) for n, s in method.unet_weight_shapes().items()}, base="demo", step=0, data="none",
        licence="none")
    demo.main(["--out", str(tmp_path / "out"), "--models", str(tmp_path), "--people", "3", "--batch", "2", "--steps", "2"])
    result = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert (result["images"], result["size"], result["seed"], result["steps"]) == (3, [256, 192], 0, 2)
    assert list(result["methods"]) == ["mcld"]
    for row in (result["copy"], result["autoencoder"], result["methods"]["mcld"]):
        assert row.keys() == MEASURES.keys()
    made = torch.from_numpy(np.array(Image.open(tmp_path / "out" / "mcld.webp"))).permute(2, 0, 1) / 255
    faces = score_faces({"mcld": torch.stack(made.split(demo.SIZE[1], -1))}, bank, method)
    assert list(result["faces"]) == ["real pictures", "autoencoder", "mcld"]
    for name, row in faces.items():
        assert result["faces"][name] == pytest.approx(row, abs=1e-5, nan_ok=True)
    assert math.isfinite(faces["mcld"]["dist_tgt"])
    # sharpness is measured against the target through the autoencoder
    assert result["autoencoder"]["sharpness"] == 1.0 != result["copy"]["sharpness"]
    with Image.open(tmp_path / "out" / "grid.png") as grid:
        assert grid.size[0] > 2 * 4 * demo.SIZE[1] and grid.size[1] > 2 * demo.SIZE[0]   # two people by four columns, twice
    said = capsys.readouterr().out
    assert "3 people never trained on" in said and all(
        name.replace("texel_error", "texel") in said for name in (*MEASURES, "real pictures", *faces["mcld"]))
