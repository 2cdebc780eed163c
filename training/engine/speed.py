"""What a run says of its speed: images/s, share of the device's peak (MFU), peak memory, time left."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator

import torch
from torch.utils.flop_counter import FlopCounterMode

# Dense bf16 and fp16 peak of devices, FLOP/s, by a part of their names; the longest name that fits counts.
PEAKS = {"H100": 989e12, "H200": 989e12, "GH200": 989e12, "H100 PCIe": 756e12, "A100": 312e12, "RTX 4090": 165e12}
GIB = 2 ** 30


def peak_of(name: str) -> float | None:
    """Peak of a device in bf16, FLOP/s; None where the table lacks it."""
    fitting = [part for part in PEAKS if part in name]
    return PEAKS[max(fitting, key=len)] if fitting else None


class Speed:
    """Figures of a run from `first` images to `total`.

    precision: mixed precision as accelerate names it. processes: how many share the work, each on a device of this kind.
    """

    def __init__(self, device: torch.device, precision: str, total: int, first: int, processes: int = 1) -> None:
        self.device, self.total, self.first, self.processes = device, total, first, processes
        half = device.type == "cuda" and precision in ("bf16", "fp16")   # the table's peaks are of these
        self.peak = peak_of(torch.cuda.get_device_name(device)) if half else None
        self.work = 0.0    # FLOPs of an image
        self.began = self.looked = time.monotonic()
        self.images = first

    @contextlib.contextmanager
    def counting(self, images: int) -> Iterator[None]:
        """Around a pass over `images` images: the first one's FLOPs are counted, forward and backward (and what
        checkpointing computes again), where a peak is known to hold them against."""
        if self.work or not self.peak:
            yield
            return
        with FlopCounterMode(display=False) as counter:
            yield
        self.work = counter.get_total_flops() / images

    def figures(self, images: int) -> dict[str, float]:
        """After so many images, by name: images_per_second since it was asked last, minutes_left at the run's own mean, and
        where they are known mfu (share, 0..1) and peak_gib, of the device or of the process on a CPU."""
        now = time.monotonic()
        rate = (images - self.images) / max(now - self.looked, 1e-9)
        mean = (images - self.first) / max(now - self.began, 1e-9)
        self.looked, self.images = now, images
        found = {"images_per_second": rate, "minutes_left": max(0, self.total - images) / max(mean, 1e-9) / 60}
        if self.work and self.peak:
            found["mfu"] = rate * self.work / self.processes / self.peak
        if (peak := peak_memory(self.device)) is not None:
            found["peak_gib"] = peak
        return found


def peak_memory(device: torch.device) -> float | None:
    """GiB that were allocated on a GPU at most, or that the process took on a CPU; None where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / GIB
    try:
        import resource
    except ImportError:   # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / GIB


def in_words(figures: dict[str, float]) -> dict[str, str]:
    """What the progress bar, which has images/s and time left itself, says beside the loss."""
    units = {"mfu": lambda value: f"{value:.0%}", "peak_gib": lambda value: f"{value:.1f}GiB"}
    return {name.removesuffix("_gib"): units[name](figures[name]) for name in units if name in figures}
