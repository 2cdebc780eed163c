"""ComfyUI entry point of the pose-guided person image synthesis pack. Imports nothing until the host asks for nodes."""

WEB_DIRECTORY = "./web"   # JavaScript that the host's page loads


async def comfy_entrypoint():
    """The extension: registers the model folder and lists the nodes."""
    from .nodes import PGPISExtension
    return PGPISExtension()
