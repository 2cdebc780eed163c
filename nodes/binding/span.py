"""CONDITIONING that acts for a share of the sampling only, with another before and after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..notice import notice
from .passport import ROLE

EDGE = "pgpis_edge"   # of a CONDITIONING beside ours: which of its limits is where ours begins or ends
POSITIVE, NEGATIVE = "positive", "negative"


def check_span(start: float, end: float) -> None:
    """Raises ValueError for a share of the sampling that ends before it begins."""
    if start > end:
        raise ValueError(f"start_percent is {start}, end_percent {end}; expected start before end. Swap them")


def within(conditioning: Sequence, start: float, end: float) -> list:
    """The CONDITIONING from start to end of the sampling, shares of 0 to 1."""
    if start <= 0 and end >= 1:
        return list(conditioning)
    return [_limited(entry, max(start, _limits(entry)[0]), min(end, _limits(entry)[1])) for entry in conditioning]


def outside(conditioning: Sequence, start: float, end: float) -> list:
    """The CONDITIONING before start and after end, where it acts there at all."""
    result = []
    for entry in conditioning:
        low, high = _limits(entry)
        if start > low:
            result.append(_limited(entry, low, min(start, high), "timestep_end" if start <= high else None))
        if end < high:
            result.append(_limited(entry, max(end, low), high, "timestep_start" if end >= low else None))
    return result


def as_role(conditioning: Sequence, role: str) -> list:
    """The CONDITIONING with a note of which input of a sampler it is for."""
    return [[tokens, {**values, ROLE: role}] for tokens, values in conditioning]


def leave_the_edge(cond: dict) -> None:
    """At the very step where ours begins or ends only ours acts: the host would mix what meets there. cond: of a run."""
    name = cond.get(EDGE)
    if name in cond:
        away = np.inf if name == "timestep_end" else -np.inf   # sigmas fall from start to end
        cond[name] = float(np.nextafter(np.float32(cond[name]), np.float32(away)))


def warn_of_swap(conds: Mapping[str, Sequence[dict] | None]) -> None:
    """A notice at the sampler when what was made for its positive is its negative, and the other way round."""
    found = {name: {cond[ROLE] for cond in several or () if ROLE in cond} for name, several in conds.items()}
    if found.get(POSITIVE) == {NEGATIVE} and POSITIVE in found.get(NEGATIVE, ()):
        notice("positive and negative are swapped: the sampler's positive is the negative of Apply PGPIS or Pose Transfer, "
               "so the picture is pushed away from the person and the pose. Swap the two links.")


def _limits(entry: Sequence) -> tuple[float, float]:
    return entry[1].get("start_percent", 0.0), entry[1].get("end_percent", 1.0)


def _limited(entry: Sequence, start: float, end: float, edge: str | None = None) -> list:
    return [entry[0], {**entry[1], "start_percent": start, "end_percent": end, **({EDGE: edge} if edge else {})}]
