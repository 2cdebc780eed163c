"""The training loop that every task shares: accelerate, EMA, progress, TensorBoard, sample grids, resume.

Length is counted in target images. Every forward pass reseeds from (seed, images seen, pass), so a run that was interrupted
and resumed sees the same batches, noise and drops as one that was not; and so does one on several processes (shares.py).
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import get_int_from_env, set_seed
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from training.engine.config import TrainConfig, as_json
from training.engine.ema import Ema
from training.engine.measures import Batch, hash_seed, in_words, measure
from training.engine.rates import learning_rate
from training.engine.resuming import check_resume
from training.engine.shares import WHOLE, GlobalDraws, Share, rows_of
from training.engine.speed import Speed
from training.engine.speed import in_words as speed_in_words
from training.engine.states import States, images_of, whole_states
from training.engine.step import computing, make_step
from training.engine.stopping import StopRequest
from training.engine.unreadable import taken


class Task(Protocol):
    """What a training task gives to the loop. grid, export and groups use the bare modules, never a wrapped one."""

    model: nn.Module                                     # forward(batch) -> (loss, {name: scalar tensor})
    batch: Batch                                         # (rng, images) -> CPU tensors; picklable where there are workers.
                                                         # Of several processes: (rng, images of all, Share)
    unseen: Batch                                        # the same of people or photos that are never trained on
    loader_workers: int                                  # processes that make batches; 0: the training process itself

    def grid(self) -> np.ndarray: ...                    # (H, W, 3) uint8 picture of how it looks now
    def export(self, path: Path, images: int) -> None: ...
    def groups(self, lr: float) -> list[dict[str, Any]]: ...  # optimiser parameter groups


UNREADABLE = "unreadable"   # of a batch: photos that it met, with why, where it met any
AGREE = 10   # steps between which processes tell each other whether to stop or save


class StepBatches(Dataset):
    """Item i is the share of the batch of forward pass first + i, which is a function of (seed, first + i) alone. size: of
    the batch of all processes."""

    def __init__(self, batch: Batch, seed: int, share: Share, size: int, first: int, passes: int) -> None:
        self.batch, self.seed, self.share, self.size, self.first, self.passes = batch, seed, share, size, first, passes

    def __len__(self) -> int:
        return max(0, self.passes - self.first)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        own = () if self.share == WHOLE else (self.share,)
        made = self.batch(np.random.default_rng((self.seed, 0, self.first + index)), self.size, *own)
        unreadable = taken()
        return made | {UNREADABLE: unreadable} if unreadable else made


class Progress:
    """Images seen so far; saved with the state."""

    images = 0

    def state_dict(self) -> dict[str, int]:
        return {"images": self.images}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.images = state["images"]


def precision(config: TrainConfig) -> str:
    """Mixed precision to ask accelerate for."""
    if config.precision != "auto":
        return config.precision
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    fast = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()   # Macs are without it
    return "bf16" if fast else "no"


def run(config: TrainConfig, make_task: Callable[[TrainConfig, torch.device], Task]) -> Path:
    """Trains `make_task(config, device)` and returns the path of the exported checkpoint.

    SIGTERM and Ctrl+C save a state and end with SystemExit, which says so. Raises ValueError when the batch does not divide
    over processes and passes, for several processes that do not become one run, and for a state that was trained with
    settings that change what is learned; FloatingPointError when loss or weights stop being finite; the last state on disk
    is then intact.
    """
    with StopRequest() as stop:
        return _run(config, make_task, stop)


def _run(config: TrainConfig, make_task: Callable[[TrainConfig, torch.device], Task], stop: StopRequest) -> Path:
    if config.threads:
        torch.set_num_threads(config.threads)
    folder = Path(config.output) / config.name
    launched = get_int_from_env(["WORLD_SIZE"], 1)   # as torchrun and accelerate launch say
    together = launched > 1 and get_int_from_env(["LOCAL_RANK"], -1) >= 0
    accelerator = Accelerator(mixed_precision=precision(config), gradient_accumulation_steps=config.accumulate,
                              cpu=together and not torch.cuda.is_available(),   # else each would train alone there
                              log_with="tensorboard", project_dir=str(folder))
    if launched != accelerator.num_processes:
        raise ValueError(f"{launched} processes were launched, but each would train alone, in one folder. Start it with "
                         "torchrun or accelerate launch, on as many GPUs as processes or on none, or as one process")
    share = Share(accelerator.process_index, accelerator.num_processes)
    parts = share.count * config.accumulate
    if config.batch % parts:
        raise ValueError(f"batch {config.batch} does not divide over {accelerator.num_processes} processes and "
                         f"{config.accumulate} accumulated passes; expected a multiple of {parts}")
    set_seed(config.seed)
    if accelerator.device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32 where autocast leaves float32, as in the authors' code
    main = accelerator.is_main_process
    newest = next(reversed(whole_states(folder)), None) if config.resume else None
    if newest:   # before data is read
        check_resume(newest, as_json(config), config.resume_changed)
    if main:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(as_json(config))
    # curves of steps after the state that it goes on from are hidden: they come again
    accelerator.init_trackers("tensorboard", init_kwargs={
        "tensorboard": {"purge_step": images_of(newest) + 1 if newest else 0}})
    with accelerator.local_main_process_first():  # one process draws or encodes what is cached, the others find it
        task = make_task(config, accelerator.device)
    if config.channels_last:
        task.model.to(memory_format=torch.channels_last)
    parameters = [p for p in task.model.parameters() if p.requires_grad]
    recorded = config.graphs and accelerator.device.type == "cuda"
    optimiser = torch.optim.AdamW(task.groups(config.lr), lr=config.lr, betas=config.betas,
                                  weight_decay=config.weight_decay, fused=accelerator.device.type in ("cuda", "cpu"),
                                  capturable=recorded)
    base_rates = [group["lr"] for group in optimiser.param_groups]
    model, optimiser = accelerator.prepare(task.model, optimiser)
    progress = Progress()
    accelerator.register_for_checkpointing(progress)
    ema = Ema(parameters, config.ema) if config.ema else None
    if ema:
        accelerator.register_for_checkpointing(ema)
    states = States(accelerator, folder, parameters, as_json(config))
    if config.resume and (state := states.load_newest()):
        accelerator.print(f"resumed {state} at {progress.images:,} images")
    elif left := states.whole():
        accelerator.print(f"resume=false: starting afresh; the first state saved replaces {left[-1]}")
    if recorded:   # a graph reads the rate from where it lay when it was recorded
        for group in optimiser.param_groups:
            group["lr"] = torch.zeros((), device=accelerator.device)
    step = make_step(accelerator, model, optimiser, parameters, config.clip, ema, recorded)

    steps = math.ceil(config.images / config.batch)
    data = StepBatches(task.batch, config.seed, share, config.batch // config.accumulate,
                       progress.images // config.batch * config.accumulate, steps * config.accumulate)
    loader = DataLoader(data, batch_size=None, num_workers=task.loader_workers,  # batches of photos are large: one each
                        prefetch_factor=1 if task.loader_workers else None, pin_memory=accelerator.device.type == "cuda")
    bar = tqdm(total=config.images, initial=progress.images, unit="img", unit_scale=True, disable=not main,
               desc=config.name, smoothing=0.05, mininterval=2)
    speed = Speed(accelerator.device, accelerator.mixed_precision, config.images, progress.images, accelerator.num_processes)
    shown = -1
    clock = SaveClock(config.save_minutes)

    def show() -> None:
        """Grid and measures of the weights as they are."""
        measured = measure(accelerator, task.model, {"held_out": task.unseen, "trained_on": task.batch},
                           config.batch // parts, config.seed, partial(computing, accelerator))
        if main:
            bar.write(in_words(measured, progress.images))
            accelerator.log(measured, step=progress.images)
            (folder / "measures.json").write_text(json.dumps({"images": progress.images, **measured}))
            _show(accelerator, task, model, folder, progress.images)
    model.train()
    unreadable: list[str] = []   # photos and why
    for index, batch in enumerate(loader):
        set_seed(hash_seed(config.seed, 0, progress.images, index % config.accumulate))
        for photo in batch.pop(UNREADABLE, []):
            if photo not in unreadable:
                bar.write(f"the next pair is taken instead: {photo}")
                unreadable.append(photo)
        batch = {k: v.to(accelerator.device, non_blocking=True) for k, v in batch.items()}
        for group, rate in zip(optimiser.param_groups, base_rates, strict=True):
            now = rate * learning_rate(config, progress.images)
            group["lr"] = group["lr"].fill_(now) if recorded else now
        drawing = contextlib.nullcontext() if share == WHOLE else GlobalDraws(share, rows_of(batch))
        with drawing, speed.counting(config.batch // parts):
            logs = step(batch)
        if (index + 1) % config.accumulate:
            continue
        before, progress.images = progress.images, progress.images + config.batch
        if main:
            bar.update(config.batch)
        if (progress.images // config.batch) % config.log_every == 0:
            values = {name: float(accelerator.reduce(value.detach().float(), "mean"))
                      for name, value in logs.items()}
            if not math.isfinite(values["loss"]):
                raise FloatingPointError(f"the loss became {values['loss']} after {progress.images:,} images; "
                                         f"{states.advice()}")
            figures = speed.figures(progress.images)
            bar.set_postfix({k: f"{v:.4f}" for k, v in values.items()} | speed_in_words(figures))
            accelerator.log(values | figures | {"lr": float(optimiser.param_groups[0]["lr"])}, step=progress.images)
        asked, due = _agreed(accelerator, progress.images // config.batch, bool(stop.asked), clock.due())
        if due or _passed(before, progress.images, config.save_every):
            states.save(progress.images)
            clock.start()
        if asked:
            bar.close()
            states.save(progress.images)
            raise SystemExit(f"{stop.asked or 'a signal to another process'}: stopped after {progress.images:,} images, "
                             f"whose state is saved below {folder}; the same command goes on from there")
        if _passed(before, progress.images, config.sample_every):
            shown = progress.images
            with ema or contextlib.nullcontext():
                show()
    bar.close()
    states.save(progress.images)
    path = Path(config.export or folder / f"{config.name}.safetensors")
    with ema or contextlib.nullcontext():
        if main:   # first of all: a photo that cannot be read while measuring takes nothing away
            path.parent.mkdir(parents=True, exist_ok=True)
            task.export(path, progress.images)
        if shown != progress.images:
            show()
    if main:
        accelerator.print(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB)")
    unreadable += [photo for photo in taken() if photo not in unreadable]   # met while measuring
    if unreadable:
        print(f"{len(unreadable)} photos could not be read, and other pairs were drawn in place of theirs; get them anew: "
              f"{'; '.join(unreadable[:10])}{'; ...' if len(unreadable) > 10 else ''}")
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return path


class SaveClock:
    """`due` when `minutes` have gone by since `start`; never with 0."""

    def __init__(self, minutes: float) -> None:
        self.minutes = minutes
        self.start()

    def start(self) -> None:
        self.began = time.monotonic()

    def due(self) -> bool:
        return bool(self.minutes) and time.monotonic() - self.began >= 60 * self.minutes


def _agreed(accelerator: Accelerator, step: int, *asked: bool) -> list[bool]:
    """For each question whether any process says yes: all must save together. Of several processes asked every AGREE steps,
    since that waits for the device; no in between."""
    if accelerator.num_processes == 1:
        return list(asked)
    if step % AGREE:
        return [False] * len(asked)
    votes = torch.tensor(asked, dtype=torch.float32, device=accelerator.device)
    return (accelerator.reduce(votes, "sum") > 0).tolist()


def _passed(before: int, now: int, every: int) -> bool:
    return bool(every) and before // every != now // every


def _show(accelerator: Accelerator, task: Task, model: nn.Module, folder: Path, images: int) -> None:
    """Writes the sample grid and sends it to TensorBoard."""
    model.train(False)
    with torch.no_grad():
        picture = task.grid()
    model.train()
    (folder / "samples").mkdir(exist_ok=True)
    Image.fromarray(picture).save(folder / "samples" / f"{images:09d}.png")
    for tracker in accelerator.trackers:
        tracker.writer.add_image("samples", picture, images, dataformats="HWC")
