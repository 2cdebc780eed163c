"""One pass of a training step: forward, backward, and at the end of a step the update; eagerly, or as a CUDA graph."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from training.engine.ema import Ema

EAGER_STEPS = 3   # before a graph is recorded: what is made on first use is made in them

Logs = dict[str, Tensor]


def attention_for(device: torch.device) -> contextlib.AbstractContextManager:
    """Written-out attention on a CPU, where the backward pass of the fused kernel costs three times as much."""
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else contextlib.nullcontext()


@contextlib.contextmanager
def computing(accelerator: Accelerator) -> Iterator[None]:
    """What forward passes run in: mixed precision, and attention as suits the device."""
    with accelerator.autocast(), attention_for(accelerator.device):
        yield


class Step:
    """model(batch) -> (loss, logs), backward, and the update of weights and average when `accelerator` says so."""

    def __init__(self, accelerator: Accelerator, model: nn.Module, optimiser: Any, parameters: list[nn.Parameter],
                 clip: float, ema: Ema | None) -> None:
        self.accelerator, self.model, self.optimiser = accelerator, model, optimiser
        self.parameters, self.clip, self.ema = parameters, clip, ema

    def __call__(self, batch: dict[str, Any]) -> Logs:
        """Runs a pass; returns the loss and its parts, and the norm of the gradient where it is clipped."""
        with self.accelerator.accumulate(self.model):
            with computing(self.accelerator):
                loss, logs = self.model(batch)
            with attention_for(self.accelerator.device):   # checkpointing computes forward again, as it was
                self.accelerator.backward(loss)
            if self.accelerator.sync_gradients and self.clip:
                logs["gradient"] = self.accelerator.clip_grad_norm_(self.parameters, self.clip)
            self.optimiser.step()
            self.optimiser.zero_grad()
        if self.ema and self.accelerator.sync_gradients:
            self.ema.prepare()
            self.ema.update()
        return {**logs, "loss": loss.detach()}


class RecordedStep:
    """The same as a CUDA graph, for small networks, whose steps are all launching of kernels: recorded after some eager
    steps, then replayed on new batches of the same shapes. Random numbers follow the generator's seed as eagerly.

    One process and one pass a step; raises ValueError otherwise. A step that waits for the device, or copies to it, cannot
    be recorded and raises CUDA's error.
    """

    def __init__(self, accelerator: Accelerator, model: nn.Module, optimiser: torch.optim.Optimizer,
                 parameters: list[nn.Parameter], clip: float, ema: Ema | None) -> None:
        several = accelerator.num_processes > 1 or accelerator.gradient_accumulation_steps > 1
        if accelerator.device.type != "cuda" or several or accelerator.mixed_precision == "fp16":
            raise ValueError("graphs=true records the steps of one process on a CUDA device, one pass each, in bf16 or "
                             f"float32; here are {accelerator.num_processes} on {accelerator.device}, "
                             f"{accelerator.gradient_accumulation_steps} passes, {accelerator.mixed_precision}: set "
                             "graphs=false")
        self.accelerator, self.model, self.optimiser = accelerator, model, optimiser
        self.parameters, self.clip, self.ema = parameters, clip, ema
        self.stream, self.done = torch.cuda.Stream(), 0
        self.graph: torch.cuda.CUDAGraph | None = None
        self.batch: dict[str, Any] = {}
        self.logs: Logs = {}

    def __call__(self, batch: dict[str, Any]) -> Logs:
        """As `Step`. What it returns is overwritten by the next call."""
        if self.ema:
            self.ema.prepare()
        if self.done < EAGER_STEPS:
            self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):
                logs = self._run(batch)
            torch.cuda.current_stream().wait_stream(self.stream)
            self.done += 1
            return logs
        if self.graph is None:
            self._record(batch)
        else:
            for name, value in self.batch.items():
                value.copy_(batch[name], non_blocking=True)
        self.graph.replay()
        return self.logs

    def _record(self, batch: dict[str, Any]) -> None:
        self.batch = {name: value.clone() for name, value in batch.items()}
        self.graph = torch.cuda.CUDAGraph()
        # thread_local: the loader's thread goes on pinning memory meanwhile, which the default forbids
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
            self.logs = self._run(self.batch)

    def _run(self, batch: dict[str, Any]) -> Logs:
        self.optimiser.zero_grad(set_to_none=True)
        with torch.autocast("cuda", torch.bfloat16, enabled=self.accelerator.mixed_precision == "bf16", cache_enabled=False):
            loss, logs = self.model(batch)
        loss.backward()
        if self.clip:
            logs["gradient"] = nn.utils.clip_grad_norm_(self.parameters, self.clip)
        self.optimiser.step()
        if self.ema:
            self.ema.update()
        return {**{name: value.detach() for name, value in logs.items()}, "loss": loss.detach()}


def make_step(accelerator: Accelerator, model: nn.Module, optimiser: Any, parameters: list[nn.Parameter], clip: float,
              ema: Ema | None, graphs: bool) -> Callable[[dict[str, Any]], Logs]:
    """`Step`, or with graphs `RecordedStep` on the bare model and optimiser."""
    if not graphs or accelerator.device.type != "cuda":
        return Step(accelerator, model, optimiser, parameters, clip, ema)
    return RecordedStep(accelerator, accelerator.unwrap_model(model, keep_fp32_wrapper=False), optimiser.optimizer,
                        parameters, clip, ema)
