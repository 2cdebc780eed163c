"""Notices to the user, shown at the node that runs and in the log."""

from __future__ import annotations

import logging

log = logging.getLogger(__name__)


def notice(text: str, level: int = logging.WARNING) -> None:
    """Logs the text and shows it at the node that the host is running, where there is one."""
    log.log(level, text)
    import server  # the host's; not loaded where nodes are only imported
    instance = getattr(server.PromptServer, "instance", None)
    node = _running() or getattr(instance, "last_node_id", None)
    if instance is not None and node is not None and hasattr(instance, "send_progress_text"):
        instance.send_progress_text(text, node)


def _running() -> str | None:
    """Id of the node that the host executes at this moment."""
    try:
        from comfy_execution.utils import get_executing_context
    except ImportError:   # older hosts
        return None
    context = get_executing_context()
    return context.node_id if context else None
