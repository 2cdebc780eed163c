"""How time and memory grow with frames, size, guidance terms and batch: one picture of eight curves.

    python benchmarks/scale.py [--json FILE] [--picture docs/pictures/scale.svg] [--quick]

Networks of tiny width and random weights, on one thread of a CPU: what grows here grows the same way at full width,
except that attention, whose work grows with the square of the pixels, is a larger part of a tiny network. frames: of one
person by `Generator.sequence`, in chunks of 8, one step each. size, terms, batch: CFLD from encoders to pictures, one
step. Memory is the peak of the process while it ran, libraries and networks included, as Linux counts it. A slope is
that of the last two points: 1 is linear.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import math
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).resolve().parent
for path in (str(HERE), str(HERE.parent)):   # the script beside, and the pack
    if path not in sys.path:
        sys.path.insert(0, path)

from gpu_parts.models import ENCODE, bundle  # noqa: E402

from pgpis_models.checkpoint import save_checkpoint  # noqa: E402
from pgpis_models.noise.samplers import sample_latents  # noqa: E402
from pgpis_models.pipeline import Generator  # noqa: E402
from pgpis_models.poses.keypoints import Keypoints  # noqa: E402
from pgpis_models.qen.config import CONFIGS, QENConfig  # noqa: E402
from pgpis_models.qen.model import QEN  # noqa: E402
from pgpis_models.settings import build  # noqa: E402
from pgpis_models.unet.autoencoder import decode_latents, save_vae, tiny  # noqa: E402
from pgpis_models.unet.base import BaseSizes, save_unet  # noqa: E402
from pgpis_models.unet.diffusers_binding import DiffusersBinding  # noqa: E402

FRAMES = (1, 3, 12, 48, 192, 768)
SIZES = ((256, 176), (352, 256), (512, 352), (768, 512), (1024, 768))
TERMS = {1: ("uc_full", {"appearance": 1.0}), 2: ("uc_full", {"appearance": 2.0}),
         3: ("uc_down_full", {"pose": 2.0, "appearance": 3.0}),
         4: ("uc_down_updown_full", {"pose": 2.0, "biases": 3.0, "appearance": 4.0})}
BATCHES = (1, 2, 4, 8, 16)
STEPS, CHUNK, SEQUENCE_SIZE = 1, 8, (64, 64)
QEN_SIZES = {"image_size": SEQUENCE_SIZE, "window": (4, 4), "swin_width": 8, "swin_depths": (1, 1, 1, 1),
             "swin_heads": (1, 1, 2, 2), "fusion_depth": 1, "unet_widths": (32, 32, 32, 32), "unet_heads": 2}
BASE = BaseSizes((32, 32, 32, 32), layers_per_block=2, heads=2, cross_attention_dim=64, prediction="v_prediction",
                 caption_tokens=16)


@dataclass
class Curve:
    """What was measured over one setting. points: (the setting's value, seconds, MiB or None)."""

    name: str
    unit: str
    points: list[tuple[float, float, float | None]] = field(default_factory=list)

    def slope(self, column: int) -> float:
        """Between the last two points, on logarithmic axes."""
        (x0, *before), (x1, *after) = self.points[-2:]
        return math.log(after[column] / before[column]) / math.log(x1 / x0)


# --- measuring ----------------------------------------------------------------------------------------------

def measured(call: Callable[[], object]) -> tuple[float, float | None]:
    """Seconds, the fastest of seven calls or of fewer that take long, and the peak of the process's memory in MiB, where
    Linux says it."""
    status = Path("/proc/self/status")
    gc.collect()
    if status.is_file():
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")   # the peak is what is held now
    taken: list[float] = []
    while not taken or len(taken) < 7 and sum(taken) < 2:
        start = time.thread_time()
        call()
        taken.append(time.thread_time() - start)
    if not status.is_file():
        return min(taken), None
    [line] = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
    return min(taken), int(line.split()[1]) / 1024


@torch.no_grad()
def picture(size: tuple[int, int], terms: int, batch: int) -> Callable[[], object]:
    """One generation of CFLD, of tiny width, at a size (height, width)."""
    found = bundle("cfld", size, torch.device("cpu"), torch.float32, tiny=True)
    binding, inputs, (mode, scales) = DiffusersBinding(found.unet), found.inputs(batch), TERMS[terms]

    @torch.no_grad()
    def call() -> None:
        guidance = found.method.guidance(ENCODE["cfld"](found, inputs), mode, **scales)
        assert len(guidance.needed().terms) == terms
        latents = sample_latents(binding.denoiser(guidance, batch), found.schedule, (batch, 4, *found.latent), steps=STEPS)
        decode_latents(found.vae, latents)
    return call


def sequence(folder: Path) -> Callable[[int], Callable[[], object]]:
    """Frames of one person by a tiny QEN, none of which is kept."""
    torch.manual_seed(0)
    base, vae, checkpoint = (folder / f"{name}.safetensors" for name in ("base", "vae", "qen"))
    save_unet(base, BASE.build(), BASE, step=0, data="none")
    save_vae(vae, tiny(8), step=0, data="none")
    method = QEN(build(QENConfig, asdict(CONFIGS["demo"]) | QEN_SIZES, "model"))
    weights = {name: 0.1 * torch.randn(shape) for name, shape in method.unet_weight_shapes().items()}
    save_checkpoint(checkpoint, method, weights, base="demo", step=0, data="none", licence="none")
    generator, rng = Generator(checkpoint, base, vae), np.random.default_rng(0)
    source = torch.rand(1, 3, *SEQUENCE_SIZE) * 2 - 1
    poses = [Keypoints(rng.uniform(5, 60, (18, 2)), np.ones(18, bool), SEQUENCE_SIZE) for _ in range(CHUNK)]

    def of(count: int) -> Callable[[], object]:
        def call() -> None:
            for _ in generator.sequence(source, [poses[n % CHUNK] for n in range(count)], chunk=CHUNK, steps=1):
                pass
        return call
    return of


def curves(quick: bool) -> list[Curve]:
    """All of them; quick: their first two points, to see that they run."""
    def first(values: tuple) -> tuple:
        return values[:2] if quick else values
    with tempfile.TemporaryDirectory(prefix="pgpis-scale-") as folder:
        frames = sequence(Path(folder))
        wanted = {("frames", ""): [(count, partial(frames, count)) for count in first(FRAMES)],
                  ("guidance terms", ""): [(n, partial(picture, SIZES[0], n, 1)) for n in first(tuple(TERMS))],
                  ("pictures of a batch", ""): [(n, partial(picture, SIZES[0], 1, n)) for n in first(BATCHES)],
                  ("size", "megapixels"): [(size[0] * size[1] / 1e6, partial(picture, size, 1, 1)) for size in first(SIZES)]}
        frames(1)(), picture(SIZES[0], 1, 1)()   # warms up
        found = []
        for (name, unit), calls in wanted.items():
            found.append(Curve(name, unit))
            for value, prepare in calls:   # one at a time, so that none lies in another's memory
                seconds, memory = measured(prepare())
                print(f"{name:<20} {value:>8.3g} {unit:<10} {seconds:8.3f} s  "
                      f"{'-' if memory is None else f'{memory:8.0f} MiB'}", flush=True)
                found[-1].points.append((value, seconds, memory))
        return found


# --- the picture --------------------------------------------------------------------------------------------

PANEL, GAP, LEFT, TOP = (200, 150), (62, 70), 70, 34   # width and height of a panel, between them, and before the first


def svg(found: list[Curve]) -> str:
    """Time above, memory below, on logarithmic axes; dashed: what would be linear, through the last point."""
    rows = [("seconds", 0), ("MiB", 1)]
    width = LEFT + len(found) * (PANEL[0] + GAP[0])
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {TOP + 2 * (PANEL[1] + GAP[1])}" '
             'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>']
    for row, (unit, column) in enumerate(rows):
        for number, curve in enumerate(found):
            x, y = LEFT + number * (PANEL[0] + GAP[0]), TOP + row * (PANEL[1] + GAP[1])
            if all(point[1 + column] is not None for point in curve.points):
                parts += panel(curve, column, unit, x, y)
    return "\n".join([*parts, "</svg>"]) + "\n"


def panel(curve: Curve, column: int, unit: str, left: int, top: int) -> list[str]:
    xs, ys = [point[0] for point in curve.points], [point[1 + column] for point in curve.points]
    low, high = decades(min(ys), max(ys))

    def at(x: float, y: float) -> tuple[float, float]:
        across = math.log(x / xs[0]) / math.log(xs[-1] / xs[0])
        return left + across * PANEL[0], top + PANEL[1] * (1 - math.log(y / low) / math.log(high / low))
    parts = [f'<rect x="{left}" y="{top}" width="{PANEL[0]}" height="{PANEL[1]}" fill="none" stroke="#888"/>',
             f'<text x="{left + PANEL[0] / 2}" y="{top - 8}" text-anchor="middle">{unit}, slope at the end '
             f'{curve.slope(column):.2f}</text>',
             f'<text x="{left + PANEL[0] / 2}" y="{top + PANEL[1] + 34}" text-anchor="middle">{curve.name}'
             f'{f", {curve.unit}" if curve.unit else ""}</text>']
    for value in ticks(low, high):
        parts += [f'<line x1="{left}" x2="{left + PANEL[0]}" y1="{at(xs[0], value)[1]:.1f}" y2="{at(xs[0], value)[1]:.1f}" '
                  'stroke="#ddd"/>',
                  f'<text x="{left - 6}" y="{at(xs[0], value)[1] + 4:.1f}" text-anchor="end">{value:g}</text>']
    for value in xs:
        parts.append(f'<text x="{at(value, low)[0]:.1f}" y="{top + PANEL[1] + 16}" text-anchor="middle">{value:.2g}</text>'
                     if value < 1 or value == int(value) and value < 100 else
                     f'<text x="{at(value, low)[0]:.1f}" y="{top + PANEL[1] + 16}" text-anchor="middle">{value:.0f}</text>')
    if column == 0:   # memory holds libraries and networks too
        start = max(xs[0], xs[-1] * low / ys[-1])
        parts.append(line([at(start, ys[-1] * start / xs[-1]), at(xs[-1], ys[-1])], '#888" stroke-dasharray="4 3'))
    points = [at(x, y) for x, y in zip(xs, ys, strict=True)]
    dots = (f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="#1f6fb4"/>' for x, y in points)
    return [*parts, line(points, "#1f6fb4"), *dots]


def line(points: list[tuple[float, float]], stroke: str) -> str:
    return f'<polyline fill="none" stroke="{stroke}" stroke-width="1.5" points="' + " ".join(
        f"{x:.1f},{y:.1f}" for x, y in points) + '"/>'


def decades(low: float, high: float) -> tuple[float, float]:
    """A range of the scale 1, 2, 5, 10 that holds these values, ten times wide at least."""
    scale = [digit * 10.0 ** power for power in range(-6, 8) for digit in (1, 2, 5)]
    below = max(value for value in scale if value <= low)
    return below, max(min(value for value in scale if value >= high), 10 * below)


def ticks(low: float, high: float) -> list[float]:
    wide = high / low > 200
    return [digit * 10.0 ** power for power in range(-6, 8) for digit in ((1,) if wide else (1, 2, 5))
            if low * 0.999 <= digit * 10.0 ** power <= high * 1.001]


def main() -> None:
    """Prints the points; the slopes are what is to be read."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    parser.add_argument("--picture", type=Path, help="also write the curves to this .svg file")
    parser.add_argument("--quick", action="store_true", help="two points of each, to see that it runs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found, rows = curves(options.quick), []
    settings = {"steps": STEPS, "chunk": CHUNK, "threads": 1, "clock": "thread_time",
                "device": platform.processor() or platform.machine()}
    versions = {"torch": torch.__version__, "python": platform.python_version()}
    for curve in found:
        for value, seconds, memory in curve.points:
            rows += [{"name": f"{curve.name} {value:.3g}", "value": one, "unit": unit}
                     for one, unit in ((seconds, "s"), (memory, "MiB")) if one is not None]
        rows.append({"name": f"{curve.name}, slope of time at the end", "value": curve.slope(0), "unit": ""})
        print(f"{curve.name:<20} slope of time at the end {curve.slope(0):.2f}")
    if options.json:
        told = [row | {"settings": settings, "versions": versions} for row in rows]
        options.json.write_text(json.dumps(told, indent=1) + "\n")
    if options.picture:
        options.picture.write_text(svg(found), encoding="utf-8")


if __name__ == "__main__":
    main()
