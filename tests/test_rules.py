"""Who may import whom, and how files and folders are named: read from the syntax tree, so that imports inside functions
count too."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("pgpis_models", "nodes", "training")
METHODS = sorted(path.parent.name for path in ROOT.glob("pgpis_models/*/model.py"))
SHARED = ("unet", "noise", "parts", "body", "poses", "surface", "framing", "garments")   # what methods are made of
HOST = ("comfy", "comfy_api", "comfy_execution", "comfy_extras", "execution", "folder_paths", "latent_preview", "nodes",
        "server")
LINES = 350   # of a Python file
SCHEMA_TABLES: set[str] = set()   # files of nodes that are one long schema, whose length says nothing: path below the root


def files(*folders: str) -> list[Path]:
    """Python files below folders of the repository, relative to it."""
    return sorted(path.relative_to(ROOT) for folder in folders for path in (ROOT / folder).rglob("*.py"))


def module_name(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


@cache
def modules() -> dict[str, Path]:
    """Dotted name -> file of all modules of the pack."""
    return {module_name(path): path for path in files(*PACKAGES)}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


def source_of(path: Path, node: ast.ImportFrom) -> str:
    """The module that a file's `from ... import` names, by its dotted name from the root."""
    package = module_name(path).split(".")[:None if path.name == "__init__.py" else -1]
    above = package[:len(package) - node.level + 1] if node.level else []
    return ".".join([*above, *filter(None, [node.module])]).removeprefix("pgpis_pack.")   # as a benchmark loads the pack


@cache
def imports(path: Path) -> frozenset[str]:
    """Dotted names that a file imports anywhere; of the pack's own the module, not the name in it."""
    found = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            source = source_of(path, node)
            for name in node.names:
                whole = f"{source}.{name.name}"
                found.add(whole if whole in modules() else source)
    return frozenset(found)


def within(name: str, folder: str) -> bool:
    """Whether a dotted name is a package or lies below it."""
    return name == folder or name.startswith(f"{folder}.")


def offending(folders: list[str], *forbidden: str) -> list[str]:
    """`file -> import` for what files below the folders import of the forbidden packages."""
    return [f"{path} -> {name}" for path in files(*folders) for name in sorted(imports(path))
            if any(within(name, package) for package in forbidden)]


@cache
def names(path: Path) -> frozenset[str]:
    """What a module defines or imports anywhere; local names too, which errs on the side of silence."""
    found = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            found |= {(name.asname or name.name).split(".")[0] for name in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return frozenset(found)


# --- that the reading itself works --------------------------------------------------------------------------

def test_imports_are_seen_wherever_they_stand():
    assert "pgpis_models.poses.drawing" in imports(Path("pgpis_models/cfld/inputs.py"))        # relative
    assert "pgpis_models.poses.keypoints" in imports(Path("training/data/fpdm_pairs.py"))      # absolute
    assert "diffusers" in imports(Path("pgpis_models/unet/base.py"))                           # inside a function
    assert "nodes.loaders" in imports(Path("nodes/__init__.py"))                               # from . import
    assert len(modules()) > 100 and {"cfld", "mcld", "fpdm", "qen"} <= set(METHODS)


@pytest.mark.parametrize("folder", [*PACKAGES, "benchmarks", "tools"])
def test_every_name_that_is_imported_is_there(folder):
    """Imports inside functions fail only when they are reached, and benchmarks run seldom."""
    lacking = []
    for path in files(folder):
        for node in (node for node in ast.walk(tree(path)) if isinstance(node, ast.ImportFrom)):
            source = source_of(path, node)
            known = names(modules()[source]) if source in modules() else frozenset()
            lacking += [f"{path} -> {source}.{name.name}" for name in node.names if source.split(".")[0] in PACKAGES
                        and f"{source}.{name.name}" not in modules() and name.name not in known]
    assert lacking == []


# --- who imports whom ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("folder", SHARED)
def test_what_methods_are_made_of_imports_no_method(folder):
    assert offending([f"pgpis_models/{folder}"], *(f"pgpis_models.{method}" for method in METHODS)) == []


@pytest.mark.parametrize("method", METHODS)
def test_a_method_imports_no_other_method(method):
    assert offending([f"pgpis_models/{method}"], *(f"pgpis_models.{other}" for other in METHODS if other != method)) == []


@pytest.mark.parametrize("method", METHODS)
def test_a_method_imports_no_converter(method):
    assert offending([f"pgpis_models/{method}"], "pgpis_models.convert",
                     *(f"pgpis_models.{other}.convert" for other in METHODS)) == []


def test_the_science_imports_neither_the_host_nor_training():
    assert offending(["pgpis_models"], "training", *HOST) == []


def test_inside_the_science_imports_are_relative():
    """The host loads the pack as a folder of another name. A command may import itself by name, to run as a file."""
    absolute = [f"{path} -> {node.module}" for path in files("pgpis_models") for node in ast.walk(tree(path))
                if isinstance(node, ast.ImportFrom) and not node.level and within(node.module or "", "pgpis_models")
                and node.module != module_name(path)]
    assert absolute == []


def test_nodes_do_not_import_training():
    assert offending(["nodes"], "training") == []


def test_only_nodes_import_the_host():
    assert offending(["pgpis_models", "training"], *HOST) == []
    assert not any(within(name, host) for name in imports(Path("__init__.py")) for host in HOST if host != "nodes")


def test_the_engine_knows_no_data_and_data_no_task():
    assert offending(["training/engine"], "training.data", "training.tasks") == []
    assert offending(["training/data"], "training.tasks") == []


def test_the_command_line_is_imported_by_commands_alone():
    assert offending([f"pgpis_models/{folder}" for folder in (*SHARED, *METHODS, "files")], "pgpis_models.command") == []


@pytest.mark.parametrize("folder", ["engine", "tasks", "data"])
def test_full_size_training_does_not_import_the_demo_world(folder):
    assert offending([f"training/{folder}"], "training.world") == []


def test_no_files_import_each_other_in_a_circle():
    known = modules() | {module_name(path): path for path in files("benchmarks", "tools")}
    graph = {name: {other for other in known if other != name and other in imports(path)} for name, path in known.items()}
    while leaves := [name for name, needed in graph.items() if not needed & graph.keys()]:
        for name in leaves:
            del graph[name]
    assert graph == {}, "these import each other, or lie between circles"


# --- names, lengths, what a folder says ---------------------------------------------------------------------

def test_no_file_name_repeats_the_name_of_its_folder():
    repeated = [str(path) for path in files(*PACKAGES) if path.name != "__init__.py"
                and {path.parent.name, path.parent.name.removesuffix("s")} & set(path.stem.split("_"))]
    assert repeated == []


def test_no_file_is_longer_than_350_lines():
    lengths = {str(path): len((ROOT / path).read_text(encoding="utf-8").splitlines())
               for path in (*files(*PACKAGES, "benchmarks", "tools"), Path("__init__.py"))}
    assert {path: count for path, count in lengths.items() if count > LINES and path not in SCHEMA_TABLES} == {}


def test_the_map_has_every_folder():
    said = set(re.findall(r"`([a-z_/]+?)/?`", (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")))
    folders = {parent for path in files(*PACKAGES) for parent in path.parents if parent != Path(".")}
    assert [str(path) for path in sorted(folders) if not {str(path), path.name} & said] == []


def test_every_folder_says_in_one_sentence_what_may_live_in_it():
    folders = {parent for path in files(*PACKAGES) for parent in path.parents if parent != Path(".")}
    silent = {}
    for folder in folders:
        path = folder / "__init__.py"
        said = ast.get_docstring(tree(path)) if (ROOT / path).is_file() else None
        if not said or not said.endswith(".") or re.search(r"[.!?]\s", said):
            silent[str(folder)] = said
    assert silent == {}
