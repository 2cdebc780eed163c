"""The pack's saved workflows, and what a frontend queues of them."""

from __future__ import annotations

from pathlib import Path

from tests.host.http_host import WORKFLOWS

FRONTEND_ONLY = {"Note", "MarkdownNote"}
INSIDE, OUTSIDE = -10, -20     # ids that a saved subgraph's links give its own inputs and outputs


def workflow_files() -> list[Path]:
    """The workflows that the pack ships."""
    return sorted(WORKFLOWS.glob("*.json"))


def blueprint_files() -> list[Path]:
    """The subgraphs that the pack offers among the nodes."""
    return sorted((WORKFLOWS.parent / "subgraphs").glob("*.json"))


def subgraphs(saved: dict) -> dict[str, dict]:
    """What a workflow's nodes of such types stand for, by type."""
    return {one["id"]: one for one in saved.get("definitions", {}).get("subgraphs", [])}


def all_nodes(saved: dict) -> list[dict]:
    """The nodes of a workflow and of its subgraphs, but for those that stand for a subgraph."""
    inside = subgraphs(saved)
    return [node for graph in (saved, *inside.values()) for node in graph["nodes"] if node["type"] not in inside]


def link_rows(graph: dict) -> list[list]:
    """The links of a workflow or of a subgraph: [id, origin, output, target, input, type]."""
    ends = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")   # in a subgraph by name, else a row
    return [[link[end] for end in ends] if isinstance(link, dict) else link for link in graph["links"]]


def widget_slots(info: dict) -> list[tuple[str, str]]:
    """The widgets of a node type in the order of `widgets_values`: (input, what), what being "value" or an extra that the
    frontend adds ("control" behind a seed, "upload" at the end for a picture file).

    info: the node's entry in /object_info. Inputs of other types are sockets and have no widget.
    """
    slots, uploads = [], []
    for group in ("required", "optional"):
        for name in info.get("input_order", {}).get(group, []):
            kind, options, *_ = [*info["input"][group][name], {}]
            if not (isinstance(kind, list) or kind in ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")):
                continue
            if options.get("forceInput"):
                continue
            slots.append((name, "value"))
            if options.get("control_after_generate"):
                slots.append((name, "control"))
            if options.get("image_upload"):
                uploads.append((name, "upload"))
    return slots + uploads


def to_api(workflow: dict, object_info: dict) -> dict:
    """A saved workflow in the form that POST /prompt takes, as the frontend makes it: subgraphs laid open, their nodes named
    "<subgraph's node>:<node>". Raises ValueError when it does not fit the node types."""
    prompt: dict = {}
    _lay_open(_Graph(workflow, subgraphs(workflow)), object_info, prompt)
    return prompt


class _Graph:
    """The nodes of a workflow, or of a subgraph as one node of another graph shows it."""

    def __init__(self, saved: dict, definitions: dict, path: str = "", outer: _Graph | None = None,
                 shown: dict | None = None):
        self.saved, self.definitions, self.path, self.outer, self.shown = saved, definitions, path, outer, shown
        self.nodes = {node["id"]: node for node in saved["nodes"]}
        self.links = {number: ends for number, *ends, _ in link_rows(saved)}

    def inside(self, node: dict) -> _Graph:
        """What a node of this graph that stands for a subgraph holds."""
        return _Graph(self.definitions[node["type"]], self.definitions, f"{self.path}{node['id']}:", self, node)

    def source(self, number: int):
        """Where a link comes from: [id, output], or the value of a subgraph's widget in a tuple; None from nothing."""
        origin, output, *_ = self.links[number]
        if origin == INSIDE:   # an input of the subgraph that this graph is
            socket = self.shown["inputs"][output]
            if socket.get("link") is not None:
                return self.outer.source(socket["link"])
            names = [one["name"] for one in self.shown["inputs"] if one.get("widget")]
            return (self.shown["widgets_values"][names.index(socket["name"])],) if socket.get("widget") else None
        node = self.nodes[origin]
        if node["type"] not in self.definitions:
            return [f"{self.path}{origin}", output]
        inner = self.inside(node)
        [number] = [number for number, (*_, target, slot) in inner.links.items() if (target, slot) == (OUTSIDE, output)]
        return inner.source(number)


def _lay_open(graph: _Graph, object_info: dict, prompt: dict) -> None:
    for node in graph.saved["nodes"]:
        kind = node["type"]
        if kind in FRONTEND_ONLY:
            continue
        if node.get("mode", 0) != 0:
            raise ValueError(f"node {node['id']} ({kind}) is muted or bypassed")
        if kind in graph.definitions:
            _lay_open(graph.inside(node), object_info, prompt)
            continue
        if kind not in object_info:
            raise ValueError(f"node {node['id']} is of the unknown type {kind}")
        slots, values = widget_slots(object_info[kind]), node.get("widgets_values", [])
        if len(slots) != len(values):
            raise ValueError(f"node {node['id']} ({kind}) has {len(values)} widget values; expected {len(slots)}: "
                             f"{[name if what == 'value' else f'{name}.{what}' for name, what in slots]}")
        inputs = {name: value for (name, what), value in zip(slots, values, strict=True) if what == "value"}
        for slot in node.get("inputs", []):
            source = None if slot.get("link") is None else graph.source(slot["link"])
            if source is not None:
                inputs[slot["name"]] = source[0] if isinstance(source, tuple) else source
        prompt[f"{graph.path}{node['id']}"] = {"class_type": kind, "inputs": inputs, "_meta": {
            "title": node.get("title") or object_info[kind].get("display_name") or kind}}
