"""The ablation of MCLD's table 3 in small: which conditions, and how they are given to the UNet, on drawn mannequins.

    python benchmarks/ablation_mcld.py --images 24000 --json ablation.json

Trains the demo's MCLD four times from the same base and encoders, on the same batches, and measures each on people never
trained on. Rows (names of the paper in brackets): the photo alone (B1), photo, texture map and face in one context (B3),
each stage its own without the face (B5), and the whole method. B1's reference network reads the photo, since it has no
texture map; the paper does not state what it read. Networks are small and the budget is short, so only differences that are
larger than those between seeds mean something: give --seeds more than one.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import sys
from pathlib import Path
from statistics import mean, stdev

import torch

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from training.demo import generate, quantised, score  # noqa: E402
from training.engine.config import DataConfig, TrainConfig, load_config  # noqa: E402
from training.engine.loop import run  # noqa: E402
from training.train import task_class  # noqa: E402
from training.world.bank import Bank, open_bank  # noqa: E402

ROWS = {"photo alone (B1)": {"aggregation": "image"},
        "photo, texture, face concatenated (B3)": {"aggregation": "concat"},
        "stage by stage, no face (B5)": {"aggregation": "stages", "use_face": False},
        "stage by stage (ours)": {"aggregation": "stages"}}
MEASURES = {"ssim": "", "psnr": "dB", "ssim_person": "", "psnr_person": "dB", "part_colour": "", "texel_error_seen": "",
            "texel_error_hidden": ""}


def variant(config: TrainConfig, changes: dict, seed: int, out: Path) -> TrainConfig:
    """The config of one row; it does not resume, so that a table is never of two budgets."""
    name = f"{changes['aggregation']}{'' if changes.get('use_face', True) else '_noface'}_{seed}"
    method = dataclasses.replace(config.method, model=config.method.model | changes)
    return dataclasses.replace(config, name=name, output=str(out), export=str(out / f"{name}.safetensors"), seed=seed,
                               method=method, sample_every=0, save_every=0, resume=False)


def measure(checkpoint: Path, config: TrainConfig, bank: Bank, batch: int) -> dict[str, float]:
    """The demo's measures of a checkpoint, on the base that it was trained on."""
    for name in ("base", "vae"):   # where the demo's table looks for them
        link = checkpoint.with_name(f"demo_{name}.safetensors")
        if not link.exists():
            link.symlink_to(Path(getattr(config.method, name)).resolve())
    return score(quantised(generate(checkpoint, bank, batch, seed=0)), bank)


def markdown(table: dict[str, dict[str, list[float]]]) -> str:
    """Rows as a markdown table; mean and, over several seeds, standard deviation."""
    lines = ["| | " + " | ".join(name.replace("_", " ") for name in MEASURES) + " |", "| --- " * (len(MEASURES) + 1) + "|"]
    for row, found in table.items():
        cells = [f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")
                 for values in (found[name] for name in MEASURES)]
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> dict[str, dict[str, list[float]]]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default=str(ROOT / "training/configs/demo/mcld.yaml"))
    parser.add_argument("--images", type=int, default=24_000, help="training images of each row")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each row")
    parser.add_argument("--people", type=int, default=64, help="people never trained on, to measure with")
    parser.add_argument("--batch", type=int, default=32, help="pictures made at once")
    parser.add_argument("--out", type=Path, default=ROOT / "output" / "ablation_mcld")
    parser.add_argument("--json", type=Path, help="file for the rows")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that replace the config's")
    options = parser.parse_args(arguments)
    config = load_config(options.config, [f"images={options.images}", *options.overrides])
    data = DataConfig(size=config.data.size, views=2, cache=str(options.out / "cache"), workers=config.data.workers)
    bank = open_bank(data, held_out=options.people)
    table: dict[str, dict[str, list[float]]] = {}
    for row, changes in ROWS.items():
        found = [measure(run(one, task_class("mcld")), one, bank, options.batch)
                 for one in (variant(config, changes, config.seed + seed, options.out) for seed in range(options.seeds))]
        table[row] = {name: [one[name] for one in found] for name in MEASURES}
        print(f"{row}: " + ", ".join(f"{name} {mean(values):.3f}" for name, values in table[row].items()), flush=True)
    print(f"\n{options.images} images each, {options.people} people, {options.seeds} seed(s)\n\n{markdown(table)}")
    if options.json:
        settings = {"images": options.images, "people": options.people, "seeds": options.seeds, "size": config.data.size,
                    "torch": torch.__version__, "machine": platform.machine()}
        rows = [{"name": f"{row}: {name}", "value": mean(values), "unit": MEASURES[name], "values": values, **settings}
                for row, found in table.items() for name, values in found.items()]
        options.json.write_text(json.dumps(rows, indent=2))
    return table


if __name__ == "__main__":
    main()
