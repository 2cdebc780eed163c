"""Golden cases: inputs, weights and outputs computed with the authors' code.

They are not part of the repository. PGPIS_GOLDEN names their folder; by default it is looked for beside the repository.
"""

from __future__ import annotations

import json
import os
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import torch

DEFAULT = Path(__file__).resolve().parents[2].parent / "shared" / "golden"


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """The folder with one sub-folder per method; tests are skipped where it is absent."""
    folder = Path(os.environ.get("PGPIS_GOLDEN", DEFAULT))
    if not folder.is_dir():
        pytest.skip(f"golden cases not found in {folder}: set PGPIS_GOLDEN to their folder")
    return folder


@pytest.fixture(scope="session")
def load_case(golden_dir):
    """load_case("cfld", "pose") -> (tensors by key, content of the JSON beside them)."""
    from safetensors.torch import load_file

    def load(method: str, case: str) -> tuple[dict[str, torch.Tensor], dict]:
        file = golden_dir / method / f"{case}.safetensors"
        if not file.is_file():
            pytest.skip(f"golden case {method}/{case} not found in {golden_dir}")
        return load_file(file), json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))

    return load


@pytest.fixture(scope="session")
def compare():
    """compare(ours, golden, tolerances): every out.* tensor of the case against ours.

    ours:       our tensor by golden key.
    tolerances: max abs difference by key pattern ("out.rgb_*"), 0 for equal. Exactly one pattern must fit each key, so
                that no output goes unchecked. Returns the largest difference by pattern.
    """

    def check(ours: dict, golden: dict[str, torch.Tensor], tolerances: dict[str, float]) -> dict[str, float]:
        outputs = {key: value for key, value in golden.items() if key.startswith("out.")}
        assert set(ours) == set(outputs), "outputs that only one side has"
        largest = dict.fromkeys(tolerances, 0.0)
        for key, expected in outputs.items():
            patterns = [pattern for pattern in tolerances if fnmatchcase(key, pattern)]
            assert len(patterns) == 1, f"{key}: one tolerance expected, {patterns} fit"
            got = torch.as_tensor(ours[key])
            assert got.shape == expected.shape, f"{key}: shape {tuple(got.shape)}, expected {tuple(expected.shape)}"
            if not expected.dtype.is_floating_point:
                assert got.dtype == expected.dtype, f"{key}: {got.dtype}, expected {expected.dtype}"
            difference = (got.double() - expected.double()).abs().max().item()
            largest[patterns[0]] = max(largest[patterns[0]], difference)
            allowed = tolerances[patterns[0]]
            assert difference <= allowed, f"{key}: off by {difference:.3g}, allowed {allowed:.3g}"
        return largest

    return check
