"""Measures by sequence: the mean of each video first, then over videos, so that long ones weigh no more than short ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from training.data.phoenix import BETWEEN as FRAME
from training.evaluation.pairing import BETWEEN, Pair


def sequence_of(pair: Pair, targets: Path) -> str:
    """Which sequence a target is of: the folder that it lies in below `targets`, or what its name has before the frame, as
    training/prepare.py phoenix names them. Raises ValueError when neither says."""
    folder = pair.target.relative_to(targets).parent
    if folder != Path("."):
        return folder.as_posix()
    name = pair.target.stem
    for between in BETWEEN:
        name = name.rpartition(between)[2]
    sequence, found, _ = name.rpartition(FRAME)
    if not found:
        raise ValueError(f"{pair.target.name} does not say its sequence; expected a folder for each sequence below {targets}"
                         f", or names such as SEQUENCE{FRAME}images0001.png")
    return sequence


def by_sequence(pairs: Sequence[Pair], rows: Sequence[dict[str, float]], targets: Path) -> dict[str, Any]:
    """{name: mean over the sequences of their means, `spread`: standard deviation of these, `counted`: how many sequences
    have the measure, `sequences`: how many there are}."""
    groups: dict[str, list[dict[str, float]]] = {}
    for pair, row in zip(pairs, rows, strict=True):
        groups.setdefault(sequence_of(pair, targets), []).append(row)
    means: dict[str, list[float]] = {}
    for group in groups.values():
        for name in dict.fromkeys(name for row in group for name in row):
            means.setdefault(name, []).append(float(np.mean([row[name] for row in group if name in row])))
    with np.errstate(invalid="ignore"):   # equal pictures have an endless PSNR
        spread = {name: float(np.std(values)) for name, values in means.items()}
    return {name: float(np.mean(values)) for name, values in means.items()} | {
        "spread": spread, "counted": {name: len(values) for name, values in means.items()}, "sequences": len(groups)}
