"""The curves of benchmarks/scale.py: their slopes and their picture, of points that follow a known law."""

from __future__ import annotations

import importlib
import math
import sys
import xml.etree.ElementTree as xml
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
scale = importlib.import_module("scale")
SVG = "{http://www.w3.org/2000/svg}"


def curve(power, values=(1, 3, 12, 48), memory=700.0):
    return scale.Curve("frames", "", [(x, 0.02 * x ** power, memory) for x in values])


def test_slopes_are_the_power_of_the_law():
    for power in (0.5, 1.0, 2.0):
        assert curve(power).slope(0) == pytest.approx(power)
    assert curve(1.0).slope(1) == 0


def test_points_lie_on_the_line_that_is_linear_where_they_are_and_inside_of_their_panel():
    found = xml.fromstring(scale.svg([curve(1.0), curve(2.0), curve(1.0, memory=None)]))
    lines = [[tuple(map(float, point.split(","))) for point in line.get("points").split()]
             for line in found.iter(f"{SVG}polyline")]
    assert len(lines) == 2 * 3 + 2, "of what has no memory there is no panel"
    dashed, solid, straight, bent = lines[:4]

    def off(point):   # the distance of a point from the dashed line, pixels
        (x0, y0), (x1, y1) = dashed
        return abs((y1 - y0) * (point[0] - x0) - (x1 - x0) * (point[1] - y0)) / math.hypot(x1 - x0, y1 - y0)
    assert max(map(off, solid)) < 0.2
    (x0, y0), (x1, y1) = (bent[-2], bent[-1])
    (a0, b0), (a1, b1) = straight
    assert (y1 - y0) / (x1 - x0) == pytest.approx(2 * (b1 - b0) / (a1 - a0), rel=0.02)
    panel = list(found.iter(f"{SVG}rect"))[1]   # behind the ground
    left, top, width, height = (float(panel.get(name)) for name in ("x", "y", "width", "height"))
    assert all(left - 0.1 <= x <= left + width + 0.1 and top - 0.1 <= y <= top + height + 0.1 for x, y in [*dashed, *solid])
