"""The benchmark for GPUs at tiny width on a CPU: every method runs, rows are whole, what fails is said and not the end."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
gpu, timing, models = (importlib.import_module(name) for name in ("gpu", "gpu_parts.timing", "gpu_parts.models"))
METHODS = {"cfld", "mcld", "fpdm", "qen"}


def as_script(arguments, folder):
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), *arguments]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]


def as_call(arguments, folder):
    assert gpu.main(arguments) == 0


@pytest.mark.parametrize("run, arguments", [
    (as_script, ("--only", "sampling,training")),
    (as_call, ("--only", "profile,levers,texture", "--methods", "mcld,qen"))], ids=["as a script", "as a call"])
def test_it_runs_at_tiny_width(tmp_path, run, arguments):
    files = tmp_path / "rows.json", tmp_path / "table.md"
    run(["--tiny", "--device", "cpu", *arguments, "--json", str(files[0]), "--markdown", str(files[1])], tmp_path)
    rows, parts = json.loads(files[0].read_text()), arguments[1].split(",")
    assert {row["settings"]["part"] for row in rows} == set(parts)
    assert not [row for row in rows if "error" in row["settings"]] and all(row["versions"]["torch"] for row in rows)
    for row in rows:
        assert row["value"] is None and row["settings"]["skipped"] or row["value"] >= 0, row
    for part in parts:
        measures = {row["settings"]["measure"] for row in rows if row["settings"]["part"] == part}
        assert {"sampling": {"step / bare", "generation / floor"}, "training": {"speed", "work"},
                "levers": {"channels_last"}, "profile": {"aten::_local_scalar_dense"},
                "texture": {"fast", "exact"}}[part] <= measures
        assert f"## {part}" in files[1].read_text()
    seen = {row["settings"].get("method") for row in rows} - {None}
    assert seen == (METHODS if "sampling" in parts else {"mcld", "qen"})


def test_what_fails_or_takes_too_long_becomes_a_row():
    report = timing.Report(torch.device("cpu"), {}, minutes=1)

    def broken():
        raise RuntimeError("no such kernel")
    report.unit("levers", "a", broken)
    report.unit("levers", "b", lambda: report.add("levers", "b", "speed", 2.0, "x"))
    report.minutes = 0.001
    report.unit("levers", "c", lambda: time.sleep(3))
    report.unit("levers", "d", broken)
    said = {row["settings"]["case"]: row["settings"].get("error", row["settings"].get("skipped")) for row in report.rows}
    assert said["a"].startswith("RuntimeError: no such kernel (test_gpu.py:") and said["b"] is None
    assert said["c"].startswith("TimeoutError: stopped after") and "budget" in said["d"]
    table = report.table()
    assert "| b | 2 |" in table and "- a, error: RuntimeError: no such kernel" in table


def test_networks_are_filled_on_the_device_with_their_buffers_kept():
    found = models.bundle("cfld", (64, 48), torch.device("cpu"), torch.bfloat16, tiny=True)
    tensors = [*found.method.parameters(), *found.unet.parameters(), *found.vae.parameters(), *found.method.buffers()]
    assert all(not value.is_meta and bool(value.isfinite().all()) for value in tensors)
    block = found.method.backbone.layers[0].blocks[1]
    assert block.attn_mask.min() == -100 and block.attn.relative_position_index.max() > 0
    assert all(bool(value.any()) for value in found.method.parameters())   # zero convolutions too
    inputs = found.inputs(2)
    encoded = found.method.encode(inputs["source"], inputs["pose"])
    assert {tuple(bias.shape[:2]) for bias in encoded.query_bias.values()} == {(2, 48), (2, 12), (2, 4)}   # 8x6, 4x3, 2x2


@pytest.mark.parametrize(("size", "photo", "window"), [
    ((512, 352), (512, 352), (16, 11)), ((256, 176), (256, 192), (16, 12)), ((512, 512), (512, 512), (16, 16))])
def test_a_photo_of_any_size_fits_a_swin_transformer(size, photo, window):
    assert models.swin_photo(size, tiny=False) == (photo, window)
