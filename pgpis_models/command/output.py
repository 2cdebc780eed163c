"""Pictures of the command line as files: each is written whole, or what was there before stays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image


def save(picture: torch.Tensor, path: Path) -> None:
    """Writes (3, H, W) in 0..1 as a picture; a file that exists is replaced only when the new one is whole."""
    part = path.with_name(f".{path.name}.part")
    as_file(picture).save(part, format=Image.registered_extensions().get(path.suffix.lower(), "PNG"))
    part.replace(path)


def save_film(frames: Sequence[Image.Image], path: Path, fps: float) -> None:
    """Writes frames as one moving picture, .webp or .gif, that repeats for ever. fps: frames per second."""
    part = path.with_name(f".{path.name}.part")
    frames[0].save(part, format=path.suffix[1:].upper(), save_all=True, append_images=frames[1:], loop=0,
                   duration=round(1000 / fps))
    part.replace(path)


def as_file(picture: torch.Tensor) -> Image.Image:
    """(3, H, W) in 0..1 -> 8 bits."""
    return Image.fromarray((picture.permute(1, 2, 0).cpu().numpy() * 255).round().astype(np.uint8))
