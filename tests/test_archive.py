"""What the registry's archive holds, as `comfy node pack` makes it: what git tracks, less what .comfyignore names."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
from itertools import chain
from pathlib import Path

import pytest

from tests.test_docs import LINK

ROOT = Path(__file__).resolve().parents[1]
LARGEST = 8_000_000        # bytes of all files together, before they are packed
LEFT_OUT = {".ci", ".gitignore", "Makefile", "benchmarks", "models", "tests", "tools"}
DOWNLOADS = "models"       # the demo models, which the releases have: code that opens them says so
HOSTS_OWN = {"example.png"}

pytestmark = pytest.mark.skipif(not (ROOT / ".git").exists() or not shutil.which("git"), reason="needs a git clone")


def listed(*options: str) -> set[str]:
    result = subprocess.run(["git", "ls-files", "-z", *options], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(filter(None, result.stdout.split("\0")))


def with_folders(files: set[str]) -> set[str]:
    return files | {str(folder) for name in files for folder in Path(name).parents} - {"."}


@pytest.fixture(scope="module")
def tracked() -> set[str]:
    """Files and folders of the repository."""
    return with_folders(listed())


@pytest.fixture(scope="module")
def archive() -> set[str]:
    """Files of the archive."""
    return listed() - listed("--cached", "--ignored", "--exclude-from=.comfyignore")


@pytest.fixture(scope="module")
def trees(archive) -> dict[str, ast.Module]:
    return {name: ast.parse((ROOT / name).read_text(encoding="utf-8")) for name in sorted(archive) if name.endswith(".py")}


def imported(name: str, tree: ast.Module) -> set[str]:
    """Dotted names that a file imports anywhere, from the root."""
    found, package = set(), Path(name).parent.parts
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {one.name for one in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[:len(package) - node.level + 1] if node.level else ()
            source = ".".join([*above, *filter(None, [node.module])])
            found |= {source, *(f"{source}.{one.name}" for one in node.names)} - {""}
    return found


def paths_in(tree: ast.Module) -> set[str]:
    """What may be a path: strings, and strings that follow each other as in `x / "a" / "b"`."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "/" in node.value:
            found.add(node.value.strip("/"))
        parts = []
        while isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) and isinstance(node.right, ast.Constant):
            parts.insert(0, str(node.right.value))
            node = node.left
        found.add("/".join(parts))
    return found


def test_tests_and_tools_are_left_out_and_the_rest_is_small(archive):
    assert not {Path(name).parts[0] for name in archive} & LEFT_OUT
    size = sum((ROOT / name).stat().st_size for name in archive)
    print(f"{len(archive)} files, {size / 1e6:.1f} MB")
    assert size < LARGEST
    assert {"__init__.py", "pyproject.toml", "requirements.txt", "LICENSE", "README.md"} <= archive


def test_every_module_that_is_imported_is_inside(archive, tracked, trees):
    lacking = []
    for name, tree in trees.items():
        for module in imported(name, tree):
            path = module.replace(".", "/")
            lacking += [f"{name} -> {one}" for one in (f"{path}.py", f"{path}/__init__.py")
                        if one in tracked and one not in archive]
            lacking += [f"{name} -> {module}" for top in [module.split(".")[0]] if top in LEFT_OUT & tracked]
    assert len(trees) > 200 and lacking == []


def test_every_file_that_code_opens_is_inside(archive, tracked, trees):
    inside = with_folders(archive)
    named = {(name, path) for name, tree in trees.items() for path in paths_in(tree) if path in tracked}
    assert {"web/pose_library/poses.json", "workflows/inputs", "training/configs/demo"} <= {path for _, path in named}
    assert {one for one in named if one[1] not in inside and Path(one[1]).parts[0] != DOWNLOADS} == set()


def test_the_pages_scripts_find_each_other(archive):
    lacking = []
    for name in (name for name in archive if name.startswith("web/") and name.endswith(".js")):
        text = (ROOT / name).read_text(encoding="utf-8")
        for target in re.findall(r"""(?:from|import|import\(|new URL\()\s*["'](\.[^"']+)["']""", text):
            path = (ROOT / name).parent.joinpath(target).resolve()
            if "/scripts/" not in str(path):   # the host's
                lacking += [f"{name} -> {target}"] * (str(path.relative_to(ROOT)) not in archive)
    assert "web/pose_library/gallery.js" in archive and lacking == []


def test_every_template_has_its_thumbnail_and_its_pictures(archive):
    names = sorted(name for name in archive if re.fullmatch(r"workflows/[^/]+\.json", name))
    assert len(names) > 9 and [name for name in names if name.replace(".json", ".jpg") not in archive] == []
    lacking = []
    for name in names:
        saved = json.loads((ROOT / name).read_text(encoding="utf-8"))
        subgraphs = saved.get("definitions", {}).get("subgraphs", [])
        for node in chain(saved["nodes"], *(one["nodes"] for one in subgraphs)):
            values = node.get("widgets_values") or []
            lacking += [(name, value) for value in values if isinstance(value, str) and value.endswith((".png", ".jpg"))
                        and node["type"] in ("PGPISDemoPicture", "LoadImage", "LoadImageMask")
                        and f"workflows/inputs/{value}" not in archive and value not in HOSTS_OWN]
    assert lacking == []


def test_links_of_the_pages_lead_into_the_archive_or_the_web(archive):
    inside, broken = with_folders(archive), []
    pages = [name for name in archive if name.endswith(".md")]
    for name in pages:
        text = (ROOT / name).read_text(encoding="utf-8")
        for link in [*LINK.findall(text), *re.findall(r"""<img[^>]*src=["']([^"']+)""", text)]:
            target = link.partition("#")[0]
            if re.match(r"https?://|mailto:", target) or not target:
                continue
            path = (ROOT / name).parent.joinpath(target).resolve()
            if not path.is_relative_to(ROOT) or str(path.relative_to(ROOT)) not in inside:
                broken.append(f"{name} -> {link}")
    assert len(pages) > 20 and broken == []
