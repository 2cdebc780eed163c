"""What a text asks for takes no longer than what is made of it."""

from __future__ import annotations

import time

import pytest
import torch
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


def test_pictures_that_no_machine_holds_are_refused_before_the_first_is_drawn(host):
    def node(name: str, *given):
        return host.nodes.NODE_CLASS_MAPPINGS[f"PGPIS{name}"].execute(*given).result
    pose = node("PoseMannequin", "", 512, 512, 1.0, 1.0, 1.0, 1.0, 1.0, 1)[0]
    large = [{**pose[0], "canvas_width": 4096, "canvas_height": 4096}]
    begun = time.process_time()
    for name, given in {"PoseMannequin": ("", 4096, 4096, 1.0, 1.0, 1.0, 1.0, 1.0, 360), "DrawPose": (large * 17, 0, 0, -1),
                        "PoseMask": (0, 0, 8.0, 0.004, -1, large * 17)}.items():
        with pytest.raises(ValueError, match=r"(360|17) pictures of 4096x4096 .* would take [\d.]+ GB; expected "):
            node(name, *given)
    with pytest.raises(ValueError, match="pictures of 512x512"):
        node("PoseTween", pose * 4, 1022, "ease in and out", False)
    assert time.process_time() - begun < 2


def test_loops_over_pictures_look_at_cancel(host, monkeypatch):
    """Each node gets four pictures and is cancelled at its third look."""
    import comfy.model_management as management

    def node(name: str, *given, **named):
        return host.nodes.NODE_CLASS_MAPPINGS[f"PGPIS{name}"].execute(*given, **named).result
    pose, densepose, image, mask, *_ = node("PoseMannequin", "", 64, 64, 1.0, 1.0, 1.0, 1.0, 1.0, 4)
    texture, _ = node("WarpTexture", image, densepose, "atlas", "fast", "none")
    part = next(iter(host.pack("nodes.garments").PARTS))
    skeletons, = node("DrawPose", pose, 0, 0, -1)
    calls = {
        "DrawPose": (pose, 0, 0, -1), "PoseMask": (0, 0, 8.0, 0.004, -1, pose), "PoseEditor": ("", 64, 64, pose),
        "WarpTexture": (image, densepose, "atlas", "fast", "none"), "RenderTexture": (texture, densepose, 0),
        "EditTexture": (texture, texture, "head", True), "GarmentMask": (image, part, densepose),
        "ReadSkeleton": (skeletons, "auto"), "MergePhotos": (image, densepose, "atlas", "fast", "none"),
        "CompareGrid": (image, "", image, None, None, None, None, image), "PoseScore": (pose, pose),
        "PoseMannequin": ("", 64, 64, 1.0, 1.0, 1.0, 1.0, 1.0, 4)}
    looks = []

    def look() -> None:
        looks.append(None)
        if len(looks) == 3:
            raise management.InterruptProcessingException
    monkeypatch.setattr(management, "throw_exception_if_processing_interrupted", look)
    for name, given in calls.items():
        looks.clear()
        with pytest.raises(management.InterruptProcessingException):
            node(name, *given)
            pytest.fail(f"{name} looked {len(looks)} times")
    for given in ({"densepose": densepose}, {"pose": pose}):
        looks.clear()
        noise, = node("BodyNoise", 0, **given)
        with pytest.raises(management.InterruptProcessingException):
            noise.generate_noise({"samples": torch.zeros(4, 4, 8, 8)})
