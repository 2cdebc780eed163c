"""What the check of a checkpoint's digest costs beside loading it: processor time, the best of several rounds.

    python benchmarks/loading.py CHECKPOINT.safetensors [--rounds N] [--json FILE]

"warm" finds the file in the page cache, "cold" reads it from the disk. "finite" is the other look at every weight.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import safetensors  # noqa: E402
import torch  # noqa: E402

from pgpis_models.checkpoint import load_checkpoint  # noqa: E402
from pgpis_models.unet import weights  # noqa: E402


def forget(path: Path) -> None:
    """Asks the system to forget the file's pages."""
    handle = os.open(path, os.O_RDONLY)
    os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(handle)


def loaded(path: Path, checks: str) -> float:
    """Seconds of processor time of one loading. checks: none, digest or all."""
    begun = time.process_time()
    if checks == "digest":
        with patch.object(weights, "_ends", lambda *_: {}):
            load_checkpoint(path)
    else:
        load_checkpoint(path, verify=checks == "all")
    return time.process_time() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint", type=Path, help="a checkpoint of this pack with a digest")
    parser.add_argument("--rounds", type=int, default=7, help="loadings of each kind, of which the fastest counts")
    parser.add_argument("--json", type=Path, help="write the rows there")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    loaded(chosen.checkpoint, "all")   # imports
    best: dict[tuple[str, str], float] = {}
    for _ in range(chosen.rounds):
        for state in ("cold", "warm"):
            for checks in ("none", "digest", "all"):
                if state == "cold":
                    forget(chosen.checkpoint)
                key = state, checks
                best[key] = min(best.get(key, float("inf")), loaded(chosen.checkpoint, checks))
    settings = {"bytes": chosen.checkpoint.stat().st_size, "threads": 1, "rounds": chosen.rounds}
    versions = {"python": platform.python_version(), "torch": torch.__version__, "safetensors": safetensors.__version__}
    rows = []
    for (state, checks), seconds in best.items():
        more = seconds / best[state, "none"] - 1
        print(f"{state}, {checks:6} {seconds:7.3f} s  {more:+7.1%}")
        rows.append({"name": f"{state}, {checks}", "value": round(seconds, 4), "unit": "s", "settings": settings,
                     "versions": versions})
    if chosen.json:
        chosen.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
