"""Processes that draw for one that waits, and end when it is gone, even killed."""

from __future__ import annotations

import multiprocessing
import os
import threading
from concurrent.futures import ProcessPoolExecutor


def pool(count: int) -> ProcessPoolExecutor:
    """An executor of `count` processes, one at least. Those of a plain one wait for work for ever where their parent is
    killed, and hold its memory."""
    return ProcessPoolExecutor(max(1, count), initializer=_end_with_parent)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()

    def watch() -> None:
        parent.join()
        os._exit(1)
    threading.Thread(target=watch, daemon=True).start()
