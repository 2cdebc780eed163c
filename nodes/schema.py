"""What the schemas of the nodes say beside names and types, in words that each host knows."""

from __future__ import annotations

import inspect
from typing import Any

from comfy_api.latest import io


def extra(**words: Any) -> dict[str, dict[str, Any]]:
    """Words of a widget beside those of its type, as keywords of its Input: they reach the host's page with the widget.
    Nothing in 0.3.64, which takes none."""
    return {"extra_dict": words} if "extra_dict" in inspect.signature(io.Int.Input).parameters else {}


# A widget that few ever touch: newer hosts show it on demand, older ones as any other.
ADVANCED: dict[str, Any] = extra(advanced=True)


def aliases(*words: str) -> dict[str, list[str]]:
    """What else the search of the node menu finds a node by, as keywords of io.Schema; nothing where the host has no such
    field (before 0.9), which would be an error there."""
    return {"search_aliases": list(words)} if "search_aliases" in inspect.signature(io.Schema).parameters else {}
