"""The whole demo set by one command, `make train-demo`: autoencoder, reader, base, the four methods, their few-step LoRAs.

    python training/train_demo.py                        everything that is not there yet; interrupted, it goes on
    python training/train_demo.py --stages cfld,qen      these stages alone
    python training/train_demo.py --stages cfld,mcld,fpdm,qen --full-size images=100000 batch=128 lr=1e-3 warmup_images=12800
                                                         as for a GPU: no half size, which saves little there, and settings
                                                         for all these runs
    python training/train_demo.py --install              copies the finished set to models/demo and models/loras

Each stage is one or two runs of training/train.py with a config of training/configs/demo: the base, the methods and their
LoRAs first see latents of half the size, then go on at full size. Runs are below output/train; a run that is finished with
the same settings is not made again. output/train/demo_set.json says what each took.
"""

from __future__ import annotations

import argparse
import gc
import json
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from training.engine.config import TrainConfig, as_json, load_config  # noqa: E402
from training.engine.resuming import changes  # noqa: E402
from training.train import task_class  # noqa: E402

CONFIGS = ROOT / "training" / "configs" / "demo"
SHIPPED = ROOT / "models" / "demo"
# stage -> (whether a run at half size comes first, work of an image at full size, relative; for the time that is left)
STAGES = {"autoencoder": (False, 0.3), "reader": (False, 0.5), "base": (True, 1.0), "fpdm_fusion": (False, 0.4),
          "cfld": (True, 1.3), "mcld": (True, 2.2), "fpdm": (True, 1.5), "qen": (True, 2.0),
          "cfld_lcm": (True, 2.6), "mcld_lcm": (True, 4.4), "fpdm_lcm": (True, 3.0), "qen_lcm": (True, 4.0)}
HALF_WORK = 0.4     # of an image at half size, relative to one at full size: encoders see photos at full size
RECORD = "demo_set.json"


@dataclass(frozen=True)
class Run:
    """One training run. work: relative to others, for the time that is left."""

    config: TrainConfig
    work: float

    @property
    def folder(self) -> Path:
        return Path(self.config.output) / self.config.name

    @property
    def checkpoint(self) -> Path:
        return self.folder / f"{self.config.name}.safetensors"

    def finished(self) -> bool:
        """Whether it was finished with these settings. Raises ValueError where it was with others."""
        done = self.folder / "finished.json"
        if not (done.is_file() and self.checkpoint.is_file()):
            return False
        other = changes(json.loads(done.read_text())["config"], json.loads(as_json(self.config)))
        if other:
            raise ValueError(f"{self.folder} was finished with other settings ({', '.join(other)}); move it away to train "
                             "it anew, or give the --scale and settings that it was trained with")
        return True

    def train(self) -> dict[str, float]:
        """Runs it to its end; returns what it took."""
        from training.engine.loop import run
        began = time.monotonic()
        run(self.config, task_class(self.config.task))
        measures = json.loads((self.folder / "measures.json").read_text())
        row = {"name": self.config.name, "seconds": round(time.monotonic() - began, 1),
               "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu", **measures}
        (self.folder / "finished.json").write_text(json.dumps({"config": json.loads(as_json(self.config)), **row}))
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return row


def runs_of(stage: str, scale: float, output: str, overrides: Sequence[str], full_size: bool = False) -> list[Run]:
    """The runs of a stage, in order. scale: of the images of its config, halved runs included. full_size: no halved runs."""
    halved, work = STAGES[stage]
    halved = halved and not full_size
    page = CONFIGS / f"{stage}.yaml"
    usual = [*_starts(load_config(page), output), f"output={output}", *overrides]
    asked = load_config(page, overrides)
    images = max(1, round(asked.images * scale))
    warmup = round(asked.warmup_images * min(scale, 1))   # a shorter run warms up as much shorter
    if warmup > images:
        raise ValueError(f"{stage}: warmup_images is {warmup}, the run has {images} images, so that its rate would never be "
                         "reached; train this stage by itself, with settings of its own")
    full = [*usual, f"images={images}", f"warmup_images={warmup}"]
    if not halved:
        config = load_config(page, full)
        return [Run(config, work * images)]
    half = load_config(page, [*full, f"name=demo_{stage}_half", "method.halved=true"])
    start = {"base": "world.init", "distill": "distill.lora"}.get(half.task, "method.init")
    first = Run(half, HALF_WORK * work * images)
    return [first, Run(load_config(page, [*full, f"{start}={first.checkpoint}"]), work * images)]


def _starts(config: TrainConfig, output: str) -> list[str]:
    """Overrides that point the starts which a config names at the stages that make them here."""
    named = {"method.base": (config.method.base, "base"), "method.vae": (config.method.vae, "autoencoder"),
             "method.backbone": (config.method.backbone, "reader"), "fpdm.fusion": (config.fpdm.fusion, "fpdm_fusion")}
    if config.task == "distill":
        named["method.init"] = config.method.init, config.distill.method
    return [f"{name}={output}/demo_{stage}/demo_{stage}.safetensors" for name, (value, stage) in named.items() if value]


def install(output: str) -> list[Path]:
    """Copies the finished set to models/demo and models/loras; returns the files. Raises ValueError where a stage is not
    finished; nothing is copied then."""
    copies = {}
    for stage in STAGES:
        if stage in ("reader", "fpdm_fusion"):   # starts of others: they are shipped in what was made of them
            continue
        made = Path(output) / f"demo_{stage}" / f"demo_{stage}.safetensors"
        if not made.is_file():
            raise ValueError(f"{made} is not there; train stage {stage} first")
        folder = SHIPPED.with_name("loras") if stage.endswith("_lcm") else SHIPPED
        copies[made] = folder / f"demo_{'vae' if stage == 'autoencoder' else stage}.safetensors"
    for made, target in copies.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(made, target)
    return list(copies.values())


def table(rows: Sequence[dict]) -> str:
    """The record of the runs as Markdown."""
    lines = ["| run | images | seconds | on | loss, people never trained on | the same, trained on |",
             "|---|---|---|---|---|---|"]
    lines += [f"| {row['name']} | {row['images']:,} | {row['seconds']:.0f} | {row['device']} | {row['held_out/loss']:.4f} | "
              f"{row['trained_on/loss']:.4f} |" for row in rows]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stages", default=",".join(STAGES), help=f"some of {','.join(STAGES)}")
    parser.add_argument("--scale", type=float, default=1.0, help="factor of the images of every config")
    parser.add_argument("--full-size", action="store_true", help="no runs at half size")
    parser.add_argument("--output", default="output/train")
    parser.add_argument("--install", action="store_true", help="copy the finished set to models/demo and models/loras")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings for all runs, such as data.workers=14")
    options = parser.parse_args(arguments)
    stages = [name.strip() for name in options.stages.split(",") if name.strip()]
    unknown = sorted(set(stages) - set(STAGES))
    if unknown or options.scale <= 0:
        parser.error(f"stages {unknown} and scale {options.scale}; expected some of {', '.join(STAGES)}, and a scale "
                     "above 0")
    try:
        train(stages, options.scale, options.output, options.overrides, options.full_size)
        if options.install:
            for path in install(options.output):
                print(f"installed {path}")
    except ValueError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")


def train(stages: Sequence[str], scale: float, output: str, overrides: Sequence[str], full_size: bool = False) -> None:
    """Makes what is not finished of these stages, in the order of STAGES."""
    record = Path(output) / RECORD
    rows = {row["name"]: row for row in json.loads(record.read_text())} if record.is_file() else {}
    planned = [run for stage in STAGES if stage in stages for run in runs_of(stage, scale, output, overrides, full_size)]
    waiting = [run for run in planned if not run.finished()]
    print(f"{len(planned) - len(waiting)} of {len(planned)} runs are finished")
    spent, worked = 0.0, 0.0
    for number, run in enumerate(waiting):
        left = sum(other.work for other in waiting[number:])
        guess = f", about {left / worked * spent / 60:.0f} minutes left of all" if worked else ""
        print(f"-- {run.config.name}: run {number + 1} of {len(waiting)}{guess}", flush=True)
        row = run.train()
        spent, worked = spent + row["seconds"], worked + run.work
        rows[row["name"]] = row
        record.write_text(json.dumps(list(rows.values()), indent=1))
    print(table(list(rows.values())))


if __name__ == "__main__":
    main()
