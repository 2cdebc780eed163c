"""What a step makes host and device wait for: copies between them, and calls that return only when the device is done."""

from __future__ import annotations

import collections
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from pgpis_models.unet.diffusers_binding import DiffusersBinding

from .models import Size, bundle
from .sampling import sampler
from .timing import Report, wait
from .training import accelerator_for, build

RANGE = "pgpis_step"
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
COUNTED = {   # figure -> does an event of this name count?
    "host to device": lambda name: name.startswith("Memcpy HtoD"),
    "device to host": lambda name: name.startswith("Memcpy DtoH"),
    "cudaMemcpy calls": lambda name: name.startswith("cudaMemcpy"),
    "waits": lambda name: name in WAITS,
    "aten::item": lambda name: name == "aten::item",
    "aten::_local_scalar_dense": lambda name: name == "aten::_local_scalar_dense",
    "kernels": lambda name: name.startswith(("cudaLaunchKernel", "cuLaunchKernel")),
}
SHOWN = 8


def counts(call: Callable[[], Any], device: torch.device, warm: int) -> dict[str, int]:
    """Events within one call, after `warm` others. The profiler's own wait at its end is outside."""
    for _ in range(warm):
        call()
    wait(device)
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
    with profile(activities=activities) as found:
        with record_function(RANGE):
            call()
        wait(device)
    events = list(recorded(found))
    start, end = next(((start, end) for name, on_host, start, end in events if name == RANGE and on_host), (0, float("inf")))
    result = dict.fromkeys(COUNTED, 0)
    for name, on_host, began, _ in events:
        if on_host and not start <= began <= end:
            continue
        for what, fits in COUNTED.items():
            result[what] += bool(fits(name))
    return result


def recorded(found: profile) -> Iterator[tuple[str, bool, float, float]]:
    """(name, whether on the host, start, end) of every event. As the profiler keeps them where that can be had: putting them
    together as its public form does takes many times as long as the step."""
    host = torch.autograd.DeviceType.CPU
    try:
        for event in found.profiler.kineto_results.events():
            yield event.name(), event.device_type() == host, event.start_ns(), event.start_ns() + event.duration_ns()
    except AttributeError:
        for event in found.events():
            yield event.name, event.device_type == host, event.time_range.start, event.time_range.end


def waiting_lines(call: Callable[[], Any], device: torch.device) -> list[str]:
    """Where a call waits for the device, as 'file:line xN', by PyTorch's own warnings; empty on a CPU."""
    if device.type != "cuda":
        return []
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            call()
        finally:
            torch.cuda.set_sync_debug_mode(before)
    lines = collections.Counter(f"{Path(one.filename).parent.name}/{Path(one.filename).name}:{one.lineno}" for one in said
                                if "synchroniz" in str(one.message))
    return [f"{line} x{count}" for line, count in lines.most_common(SHOWN)]


def add(report: Report, case: str, call: Callable[[], Any], **settings: Any) -> None:
    """The rows of one step."""
    on_gpu = report.device.type == "cuda"
    found = counts(call, report.device, 2 if on_gpu else 0)
    if on_gpu and not found["kernels"]:   # then copies are not seen either, and zeros would be taken for good news
        raise RuntimeError("the profiler saw no kernel start; expected some: it may not be allowed to watch this device")
    where = waiting_lines(call, report.device)
    for what, count in found.items():
        report.add("profile", case, what, count, "events", where=where, **settings)
    if where:
        print(f"profile   {case} waits at {', '.join(where)}", flush=True)


@torch.no_grad()
def sampling_step(report: Report, name: str, size: Size, dtype: torch.dtype, tiny: bool) -> None:
    """One step of a sampler, everything encoded before."""
    found = bundle(name, size, report.device, dtype, tiny)
    binding = DiffusersBinding(found.unet)
    try:
        one = sampler(found, binding, 2)
        x = one.x()
        add(report, f"{name} model call", lambda: one.denoise(x, 500), method=name, size=list(size))
        add(report, f"{name} sampling step", lambda: one.step(x), method=name, size=list(size))
    finally:
        binding.release()


def training_step(report: Report, name: str, tiny: bool) -> None:
    """One step of the training loop, its batch on the device before."""
    accelerator = accelerator_for(report.device)
    trainer = build(name, 2, report.device, tiny, accelerator)
    try:
        batch = trainer.batch(True)
        add(report, f"{name} training step", lambda: trainer.step(batch), method=name, size=list(trainer.size))
    finally:
        accelerator.free_memory()


def run(report: Report, methods: tuple[str, ...], size: Size, dtype: torch.dtype, tiny: bool) -> None:
    """Both steps of every method."""
    for name in methods:
        report.unit("profile", f"{name} sampling", lambda: sampling_step(report, name, size, dtype, tiny))   # noqa: B023
        report.unit("profile", f"{name} training", lambda: training_step(report, name, tiny))                # noqa: B023
