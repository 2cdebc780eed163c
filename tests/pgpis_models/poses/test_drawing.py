"""Rasters and heat maps of poses, in batches, without OpenCV, and factored."""

import builtins

import numpy as np
import pytest
import torch

from pgpis_models.parts.pose_adapter import PoseAdapter
from pgpis_models.poses.drawing import (
    JOINT_COLOURS,
    LIMB_COLOURS,
    LIMBS,
    cfld_factored,
    cfld_raster,
    cfld_rasters,
    draw_cfld,
    draw_openpose,
    heatmaps,
)
from pgpis_models.poses.factored import join
from pgpis_models.poses.keypoints import Keypoints
from tests.helpers.poses import CANVAS, some_pose


def test_heat_maps_equal_the_formula_pixel_by_pixel():
    pose = some_pose()
    height, width, sigma = 40, 30, 3.0
    maps = heatmaps(pose, (height, width), sigma)
    rows, columns = np.mgrid[:height, :width]
    for joint in range(18):
        x, y = int(pose.xy[joint, 0] * width / CANVAS[1]), int(pose.xy[joint, 1] * height / CANVAS[0])
        expected = np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * sigma**2)) * pose.present[joint]
        assert np.abs(maps[joint].numpy() - expected).max() < 1e-6


def test_a_batch_of_rasters_is_the_single_ones_stacked():
    poses = [some_pose(seed, missing=(seed,)) for seed in range(4)]
    batch = cfld_rasters(poses, (128, 96))
    assert batch.shape == (4, 21, 128, 96) and batch.dtype == torch.float32
    assert torch.equal(batch, torch.stack([cfld_raster(pose, (128, 96)) for pose in poses]))
    assert 0 <= batch.min() and batch.max() <= 1
    with pytest.raises(ValueError, match="no poses"):
        cfld_rasters([])


def test_a_joint_and_a_limb_have_their_colours():
    xy = np.zeros((18, 2))
    xy[2], xy[3] = (20, 20), (20, 60)
    present = np.zeros(18, bool)
    present[[2, 3]] = True
    for picture in (draw_cfld(Keypoints(xy, present, (80, 40)), (80, 40)).transpose(1, 2, 0),
                    draw_openpose(Keypoints(xy, present, (80, 40)), stick_width=2)):
        assert tuple(picture[20, 20]) == JOINT_COLOURS[2] and tuple(picture[60, 20]) == JOINT_COLOURS[3]
        assert tuple(picture[40, 20]) == LIMB_COLOURS[LIMBS.index((2, 3))]
        assert not picture[:, 30:].any()


def test_a_pose_without_joints_is_black():
    pose = Keypoints(np.zeros((18, 2)), np.zeros(18, bool), CANVAS)
    assert not cfld_raster(pose).any() and not draw_openpose(pose).any()


def test_joints_far_off_the_canvas_are_clipped_not_wrapped():
    xy = np.full((18, 2), 50.0)
    xy[4] = (40_000, 50)  # beyond what OpenCV's fixed-point coordinates hold
    picture = draw_cfld(Keypoints(xy, np.ones(18, bool), (100, 100)), (100, 100))
    assert picture[:, 50, 90].any(), "the limb leaves at the right"
    assert not picture[:, :, :40].any(), "nothing is drawn on the other side"
    assert draw_openpose(Keypoints(xy, np.ones(18, bool), (100, 100))).shape == (100, 100, 3)


def test_without_opencv_the_error_names_the_package_and_the_command(monkeypatch):
    real = builtins.__import__

    def no_opencv(name, *args, **kwargs):
        if name == "cv2":
            raise ImportError("no cv2 here")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_opencv)
    with pytest.raises(ImportError, match="opencv-python-headless.*pip install opencv-python-headless"):
        draw_cfld(some_pose())
    assert heatmaps(some_pose()).shape == (18, 256, 256)  # needs no OpenCV


def test_factored_rasters_give_the_adapter_the_same_numbers_and_gradients():
    poses = [some_pose(seed, missing=(seed,)) for seed in range(3)]
    factored, full = cfld_factored(poses, (96, 64)), cfld_rasters(poses, (96, 64))
    assert tuple(factored.shape) == tuple(full.shape) and torch.equal(factored.full(), full)
    torch.manual_seed(0)
    adapter = PoseAdapter(21, 16, (32, 32, 32), 32).double()
    results = []
    exact = factored.to(torch.float64)
    for raster in (exact.full(), exact, join([exact])):
        adapter.zero_grad()
        maps = adapter(raster)
        sum(m.square().mean() for m in maps).backward()
        results.append([*(m.detach() for m in maps), adapter.conv_in.weight.grad.clone(), adapter.conv_in.bias.grad.clone()])
    for ours in results[1:]:
        for value, expected in zip(ours, results[0], strict=True):
            assert (value - expected).abs().max() < 1e-12 * (1 + expected.abs().max())
    doubled = join([factored, factored])
    assert len(doubled) == 6 and torch.equal(doubled.full(), torch.cat([full, full]))
