"""The commands of the pages, as they stand there, run in a folder of a test's own."""

from __future__ import annotations

import json
import re
import shlex
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def block(page: str, containing: str) -> list[str]:
    """The commands of the one code block of a page of docs/ in which a text stands."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8").replace("\\\n", " ")
    [found] = [one for one in re.findall(r"```\n(.*?)```", text, flags=re.S) if containing in one]
    return [line for line in found.splitlines() if line]


def run(command: str, *more: Any) -> Any:
    """A command of a script of this repository, with more arguments behind, in this process."""
    python, script, *arguments = shlex.split(command, comments=True)
    assert python == "python"
    return import_module(script.removesuffix(".py").replace("/", ".")).main([*arguments, *map(str, more)])


def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder is this one, in which configs are found as in the repository."""
    (folder / "training").symlink_to(ROOT / "training")
    monkeypatch.chdir(folder)
    return folder


def settings(**groups: Any) -> list[str]:
    """key=value for a training config; a dict is settings of a group, one within it a whole value. JSON is YAML."""
    flat = {f"{name}.{key}" if isinstance(value, dict) else name: one for name, value in groups.items()
            for key, one in (value.items() if isinstance(value, dict) else [(name, value)])}
    return [f"{key}={json.dumps(value)}" for key, value in flat.items()]
