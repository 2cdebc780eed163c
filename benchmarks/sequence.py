"""A sequence of frames of one person against as many single pictures: time in the UNet, and memory.

    python benchmarks/sequence.py [--json FILE] [--frames 48] [--chunk 8] [--rounds 3]

Both run through `pgpis_models.pipeline` on the demo's FPDM; a random one of its sizes stands in while there is none, since
time does not depend on the weights. Time is the process's own inside the UNet, on one thread, so that other work on the
machine does not count; sequence and single pictures take turns, and the ratio is the median over rounds. The bar is 1.05.
Memory is the peak of a process of its own for each number of frames; it may not grow with them. The exit
status is 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pgpis_models.checkpoint import save_checkpoint  # noqa: E402
from pgpis_models.fpdm.config import CONFIGS  # noqa: E402
from pgpis_models.fpdm.model import FPDM  # noqa: E402
from pgpis_models.pipeline import DEMO_FOLDER, Generator  # noqa: E402
from training.world import drawing as mannequins  # noqa: E402
from training.world.motion import walk_keypoints  # noqa: E402

BAR = 1.05            # of the sequence's UNet time over that of single pictures
GROWTH_BAR = 1.05     # of the peak memory with the most frames over that with the fewest
MEMORY_FRAMES = (48, 192, 768)   # the first few chunks fill the allocator's pools: a process of 12 frames has not


def opened(folder: Path) -> Generator:
    """The demo's FPDM, or a random one of its sizes in the folder."""
    path = DEMO_FOLDER / "demo_fpdm.safetensors"
    if not path.is_file():
        path = folder / path.name
        if not path.is_file():
            torch.manual_seed(0)
            method = FPDM(CONFIGS["demo"])
            weights = {name: 0.02 * torch.randn(shape) for name, shape in method.unet_weight_shapes().items()}
            save_checkpoint(path, method, weights, base="demo", step=0, data="none", licence="none", dtype=torch.float16)
    return Generator(path)


def frames(count: int) -> list:
    """Poses of a walk that repeats itself."""
    cycle = walk_keypoints(mannequins.sample_identity(1_000_000), 12, (128, 96))
    return [cycle[n % len(cycle)] for n in range(count)]


def unet_seconds(generator: Generator, run) -> float:
    """Processor seconds that `run()` spends inside the UNet."""
    spent, began = [0.0], [0.0]
    hooks = [generator.unet.register_forward_pre_hook(lambda *_: began.__setitem__(0, time.thread_time())),
             generator.unet.register_forward_hook(lambda *_: spent.__setitem__(0, spent[0] + time.thread_time() - began[0]))]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return spent[0]


def measure(generator: Generator, count: int, chunk: int, steps: int, rounds: int) -> list[tuple[float, float]]:
    """(sequence, single pictures) seconds of each round."""
    source, poses = torch.rand(1, 3, *generator.method.config.photo_size) * 2 - 1, frames(count)

    def together() -> None:
        for _ in generator.sequence(source, poses, chunk=chunk, steps=steps):
            pass

    def alone() -> None:
        for number, pose in enumerate(poses):
            generator(source, [pose], steps=steps, first=number)
    for _ in generator.sequence(source, poses[:chunk], chunk=chunk, steps=1):
        pass  # warms up
    result = []
    for number in range(rounds):
        sides = {"together": together, "alone": alone}
        seconds = {name: unet_seconds(generator, sides[name]) for name in sorted(sides, reverse=bool(number % 2))}
        result.append((seconds["together"], seconds["alone"]))
    return result


def peak(count: int, chunk: int, folder: Path) -> float:
    """Peak memory in MiB of a process that makes a sequence of so many frames and keeps none."""
    command = [sys.executable, __file__, "--child", str(count), "--chunk", str(chunk), "--folder", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def child(count: int, chunk: int, folder: Path) -> None:
    generator = opened(folder)
    source = torch.rand(1, 3, *generator.method.config.photo_size) * 2 - 1
    for _ in generator.sequence(source, frames(count), chunk=chunk, steps=1):
        pass
    print(peak_of_this_process())


def peak_of_this_process() -> float:
    """MiB. On Linux from the kernel's table: getrusage also counts what the process was before it became this one."""
    status = Path("/proc/self/status")
    if status.is_file():
        [line] = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> int:
    """Exit status: 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    parser.add_argument("--frames", type=int, default=48)
    parser.add_argument("--chunk", type=int, default=8, help="frames made at once")
    parser.add_argument("--steps", type=int, default=4, help="sampling steps of a frame")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each side")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.child:
        child(arguments.child, arguments.chunk, arguments.folder)
        return 0
    settings = {"frames": arguments.frames, "chunk": arguments.chunk, "steps": arguments.steps, "rounds": arguments.rounds,
                "threads": 1, "clock": "cpu time", "device": platform.processor() or platform.machine()}
    versions = {"torch": torch.__version__, "python": platform.python_version()}
    with tempfile.TemporaryDirectory(prefix="pgpis-sequence-") as folder:
        rounds = measure(opened(Path(folder)), arguments.frames, arguments.chunk, arguments.steps, arguments.rounds)
        memory = {count: peak(count, arguments.chunk, Path(folder)) for count in MEMORY_FRAMES}
    ratios = [together / alone for together, alone in rounds]
    ratio, growth = statistics.median(ratios), memory[MEMORY_FRAMES[-1]] / memory[MEMORY_FRAMES[0]]
    fast, bounded = ratio <= BAR, growth <= GROWTH_BAR
    print(f"{arguments.frames} frames, UNet seconds: sequence {statistics.median(r[0] for r in rounds):.2f}, single "
          f"pictures {statistics.median(r[1] for r in rounds):.2f}; ratio {ratio:.3f} "
          f"({min(ratios):.2f}..{max(ratios):.2f}), bar {BAR}: {'met' if fast else 'MISSED'}")
    print("peak memory, MiB: " + ", ".join(f"{count} frames {value:.0f}" for count, value in memory.items())
          + f"; growth {growth:.3f}, bar {GROWTH_BAR}: {'met' if bounded else 'MISSED'}")
    rows = [{"name": "sequence, UNet time over single pictures", "value": ratio, "unit": "ratio", "bar": BAR}]
    rows += [{"name": f"sequence of {count} frames, peak memory", "value": value, "unit": "MiB"}
             for count, value in memory.items()]
    rows.append({"name": "sequence, growth of peak memory", "value": growth, "unit": "ratio", "bar": GROWTH_BAR})
    if arguments.json:
        arguments.json.write_text(json.dumps([row | {"settings": settings, "versions": versions} for row in rows], indent=1)
                                  + "\n")
    return 0 if fast and bounded else 1


if __name__ == "__main__":
    sys.exit(main())
