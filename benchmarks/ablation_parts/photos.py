"""A row on photos: trained by the config's own settings, then the whole test split made and measured as the papers do."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import set_seed
from torch import Tensor

from pgpis_models.checkpoint import Metadata, write_checkpoint
from pgpis_models.command.batches import Process, launched
from pgpis_models.mcld.inputs import ClipEncoder
from pgpis_models.methods import picture_encoder
from pgpis_models.pipeline import Generator, defaults_of
from pgpis_models.settings import as_written
from pgpis_models.unet.diffusers_binding import swap_weights
from pgpis_models.unet.weights import open_safetensors
from training.engine.config import TrainConfig
from training.engine.loop import run
from training.evaluate import measure
from training.evaluation.pairing import pairs
from training.generate_split import Split, generate
from training.train import task_class

from .cfld import ClipAsPrompt, DescriptionAsPrompt
from .hiding import without
from .rows import Row

PROTOCOL = {"cfld": "cfld", "qen": "cfld", "mcld": "mcld", "fpdm": "fpdm"}
MEASURES = {"psnr": "dB", "ssim": "", "ssim_256": "", "lpips": ""}
SIZE = (256, 176)   # at which table 3 of each paper measures
FOLDERS = ("generated", "targets", "sources")


class Trained(Generator):
    """The generator of a task's networks as they stand, a variant's too. shown: as of `Row`."""

    def __init__(self, task: Any, shown: Mapping[str, Any]) -> None:
        method, name = task.model.train(False).method, task.config.task
        self.encode, self.unet, self.sizes, self.vae = picture_encoder(name), task.model.unet, task.sizes, task.vae
        self.method, self.device, self.binding = method, task.device, task.model.binding
        self.meta = Metadata(name, asdict(method.config), task.base_name, 0, "", "")
        self.defaults = defaults_of(name, task.base_name)
        self.schedule = getattr(method, "noise_schedule", lambda: None)() or task.sizes.schedule()
        self.shared, self.shown = self._shared(self.encode), shown

    def _sampled(self, encoded: Any, *arguments: Any, **named: Any) -> Tensor:
        return super()._sampled(without(encoded, self.shown), *arguments, **named)


def is_photos(config: TrainConfig) -> bool:
    return config.data.kind != "mannequins"


def reads_clip(row: Row) -> bool:
    """Whether a row's photos are read by CLIP, in the place of what drawn people are told by."""
    return row.variant is DescriptionAsPrompt


def check_rows(method: str, rows: Mapping[str, Row], clip: str) -> None:
    """Raises ValueError where rows cannot be measured on photos, before the first is trained."""
    if method not in PROTOCOL:
        raise ValueError(f"{method} makes no pictures, and is measured on drawn people alone; expected one of "
                         f"{', '.join(PROTOCOL)}")
    reading = [name for name, row in rows.items() if reads_clip(row)]
    if reading and not Path(clip or "?").is_dir():
        raise ValueError(f"{', '.join(reading)} reads photos with CLIP, and --clip is {clip!r}; expected the folder of CLIP "
                         "ViT-L/14 as transformers has it, or --rows without it")


def photo_task(row_name: str, row: Row, clip: str) -> Callable[[TrainConfig, torch.device], Any]:
    """The task of a row. It writes a variant's checkpoint under a name of its own, which nothing but this script reads.

    clip: folder of CLIP ViT-L/14, B2's encoder.
    """
    def make(config: TrainConfig, device: torch.device) -> Any:
        kind, variant = task_class(config.task), row.variant
        if variant is DescriptionAsPrompt:
            variant = type("ClipAsPrompt", (ClipAsPrompt,), {"clip": ClipEncoder(clip, device)})

        def export(self: Any, path: Path, images: int) -> None:
            method, unet = self.model.method, dict(self.model.unet.named_parameters())
            write_checkpoint(path, method.state_dict(), {name: unet[name] for name in self.stored}, meta=Metadata(
                f"{config.task}_{row_name}", as_written(method.config), self.base_name, images,
                config.data.name or config.data.kind, config.data.licence or self.licence))
        own = {"kind": variant, "export": export} if variant else {}
        return type(f"Ablated{kind.__name__}", (kind,), own)(config, device)
    return make


def measured_photos(name: str, row: Row, config: TrainConfig, weights: Path, path: Path, options: SimpleNamespace) -> None:
    """Trains a row where its checkpoint is not at `weights`, makes the test split into folders named as `path` (one for
    each way of sampling), and writes {"measures": {way: measures}} to `path`. Goes on where it stopped; with `accelerate
    launch` each process makes its share."""
    make, process = photo_task(name, row, options.clip), launched()
    if options.images != 0 and not weights.is_file():
        run(replace(config, export=str(weights), name=weights.stem), make)
    device = process.device("cuda" if torch.cuda.is_available() else "cpu")
    set_seed(config.seed)   # what is not trained has these weights, in each process
    task = make(config, torch.device(device))
    if weights.is_file():
        load(task, weights)
    task.model.to(device)
    found = {}
    for way, shown in {"": row.shown, **row.also}.items():
        out = path.with_suffix("") if not way else path.with_name(f"{path.stem} {way}")
        found[way] = of_split(task, shown, out, config, options, process)
    if process.index == 0:
        path.write_text(json.dumps({"measures": found}))
    PartialState().wait_for_everyone()


def load(task: Any, weights: Path) -> None:
    """What `photo_task` or the task itself exported."""
    with open_safetensors(weights) as file:
        read = {name: file.get_tensor(name).float() for name in file.keys()}
    task.model.method.load_state_dict({name.removeprefix("method."): value for name, value in read.items()
                                       if name.startswith("method.")})
    swap_weights(task.model.unet, {name.removeprefix("unet."): value for name, value in read.items()
                                   if name.startswith("unet.")})


def of_split(task: Any, shown: Mapping[str, Any], out: Path, config: TrainConfig, options: SimpleNamespace,
             process: Process) -> dict[str, float]:
    """MEASURES of the test split by the protocol of the method's paper; nan where a network is missing, which is said."""
    split = Split(Path(config.data.root), "test", Trained(task, shown), config.mcld.image_encoder,
                  without_photo=not shown.get("image", True))
    settings = {"mode": None, "weights": {}, "steps": options.steps, "sampler": None, "seed": 0}
    generate(split, out, settings, options.batch, process)
    PartialState().wait_for_everyone()
    if process.index:
        return {}
    result, _ = measure(pairs(*(out / kind for kind in FOLDERS)), SIZE, protocol=PROTOCOL[config.task],
                        device=str(task.device), batch=options.batch)
    print(f"pictures in {out}: training/evaluate.py has FID and faces of them")
    return {name: result.get(name, math.nan) for name in MEASURES}
