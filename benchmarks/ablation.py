"""The papers' ablations: each row of a method's table trained and measured, in small on drawn people, or on photos.

    python benchmarks/ablation.py METHOD [--images 24000] [--people 64] [--seeds 1] [--json FILE] [key=value ...]
    python benchmarks/ablation.py METHOD --config training/configs/deepfashion/METHOD.yaml [--rows ROW] [--clip DIR]

METHOD: cfld, mcld or qen (table 3 of their papers), fpdm (with and without the fusion embedding), or fpdm_fusion (its first
stage with and without sources in the loss, measured as benchmarks/retrieval.py does, of drawn people alone). key=value are
settings of the training config, for all rows. A row that is in --out already, with the same settings and starts, is not
trained again.

On drawn people every row starts from the same base, autoencoder and backbone, which a clone brings, and sees the same images
in the same order at half the size; then it makes the same people, never trained on, in 20 steps from the same noise.
data.turned=[120,180] draws sources from behind and targets turned away from them. "loss" is the squared error of the UNet's
prediction from all conditions, at fixed times and noise. --images 0 measures a row as it starts.

On photos a row is trained as the config says, a day or more on several GPUs (accelerate launch); then it makes the test
split into folders of --out, which training/evaluate.py measures further, and stands with the papers' measures at 256x176.

"autoencoder" is the targets through the autoencoder at the same size, the best a row could do, "copy" the source as the
answer. Networks are small and budgets short: differences that are smaller than those between seeds mean nothing, so give
--seeds more than one. LPIPS needs a package and weights, else its column is empty; the papers' figures stand beside.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import platform
import statistics
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
for folder in (str(HERE), str(ROOT)):   # this script's own parts, and the pack
    if folder not in sys.path:
        sys.path.insert(0, folder)

import torch  # noqa: E402
from ablation_parts.making import measured_task, retrieval_task  # noqa: E402
from ablation_parts.photos import MEASURES as OF_PHOTOS  # noqa: E402
from ablation_parts.photos import check_rows, is_photos, measured_photos, reads_clip  # noqa: E402
from ablation_parts.rows import ROWS, Row, settings_of  # noqa: E402
from accelerate.utils import set_seed  # noqa: E402

from training.engine.config import TrainConfig, as_json, load_config  # noqa: E402
from training.engine.loop import run  # noqa: E402

MEASURES = {"mask_iou": "", "legs": "", "part_colour": "", "sharpness": "", "eyes": "", "texel_error_seen": "",
            "texel_error_hidden": "", "psnr": "dB", "ssim": "", "lpips": "", "loss": ""}
FOUND = {"top1": "", "top5": "", "mean rank": "", "person": ""}   # of stage 1 of FPDM, which makes no pictures
DRAWN_IMAGES, STEPS = 24_000, 20
IMAGES_PER_PERSON = 4   # of a run: people that are drawn for it, at most as many as the config has
Found = dict[str, float]


def measures_of(method: str, photos: bool = False) -> dict[str, str]:
    """Measure -> its unit."""
    return OF_PHOTOS if photos else FOUND if method == "fpdm_fusion" else MEASURES


def row_config(page: Path, row: Row, seed: int, images: int | None, out: Path, overrides: list[str]) -> TrainConfig:
    """The training config of a row. Of drawn people: half size, measured at its end; of photos as it stands."""
    if is_photos(load_config(page, overrides)):
        return load_config(page, [f"seed={seed}", f"output={out}", *([f"images={images}"] if images else []),
                                  *settings_of(row, True), *overrides])
    images = DRAWN_IMAGES if images is None else images
    people = max(2, min(load_config(page, overrides).data.identities, images // IMAGES_PER_PERSON))
    return load_config(page, ["method.halved=true", f"images={max(1, images)}", f"data.identities={people}",
                              "sample_every=0", f"seed={seed}", f"output={out}", *settings_of(row, False), *overrides])


def made_of(config: TrainConfig, how: dict) -> str:
    """Twelve letters for all settings of a row, what else is said of it, and the files that it starts from."""
    digest = hashlib.sha256((as_json(config) + json.dumps(how, sort_keys=True)).encode())
    method = config.method
    for name in (method.base, method.vae, method.backbone, method.init, config.fpdm.fusion):
        digest.update(Path(name).read_bytes() if name and Path(name).is_file() else b"none")
    return digest.hexdigest()[:12]


def measured(name: str, row: Row, config: TrainConfig, options: argparse.Namespace) -> dict:
    """What `measured_task` exports; trained only where it is not there."""
    photos = is_photos(config)
    trained = {"variant": row.variant and row.variant.__name__, "clip": options.clip if reads_clip(row) else ""}
    how = trained | {"untrained": options.images == 0, "steps": options.steps, "shown": dict(row.shown),
                     "also": {way: dict(shown) for way, shown in row.also.items()}}
    if not photos:
        how |= {"people": options.people, "steps": options.steps or STEPS}
    named = Path(config.output) / f"{name}-{config.seed}"
    path = named.with_name(f"{named.name}-{made_of(config, how)}.json")
    task = retrieval_task if config.task == "fpdm_fusion" else measured_task
    make = task(row, options.people, options.steps or STEPS, options.batch)
    if path.is_file():
        pass
    elif photos:   # what is trained has a name of its own, so that it can be measured in several ways
        weights = named.with_name(f"{named.name}-{made_of(config, trained)}.safetensors")
        measured_photos(name, row, config, weights, path, options)
    elif options.images != 0:   # the name is the run's too, so that it goes on only from its own states
        run(replace(config, export=str(path), name=path.stem), make)
    else:
        set_seed(config.seed)
        untrained = make(config, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        untrained.model.to(untrained.device)
        untrained.export(path, 0)
    return json.loads(path.read_text())


def table(method: str, rows: Mapping[str, list[Found]], measures: Iterable[str]) -> str:
    """Markdown: mean over seeds, and lowest to highest where there are several."""
    measures = list(measures)
    lines = ["| | | " + " | ".join(name.replace("_", " ") for name in measures) + " | paper |",
             "| --- " * (len(measures) + 3) + "|"]
    for name, found in rows.items():
        row = ROWS[method].get(name, Row(""))
        cells = [said([one[measure] for one in found]) for measure in measures]
        lines.append(f"| {name} | {row.what} | {' | '.join(cells)} | {row.paper} |")
    return "\n".join(lines)


def said(values: list[float]) -> str:
    """Mean of a measure over seeds, with its range; a dash where it means nothing, as eyes do without closer views."""
    values = [value for value in values if math.isfinite(value)]
    if not values:
        return "-"
    spread = f" ({min(values):.3f} to {max(values):.3f})" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}"


def json_rows(method: str, rows: Mapping[str, list[Found]], settings: dict, photos: bool = False) -> list[dict]:
    """A row per measure and seed. value: None where a measure means nothing."""
    versions = {"torch": torch.__version__, "python": platform.python_version()}
    return [{"name": f"{method} {name}, {measure}", "value": one[measure] if math.isfinite(one[measure]) else None,
             "unit": unit, "versions": versions,
             "settings": settings | {"row": name, "what": ROWS[method].get(name, Row("")).what, "seed_number": number}}
            for name, found in rows.items() for number, one in enumerate(found)
            for measure, unit in measures_of(method, photos).items()]


def main(arguments: list[str] | None = None) -> dict[str, list[Found]]:
    """Prints the table; returns row -> measures of each seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method", choices=list(ROWS))
    parser.add_argument("--images", type=int, help=f"training images of each row: {DRAWN_IMAGES} of drawn people, of photos "
                        "as many as the config says; 0 measures what a row starts from")
    parser.add_argument("--people", type=int, default=64, help="people never trained on, to measure with")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each row")
    parser.add_argument("--steps", type=int, help=f"sampling steps: {STEPS} of drawn people, of photos the authors'")
    parser.add_argument("--rows", default="", metavar="ROW[,ROW]", help="these alone")
    parser.add_argument("--batch", type=int, default=32, help="pictures made at once")
    parser.add_argument("--clip", default="", help="B2 of cfld on photos: folder of CLIP ViT-L/14 (transformers)")
    parser.add_argument("--config", type=Path, help="training/configs/demo/METHOD.yaml unless given")
    parser.add_argument("--out", type=Path, help="output/ablation/METHOD unless given")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings of the training config, for all rows")
    options = parser.parse_intermixed_args(arguments)
    method, wrong = options.method, [name for name in options.overrides if "=" not in name]
    names = [name for name in options.rows.split(",") if name] or [name for name, row in ROWS[method].items() if row.usual]
    unknown = [name for name in names if name not in ROWS[method]]
    counts = (options.people, options.seeds, 1 if options.steps is None else options.steps, options.batch,
              (options.images or 0) + 1)
    if unknown or wrong or min(counts) < 1:
        parser.error(f"rows {unknown}, settings {wrong}; expected rows of {', '.join(ROWS[method])}, settings as key=value, "
                     "and numbers of 1 or more")
    page = options.config or ROOT / "training" / "configs" / "demo" / f"{method}.yaml"
    out = options.out or ROOT / "output" / "ablation" / method
    try:
        configs = {(seed, name): row_config(page, ROWS[method][name], seed, options.images, out, options.overrides)
                   for seed in range(options.seeds) for name in names}
        photos = is_photos(next(iter(configs.values())))
        if photos:
            check_rows(method, {name: ROWS[method][name] for name in names}, options.clip)
    except ValueError as error:
        parser.error(str(error))
    out.mkdir(parents=True, exist_ok=True)
    rows: dict[str, list[Found]] = {}
    for (seed, name), config in configs.items():
        row = ROWS[method][name]
        print(f"-- {name}, seed {seed}: {row.what}", flush=True)
        found = measured(name, row, config, options)
        for way, one in found["measures"].items():
            rows.setdefault(f"{name}, {way}" if way else name, []).append(one)
        for limit in {"copy", "autoencoder"} & found.keys():
            rows.setdefault(limit, [found[limit]])
    ordered = {name: rows[name] for name in sorted(rows, key=lambda name: name in ("copy", "autoencoder"))}
    hidden = f", whose sources hide {found['hidden']:.0%} of what is to be made" if "hidden" in found else ""
    measured_on = f"the test split of {config.data.root}" if photos else f"{options.people} people never trained on{hidden}"
    images = 0 if options.images == 0 else config.images
    print(f"\n{images} images each, {measured_on}, {options.seeds} seed(s)\n\n"
          f"{table(method, ordered, measures_of(method, photos))}")
    if options.json:
        settings = {"images": images, "people": options.people, "seeds": options.seeds,
                    "steps": options.steps or (None if photos else STEPS),
                    "hidden": found.get("hidden"), "overrides": options.overrides,
                    "size": list(config.data.size), "halved": config.method.halved,
                    "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(json_rows(method, ordered, settings, photos), indent=1) + "\n")
    return ordered


if __name__ == "__main__":
    main()
