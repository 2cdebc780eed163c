"""Pictures of people never trained on, made by a training task as it is, and their measures."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import retrieval
import torch
import torch.nn.functional as F
from torch import Tensor

from pgpis_models.mcld.inputs import as_input, face_crops
from pgpis_models.metrics import lpips_where_there
from pgpis_models.poses.drawing import cfld_rasters
from pgpis_models.unet.autoencoder import decode_latents, encode_latents
from training.data.fpdm_pairs import diffusion_tensors
from training.engine.config import TrainConfig
from training.engine.picture import grid
from training.train import task_class
from training.world import measures
from training.world.bank import Bank, open_bank
from training.world.focal import bank_textures, iuvs, poses
from training.world.fpdm_pairs import Pairs as FPDMPairs

from .rows import Row

SOURCE, TARGET = 0, 1   # views of a bank
SHOWN = 16              # people in the picture beside the measures
POSES = 8               # of each person in the retrieval of stage 1
FPDM_SCALE = 1.5        # guidance on the demo's base, as the sample grids of training have it
Shown = Mapping[str, Any]


def from_pair(task: Any, bank: Bank, who: np.ndarray, _shown: Shown, steps: int, seed: int) -> Tensor:
    """CFLD and QEN: photo and the target's raster."""
    rasters = cfld_rasters(bank.poses(who, _views(who, TARGET)), task.model.method.config.pose_size)
    return task.sample(bank.images(who, _views(who, SOURCE)), rasters, steps, seed)


def from_focus(task: Any, bank: Bank, who: np.ndarray, shown: Shown, steps: int, seed: int) -> Tensor:
    """MCLD: photo, texture map and face of the source, true DensePose of the target. shown: image, whether its tokens
    are."""
    method, data = task.model.method, task.config.data
    view = _views(who, SOURCE)
    source = bank.images(who, view)
    crops, found = face_crops(source, iuvs(bank, who, view), method.config.face_pixels)
    textures = bank_textures(bank, method.config, Path(data.cache), data.workers)
    held = {"source": source, "texture": as_input(textures[who, view]), "crops": crops, "found": found,
            "pose": poses(bank, who, _views(who, TARGET))}
    if shown.get("image", True):
        return task.sample(held, steps, seed)
    inner = task.model.encode_batch
    none = torch.zeros(len(who), dtype=torch.bool, device=task.device)
    task.model.encode_batch = lambda batch: inner(batch, None, none)
    try:
        return task.sample(held, steps, seed)
    finally:
        del task.model.encode_batch


def from_fusion(task: Any, bank: Bank, who: np.ndarray, shown: Shown, steps: int, seed: int) -> Tensor:
    """FPDM: photo and the target's drawing. shown: fusion, whether its embedding is."""
    method = task.model.method
    pairs = [FPDMPairs.pair(bank, person, SOURCE, TARGET) for person in who]
    tensors = {name: value.to(task.device) for name, value in diffusion_tensors(pairs, method.config).items()}
    encoded = method.encode(method.encode_source(tensors["source"], tensors["clip_source"]), tensors["pose"],
                            tensors["clip_pose"])
    guidance = method.guidance(encoded, source=FPDM_SCALE, fusion=FPDM_SCALE if shown.get("fusion", True) else 0.0)
    return task.sampled(guidance, len(who), steps, seed)


MAKERS: Mapping[str, Callable[..., Tensor]] = {"cfld": from_pair, "qen": from_pair, "mcld": from_focus, "fpdm": from_fusion}


def _views(who: np.ndarray, view: int) -> np.ndarray:
    return np.full(len(who), view)


@torch.no_grad()
def made(task: Any, bank: Bank, shown: Shown, steps: int, batch: int) -> Tensor:
    """One picture of each person of the bank, (N, 3, H, W) in 0..1, as an 8-bit file would hold them; the noise of a person
    is the same for every row."""
    parts = []
    for start in range(0, bank.people, batch):
        who = np.arange(start, min(start + batch, bank.people))
        parts.append(MAKERS[task.config.task](task, bank, who, shown, steps, start).float().cpu())
    return quantised(torch.cat(parts))


@torch.no_grad()
def through_autoencoder(task: Any, bank: Bank, batch: int) -> Tensor:
    """The targets as the autoencoder gives them back, at the size that the task makes: the best that a row could do."""
    halved, parts = task.config.method.halved, []
    for start in range(0, bank.people, batch):
        who = np.arange(start, min(start + batch, bank.people))
        picture = bank.images(who, _views(who, TARGET)).to(task.device)
        picture = F.avg_pool2d(picture, 2) if halved else picture
        back = decode_latents(task.vae, encode_latents(task.vae, picture))
        parts.append((F.interpolate(back, scale_factor=2) if halved else back).float().cpu())
    return quantised(torch.cat(parts))


def quantised(pictures: Tensor) -> Tensor:
    """As an 8-bit file would hold them."""
    return (pictures.clamp(0, 1) * 255).round() / 255


def measured_task(row: Row, people: int, steps: int, batch: int) -> Callable[[TrainConfig, torch.device], Any]:
    """A task of `training.engine.loop.run` that trains a row, and in place of a checkpoint exports its measures as JSON:
    {"measures": {way of sampling: measures}, "copy": measures of the source, "autoencoder": those of the limit}. Its sample
    grid shows the first of the people that were measured."""
    def make(config: TrainConfig, device: torch.device) -> Any:
        bank = open_bank(replace(config.data, views=2), held_out=people)

        def export(self: Any, path: Path, images: int) -> None:
            self.model.train(False)
            limit = through_autoencoder(self, bank, batch)

            truth = measures.pictures(bank, TARGET)

            def of(pictures: Tensor) -> dict[str, float]:
                perceptual = lpips_where_there(pictures, truth)
                return measures.score(pictures, bank, limit) | {
                    "lpips": math.nan if perceptual is None else float(perceptual.mean())}
            ways = {way: made(self, bank, shown, steps, batch) for way, shown in {"": row.shown, **row.also}.items()}
            source, target = measures.pictures(bank, SOURCE), truth
            path.write_text(json.dumps({"images": images, "copy": of(source), "autoencoder": of(limit),
                                        "measures": {way: of(pictures) for way, pictures in ways.items()}}))
            self.seen = {"source": source, **{way or "made": pictures for way, pictures in ways.items()}, "target": target}
            self.model.train()

        def shown_grid(self: Any) -> np.ndarray:
            return grid([pictures[:SHOWN] * 2 - 1 for pictures in self.seen.values()], list(self.seen), scale=1, per_row=4)
        kind = task_class(config.task)
        own = {"export": export, "grid": shown_grid} | ({"kind": row.variant} if row.variant else {})
        return type(f"Measured{kind.__name__}", (kind,), own)(config, device)
    return make


def retrieval_task(_row: Row, people: int, _steps: int, _batch: int) -> Callable[[TrainConfig, torch.device], Any]:
    """As `measured_task`, of stage 1 of FPDM: how its embeddings find the right picture of `people` in POSES poses each
    (`benchmarks/retrieval.py`), by the fusion embedding and by the photo's own."""
    def make(config: TrainConfig, device: torch.device) -> Any:
        def export(self: Any, path: Path, images: int) -> None:
            method = self.model.train(False).method.to("cpu")
            bank = open_bank(replace(config.data, size=method.config.image, views=POSES + 1), held_out=people)
            made = retrieval.queries(method, bank, POSES, config.fpdm.pose_canvas)
            found = {way: retrieval.measures(retrieval.ranks(made[kind], made["target"]), POSES, made[kind], made["target"])
                     for way, kind in {"": "fusion", "by the photo alone": "source"}.items()}
            path.write_text(json.dumps({"images": images, "measures": found}))
            method.to(self.device)
            self.model.train()
        kind = task_class(config.task)
        return type(f"Measured{kind.__name__}", (kind,), {"export": export})(config, device)
    return make
