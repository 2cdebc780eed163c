"""The demo's table: perfect for the target itself, and as other libraries and true part maps say for what is not."""

import json
import math

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from tests.helpers.tiny import cfld_config, shaken, write_base, write_files
from training import demo
from training.demo import quantised
from training.engine.config import DataConfig
from training.world.bank import open_bank
from training.world.measures import SOURCE_VIEW, TARGET_VIEW, pictures, score


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    data = DataConfig(size=(128, 96), views=2, workers=1, cache=str(tmp_path_factory.mktemp("cache")))
    return open_bank(data, held_out=3)


@pytest.fixture(scope="module")
def target(bank):
    return pictures(bank, TARGET_VIEW)


def test_the_target_scores_perfectly_against_itself(bank, target):
    row = score(target, bank)
    assert row["ssim"] == pytest.approx(1.0) and math.isinf(row["psnr"])
    assert row["mask_iou"] == row["sharpness"] == 1.0
    assert row["part_colour"] == 1.0 and row["texel_error_seen"] == 0.0 and row["texel_error_hidden"] == 0.0


def test_a_copy_of_the_source_scores_as_other_libraries_say(bank, target):
    source = pictures(bank, SOURCE_VIEW)
    row = score(source, bank)
    made, truth = (x.permute(0, 2, 3, 1).numpy().astype(np.float64) for x in (source, target))
    ssim = [structural_similarity(a, b, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1,
                                  channel_axis=2) for a, b in zip(made, truth, strict=True)]
    assert row["ssim"] == pytest.approx(np.mean(ssim), abs=1e-6)
    assert row["psnr"] == pytest.approx(np.mean([peak_signal_noise_ratio(b, a, data_range=1)
                                                 for a, b in zip(made, truth, strict=True)]), abs=1e-6)
    assert row["part_colour"] < 1 and 0 < row["mask_iou"] < 1
    assert row["texel_error_seen"] > 0 and row["texel_error_hidden"] > 0


def test_hits_and_texels_are_those_of_the_exact_part_maps(bank, target):
    """One part of everybody painted black: exactly its pixels carry error, and exactly it misses its colour."""
    part = bank.part[:, TARGET_VIEW]
    numbers, counts = np.unique(part[part > 0], return_counts=True)
    both = [n for n in numbers if all((bank.part[who, view] == n).sum() >= 30 for who in range(3) for view in (0, 1))]
    painted = target.clone()
    mask = torch.from_numpy(part == both[0])[:, None].expand_as(painted)
    painted[mask] = 0.0
    row = score(painted, bank)
    large = sum((bank.part[who, 0] == n).sum() >= 30 and (part[who] == n).sum() >= 30 for who in range(3) for n in numbers)
    assert row["part_colour"] == pytest.approx(1 - 3 / large)
    person = torch.from_numpy(part > 0)
    error = (painted - target).abs().mean(1)
    total = error[person].sum().item()
    assert total > 0 and error[~person].sum() == 0
    share = row["texel_error_seen"], row["texel_error_hidden"]
    assert min(share) <= total / int(person.sum()) <= max(share)


def test_pictures_are_quantised_as_a_file_would_hold_them():
    made = quantised(torch.tensor([-1.0, 0.0, 0.5001, 1.0, 2.0]))
    assert torch.equal(made, torch.tensor([0.0, 0.0, 128 / 255, 1.0, 1.0]))


def test_the_demo_writes_grid_and_table_for_the_methods_that_are_there(tmp_path, capsys):
    from dataclasses import asdict, replace

    from pgpis_models.cfld.config import CONFIGS
    from pgpis_models.cfld.model import CFLD
    from pgpis_models.checkpoint import save_checkpoint
    torch.manual_seed(0)
    files = write_files(tmp_path)
    write_base(files.base)
    config = cfld_config(**{name: asdict(CONFIGS["demo"])[name] for name in ("image_size", "window")})
    method = shaken(CFLD(replace(config, swin_heads=(1, 1, 2, 2))))
    save_checkpoint(files.cfld, method, {n: torch.randn(s) for n, s in method.unet_weight_shapes().items()}, base="demo",
                    step=0, data="none", licence="none")
    demo.main(["--out", str(tmp_path / "out"), "--models", str(tmp_path), "--people", "3", "--batch", "2", "--steps", "1"])
    result = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert result["images"] == 3 and list(result["methods"]) == ["cfld"] and result["size"] == list(demo.SIZE)
    assert result["steps"] == 1
    measures = {"mask_iou", "legs", "part_colour", "sharpness", "eyes", "texel_error_seen", "texel_error_hidden", "psnr",
                "ssim"}
    assert result["copy"].keys() == result["autoencoder"].keys() == result["methods"]["cfld"].keys() == measures
    assert (tmp_path / "out" / "grid.png").stat().st_size > 1000
    assert "3 people never trained on" in capsys.readouterr().out
