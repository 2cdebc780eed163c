"""Does the fusion embedding know the right person in the right pose? Retrieval among mannequins never trained on.

    python benchmarks/retrieval.py [--checkpoint FILE] [--json FILE] [--people 32] [--poses 8]

Candidates are the embeddings of all photos, people times poses. For each of them the query is made of another photo of the
person, which is not a candidate, and of the candidate's pose: the fusion embedding of both, or for comparison the embedding
of that photo alone, which knows the person and nothing of the pose. The bar: the fusion's top-1 is at least 5 times the
photo's, else the exit status is 1. The checkpoint is one of stage 1 or of stage 2, which holds stage 1.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pgpis_models.checkpoint import load_checkpoint  # noqa: E402
from pgpis_models.fpdm.fusion import FusionModel  # noqa: E402
from pgpis_models.pipeline import DEMO_FOLDER  # noqa: E402
from training.data.fpdm_pairs import fusion_tensors  # noqa: E402
from training.engine.config import DataConfig  # noqa: E402
from training.world.bank import Bank, open_bank  # noqa: E402
from training.world.fpdm_pairs import Pairs  # noqa: E402

BAR = 5.0
CHUNK = 32   # pairs at once


def queries(model: FusionModel, bank: Bank, poses: int, canvas: tuple[int, int]) -> dict[str, Tensor]:
    """fusion, source and target embeddings (people * poses, E) of length 1. The photo of a query is the bank's last view."""
    made: dict[str, list[Tensor]] = {"fusion": [], "source": [], "target": []}
    pairs = [Pairs.pair(bank, who, poses, view) for who in range(bank.people) for view in range(poses)]
    for start in range(0, len(pairs), CHUNK):
        tensors = fusion_tensors(pairs[start:start + CHUNK], model.config, canvas)
        with torch.no_grad():
            made["fusion"].append(model(tensors["source"], tensors["pose"]))
            for name in ("source", "target"):
                made[name].append(F.normalize(model.embed(tensors[name]), dim=-1))
    return {name: torch.cat(values) for name, values in made.items()}


def ranks(query: Tensor, candidates: Tensor) -> np.ndarray:
    """Rank of candidate i among all for query i, 1 is best; ties count against it."""
    similarity = query.double() @ candidates.double().T
    own = similarity.diagonal()[:, None]
    return ((similarity >= own).sum(1)).numpy()


def measures(found: np.ndarray, poses: int, query: Tensor, candidates: Tensor) -> dict[str, float]:
    """Shares of queries that find their own picture first or among five, the mean rank, and how often the first one found
    shows at least the right person."""
    first = (query @ candidates.T).argmax(1).numpy()
    return {"top1": float((found == 1).mean()), "top5": float((found <= 5).mean()), "mean rank": float(found.mean()),
            "person": float((first // poses == np.arange(len(first)) // poses).mean())}


def main() -> int:
    """Exit status: 1 when the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=DEMO_FOLDER / "demo_fpdm.safetensors")
    parser.add_argument("--people", type=int, default=32, help="identities never trained on")
    parser.add_argument("--poses", type=int, default=8, help="candidates of each")
    parser.add_argument("--canvas", default="256x192", help="height x width that poses are drawn on, as in training")
    parser.add_argument("--cache", default=str(ROOT / "output" / "cache"))
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    arguments = parser.parse_args()
    method = load_checkpoint(arguments.checkpoint).method
    model = method if isinstance(method, FusionModel) else method.fusion
    canvas = tuple(int(side) for side in arguments.canvas.split("x"))
    bank = open_bank(DataConfig(size=model.config.image, views=arguments.poses + 1, cache=arguments.cache),
                     held_out=arguments.people)
    made = queries(model, bank, arguments.poses, canvas)
    results = {name: measures(ranks(made[name], made["target"]), arguments.poses, made[name], made["target"])
               for name in ("fusion", "source")}
    count = len(made["target"])
    print(f"{count} candidates ({arguments.people} people never trained on, {arguments.poses} poses each), chance "
          f"{1 / count:.4f}")
    for name, row in results.items():
        print(f"{name:<8}" + "  ".join(f"{what} {value:.3f}" for what, value in row.items()))
    ratio = results["fusion"]["top1"] / max(results["source"]["top1"], 1 / count)
    met = ratio >= BAR
    print(f"top-1 of the fusion over that of the source alone: {ratio:.1f}, bar {BAR}: {'met' if met else 'MISSED'}")
    if arguments.json:
        settings = {"checkpoint": arguments.checkpoint.name, "people": arguments.people, "poses": arguments.poses,
                    "canvas": list(canvas)}
        versions = {"torch": torch.__version__, "python": platform.python_version()}
        rows = [{"name": f"retrieval, {name}, {what}", "value": value, "unit": "rank" if "rank" in what else "share"}
                for name, row in results.items() for what, value in row.items()]
        rows.append({"name": "retrieval, top-1 of fusion over source", "value": ratio, "unit": "ratio", "bar": BAR})
        arguments.json.write_text(json.dumps([row | {"settings": settings, "versions": versions} for row in rows], indent=1)
                                  + "\n")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
