"""CFLD's pose rasters against the authors' code (golden case cfld/pose)."""

import re

import pytest
import torch

from pgpis_models.poses.drawing import cfld_raster, draw_cfld, heatmaps
from pgpis_models.poses.formats import parse_cfld_annotation

KEY = re.compile(
    r"out\.(?P<kind>rgb|heat|heatsum)_(?P<set>[a-z]+)_(?P<height>\d+)(x(?P<width>\d+))?"
    r"(_sigma(?P<sigma>\d+))?(_radius(?P<radius>\d+))?"
)


@pytest.fixture(scope="module")
def case(load_case):
    return load_case("cfld", "pose")


def poses(case):
    golden, info = case
    frame = tuple(info["config"]["frame"])
    return {
        name: parse_cfld_annotation(golden[f"in.keypoints_{name}"][:, 0], golden[f"in.keypoints_{name}"][:, 1], frame)
        for name in info["config"]["sets"]
    }


def test_every_drawing_and_heat_map_equals_the_authors(case, compare):
    golden, info = case
    config, pose, ours = info["config"], poses(case), {}
    for key in filter(lambda key: key.startswith("out."), golden):
        field = KEY.fullmatch(key)
        size = (int(field["height"]), int(field["width"] or field["height"]))
        keypoints = pose[field["set"]]
        if field["kind"] == "rgb":
            thickness = int(field["radius"] or config["radius"])  # the authors tie the joints' radius to it
            ours[key] = torch.from_numpy(draw_cfld(keypoints, size, thickness, thickness + 1))
            continue
        maps = heatmaps(keypoints, size, sigma=float(field["sigma"] or config["sigma"]))
        if field["kind"] == "heatsum":
            # A sum over all pixels, relative to its size: the single pixels are good to 1e-6 only.
            total = maps.double().sum((1, 2))
            ours[key] = golden[key] + (total - golden[key]) / golden[key].clamp(min=1)
        else:
            stride = size[0] // golden[key].shape[1]
            ours[key] = maps[:, ::stride, ::stride]
    compare(ours, golden, {"out.rgb_*": 0, "out.heat_*": 1e-6, "out.heatsum_*": 1e-6})


def test_the_raster_is_the_drawing_over_255_and_then_the_heat_maps(case):
    config = case[1]["config"]
    for keypoints in poses(case).values():
        raster = cfld_raster(keypoints, (256, 256), config["sigma"], config["radius"], config["radius"] + 1)
        assert raster.dtype == torch.float32 and raster.shape == (21, 256, 256)
        assert torch.equal(raster[:3], torch.from_numpy(draw_cfld(keypoints)).float() / 255)
        assert torch.equal(raster[3:], heatmaps(keypoints))
