"""Texture maps: what a photo and its DensePose become, on the CPU, where the pack makes them."""

from __future__ import annotations

import importlib.util
import platform
import time
from pathlib import Path

import numpy as np

from .timing import Report

ROUNDS = 5


def scene(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The picture of benchmarks/texture.py: photo (H, W, 3) and DensePose (part, U, V)."""
    path = Path(__file__).resolve().parents[1] / "texture.py"
    spec = importlib.util.spec_from_file_location("pgpis_texture_benchmark", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.scene(size)


def measure(report: Report, size: tuple[int, int], batch: int, mode: str, layout: str, rounds: int) -> None:
    """Milliseconds per picture of `batch` pictures in one call."""
    from pgpis_models.surface.densepose import IUV
    from pgpis_models.surface.texture import warp
    photo, picture = scene(size)
    photos, iuvs = np.stack([photo] * batch), [IUV.from_picture(picture)] * batch
    taken = []
    for number in range(rounds + 1):   # the first loads tables
        start = time.perf_counter()
        warp(photos, iuvs, layout, mode)
        taken += [time.perf_counter() - start] if number else []
    report.add("texture", f"{size[0]}x{size[1]} b{batch} {layout}", mode, sorted(taken)[len(taken) // 2] / batch * 1e3, "ms",
               size=list(size), batch=batch, layout=layout, mode=mode, runs_on="CPU",
               cpu=platform.processor() or platform.machine())


def run(report: Report, size: tuple[int, int], tiny: bool) -> None:
    """Both ways of filling holes, one picture and four. The pack has no GPU path for them, so the figures are the CPU's."""
    from pgpis_models.surface.layout import have_smpl
    for layout in ("atlas", "smpl") if have_smpl() and not tiny else ("atlas",):
        for batch in (1,) if tiny else (1, 4):
            for mode in ("fast", "exact"):
                report.unit("texture", f"{layout} {mode} b{batch}", lambda: measure(
                    report, size, batch, mode, layout, 1 if tiny else ROUNDS))   # noqa: B023
