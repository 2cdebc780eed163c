"""The ComfyUI side: nodes (schema, input checks, one call into pgpis_models) and the binding to the host's MODEL."""

from __future__ import annotations

from importlib import import_module

from comfy_api.latest import ComfyExtension, io

from . import densepose, loaders

# Files of nodes in the order of the menu, each with its classes in NODES.
FILES = [
    "transfer", "loaders", "presets", "demo",
    "pose.loading", "pose.detecting",
    "pose.editor", "pose.skeleton_pictures", "pose.scoring",
    "pose.mannequin", "pose.library", "pose.frames",
    "densepose", "texture", "merging", "face",
    "appearance", "multifocal", "fusion", "queries",
    "framing", "garments",
    "sampling", "sequence", "holding",
    "image",
]


class PGPISExtension(ComfyExtension):
    """Everything that the pack adds to the host."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """The node classes, in the order of the menu."""
        loaders.register_folder()
        densepose.register_folder()
        return [node for name in FILES for node in import_module(f".{name}", __package__).NODES]
