"""The ComfyUI side: nodes (schema, input checks, one call into pgpis_models) and the binding to the host's MODEL."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from ..nodes import (
    appearance,
    demo,
    densepose,
    face,
    fusion,
    image,
    loaders,
    multifocal,
    pose,
    queries,
    sampling,
    sequence,
    texture,
)


class PGPISExtension(ComfyExtension):
    """Everything that the pack adds to the host."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """The node classes, in the order of the menu."""
        loaders.register_folder()
        densepose.register_folder()
        groups = (loaders, demo, pose, densepose, texture, face, appearance, multifocal, fusion, queries, sampling, sequence,
                  image)
        return [node for group in groups for node in group.NODES]
