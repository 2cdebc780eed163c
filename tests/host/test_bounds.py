"""What a text asks for takes no longer than what is made of it."""

from __future__ import annotations

import time

import pytest
from PIL import Image, ImageDraw, ImageFont


def test_a_label_is_cut_where_it_would_leave_its_column(host):
    image = host.pack("nodes.image")
    draw, font = ImageDraw.Draw(Image.new("RGB", (8, 8))), ImageFont.load_default(14)
    text = "one label of some words, and some more"
    for width in range(0, 300, 7):
        longest = max(n for n in range(len(text) + 1) if draw.textlength(text[:n], font=font) <= width)
        assert image._fitting(text, width, draw, font) == text[:longest]
    begun = time.process_time()
    assert image._fitting("x" * 100_000, 64, draw, font)
    assert time.process_time() - begun < 1


@pytest.mark.parametrize("text", ["9" * 5000, "1000000000", "²"])
def test_a_part_that_no_body_has_is_refused(host, text):
    parts = host.pack("nodes.densepose").chosen_parts(text)
    with pytest.raises(ValueError, match="is not known; expected a number from 1 to 24"):
        host.pack("pgpis_models.surface.densepose").part_numbers(parts)
