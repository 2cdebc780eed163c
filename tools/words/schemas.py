"""What the host says of a node, read."""

from __future__ import annotations


def inputs_of(info: dict) -> dict[str, tuple[str | list, dict, bool]]:
    """A node's entry of /object_info -> input name -> (type, options, whether it is optional), in order."""
    return {name: (*[*spec, {}][:2], group == "optional") for group in ("required", "optional")
            for name, spec in info["input"].get(group, {}).items()}
