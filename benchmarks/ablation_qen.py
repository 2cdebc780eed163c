"""Table 3 of the QEN paper in small: which queries and which mask, on mannequins never trained on.

    python benchmarks/ablation_qen.py [--images 24000] [--seeds 1] [--json FILE] [key=value ...]

Each row is trained from the same start (the demo base, and the backbone of --backbone) on the same images in the same order,
then makes the same pictures from the same noise. key=value are settings of the training config,
for all rows. A row whose checkpoint is in --out already is not trained again. LPIPS needs downloaded weights: left out.

B1 local queries only    B2 local, eq. (9)    B3 local + global, no mask    B4 local + global, eq. (9) on the local ones
full: local + global, eq. (5). All have the same number of queries.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import statistics
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from pgpis_models.pipeline import DEMO_FOLDER, Generator  # noqa: E402
from training.demo import SIZE, SOURCE_VIEW, TARGET_VIEW, pictures, quantised, score  # noqa: E402
from training.engine.config import DataConfig, TrainConfig, load_config  # noqa: E402
from training.world.bank import Bank, open_bank  # noqa: E402

ALL, SHARED = 20, 4
LOCAL_ONLY = {"local_queries": ALL, "global_queries": 0}
BOTH = {"local_queries": ALL - SHARED, "global_queries": SHARED}
VARIANTS = {
    "B1": LOCAL_ONLY | {"mask": "none"}, "B2": LOCAL_ONLY | {"mask": "simple"}, "B3": BOTH | {"mask": "none"},
    "B4": BOTH | {"mask": "simple_local"}, "full": BOTH | {"mask": "full"},
}
PAPER = {"B1": (0.161, 0.724), "B2": (0.154, 0.735), "B3": (0.158, 0.731), "B4": (0.151, 0.741), "full": (0.150, 0.747)}
MEASURES = ("ssim", "psnr", "ssim_person", "psnr_person", "part_colour", "texel_error_seen", "texel_error_hidden")
UNITS = {"psnr": "dB", "psnr_person": "dB"}


def start_of(config: TrainConfig) -> str:
    """Eight letters for all settings of a row and the files that it starts from, so that no other run's checkpoint is taken
    for it."""
    method = config.method
    found = hashlib.sha256(json.dumps(asdict(config), sort_keys=True, default=str).encode())
    for name in (method.base, method.vae, method.init, method.backbone):
        path = Path(name)
        found.update(path.read_bytes() if name and path.is_file() else b"none")
    return found.hexdigest()[:8]


def train(name: str, options: argparse.Namespace, seed: int) -> Path:
    """The checkpoint of a row, trained if it is not there."""
    from training.engine.loop import run
    from training.train import task_class
    settings = [f"method.model={json.dumps(VARIANTS[name])}", f"images={options.images}", f"seed={seed}", "sample_every=0",
                f"output={options.out / 'runs'}", "save_every=0", f"method.backbone='{options.backbone or ''}'",
                *options.overrides]
    config = load_config(ROOT / "training" / "configs" / "demo/qen.yaml", settings)
    path = options.out / f"{name}-{seed}-{options.images}-{start_of(config)}.safetensors"
    return path if path.is_file() else run(replace(config, export=str(path), name=path.stem), task_class("qen"))


def measure(path: Path, bank: Bank, batch: int) -> dict[str, float]:
    """`training.demo.score` of a checkpoint on every person of the bank."""
    generator = Generator(path, DEMO_FOLDER / "demo_base.safetensors", DEMO_FOLDER / "demo_vae.safetensors")
    made = []
    for start in range(0, bank.people, batch):
        who = np.arange(start, min(start + batch, bank.people))
        made.append(generator(bank.images(who, np.full(len(who), SOURCE_VIEW)),
                              bank.poses(who, np.full(len(who), TARGET_VIEW)), first=start).cpu())
    return score(quantised(torch.cat(made)), bank)


def table(rows: dict[str, list[dict[str, float]]]) -> str:
    """Markdown: mean over seeds, and their spread where there are several."""
    lines = ["| | queries, mask | " + " | ".join(name.replace("_", " ") for name in MEASURES) + " | paper: LPIPS, SSIM |",
             "| --- " * (len(MEASURES) + 3) + "|"]
    for name, found in rows.items():
        model = VARIANTS[name]
        cells = []
        for measure_name in MEASURES:
            values = [one[measure_name] for one in found]
            spread = f" ({min(values):.3f} to {max(values):.3f})" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.3f}{spread}")
        queries = f"{model['local_queries']} + {model['global_queries']}, {model['mask']}"
        lines.append(f"| {name} | {queries} | {' | '.join(cells)} | {PAPER[name][0]:.3f}, {PAPER[name][1]:.3f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=24000, help="training images of each row")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each row")
    parser.add_argument("--people", type=int, default=64, help="held-out identities to measure on")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--only", nargs="*", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--backbone", type=Path, help="file with backbone.* that all rows start from; a fresh one without")
    parser.add_argument("--out", type=Path, default=ROOT / "output" / "ablation_qen")
    parser.add_argument("--json", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings of the training config, for all rows")
    options = parser.parse_intermixed_args()
    options.out.mkdir(parents=True, exist_ok=True)
    bank = open_bank(DataConfig(size=SIZE, views=2, cache=str(options.out / "cache")), held_out=options.people)
    rows: dict[str, list[dict[str, float]]] = {}
    for seed in range(options.seeds):
        for name in options.only:
            path = train(name, options, seed)
            rows.setdefault(name, []).append(measure(path, bank, options.batch))
            print(f"{name}, seed {seed}: " + ", ".join(f"{key} {rows[name][-1][key]:.3f}" for key in MEASURES), flush=True)
    copied = score(pictures(bank, SOURCE_VIEW), bank)
    print(f"\n{table(rows)}\n\ncopy of the source: SSIM {copied['ssim']:.3f}, PSNR {copied['psnr']:.2f}")
    if options.json:
        settings = {"images": options.images, "people": options.people, "overrides": options.overrides,
                    "backbone": options.backbone is not None, "python": platform.python_version(),
                    "torch": torch.__version__}
        result = [{"name": f"{name} {key}", "value": one[key], "unit": UNITS.get(key, "1"),
                   "settings": settings | {"seed": seed, "model": VARIANTS[name]}}
                  for name, found in rows.items() for seed, one in enumerate(found) for key in MEASURES]
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
