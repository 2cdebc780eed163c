"""Nodes that show results."""

from __future__ import annotations

import bisect

import numpy as np
import torch
from comfy_api.latest import io
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..pgpis_models.metrics import lpips_where_there, psnr, ssim_gauss
from .inputs import matched, resized, rgb, watched
from .schema import aliases

COLUMNS = 6
GAP = 8         # pixels between pictures
FONT_SIZE = 14  # pixels; Pillow's built-in font
LINE = 18       # pixels
LONGEST = 1000  # characters of a label that are looked at


class CompareGrid(io.ComfyNode):
    """Pictures side by side with labels, and SSIM and PSNR against a target."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        pictures = [io.Image.Input(f"image_{n}", optional=n > 1, tooltip=f"Picture(s) of column {n}, one row each.")
                    for n in range(1, COLUMNS + 1)]
        return io.Schema(
            node_id="PGPISCompareGrid", display_name="Compare Grid", category="PGPIS/tools",
            **aliases("ssim psnr", "side by side", "labels", "metrics"),
            description="Lays pictures side by side under labels: one column per input, one row per picture of a batch. "
                        "With a target it becomes the last column, and SSIM (Gaussian window, range 1) and PSNR against it "
                        "are written above every picture, and LPIPS (AlexNet) where the package lpips and its weights are "
                        "there. Columns of another size are resized to that of image_1, whose "
                        "aspect ratio they take, before they are compared.",
            inputs=[*pictures,
                    io.Image.Input("target", optional=True, tooltip="True picture(s) to compare with; one, or one per row."),
                    io.String.Input("labels", multiline=True, default="", tooltip="One label per line, in the order of the "
                                    "connected columns; the target is called target if it has none.")],
            outputs=[io.Image.Output(display_name="image", tooltip="The grid, one picture."),
                     io.String.Output(display_name="table", tooltip="Mean SSIM and PSNR of each column, and LPIPS where "
                                      "its network is there, tab separated; empty without a target.")])

    @classmethod
    def execute(cls, image_1, labels, image_2=None, image_3=None, image_4=None, image_5=None, image_6=None,
                target=None) -> io.NodeOutput:
        inputs = (image_1, image_2, image_3, image_4, image_5, image_6)
        given = [*((f"image_{n}", picture) for n, picture in enumerate(inputs, start=1)), ("target", target)]
        columns = [(name, rgb(picture, name)) for name, picture in given if picture is not None]
        size, count = tuple(columns[0][1].shape[-2:]), max(picture.shape[0] for _, picture in columns)
        pictures = [matched(count, resized(picture, size), name) for name, picture in columns]
        names = labels.splitlines()[:len(columns)]
        names += [name for name, _ in columns][len(names):]
        scores = [] if target is None else [scored(picture, pictures[-1]) for picture in pictures[:-1]]
        sheet = grid(pictures, names, scores)
        table = "\n".join("\t".join([name, *(f"{float(values.mean()):.{2 if kind == 'PSNR' else 4}f}"
                                            for kind, values in score.items())])
                          for name, score in zip(names[:len(scores)], scores, strict=True))
        return io.NodeOutput(sheet, "\t".join(["column", *scores[0]]) + f"\n{table}" if scores else "")


def scored(picture: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Pictures (B, 3, H, W) in 0..1 -> measure: (B,); LPIPS only where its network is there."""
    found: dict[str, list[Tensor]] = {}
    for pair in watched(zip(picture.split(1), target.split(1), strict=True)):   # one by one, so that memory does not grow
        one = {"SSIM": ssim_gauss(*pair), "PSNR": psnr(*pair), "LPIPS": lpips_where_there(*pair)}
        for kind, value in one.items():
            if value is not None:
                found.setdefault(kind, []).append(value)
    return {kind: torch.cat(values) for kind, values in found.items()}


def grid(pictures: list[Tensor], names: list[str], scores: list[dict[str, Tensor]]) -> Tensor:
    """Columns of (B, 3, H, W) -> IMAGE (1, H', W', 3), white, with a line of text above each picture."""
    count, _, height, width = pictures[0].shape
    text = LINE * (2 if scores else 1)
    sheet = torch.ones(GAP + count * (height + text + GAP), GAP + len(pictures) * (width + GAP), 3)
    for column, picture in enumerate(pictures):
        across = slice(GAP + column * (width + GAP), (column + 1) * (width + GAP))
        for row in watched(range(count)):
            y = GAP + row * (height + text + GAP)
            lines = [names[column]]
            if column < len(scores):
                values_of = {kind: float(score[row]) for kind, score in scores[column].items()}
                told = [f"{values_of['SSIM']:.3f}", f"{values_of['PSNR']:.1f} dB"]
                told += [f"lpips {values_of['LPIPS']:.3f}"] if "LPIPS" in values_of else []
                lines.append("  ".join(told))
            sheet[y:y + text, across] = torch.from_numpy(_written(lines, (text, width)))
            shown = sheet[y + text:y + text + height, across]   # in 8 bits, as it will be saved
            shown.copy_(picture[row].movedim(0, -1)).mul_(255).round_().div_(255)
    return sheet[None]


def _written(lines: list[str], size: tuple[int, int]) -> np.ndarray:
    """Lines of text, the first black, on white: (H, W, 3) float32 of `size` = (H, W)."""
    strip = Image.new("RGB", size[::-1], "white")
    draw, font = ImageDraw.Draw(strip), ImageFont.load_default(FONT_SIZE)
    for number, line in enumerate(lines):
        draw.text((0, number * LINE), _fitting(line, size[1], draw, font), fill="dimgray" if number else "black", font=font)
    return np.array(strip, np.float32) / 255


def _fitting(text: str, width: int, draw: ImageDraw.ImageDraw, font) -> str:
    """The text, cut so that it does not run into the next column."""
    text = text[:LONGEST]
    fitting = bisect.bisect_right(range(1, len(text) + 1), width, key=lambda count: draw.textlength(text[:count], font=font))
    return text[:fitting]


NODES = [CompareGrid]
