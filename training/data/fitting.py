"""Whether a pose can be of its photo, and a sheet of photos with their skeletons on which a person sees it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pgpis_models.files.pictures import orientation
from pgpis_models.poses.drawing import draw_openpose
from pgpis_models.poses.keypoints import Keypoints

SLACK = 0.02         # of a side: by how much a canvas may differ from the photo's aspect, and a joint lie off the edge
DETECTOR_STEP = 64   # pixels: old detectors rounded the sides of the picture that they looked at to multiples of it
SMALLEST = 0.1       # of the photo's diagonal: what spans less is a pose of a smaller copy
SHOWN = 12           # photos of a sheet
TILE = (320, 220)    # height, width of each, pixels
LABEL = 14           # pixels below each


def misfit(pose: Keypoints, photo: tuple[int, int], declared: bool = True) -> str:
    """Why a pose cannot be of a photo of (H, W) pixels; an empty string where it can.

    declared: whether the file of the pose says its canvas. A canvas that is known must have the photo's aspect, and may
    have another scale; without one the canvas is the photo, where no detector finds a joint off the picture. Of a pose
    on a canvas, half of the joints may lie off it.
    """
    if not pose.present.any():
        return "no joint is known"
    (height, width), (rows, columns) = pose.canvas, photo
    if not same_aspect(pose.canvas, photo):
        return (f"its pose is on a canvas of {width}x{height}, the photo has {columns}x{rows} pixels, which is another "
                "aspect: find the pose on this photo, not on a cropped or padded copy")
    x, y = (pose.xy / (width, height))[pose.present].T   # shares of the picture
    off = (x < -SLACK) | (x > 1 + SLACK) | (y < -SLACK) | (y > 1 + SLACK)
    if off.sum() > (len(off) / 2 if declared else 0):
        return (f"{off.sum()} of its {len(off)} joints lie off the picture, up to x = {x.max() * width:.0f} and y = "
                f"{y.max() * height:.0f} of {width}x{height}: the pose is of a larger picture")
    span = float(np.hypot(np.ptp(x) * columns, np.ptp(y) * rows) / np.hypot(rows, columns))
    if span < SMALLEST:
        return (f"its joints span {span:.1%} of the picture, at x = {x.mean() * width:.0f} and y = {y.mean() * height:.0f} "
                f"of {width}x{height}: the pose is of a smaller picture, or the person too small to learn from")
    return ""


def same_aspect(canvas: tuple[int, int], photo: tuple[int, int]) -> bool:
    """Whether a canvas can be a copy of a photo at another scale, both (H, W) in pixels, sides rounded as detectors do."""
    stepped = all(side % DETECTOR_STEP == 0 for side in canvas)
    slack = [max(2.0, side * SLACK, DETECTOR_STEP / 2 * stepped) for side in canvas]
    least = max((side - by) / own for side, by, own in zip(canvas, slack, photo, strict=True))
    most = min((side + by) / own for side, by, own in zip(canvas, slack, photo, strict=True))
    return least <= most


def upright_size(path: Path) -> tuple[int, int]:
    """(H, W) of a picture file as it is shown, from its header. Raises OSError when it is no picture."""
    with Image.open(path) as file:
        return file.size if orientation(file) > 4 else file.size[::-1]


def spread(items: Sequence, count: int = SHOWN) -> list:
    """`count` of the items, evenly spread from the first to the last."""
    return [items[int(at)] for at in np.linspace(0, len(items) - 1, min(count, len(items))).round()]


def contact_sheet(photos: Sequence[tuple[str, Image.Image, Keypoints]], per_row: int = 6) -> Image.Image:
    """(name, upright photo, pose) of each -> one picture of all with their skeletons drawn over them."""
    height, width = TILE
    rows = -(-len(photos) // per_row)
    sheet = Image.new("RGB", (min(per_row, len(photos)) * width, rows * (height + LABEL)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(10)
    for number, (name, photo, pose) in enumerate(photos):
        left, top = number % per_row * width, number // per_row * (height + LABEL)
        scale = min((height - 2) / photo.height, (width - 2) / photo.width)
        size = max(1, round(photo.width * scale)), max(1, round(photo.height * scale))
        picture = np.asarray(photo.resize(size, Image.Resampling.BILINEAR))
        drawing = draw_openpose(pose.scaled_to(picture.shape[:2]))
        sheet.paste(Image.fromarray(np.where(drawing.any(-1, keepdims=True), drawing, picture)), (left, top))
        pen.text((left, top + height), name[-36:], fill="black", font=font)
    return sheet
