"""What of the conditions a way of sampling leaves out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch


def without(encoded: Any, shown: Mapping[str, Any]) -> Any:
    """FPDM's `Encoded` with what `shown` has as False at its null: fusion, its embedding; tokens, the photo's. Others'
    conditions come back as they are."""
    if not shown.get("fusion", True):
        encoded = replace(encoded, added=encoded.added_null.expand_as(encoded.added))
    if not shown.get("tokens", True):
        encoded = replace(encoded, tokens=torch.zeros_like(encoded.tokens))
    return encoded
