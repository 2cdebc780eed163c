"""Where the pairs of each kind of data stand, by name, so that a task does not know which it trains on."""

from __future__ import annotations

from importlib import import_module
from typing import Any

PLACES = {"deepfashion": "training.data", "mannequins": "training.world"}


def pairs_class(kind: str, family: str) -> Any:
    """The class `Pairs` of a kind of data (data.kind) and a family of methods: the module of that name in its folder.

    family: `pairs` (CFLD, QEN), `focal` (MCLD) or `fpdm_pairs`. Imported when asked for.
    """
    return import_module(f"{PLACES[kind]}.{family}").Pairs
