"""The shipped workflows in ComfyUI's own frontend, in headless Chromium: what a user sees who drags one in."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.browser.chromium import overlapping
from tests.browser.conftest import MODERN, SEARCHES
from tests.host.saved_workflows import FRONTEND_ONLY, subgraphs, to_api, widget_slots, workflow_files
from tools.picture_workflows import NEEDS_DOWNLOADS

NAMES = [path.stem for path in workflow_files()]
TALL = 1000    # pixels of a node, at most
FIRST = 4      # places of a list that one reads
SHOWN = {"PGPISDemoPicture", "PreviewImage", "SaveImage"}


@pytest.mark.parametrize("name", NAMES)
def test_a_workflow_opens_without_missing_nodes_or_alerts(name, seen):
    one = seen[name]
    assert one["missing"] == [] and one["dialog"] == "" and one["alerts"] == []
    assert sorted(node["id"] for node in one["nodes"]) == sorted(node["id"] for node in one["file"]["nodes"])
    assert one["links"] == len(one["file"]["links"])


def test_a_missing_node_is_noticed(seen):
    assert seen["broken"]["missing"] == ["PGPISNoSuch"]


@pytest.mark.parametrize("name", NAMES)
def test_widgets_hold_the_values_of_the_file(name, seen):
    loaded = {node["id"]: node for node in seen[name]["nodes"]}
    inside = subgraphs(seen[name]["file"])
    for node in seen[name]["file"]["nodes"]:
        widgets = loaded[node["id"]]["widgets"]
        if node["type"] in FRONTEND_ONLY or node["type"] in inside:
            assert [value for _, value in widgets] == node["widgets_values"]
            continue
        slots = widget_slots(seen[name]["info"][node["type"]])
        expected = [(widget, value) for (widget, what), value in zip(slots, node["widgets_values"], strict=True)
                    if what == "value"]
        names = {widget for widget, _ in expected}
        assert [(widget, value) for widget, value in widgets if widget in names] == expected, node["type"]


@pytest.mark.parametrize("name", NAMES)
def test_what_the_frontend_queues_is_what_the_http_tests_run(name, seen):
    assert seen[name]["api"] == to_api(seen[name]["file"], seen[name]["info"])


def kept(node: dict, key: str):
    """What saving may not change. Hosts differ in [] or nothing for no widgets, and in the shape of a subgraph's dots."""
    if key == "inputs" and isinstance(node.get(key), list):
        return [{name: value for name, value in one.items() if name != "shape"} for one in node[key]]
    return node.get(key) or None


@pytest.mark.parametrize("name", NAMES)
def test_saving_again_keeps_nodes_links_and_places(name, seen):
    again, file = seen[name]["saved"], seen[name]["file"]
    assert sorted(again["links"]) == sorted(file["links"])
    for key in ("type", "pos", "size", "inputs", "widgets_values", "title"):
        now, before = ({node["id"]: kept(node, key) for node in one["nodes"]} for one in (again, file))
        assert now == before, key
    now, before = ({node["id"]: node["outputs"] for node in one["nodes"]} for one in (again, file))
    for number, outputs in before.items():   # newer hosts give nodes of their own more outputs behind the others
        assert now[number][:len(outputs)] == outputs
        assert not [one for one in now[number][len(outputs):] if one.get("links")]
    assert [group["bounding"] for group in again["groups"]] == [group["bounding"] for group in file["groups"]]
    inside = {key: graph for key, graph in subgraphs(again).items() if key in subgraphs(file)}
    for key, before in subgraphs(file).items():
        for part in ("name", "inputs", "outputs", "links"):
            assert inside[key][part] == before[part], (before["name"], part)
        for part in ("type", "pos", "size", "inputs", "outputs", "widgets_values", "title"):
            now, was = ({node["id"]: kept(node, part) for node in graph["nodes"]} for graph in (inside[key], before))
            assert now == was, (before["name"], part)


@pytest.mark.parametrize("name", NAMES)
def test_nodes_are_as_large_as_their_content_and_do_not_overlap(name, seen):
    sizes = {node["id"]: node["size"] for node in seen[name]["file"]["nodes"]}
    boxes = []
    for node in seen[name]["nodes"]:
        if node["least"] and node["type"] not in FRONTEND_ONLY:
            assert all(have >= need - 1 for have, need in zip(sizes[node["id"]], node["least"], strict=True)), node["type"]
        boxes.append((node["type"], *node["box"]))
    for index, (first, a, b, c, d) in enumerate(boxes):
        for second, x, y, w, h in boxes[index + 1:]:
            assert a + c <= x or x + w <= a or b + d <= y or y + h <= b, (first, second)


@pytest.mark.parametrize("name", MODERN)
def test_nodes_do_not_overlap_in_the_newer_view_of_nodes(name, driven):
    """Where they are parts of the page, and taller; hosts before it show none."""
    boxes = driven["modern"][name]
    assert overlapping(boxes) == []
    assert len(boxes) in (0, len(driven["workflows"][name]["nodes"]))
    assert all(height < TALL for *_, height in (one["box"] for one in boxes)), "a list grows its node instead of scrolling"


@pytest.mark.parametrize("name", [name for name in NAMES if name not in NEEDS_DOWNLOADS])
def test_the_queue_button_runs_it_and_the_pictures_appear(name, seen):
    one = seen[name]
    assert one["execution"] == "execution_success", one["error"]
    shown = {image["id"]: image["sizes"] for image in one["images"]}
    for node in one["file"]["nodes"]:
        if node["type"] in SHOWN:
            sizes = shown.get(node["id"])
            assert sizes and all(min(size) > 0 for size in sizes), node.get("title") or node["type"]


def test_bypassing_pose_transfer_by_ctrl_b_leaves_the_model_and_nothing_that_was_not_given(seen):
    acted = seen["bypass"]["acted"]
    slots = {"model": 0, "positive": 1, "latent": 3}
    assert acted["before"] == {name: ["PGPISPoseTransfer", slot] for name, slot in slots.items()}
    assert acted["after"] == {"model": ["PGPISLoadPreset", 0], "positive": None, "latent": None}


@pytest.mark.parametrize("name", NAMES)
def test_the_graph_can_be_pictured(name, seen):
    with Image.open(seen[name]["screenshot"]) as picture:
        assert picture.size[0] == 1600 and picture.size[1] > 400
        assert np.asarray(picture.convert("RGB")).std() > 15


@pytest.mark.parametrize("words", SEARCHES)
def test_the_search_of_nodes_finds_ours(words, driven):
    """By their names, which say what people look for, and in hosts that know aliases by those."""
    wanted = driven["info"][SEARCHES[words]]
    found = [text.splitlines()[0].strip() for text in driven["searches"][words] if text.strip()]
    assert wanted["display_name"] in found[:FIRST], found
