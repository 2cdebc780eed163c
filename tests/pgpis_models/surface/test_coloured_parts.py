"""DensePose pictures whose parts are colours, as comfyui_controlnet_aux makes them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from pgpis_models.surface.coloured_parts import MAPS, colours_of, has_charts, read_coloured_parts

# Published anchors of matplotlib's viridis, RGB 0..1: entry 127 of 256 and the last.
ANCHORS = {"viridis": ((0.127568, 0.566949, 0.550556), (0.993248, 0.906157, 0.143936))}


def picture_as_controlnet_aux_makes_it(part: np.ndarray, name: str) -> np.ndarray:
    """Its steps: scaled by 255 / 24 to 8 bits, OpenCV's map, BGR to RGB, and viridis's ground where a channel is 0."""
    canvas = np.zeros((*part.shape, 3), np.uint8)
    scaled = (part.astype(np.float32) * (255.0 / 24)).clip(0, 255).astype(np.uint8)
    painted = cv2.applyColorMap(scaled, getattr(cv2, f"COLORMAP_{name.upper()}"))
    canvas[part > 0] = painted[part > 0]
    canvas = cv2.cvtColor(canvas, cv2.COLOR_BGR2RGB)
    if name == "viridis":
        for channel, value in enumerate((68, 1, 84)):
            canvas[..., channel][canvas[..., channel] == 0] = value
    return canvas


@pytest.mark.parametrize("name", MAPS)
def test_every_part_is_read_back_from_its_colour(name):
    part = np.repeat(np.repeat(np.arange(25, dtype=np.uint8).reshape(5, 5), 8, 0), 6, 1)
    iuv = read_coloured_parts(picture_as_controlnet_aux_makes_it(part, name))
    assert np.array_equal(iuv.part, part)
    assert not iuv.u.any() and not iuv.v.any() and not has_charts(iuv)


@pytest.mark.parametrize("name", ["viridis"])
def test_the_colours_are_the_published_ones(name):
    for part, colour in zip((12, 24), ANCHORS[name], strict=True):
        assert np.abs(colours_of(name)[part] / 255 - colour).max() < 0.01


def test_a_ground_alone_and_a_photo(rng=np.random.default_rng(0)):
    assert not read_coloured_parts(np.zeros((8, 8, 3), np.uint8)).part.any()
    with pytest.raises(ValueError, match="pixels have a colour of the map .*; expected 90%.*never"):
        read_coloured_parts(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8))


def test_jpegs_noise_on_flat_parts_does_no_harm():
    part = np.kron(np.array([[0, 2, 9], [24, 14, 0]], np.uint8), np.ones((96, 96), np.uint8))
    picture = picture_as_controlnet_aux_makes_it(part, "parula")
    stored = cv2.imdecode(cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1], cv2.IMREAD_COLOR)
    assert (read_coloured_parts(np.ascontiguousarray(stored[..., ::-1])).part == part).mean() > 0.98
