"""The pack's blueprints: listed by the host, added in the frontend, and run by its button."""

from __future__ import annotations

import json

import pytest

from tests.host.saved_workflows import blueprint_files, to_api

NAMES = [path.stem for path in blueprint_files()]
EXPECTED = ["Garment Swap", "Photo to Photo", *(f"Pose Transfer ({method})" for method in ("CFLD", "FPDM", "MCLD", "QEN"))]


def test_the_host_lists_them_as_the_packs(seen):
    assert NAMES == EXPECTED
    listed = next(iter(seen.values()))["listed"].values()
    assert sorted(one["name"] for one in listed if one["info"]["node_pack"] == "custom_nodes.comfyui-pgpis") == EXPECTED


@pytest.mark.parametrize("path", blueprint_files(), ids=NAMES)
def test_a_file_is_one_node_that_says_what_it_does(path):
    saved = json.loads(path.read_text())
    [node], [graph] = saved["nodes"], saved["definitions"]["subgraphs"]
    assert node["type"] == graph["id"] and node["title"] == graph["name"] == path.stem
    assert len(saved["extra"]["BlueprintDescription"]) > 60 and saved["extra"]["BlueprintSearchAliases"]
    assert graph["description"] == saved["extra"]["BlueprintDescription"]


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_by_the_button_with_the_values_of_its_widgets(name, seen):
    one = seen[name]
    assert one["missing"] == [] and one["alerts"] == [] and one["dialog"] == ""
    assert one["execution"] == "execution_success", one["error"]
    [save] = [node["id"] for node in one["nodes"] if node["type"] == "SaveImage"]
    assert {image["id"]: image["sizes"] for image in one["images"]}[save] == [[192, 256]]
    [sampler] = [node for node in one["api"].values() if node["class_type"] == "KSampler"]
    assert sampler["inputs"]["steps"] == 2
    assert one["api"] == to_api(one["saved"], one["info"])
