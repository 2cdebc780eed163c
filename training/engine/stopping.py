"""Stopping when asked to: a machine that is taken away sends SIGTERM, a person Ctrl+C."""

from __future__ import annotations

import signal
import threading
from types import FrameType


class StopRequest:
    """`with StopRequest() as stop:` turns SIGTERM and a first SIGINT into `stop.asked`, to be looked at between steps; a
    second SIGINT interrupts as always. Outside the main thread, where signals cannot be handled, it is never asked."""

    def __init__(self) -> None:
        self.asked = ""
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = signal.Signals(number).name

    def __exit__(self, *_error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
