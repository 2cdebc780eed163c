"""The saved workflows against the node types that the host describes, so that neither drifts from the other."""

from __future__ import annotations

import copy
import json

import pytest
import tomllib

from pgpis_models.files.presets import RELEASES
from tests.host.http_host import WORKFLOWS
from tests.host.saved_workflows import (
    FRONTEND_ONLY,
    INSIDE,
    OUTSIDE,
    all_nodes,
    blueprint_files,
    link_rows,
    subgraphs,
    to_api,
    widget_slots,
    workflow_files,
)

FILES = {"LoadImage": "image", "PGPISDemoPicture": "picture"}
SHIPPED_BY_THE_HOST = "example.png"
MODEL_FILES = {("PGPISLoadPreset", "base_model"), ("PGPISLoadCheckpoint", "file"), ("PGPISEstimateDensePose", "file"),
               ("LoraLoaderModelOnly", "lora_name")}
DOWNLOADED = {"PGPISLoadPreset": "checkpoints", "LoraLoaderModelOnly": "loras"}   # where the frontend puts what it offers
CONTROLS = ("fixed", "increment", "decrement", "randomize")
GROWING = "COMFY_AUTOGROW_V3"   # type of an input that becomes several
WIDGETS = {"INT": int, "FLOAT": (int, float), "STRING": str, "BOOLEAN": bool}


@pytest.fixture(scope="module")
def info(host):
    return host.object_info()


@pytest.fixture(params=workflow_files(), ids=lambda path: path.stem)
def saved(request):
    return json.loads(request.param.read_text())


@pytest.fixture(params=[*workflow_files(), *blueprint_files()], ids=lambda path: path.stem)
def graph(request):
    """A workflow or a blueprint."""
    return json.loads(request.param.read_text())


def described(info: dict, kind: str) -> dict[str, list]:
    """Input name -> [type, options], in order."""
    return {name: [*info[kind]["input"][group][name], {}][:2] for group in ("required", "optional")
            for name in info[kind].get("input_order", {}).get(group, [])}


def type_name(kind: str | list) -> str:
    return "COMBO" if isinstance(kind, list) else kind


def test_there_is_a_workflow_for_each_use():
    assert {path.stem for path in workflow_files()} >= {
        "00_start_here", "cfld_pose_transfer", "cfld_sd15", "mcld_sd15", "fpdm_sd21", "hires_second_pass",
        "masked_sampling", "mcld_pose_transfer", "mcld_garment_swap", "mcld_identity_swap", "mcld_walk_around",
        "fpdm_pose_transfer", "fpdm_sequence", "qen_pose_transfer", "qen_attention", "best_of_eight",
        "garment_transfer", "pose_style_grid", "two_photos", "walk_still", "retarget_pose", "qen_sd15",
        "few_steps", "few_steps_sd15"}


def test_node_types_sockets_and_outputs_are_those_of_the_host(graph, info):
    for node in all_nodes(graph):
        kind, who = node["type"], (node["id"], node["type"])
        if kind in FRONTEND_ONLY:
            continue
        assert kind in info, who
        known = grown(described(info, kind), node)
        assert [(slot["name"], slot["type"]) for slot in node["inputs"]] == expected_sockets(known), who
        outputs = [(slot["name"], slot["type"]) for slot in node["outputs"]]
        known_outputs = list(zip(info[kind]["output_name"], info[kind]["output"], strict=True))
        if not kind.startswith("PGPIS"):   # newer hosts give nodes of their own more outputs behind the others
            known_outputs = known_outputs[:len(outputs)]
        assert outputs == known_outputs, who
        linked = {slot["name"] for slot in node["inputs"] if slot.get("link") is not None}
        required = info[kind]["input_order"].get("required", [])
        needed = {name for name in required if name in known and not has_widget(known[name])}
        assert needed <= linked, (who, "not connected", needed - linked)


def grown(known: dict[str, list], node: dict) -> dict[str, list]:
    """`described` with inputs that grow as the frontend shows them for a node: one more than are connected."""
    result = {}
    for name, (kind, options) in known.items():
        if kind != GROWING:
            result[name] = [kind, options]
            continue
        template, linked = options["template"], [slot for slot in node["inputs"] if slot["name"].startswith(f"{name}.")]
        count = max(template["min"], 1 + sum(slot["link"] is not None for slot in linked))
        of, = template["input"]["required"].values()
        result |= {f"{name}.{template['prefix']}{number}": of for number in range(count)}
    return result


def expected_sockets(known: dict[str, list]) -> list[tuple[str, str]]:
    """Name and type of a node's inputs as the frontend saves them: those without a widget first, an upload button last."""
    ordered = sorted(known.items(), key=lambda one: has_widget(one[1]))
    uploads = [("upload", "IMAGEUPLOAD") for _, (_, options) in ordered if options.get("image_upload")]
    return [(name, type_name(kind)) for name, (kind, _) in ordered] + uploads


def has_widget(described_input: list) -> bool:
    kind, _ = described_input
    return isinstance(kind, list) or kind in (*WIDGETS, "COMBO")


def test_widget_values_are_as_many_and_of_the_kind_that_the_nodes_have(graph, info):
    for node in all_nodes(graph):
        kind = node["type"]
        if kind in FRONTEND_ONLY:
            continue
        known, slots, values = described(info, kind), widget_slots(info[kind]), node["widgets_values"]
        assert len(values) == len(slots), (node["id"], kind, slots, values)
        for (name, what), value in zip(slots, values, strict=True):
            where = (node["id"], kind, name, value)
            of, options = known[name]
            if what == "control":
                assert value in CONTROLS, where
            elif what == "value" and type_name(of) == "COMBO":
                choices = of if isinstance(of, list) else options["options"]
                assert value in choices or (kind, name) in MODEL_FILES or FILES.get(kind) == name, where
            elif what == "value":
                assert isinstance(value, WIDGETS[of]) and (of == "BOOLEAN" or not isinstance(value, bool)), where
                assert options.get("min", value) <= value <= options.get("max", value), where


def test_links_are_consistent(graph):
    whole = graph
    for graph in (whole, *subgraphs(whole).values()):
        nodes, links = {node["id"]: node for node in graph["nodes"]}, {link[0]: link for link in link_rows(graph)}
        assert len(nodes) == len(graph["nodes"]) and len(links) == len(graph["links"]), "an id is used twice"
        assert whole["last_node_id"] >= max(nodes)
        last = whole["last_link_id"] if graph is whole else graph["state"]["lastLinkId"]
        assert last >= max(links, default=0)
        ends = {INSIDE: {"outputs": graph.get("inputs")}, OUTSIDE: {"inputs": graph.get("outputs")}}
        for number, origin, output, target, slot, kind in links.values():
            source = (nodes | ends)[origin]["outputs"][output]
            socket = (nodes | ends)[target]["inputs"][slot]
            assert number in source["linkIds" if origin == INSIDE else "links"], number
            assert number in socket["linkIds"] if target == OUTSIDE else number == socket["link"], number
            assert source["type"] == socket["type"] == kind, number
        at_inputs = [slot["link"] for node in nodes.values() for slot in node["inputs"] if slot.get("link") is not None]
        at_inputs += [one for slot in graph.get("outputs", []) for one in slot["linkIds"]]
        at_outputs = [one for node in nodes.values() for slot in node["outputs"] for one in slot.get("links") or []]
        at_outputs += [one for slot in graph.get("inputs", []) for one in slot["linkIds"]]
        assert sorted(at_inputs) == sorted(at_outputs) == sorted(links)


def test_a_node_for_a_subgraph_has_its_sockets_and_widgets(graph):
    whole, inside = graph, subgraphs(graph)
    shown = [node for graph in (whole, *inside.values()) for node in graph["nodes"] if node["type"] in inside]
    assert {node["type"] for node in shown} == set(inside), "a subgraph is kept that no node shows"
    numbers = [node["id"] for graph in (whole, *inside.values()) for node in graph["nodes"]]
    assert len(set(numbers)) == len(numbers)
    for node in shown:
        graph = inside[node["type"]]
        for side in ("inputs", "outputs"):
            assert [(one["name"], one["type"]) for one in node[side]] == [(one["name"], one["type"]) for one in graph[side]]
        within, links = {one["id"]: one for one in graph["nodes"]}, {link[0]: link for link in link_rows(graph)}
        ends = [links[one["linkIds"][0]] for one in graph["inputs"]]
        widgets = ["widget" in within[target]["inputs"][slot] for _, _, _, target, slot, _ in ends]
        assert widgets == ["widget" in one for one in node["inputs"]]
        assert len(node["widgets_values"]) == sum(widgets)


def test_picture_files_are_shipped_and_all_of_them_are_used(info):
    used = set()
    for path in workflow_files():
        saved = json.loads(path.read_text())
        for node in to_api(saved, info).values():
            if node["class_type"] in FILES:
                used.add(node["inputs"][FILES[node["class_type"]]])
    assert used == {path.name for path in (WORKFLOWS / "inputs").iterdir()} | {SHIPPED_BY_THE_HOST}


def test_model_files_are_named_in_the_graph(saved):
    """Whoever opens the graph learns which files it wants and where they are. The demo's are in a clone and in the releases,
    not in the registry's archive."""
    notes = " ".join(node["widgets_values"][0] for node in saved["nodes"] if node["type"] in FRONTEND_ONLY)
    values = [value for node in all_nodes(saved) for value in node.get("widgets_values") or []]
    if any(isinstance(value, str) and value.startswith(("demo_", "Demo ")) for value in values):
        assert "git clone" in notes and (RELEASES in notes or "*get its files* on *Load Pose Transfer*" in notes)
    for node in all_nodes(saved):
        kind, values, models = node["type"], node.get("widgets_values", []), node.get("properties", {}).get("models", [])
        if any(kind == one for one, _ in MODEL_FILES):
            files = [name for name in values if isinstance(name, str) and name.endswith((".safetensors", ".torchscript"))]
            assert all(name.startswith("demo_") or name in notes for name in files), files
            names = [name for name in files if kind in DOWNLOADED and not name.startswith("demo_")]
            assert [model["name"] for model in models] == names, "the frontend offers what a widget names"
        for model in models:
            assert model["url"] == f"{model['url'].rsplit('/', 1)[0]}/{model['name']}" and model["url"] in notes
            assert model["url"].startswith("https://huggingface.co/") and model["directory"] == DOWNLOADED[kind]


def test_nothing_overlaps_and_groups_hold_whole_nodes(saved):
    def box(node):
        (x, y), (w, h) = node["pos"], node["size"]
        return x, y - 30, x + w, y + h  # with its title
    boxes = [box(node) for node in saved["nodes"]]
    for index, (a, b, c, d) in enumerate(boxes):
        for x, y, z, w in boxes[index + 1:]:
            assert c <= x or z <= a or d <= y or w <= b, ((a, b, c, d), (x, y, z, w))
    groups = [(x, y, x + w, y + h) for x, y, w, h in (group["bounding"] for group in saved["groups"])]
    assert groups and all(group["title"] for group in saved["groups"])
    for (a, b, c, d), node in zip(boxes, saved["nodes"], strict=True):
        holding = [one for one in groups if one[0] <= a and one[1] <= b and c <= one[2] and d <= one[3]]
        touching = [one for one in groups if not (c <= one[0] or one[2] <= a or d <= one[1] or one[3] <= b)]
        assert holding == touching and len(holding) <= 1, node["id"]
        assert holding or node["type"] in FRONTEND_ONLY, node["id"]


def test_the_converter_notices_drift(saved, info):
    index = next(i for i, node in enumerate(saved["nodes"]) if node["type"] in ("PGPISLoadCheckpoint", "PGPISLoadPreset"))
    for change, message in ((lambda node: node["widgets_values"].pop(), "[01] widget values; expected [12]"),
                            (lambda node: node.update(type="PGPISNoSuch"), "unknown type PGPISNoSuch"),
                            (lambda node: node.update(mode=4), "muted or bypassed")):
        changed = copy.deepcopy(saved)
        change(changed["nodes"][index])
        with pytest.raises(ValueError, match=message):
            to_api(changed, info)


def test_nodes_name_their_pack(graph):
    """Where the pack is missing the frontend offers to install what these properties name."""
    project = tomllib.loads((WORKFLOWS.parent / "pyproject.toml").read_text())["project"]
    for node in all_nodes(graph):
        if node["type"].startswith("PGPIS"):
            properties = node["properties"]
            assert (properties.get("cnr_id"), properties.get("ver")) == (project["name"], project["version"]), node["type"]
