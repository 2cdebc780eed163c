"""Pictures of people never trained on, made by a training task as it is, and their measures."""

from __future__ import annotations

import json
import math
import statistics
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
from pgpis_models.unet.guidance import Guidance
from pgpis_models.unet.injections import harmonise
from training.data.fpdm_pairs import diffusion_tensors
from training.engine.config import TrainConfig
from training.engine.picture import grid
from training.train import task_class
from training.world import measures
from training.world.bank import Bank, open_bank
from training.world.focal import bank_textures, iuvs, poses
from training.world.fpdm_pairs import Pairs as FPDMPairs

from .hiding import without
from .rows import Row

SOURCE, TARGET = 0, 1   # views of a bank
SHOWN = 16              # people in the picture beside the measures
POSES = 8               # of each person in the retrieval of stage 1
TIMES = range(62, 1000, 125)   # timesteps of the loss: the middles of eight equal parts
FPDM_SCALE = 1.5        # guidance on the demo's base, as the sample grids of training have it
Shown = Mapping[str, Any]


def from_pair(task: Any, bank: Bank, who: np.ndarray, _shown: Shown) -> Guidance:
    """CFLD and QEN: photo and the target's raster."""
    method = task.model.method
    rasters = cfld_rasters(bank.poses(who, _views(who, TARGET)), method.config.pose_size)[:, :method.config.pose_channels]
    source = bank.images(who, _views(who, SOURCE))
    return task.guidance(method.encode(source.to(task.device), rasters.to(task.device)))


def from_focus(task: Any, bank: Bank, who: np.ndarray, shown: Shown) -> Guidance:
    """MCLD: photo, texture map and face of the source, true DensePose of the target. shown: image, whether its tokens
    are."""
    method, data = task.model.method, task.config.data
    view = _views(who, SOURCE)
    source = bank.images(who, view)
    crops, found = face_crops(source, iuvs(bank, who, view), method.config.face_pixels)
    textures = bank_textures(bank, method.config, Path(data.cache), data.workers)
    held = {"source": source, "texture": as_input(textures[who, view]), "crops": crops, "found": found,
            "pose": poses(bank, who, _views(who, TARGET))}
    held = {name: value.to(task.device) for name, value in held.items()}
    none = None if shown.get("image", True) else torch.zeros(len(who), dtype=torch.bool, device=task.device)
    return task.guidance(task.model.encode_batch(held, None, none))


def from_fusion(task: Any, bank: Bank, who: np.ndarray, shown: Shown) -> Guidance:
    """FPDM: photo and the target's drawing. shown: fusion, whether its embedding is; tokens, whether the photo's are."""
    method = task.model.method
    pairs = [FPDMPairs.pair(bank, person, SOURCE, TARGET) for person in who]
    tensors = {name: value.to(task.device) for name, value in diffusion_tensors(pairs, method.config).items()}
    encoded = method.encode(method.encode_source(tensors["source"], tensors["clip_source"]), tensors["pose"],
                            tensors["clip_pose"])
    return method.guidance(without(encoded, shown), source=FPDM_SCALE, fusion=FPDM_SCALE)


MAKERS: Mapping[str, Callable[..., Guidance]] = {
    "cfld": from_pair, "qen": from_pair, "mcld": from_focus, "fpdm": from_fusion}


def _views(who: np.ndarray, view: int) -> np.ndarray:
    return np.full(len(who), view)


@torch.no_grad()
def made(task: Any, bank: Bank, shown: Shown, steps: int, batch: int) -> tuple[Tensor, float]:
    """One picture of each person of the bank, (N, 3, H, W) in 0..1, as an 8-bit file would hold them, and the mean squared
    error of what the UNet predicts of all conditions, without guidance, at TIMES. The noise of a person is the same for
    every row."""
    parts, errors = [], []
    for start in range(0, bank.people, batch):
        who = np.arange(start, min(start + batch, bank.people))
        guidance = MAKERS[task.config.task](task, bank, who, shown)
        own = task.model.method.noise_schedule() if task.config.task == "mcld" else None
        parts.append(task.sampled(guidance, len(who), steps, start, own).float().cpu())
        errors += prediction_errors(task, guidance, targets(task, bank, who), start)
    return quantised(torch.cat(parts)), statistics.fmean(errors)


def prediction_errors(task: Any, guidance: Guidance, z: Tensor, seed: int) -> list[float]:
    """Of latents z (B, 4, h, w), at each of TIMES, and each row of the batch: the loss of training without its weights."""
    schedule, found = task.model.schedule, []
    injected = harmonise([guidance.terms[-1].injections], len(z)).stacked()
    noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(seed)).to(z)
    for time in TIMES:
        t = torch.full((len(z),), time, device=z.device)
        made = task.model.binding(schedule.add_noise(z, noise, t), t, injected)
        found += (made.float() - schedule.target(z, noise, t)).square().flatten(1).mean(1).tolist()
    return found


def targets(task: Any, bank: Bank, who: np.ndarray) -> Tensor:
    """Latents of what is to be made, at the size that the task makes."""
    picture = bank.images(who, _views(who, TARGET)).to(task.device)
    return encode_latents(task.vae, F.avg_pool2d(picture, 2) if task.config.method.halved else picture)


@torch.no_grad()
def through_autoencoder(task: Any, bank: Bank, batch: int) -> Tensor:
    """The targets as the autoencoder gives them back, at the size that the task makes: the best that a row could do."""
    halved, parts = task.config.method.halved, []
    for start in range(0, bank.people, batch):
        who = np.arange(start, min(start + batch, bank.people))
        back = decode_latents(task.vae, targets(task, bank, who))
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

            def of(pictures: Tensor, loss: float = math.nan) -> dict[str, float]:
                perceptual = lpips_where_there(pictures, truth)
                return measures.score(pictures, bank, limit) | {
                    "lpips": math.nan if perceptual is None else float(perceptual.mean()), "loss": loss}
            ways = {way: made(self, bank, shown, steps, batch) for way, shown in {"": row.shown, **row.also}.items()}
            source = measures.pictures(bank, SOURCE)
            path.write_text(json.dumps({
                "images": images, "hidden": measures.hidden(bank), "copy": of(source), "autoencoder": of(limit),
                "measures": {way: of(*found) for way, found in ways.items()}}))
            self.seen = {"source": source, **{way or "made": found[0] for way, found in ways.items()}, "target": truth}
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
