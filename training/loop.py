"""The training loop that every task shares: accelerate, EMA, progress, TensorBoard, sample grids, resume.

Length is counted in target images. Every step reseeds from (seed, rank, images seen), so a run that was interrupted
and resumed sees the same batches, noise and drops as one that was not.
"""

from __future__ import annotations

import math
import shutil
import time
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from diffusers.training_utils import EMAModel
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from pgpis_models.schedule import cfld_lr
from training.config import TrainConfig, as_json


class Task(Protocol):
    """What a training task gives to the loop."""

    model: nn.Module                                     # forward(batch) -> (loss, {name: scalar tensor})

    def batch(self, rng: np.random.Generator, size: int) -> dict[str, Tensor]: ...
    def grid(self) -> np.ndarray: ...                    # (H, W, 3) uint8 picture of how it looks now
    def export(self, path: Path, images: int) -> None: ...
    def groups(self, lr: float) -> list[dict[str, Any]]: ...  # optimiser parameter groups


class StepBatches(Dataset):
    """Item i is the batch of step i, a function of (seed, rank, i) alone."""

    def __init__(self, task: Task, seed: int, rank: int, size: int, first: int, steps: int) -> None:
        self.task, self.seed, self.rank, self.size, self.first, self.steps = task, seed, rank, size, first, steps

    def __len__(self) -> int:
        return self.steps - self.first

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        rng = np.random.default_rng((self.seed, self.rank, self.first + index))
        return self.task.batch(rng, self.size)


class Progress:
    """Images seen so far; saved with the state."""

    images = 0

    def state_dict(self) -> dict[str, int]:
        return {"images": self.images}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.images = state["images"]


def learning_rate(config: TrainConfig, images: int) -> float:
    """Factor of the base learning rate after `images` images."""
    if config.schedule == "cfld":
        steps = math.ceil(config.images / config.batch)
        return cfld_lr(images // config.batch, base=1.0, warmup=1000, decay_at=steps // 2)
    if images < config.warmup_images:
        return (images + config.batch) / (config.warmup_images + config.batch)
    left = (config.images - images) / max(1.0, config.decay_share * config.images)
    return min(1.0, max(0.0, left))


def precision(config: TrainConfig) -> str:
    """Mixed precision to ask accelerate for."""
    if config.precision != "auto":
        return config.precision
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    return "bf16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "no"


def run(config: TrainConfig, make_task) -> Path:
    """Trains `make_task(config, device)` and returns the path of the exported checkpoint."""
    if config.threads:
        torch.set_num_threads(config.threads)
    folder = Path(config.output) / config.name
    accelerator = Accelerator(mixed_precision=precision(config), gradient_accumulation_steps=config.accumulate,
                              log_with="tensorboard", project_dir=str(folder))
    share = accelerator.num_processes * config.accumulate
    if config.batch % share:
        raise ValueError(f"batch {config.batch} does not divide over {accelerator.num_processes} processes and "
                         f"{config.accumulate} accumulated passes; expected a multiple of {share}")
    set_seed(config.seed)
    main = accelerator.is_main_process
    if main:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(as_json(config))
    accelerator.init_trackers("tensorboard")
    task = make_task(config, accelerator.device)
    parameters = [p for p in task.model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(task.groups(config.lr), lr=config.lr, betas=config.betas,
                                  weight_decay=config.weight_decay, fused=torch.cuda.is_available())
    base_rates = [group["lr"] for group in optimiser.param_groups]
    model, optimiser = accelerator.prepare(task.model, optimiser)
    progress = Progress()
    accelerator.register_for_checkpointing(progress)
    ema = EMAModel(parameters, decay=config.ema) if config.ema else None
    if ema:
        accelerator.register_for_checkpointing(ema)
    newest = _newest_state(folder) if config.resume else None
    if newest:
        accelerator.load_state(str(newest))
        accelerator.print(f"resumed {newest} at {progress.images:,} images")
    if ema:
        ema.to(accelerator.device)

    steps = math.ceil(config.images / config.batch)
    data = StepBatches(task, config.seed, accelerator.process_index, config.batch // share,
                       progress.images // config.batch * config.accumulate, steps * config.accumulate)
    workers = getattr(task, "loader_workers", 0)
    loader = DataLoader(data, batch_size=None, num_workers=workers, persistent_workers=workers > 0)
    bar = tqdm(total=config.images, initial=progress.images, unit="img", unit_scale=True, disable=not main,
               desc=config.name, smoothing=0.05, mininterval=2)
    began, first = time.monotonic(), progress.images
    model.train()
    for batch in loader:
        set_seed(hash_seed(config.seed, accelerator.process_index, progress.images))
        batch = {k: v.to(accelerator.device, non_blocking=True) for k, v in batch.items()}
        with accelerator.accumulate(model):
            with accelerator.autocast():
                loss, logs = model(batch)
            accelerator.backward(loss)
            if accelerator.sync_gradients and config.clip:
                logs["gradient"] = accelerator.clip_grad_norm_(parameters, config.clip)
            for group, rate in zip(optimiser.param_groups, base_rates):
                group["lr"] = rate * learning_rate(config, progress.images)
            optimiser.step()
            optimiser.zero_grad()
        if not accelerator.sync_gradients:
            continue
        if ema:
            ema.step(parameters)
        before, progress.images = progress.images, progress.images + config.batch
        if main:
            bar.update(config.batch)
        if (progress.images // config.batch) % config.log_every == 0:
            values = {name: float(value) for name, value in logs.items()} | {"loss": float(loss)}
            if not math.isfinite(values["loss"]):
                raise FloatingPointError(f"the loss became {values['loss']} after {progress.images:,} images; the last "
                                         f"state in {folder} is intact: resume with a lower lr or precision=no")
            bar.set_postfix({k: f"{v:.4f}" for k, v in values.items()})
            rate = (progress.images - first) / (time.monotonic() - began)
            accelerator.log(values | {"images_per_second": rate,
                                      "lr": optimiser.param_groups[0]["lr"]}, step=progress.images)
        if _passed(before, progress.images, config.save_every):
            _save_state(accelerator, folder, progress.images)
        if _passed(before, progress.images, config.sample_every) and main:
            with averaged(ema, parameters):
                _show(accelerator, task, model, folder, progress.images)
    bar.close()
    _save_state(accelerator, folder, progress.images)
    path = Path(config.export or folder / f"{config.name}.safetensors")
    if main:
        with averaged(ema, parameters):
            _show(accelerator, task, model, folder, progress.images)
            path.parent.mkdir(parents=True, exist_ok=True)
            task.export(path, progress.images)
        accelerator.print(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB)")
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return path


def hash_seed(*numbers: int) -> int:
    """One 32-bit seed from several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


class averaged:  # noqa: N801 - reads as a word in `with averaged(...)`
    """Within the block the parameters hold their running average."""

    def __init__(self, ema: EMAModel | None, parameters: list[nn.Parameter]) -> None:
        self.ema, self.parameters = ema, parameters

    def __enter__(self) -> None:
        if self.ema:
            self.ema.store(self.parameters)
            self.ema.copy_to(self.parameters)

    def __exit__(self, *_error: object) -> None:
        if self.ema:
            self.ema.restore(self.parameters)


def _passed(before: int, now: int, every: int) -> bool:
    return bool(every) and before // every != now // every


def _show(accelerator: Accelerator, task: Task, model: nn.Module, folder: Path, images: int) -> None:
    """Writes the sample grid and sends it to TensorBoard."""
    model.eval()
    with torch.no_grad():
        picture = task.grid()
    model.train()
    (folder / "samples").mkdir(exist_ok=True)
    Image.fromarray(picture).save(folder / "samples" / f"{images:09d}.png")
    for tracker in accelerator.trackers:
        tracker.writer.add_image("samples", picture, images, dataformats="HWC")


def _newest_state(folder: Path) -> Path | None:
    states = sorted(folder.glob("state-*"), key=lambda p: p.name)
    return next((state for state in reversed(states) if not state.name.endswith(".part")), None)


def _save_state(accelerator: Accelerator, folder: Path, images: int) -> None:
    """Saves a resumable state; a half-written one never carries the final name. Keeps the newest two."""
    final = folder / f"state-{images:010d}"
    part = folder / f"{final.name}.part"
    if accelerator.is_main_process and part.exists():
        shutil.rmtree(part)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(part))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        if final.exists():
            shutil.rmtree(final)
        part.rename(final)
        for old in sorted(p for p in folder.glob("state-*") if p.name != final.name)[:-1]:
            shutil.rmtree(old)
