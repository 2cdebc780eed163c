"""How weights that were distilled to few steps are sampled, as their files say it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..settings import build
from .samplers import SAMPLERS

# the host's scheduler -> our spacing: simple to the timestep, sgm_uniform but for fractions of one
SCHEDULERS = {"simple": "trailing", "sgm_uniform": "trailing"}


@dataclass(frozen=True)
class Sampling:
    """steps: of a picture. sampler: one of `noise.samplers`, which the host knows by the same name. scheduler: the host's.
    cfg: guidance weight; 1 where guidance is built in, so that a step takes one row. Raises ValueError for others."""

    steps: int = 4
    sampler: str = "lcm"
    scheduler: str = "simple"
    cfg: float = 1.0

    def __post_init__(self) -> None:
        known = self.sampler in SAMPLERS and self.scheduler in SCHEDULERS
        if not (known and 1 <= self.steps <= 1000 and 0 < self.cfg < 100):
            raise ValueError(f"sampling with {self}; expected 1 to 1000 steps, a sampler of {sorted(SAMPLERS)}, a scheduler "
                             f"of {sorted(SCHEDULERS)} and a cfg above 0 and below 100")

    @property
    def spacing(self) -> str:
        """Of our own samplers."""
        return SCHEDULERS[self.scheduler]

    def __str__(self) -> str:
        return f"{self.steps} steps, sampler {self.sampler}, scheduler {self.scheduler}, cfg {self.cfg:g}"


def read_sampling(values: Any, path: str | Path) -> Sampling:
    """From a file's metadata. Raises ValueError that names the file."""
    try:
        return build(Sampling, values)
    except ValueError as error:
        raise ValueError(f"{path}: pgpis.sampling: {error}. (A file of a newer version needs a newer pack.)") from error
