"""Metrics with FPDM's settings, and the networks behind LPIPS and FID, against the authors' code."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pgpis_models.fpdm.pixels import resized
from pgpis_models.metrics import (
    mae_ratio,
    mean_error,
    psnr,
    ssim_gauss,
    ssim_win51,
)
from training.evaluation.frechet import frechet_distance, inception_input


def pictures(stack: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, *size) in [0, 1] in float64, resized by Pillow as the authors do."""
    made = np.stack([resized(picture, size) for picture in stack.numpy()])
    return torch.from_numpy(made).permute(0, 3, 1, 2).double() / 255.0


def test_every_metric_equals_the_authors(load_case, compare):
    golden, info = load_case("fpdm", "metrics")
    ours = {}
    for tag, (width, height) in info["sizes_wh"].items():
        target, made = (pictures(golden[f"in.{name}"], (height, width)) for name in ("gt", "pred"))
        columns = {"ssim": ssim_win51(made, target), "ssim_256": ssim_gauss(made, target, data_range="prediction"),
                   "psnr": psnr(made, target), "l1": mean_error(made, target), "mae": mae_ratio(made, target)}
        ours[f"out.image_metrics.{tag}"] = torch.stack([columns[name] for name in info["columns"]], 1)
    for tag in ("regular", "few"):
        key = f"out.fid.{tag}"
        distance = frechet_distance(golden[f"in.act_a.{tag}"], golden[f"in.act_b.{tag}"])
        ours[key] = golden[key].double() + (distance - golden[key].double()) / golden[key].double()  # relative
    compare(ours, golden, {"out.image_metrics.*": 1e-5, "out.fid.regular": 1e-5, "out.fid.few": 1e-3})


def recipe(network: torch.nn.Module) -> torch.nn.Module:
    """Fills a network with the golden case's weights, made from a seed."""
    random, state = np.random.default_rng(20240), network.state_dict()
    for key in sorted(state):
        if key.endswith("num_batches_tracked"):
            continue
        value = random.standard_normal(tuple(state[key].shape), dtype=np.float32)
        if key.endswith("running_var"):
            value = 1 + 0.1 * np.abs(value)
        elif value.ndim >= 2:
            value = value * np.float32(np.sqrt(2 / np.prod(value.shape[1:])))
        elif key.endswith("weight"):
            value = 1 + 0.05 * value
        else:
            value = 0.05 * value
        state[key] = torch.from_numpy(np.asarray(value, dtype=np.float32))
    network.load_state_dict(state)
    return network.eval()


@torch.no_grad()
def lpips_alex(alexnet: torch.nn.Module, heads: list[torch.Tensor], a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """LPIPS v0.1 with AlexNet (Zhang et al. 2018) of pictures (B, 3, H, W) in [0, 1] -> (B,)."""
    shift = a.new_tensor([-0.030, -0.088, -0.188]).reshape(1, 3, 1, 1)
    scale = a.new_tensor([0.458, 0.448, 0.450]).reshape(1, 3, 1, 1)
    total = a.new_zeros(len(a))
    a, b = ((x * 2 - 1 - shift) / scale for x in (a, b))
    taps, number = (1, 4, 7, 9, 11), 0
    for index, layer in enumerate(alexnet.features[:12]):
        a, b = layer(a), layer(b)
        if index in taps:
            difference = (a / (a.norm(dim=1, keepdim=True) + 1e-10) - b / (b.norm(dim=1, keepdim=True) + 1e-10)) ** 2
            total = total + F.conv2d(difference, heads[number]).mean((1, 2, 3))
            number += 1
    return total


@torch.no_grad()
def test_the_networks_behind_lpips_and_fid_give_the_authors_features(load_case, compare):
    models = pytest.importorskip("torchvision.models")
    golden, _ = load_case("fpdm", "metric_nets")
    a, b = golden["in.a"], golden["in.b"]
    assert all(0 <= x.min() and x.max() <= 1 for x in (a, b))
    heads = [golden[f"ref.lpips.lin{n}.model.1.weight"] for n in range(5)]
    inception = recipe(models.inception_v3(weights=None, aux_logits=True, init_weights=False))
    features = {}
    inception.avgpool.register_forward_hook(lambda _m, _i, out: features.__setitem__("pool3", out.flatten(1)))
    inception.transform_input = False  # `inception_input` has done it
    inception(inception_input(a))
    ours = {"out.inception_pool3": features["pool3"],
            "out.lpips": lpips_alex(recipe(models.alexnet(weights=None)), heads, a, b)}
    scaled = {key: golden[key].double() + (value.double() - golden[key].double()) / golden[key].abs().max()
              for key, value in ours.items()}
    compare(scaled, golden, {"out.*": 1e-3})
