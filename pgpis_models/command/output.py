"""Pictures of the command line as files: each is written whole, or what was there before stays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

STILL = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
ANIMATED = (".webp", ".gif")


def check_ending(path: Path, endings: Sequence[str], flag: str = "--out") -> None:
    """Raises ValueError where the ending names no kind of file that is written, before there is any work."""
    if path.suffix.lower() not in endings:
        what = f"a {path.suffix} file" if path.suffix else "which has no ending"
        raise ValueError(f"{flag} is {path.name}, {what}; expected one of {', '.join(endings)}")


def save(picture: torch.Tensor, path: Path) -> None:
    """Writes (3, H, W) in 0..1 as a picture of the kind that the ending, one of STILL, names; a file that exists is replaced
    only when the new one is whole."""
    part = path.with_name(f".{path.name}.part")
    try:
        as_file(picture).save(part, format=Image.registered_extensions()[path.suffix.lower()])
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def save_film(frames: Sequence[Image.Image], path: Path, fps: float) -> None:
    """Writes frames as one moving picture, .webp or .gif, that repeats for ever. fps: frames per second."""
    part = path.with_name(f".{path.name}.part")
    frames[0].save(part, format=path.suffix[1:].upper(), save_all=True, append_images=frames[1:], loop=0,
                   duration=round(1000 / fps))
    part.replace(path)


def as_file(picture: torch.Tensor) -> Image.Image:
    """(3, H, W) in 0..1 -> 8 bits."""
    return Image.fromarray((picture.permute(1, 2, 0).cpu().numpy() * 255).round().astype(np.uint8))
