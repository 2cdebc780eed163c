"""What the fusion embedding is worth: FPDM with and without it on mannequins never trained on.

    python benchmarks/ablation_fpdm.py [--checkpoint FILE] [--without FILE] [--json FILE] [--people 64]

"without" gives the trained model its null (zeros before the class MLP), which it knows from the drops of training; all else,
noise included, is the same. A model that was trained without it from the start (stage 2 with method.model.fusion_drop=1) may
be given as --without, and is the fairer of the two. Measures as in `make demo`.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pgpis_models.pipeline import DEMO_FOLDER, Generator  # noqa: E402
from training.demo import quantised, show  # noqa: E402
from training.engine.config import DataConfig  # noqa: E402
from training.world.bank import Bank, open_bank  # noqa: E402
from training.world.measures import MEASURES, SOURCE_VIEW, TARGET_VIEW, score  # noqa: E402


def pictures(checkpoint: Path, bank: Bank, weights: dict[str, float], batch: int, steps: int | None) -> Tensor:
    """One picture of each person of the bank, (N, 3, H, W) in 0..1."""
    generator, made = Generator(checkpoint), []
    for start in range(0, bank.people, batch):
        who = np.arange(start, min(start + batch, bank.people))
        made.append(generator(bank.images(who, np.full(len(who), SOURCE_VIEW)),
                              bank.poses(who, np.full(len(who), TARGET_VIEW)), weights=weights, first=start, steps=steps))
    return quantised(torch.cat(made).cpu())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=DEMO_FOLDER / "demo_fpdm.safetensors")
    parser.add_argument("--without", type=Path, help="a checkpoint trained without the fusion embedding")
    parser.add_argument("--people", type=int, default=64, help="identities never trained on")
    parser.add_argument("--weight", type=float, default=1.2, help="guidance weight of source and pose, and of the embedding")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--cache", default=str(ROOT / "output" / "demo" / "cache"))
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    arguments = parser.parse_args()
    bank = open_bank(DataConfig(views=2, cache=arguments.cache), held_out=arguments.people)
    weight = arguments.weight
    cases = {"with": (arguments.checkpoint, {"source": weight, "fusion": weight}),
             "without": (arguments.checkpoint, {"source": weight, "fusion": 0.0})}
    if arguments.without:
        cases["trained so"] = (arguments.without, {"source": weight, "fusion": 0.0})
    table = {name: score(pictures(path, bank, weights, arguments.batch, arguments.steps), bank)
             for name, (path, weights) in cases.items()}
    show(table)
    if arguments.json:
        settings = {"checkpoint": arguments.checkpoint.name, "people": bank.people, "weight": weight,
                    "steps": arguments.steps}
        versions = {"torch": torch.__version__, "python": platform.python_version()}
        rows = [{"name": f"FPDM {name} the fusion embedding, {what}", "value": value, "unit": MEASURES[what],
                 "settings": settings, "versions": versions} for name, row in table.items() for what, value in row.items()]
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
