"""The links of the saved workflows can be followed by the eye: none runs behind a node that it does not belong to."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.host.saved_workflows import workflow_files

SUBGRAPHS = sorted((Path(__file__).resolve().parents[2] / "subgraphs").glob("*.json"))
TITLE, ROW, MIDDLE = 30, 20, 0.7   # of a node as LiteGraph draws it: its title above its place, its sockets, pixels
WIDGET, ABOVE, BELOW = 24, 8, 12   # of its widgets: a row each, the first below the sockets, a link at a row's middle
BEND = 0.25                        # how far a link's control points lie outwards, of the distance between its ends
STEPS = 200                        # points that are looked at on a link
HIDDEN = 0.05                      # most of a link that may lie behind nodes of others: it cuts a corner
CROWDED = {"two_photos": 0.22}     # 25 nodes that can be read in one window: seven links cut a corner, or a column of nodes


def input_place(node: dict, slot: int) -> tuple[float, float]:
    """Where a link ends: at a socket, or at its widget's row where the input has one, which no socket is drawn for."""
    x, y = node["pos"]
    widgets, plain = ([one for one in node["inputs"] if ("widget" in one) == kind] for kind in (True, False))
    one = node["inputs"][slot]
    if one in plain:
        return x, y + (plain.index(one) + MIDDLE) * ROW
    above = widgets[:widgets.index(one)]
    rows = len(above) + any(other["name"] == "seed" for other in above)   # "control after generate" has a row
    return x, y + max(len(plain), len(node["outputs"])) * ROW + ABOVE + rows * WIDGET + BELOW


def output_place(node: dict, slot: int) -> tuple[float, float]:
    return node["pos"][0] + node["size"][0], node["pos"][1] + (slot + MIDDLE) * ROW


def curve(start: tuple, end: tuple) -> np.ndarray:
    """Points (STEPS, 2) on the cubic that LiteGraph draws from an output to an input."""
    (x, y), (to_x, to_y) = start, end
    out = BEND * np.hypot(to_x - x, to_y - y)
    points = np.array([[x, y], [x + out, y], [to_x - out, to_y], [to_x, to_y]], float)
    t = np.linspace(0, 1, STEPS)[:, None]
    for _ in range(3):   # de Casteljau
        points = [(1 - t) * one + t * other for one, other in zip(points[:-1], points[1:], strict=True)]
    return points[0]


def behind(node: dict, points: np.ndarray) -> np.ndarray:
    (x, y), (width, height) = node["pos"], node["size"]
    return ((points > [x, y - TITLE]) & (points < [x + width, y + height])).all(axis=1)


def hidden_shares(saved: dict) -> dict[str, float]:
    """What part of each link lies behind nodes other than its two. saved: a workflow, or a subgraph with its two ends."""
    nodes, shares = {node["id"]: node for node in saved["nodes"]}, {}
    ends = {saved[f"{end}Node"]["id"]: saved[f"{end}s"] for end in ("input", "output") if f"{end}Node" in saved}
    for link in saved["links"]:
        number, origin, output, target, slot, kind = link.values() if isinstance(link, dict) else link
        points = curve(ends[origin][output]["pos"] if origin in ends else output_place(nodes[origin], output),
                       ends[target][slot]["pos"] if target in ends else input_place(nodes[target], slot))
        others = [behind(node, points) for node in saved["nodes"] if node["id"] not in (origin, target)]
        names = [nodes[one]["type"] if one in nodes else "outside" for one in (origin, target)]
        shares[f"{number} {' -> '.join(names)} ({kind})"] = float(np.any(others, axis=0).mean())
    return shares


def hidden_links(saved: dict, most: float) -> dict[str, float]:
    return {link: round(share, 2) for link, share in hidden_shares(saved).items() if share > most}


@pytest.mark.parametrize("path", workflow_files(), ids=lambda path: path.stem)
def test_links_run_between_the_nodes(path):
    assert hidden_links(json.loads(path.read_text()), CROWDED.get(path.stem, HIDDEN)) == {}


def test_links_inside_of_subgraphs_do_too():
    inside = [one for path in [*workflow_files(), *SUBGRAPHS] for one in
              json.loads(path.read_text()).get("definitions", {}).get("subgraphs", [])]
    assert len(inside) > len(SUBGRAPHS) > 4
    assert {one["name"]: hidden for one in inside if (hidden := hidden_links(one, HIDDEN))} == {}


def test_a_node_on_a_link_is_noticed():
    def node(number: int, x: int, y: int) -> dict:
        return {"id": number, "type": str(number), "pos": [x, y], "size": [100, 100], "inputs": [{"name": "in"}],
                "outputs": []}
    ends, between = [node(1, 0, 0), node(2, 400, 0)], node(3, 200, 0)
    links = [[1, 1, 0, 2, 0, "IMAGE"]]
    assert list(hidden_shares({"nodes": [*ends, between], "links": links}).values()) == [pytest.approx(1 / 3, abs=0.05)]
    assert list(hidden_shares({"nodes": [*ends, node(3, 200, 60)], "links": links}).values()) == [0]
