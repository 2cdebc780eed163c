"""Clocks, memory, and the sheet on which figures are kept."""

from __future__ import annotations

import contextlib
import gc
import json
import platform
import signal
import statistics
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from training.engine.speed import GIB


def wait(device: torch.device) -> None:
    """Until the device has done all that it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(call: Callable[[], Any], device: torch.device, repeats: int = 7, warm: int = 3, about: float = 1.5) -> float:
    """Median seconds of a call after `warm` others: by events on a GPU, by the wall clock elsewhere.

    repeats: at most; fewer, but three or more, when they would take longer than `about` seconds in all. 1: a single call,
    without others before it, to see that it runs.
    """
    if repeats == 1:
        taken = _clocked(call)
        wait(device)
        return taken
    for _ in range(warm):
        call()
    wait(device)
    start = time.perf_counter()
    call()
    wait(device)
    repeats = max(min(3, repeats), min(repeats, int(about / max(time.perf_counter() - start, 1e-6))))
    if device.type != "cuda":
        return statistics.median(_clocked(call) for _ in range(repeats))
    marks = []
    for _ in range(repeats):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        call()
        end.record()
        marks.append((begin, end))
    wait(device)
    return statistics.median(begin.elapsed_time(end) / 1e3 for begin, end in marks)


def _clocked(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def free() -> None:
    """Gives memory that nothing holds any more back to the device."""
    if torch.cuda.is_available():
        gc.collect()
        with contextlib.suppress(RuntimeError):   # a device that failed before fails here too; the rows say it
            torch.cuda.empty_cache()


@contextlib.contextmanager
def peak_memory(device: torch.device) -> Iterator[dict[str, float]]:
    """{"gib": peak of allocated memory within the block}, weights included; 0 on a CPU."""
    found = {"gib": 0.0}
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    yield found
    if device.type == "cuda":
        found["gib"] = torch.cuda.max_memory_allocated(device) / GIB


@contextlib.contextmanager
def limited(limit: float) -> Iterator[None]:
    """Raises TimeoutError in a block that takes longer than so many seconds, where signals can be had."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_number: int, _frame: Any) -> None:
        raise TimeoutError(f"stopped after {limit:.0f} s, when the budget was spent")
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(limit, 0.01))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Report:
    """Rows of figures. settings: what holds for all of them. Written anew after every part, so that a run that is cut
    short leaves what it had."""

    def __init__(self, device: torch.device, settings: dict[str, Any], paths: tuple[Path | None, Path | None] = (None, None),
                 minutes: float = 7.0) -> None:
        self.device, self.rows, self.start, self.minutes = device, [], time.monotonic(), minutes
        self.json, self.markdown = paths
        on_gpu = device.type == "cuda"
        self.device_name = torch.cuda.get_device_name(device) if on_gpu else platform.processor() or platform.machine()
        self.settings = {"device": self.device_name, **settings}
        self.versions = versions()
        if on_gpu:
            self.versions |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}

    def left(self) -> float:
        """Seconds of the budget that are left."""
        return self.minutes * 60 - (time.monotonic() - self.start)

    def add(self, part: str, case: str, measure: str, value: float | None, unit: str, **settings: Any) -> None:
        """A row, and its line on the terminal. value: None where something went wrong, which the settings then say."""
        self.rows.append({"name": f"{part}, {case}, {measure}", "value": value, "unit": unit,
                          "settings": {"part": part, "case": case, "measure": measure, **self.settings, **settings},
                          "versions": self.versions})
        said = shown(value) if value is not None else settings.get("error", settings.get("skipped", "none"))
        print(f"{part:<9} {case:<30} {measure:<26} {said:>10} {unit}", flush=True)

    def unit(self, part: str, case: str, call: Callable[[], None]) -> None:
        """Runs a piece of a part; what it raises becomes a row, and the next piece goes on. Skips it, and says so, when the
        budget is spent."""
        if self.left() <= 0:
            self.add(part, case, "skipped", None, "", skipped=f"the budget of {self.minutes:g} minutes is spent")
            return
        began = time.monotonic()
        try:
            with limited(self.left()):
                call()
        except Exception as error:   # whatever a device, driver or compiler may raise: recorded, never the end of the run
            self.add(part, case, "error", None, "", error=in_words(error))
        finally:
            free()
            print(f"{part:<9} {case:<30} took {time.monotonic() - began:.0f} s, {max(0.0, self.left()):.0f} s left",
                  flush=True)
            self.write()

    def guarded(self, part: str, call: Callable[[], None]) -> None:
        """Runs a whole part; what its own pieces did not contain, such as an import that fails, becomes a row too."""
        try:
            call()
        except Exception as error:   # as in `unit`
            self.add(part, part, "error", None, "", error=in_words(error))
            free()

    def write(self) -> None:
        """The files that were asked for."""
        if self.json:
            self.json.write_text(json.dumps(self.rows, indent=1) + "\n", encoding="utf-8")
        if self.markdown:
            self.markdown.write_text(self.table(), encoding="utf-8")

    def table(self) -> str:
        """Markdown: a table per part, a line per case, a column per measure; then what failed or was skipped."""
        said = ", ".join(f"{name} {value}" for name, value in self.versions.items())

        def line(cells: list[str]) -> str:
            return f"| {' | '.join(cells)} |"
        lines = [f"# {self.device_name}", "", f"{time.strftime('%Y-%m-%d')}; {said}; "
                 f"{time.monotonic() - self.start:.0f} s in all.", ""]
        for part in dict.fromkeys(row["settings"]["part"] for row in self.rows):
            rows = [row for row in self.rows if row["settings"]["part"] == part and row["value"] is not None]
            wrong = [row for row in self.rows if row["settings"]["part"] == part and row["value"] is None]
            heads = {row["settings"]["measure"]: row["unit"] for row in rows}
            cases = {case: {row["settings"]["measure"]: row["value"] for row in rows if row["settings"]["case"] == case}
                     for case in dict.fromkeys(row["settings"]["case"] for row in rows)}
            lines += [f"## {part}", ""]
            if rows:
                lines += [line(["case", *(f"{head} ({unit})" if unit else head for head, unit in heads.items())]),
                          line(["---"] * (1 + len(heads)))]
                lines += [line([case, *(shown(values[head]) if head in values else "" for head in heads)])
                          for case, values in cases.items()] + [""]
            lines += [f"- {row['settings']['case']}, {row['settings']['measure']}: "
                      f"{row['settings'].get('error') or row['settings'].get('skipped')}" for row in wrong]
            lines += [""] * bool(wrong)
        return "\n".join(lines)


def shown(value: float) -> str:
    """A figure in four digits."""
    return f"{value:.0f}" if float(value).is_integer() and abs(value) < 1e6 else f"{value:.4g}"


def in_words(error: BaseException) -> str:
    """An error as one line: kind, first 400 characters, and where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    where = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames))
    return f"{type(error).__name__}: {' '.join(str(error).split())[:400]} ({where})"


def versions() -> dict[str, Any]:
    """Versions of what the figures depend on."""
    from importlib.metadata import PackageNotFoundError, version
    found: dict[str, Any] = {"python": platform.python_version(), "torch": torch.__version__}
    for name in ("diffusers", "accelerate", "triton"):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
