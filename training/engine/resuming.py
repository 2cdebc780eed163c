"""Whether a run may go on from a state: its settings against those that the state was trained with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from training.engine.config import TrainConfig, as_json

CONFIG = "config.json"   # in the folder of a state

# Settings that change nothing of what is learned, but for rounding: where it goes, how often it is looked at, what computes.
FREE = ("name", "output", "export", "resume", "resume_changed", "log_every", "sample_every", "save_every", "save_minutes",
        "threads", "checkpointing", "channels_last", "graphs", "data.workers", "data.cache", "data.name", "data.licence")
LISTED = 10
LOOSE = ("method.model.", "world.")   # what each method, and each task of the world, has of its own


def flat(tree: dict[str, Any], where: str = "") -> dict[str, Any]:
    """Nested settings by dotted name."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        found |= flat(value, f"{where}{name}.") if isinstance(value, dict) else {f"{where}{name}": value}
    return found


def changes(before: dict[str, Any], now: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Dotted name -> (value of the state, value of this run) of settings that differ and change what is learned.

    A setting of method.model and world that only one side has counts as None of the other. Of the rest, one that the state
    lacks, since there was no such setting then, has its default there; one that the run lacks does not count.
    """
    usual = {name: value for name, value in flat(json.loads(as_json(TrainConfig()))).items() if not name.startswith(LOOSE)}
    first, second = usual | flat(before), flat(now)
    shared = first.keys() & second.keys()
    loose = {name for name in first.keys() ^ second.keys() if name.startswith(LOOSE)}
    return {name: (first.get(name), second.get(name)) for name in sorted(shared | loose)
            if name not in FREE and first.get(name) != second.get(name)}


def check_resume(state: Path, config: str, resume_changed: bool = False) -> None:
    """Compares the settings of a state's folder with those of a run, as JSON. Settings of FREE may differ; a state without
    settings is taken. Raises ValueError naming the others with both values, unless `resume_changed`, which prints them."""
    if not (state / CONFIG).is_file():
        return
    found = changes(json.loads((state / CONFIG).read_text(encoding="utf-8")), json.loads(config))
    lines = [f"{name}: {json.dumps(before)} -> {json.dumps(now)}" for name, (before, now) in found.items()]
    said = "; ".join(lines[:LISTED]) + ("; ..." if len(lines) > LISTED else "")
    if lines and not resume_changed:
        raise ValueError(f"{state} was trained with other settings than this run has ({said}). Give the earlier values, or "
                         "resume_changed=true to go on with the new ones, or another name, or resume=false to start afresh")
    if lines:
        print(f"resume_changed: goes on with other settings than {state} was trained with ({said})")
