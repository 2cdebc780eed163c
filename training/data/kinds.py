"""Where the pairs of each kind of data stand, by name, so that a task does not know which it trains on."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Protocol


class PairSizes(Protocol):
    """What `pairs` ask the config of a method for, all (height, width) in pixels but the latents' and a count."""

    image_size: tuple[int, int]     # of the photos that the method reads
    latent_size: tuple[int, int]    # of what its UNet makes, latent pixels
    pose_size: tuple[int, int]      # of the pose rasters
    pose_channels: int              # of these: 3 for the drawing alone, 21 with CFLD's heat maps


PLACES = {"deepfashion": "training.data", "mannequins": "training.world"}


def pairs_class(kind: str, family: str) -> Any:
    """The class `Pairs` of a kind of data (data.kind) and a family of methods: the module of that name in its folder.

    family: `pairs` (CFLD, QEN; see PairSizes), `focal` (MCLD) or `fpdm_pairs`. Imported when asked for.
    """
    return import_module(f"{PLACES[kind]}.{family}").Pairs
