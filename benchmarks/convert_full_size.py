"""Time and memory of converting and loading CFLD at full size, on random weights in the published layout.

    python benchmarks/convert_full_size.py [--folder DIR] [--json FILE]

Needs about 11 GB of disk in the folder, which are freed at the end, and 4 GB of memory. Every stage runs in a process
of its own. Peak memory is given twice: resident (with pages of mapped files, which the system may drop at any time)
and private (what the process really claims). "cold" stages read from the disk, "warm" ones from the page cache.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import safetensors  # noqa: E402
import torch  # noqa: E402

from pgpis_models.cfld.convert import convert, published_layout  # noqa: E402
from pgpis_models.checkpoint import load_checkpoint, read_metadata  # noqa: E402
from pgpis_models.unet.weights import open_safetensors  # noqa: E402

MIB = 2 ** 20


def write_published(folder: Path) -> None:
    """The two published files with random weights, one after the other to keep memory low."""
    layout = published_layout()
    generator = torch.Generator().manual_seed(0)

    def random(shapes: dict, prefix: str = "") -> dict[str, torch.Tensor]:
        return {prefix + key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}

    buffers = {key: torch.zeros(shape, dtype=torch.float32 if key.endswith("mask") else torch.int64)
               for key, shape in layout.buffers.items()}
    torch.save(random(layout.parameters) | buffers, folder / "pytorch_model.bin")
    torch.save(random(layout.unet, "model."), folder / "pytorch_model_1.bin")


def verify(folder: Path) -> None:
    """Raises AssertionError unless every stored weight equals the published one bit for bit."""
    published = torch.load(folder / "pytorch_model.bin", weights_only=True, mmap=True)
    published |= torch.load(folder / "pytorch_model_1.bin", weights_only=True, mmap=True)
    layout = published_layout()
    with open_safetensors(folder / "all.safetensors") as file:
        assert len(file.keys()) == len(layout.parameters) + len(layout.unet)
        for key in file.keys():
            theirs = published[key.removeprefix("method.").replace("unet.", "model.", 1)]
            assert torch.equal(file.get_tensor(key), theirs), key


def read_all(folder: Path) -> None:
    """Loads and looks at every weight."""
    checkpoint = load_checkpoint(folder / "k_v.safetensors")
    for value in (*checkpoint.method.parameters(), *checkpoint.unet_weights.values()):
        value.sum()


def inputs(folder: Path) -> list[Path]:
    return [folder / "pytorch_model.bin", folder / "pytorch_model_1.bin"]


# name -> (what it does in the folder, files that are dropped from the page cache first)
STAGES: dict[str, tuple[Callable[[Path], Any], tuple[str, ...]]] = {
    "import only": (lambda folder: None, ()),
    "convert, cold": (lambda folder: convert(inputs(folder), folder / "k_v.safetensors"), ("*.bin",)),
    "convert --all-unet, cold": (lambda folder: convert(inputs(folder), folder / "all.safetensors", all_unet=True),
                                 ("*.bin",)),
    "convert --half, warm": (lambda folder: convert(inputs(folder), folder / "half.safetensors",
                                                    dtype=torch.float16), ()),
    "read_metadata, cold": (lambda folder: read_metadata(folder / "k_v.safetensors"), ("k_v*",)),
    "load, cold": (lambda folder: load_checkpoint(folder / "k_v.safetensors"), ("k_v*",)),
    "load and read every weight, cold": (read_all, ("k_v*",)),
    "load and read every weight, warm": (read_all, ()),
    "load --half file as float32, warm": (lambda folder: load_checkpoint(folder / "half.safetensors"), ()),
    "load --all-unet file, cold": (lambda folder: load_checkpoint(folder / "all.safetensors"), ("all*",)),
}


def private_bytes() -> int:
    """Anonymous memory of this process, 0 where the system does not tell."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:")), 0)


def measured(name: str, folder: Path, results: Any) -> None:
    """Runs one stage in this process and puts (seconds, peak resident, peak private) or the error in the queue."""
    torch.set_num_threads(1)
    peak, stop = private_bytes(), threading.Event()

    def watch() -> None:
        nonlocal peak
        while not stop.wait(0.02):
            peak = max(peak, private_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    kept = STAGES[name][0](folder)
    seconds = time.perf_counter() - start
    stop.set()
    watcher.join()
    peak = max(peak, private_bytes())
    del kept
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    results.put((seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, peak))


def in_own_process(target: Callable, *arguments: Any) -> None:
    process = multiprocessing.get_context("spawn").Process(target=target, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{target.__name__}{arguments} failed with exit code {process.exitcode}")


def drop_from_cache(paths: list[Path]) -> None:
    """Asks the system to forget the files' pages."""
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where the files are written")
    parser.add_argument("--json", type=Path, help="write the rows there")
    chosen = parser.parse_args()
    layout = published_layout()
    count = sum(torch.Size(s).numel() for shapes in (layout.parameters, layout.unet) for s in shapes.values())
    settings = {"parameters": count, "threads": 1, "device": "cpu"}
    versions = {"python": platform.python_version(), "torch": torch.__version__, "safetensors": safetensors.__version__}
    rows = []

    def row(name: str, value: float, unit: str) -> None:
        rows.append({"name": name, "value": round(value, 4), "unit": unit, "settings": settings, "versions": versions})

    print(f"{'stage':36} {'s':>8} {'peak resident MiB':>18} {'peak private MiB':>17}")
    with tempfile.TemporaryDirectory(dir=chosen.folder) as name:
        folder = Path(name)
        in_own_process(write_published, folder)
        for stage, (_, dropped) in STAGES.items():
            drop_from_cache([path for pattern in dropped for path in folder.glob(pattern)])
            results = multiprocessing.get_context("spawn").SimpleQueue()
            in_own_process(measured, stage, folder, results)
            seconds, resident, private = results.get()
            print(f"{stage:36} {seconds:8.2f} {resident / MIB:18.0f} {private / MIB:17.0f}", flush=True)
            row(f"{stage}: time", seconds, "s")
            row(f"{stage}: peak resident", resident / MIB, "MiB")
            row(f"{stage}: peak private", private / MIB, "MiB")
        in_own_process(verify, folder)
        print("every stored weight equals the published one bit for bit")
        for path in sorted(folder.iterdir()):
            print(f"{path.name:36} {path.stat().st_size / MIB:8.0f} MiB")
            row(f"{path.name}: size", path.stat().st_size / MIB, "MiB")
    if chosen.json:
        chosen.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
