"""The links of the saved workflows can be followed by the eye: none runs behind a node that it does not belong to."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.host.saved_workflows import workflow_files

TITLE, ROW, MIDDLE = 30, 20, 0.7   # of a node as LiteGraph draws it: its title above its place, its sockets, pixels
BEND = 0.25                        # how far a link's control points lie outwards, of the distance between its ends
STEPS = 200                        # points that are looked at on a link
HIDDEN = 0.05                      # most of a link that may lie behind nodes of others: it cuts a corner
CROWDED = {"two_photos": 0.22}     # 25 nodes that can be read in one window: seven links cut a corner, or a column of nodes


def shown_row(node: dict, slot: int) -> int:
    """Where an input is drawn: those that have widgets, which no link of ours goes to, are not drawn among the sockets."""
    assert "widget" not in node["inputs"][slot], (node["type"], node["inputs"][slot]["name"])
    return sum("widget" not in one for one in node["inputs"][:slot])


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
    """What part of each link lies behind nodes other than its two."""
    nodes, shares = {node["id"]: node for node in saved["nodes"]}, {}
    for number, origin, output, target, slot, kind in saved["links"]:
        one, other = nodes[origin], nodes[target]
        points = curve((one["pos"][0] + one["size"][0], one["pos"][1] + (output + MIDDLE) * ROW),
                       (other["pos"][0], other["pos"][1] + (shown_row(other, slot) + MIDDLE) * ROW))
        others = [behind(node, points) for node in saved["nodes"] if node["id"] not in (origin, target)]
        shares[f"{number} {one['type']} -> {other['type']} ({kind})"] = float(np.any(others, axis=0).mean())
    return shares


@pytest.mark.parametrize("path", workflow_files(), ids=lambda path: path.stem)
def test_links_run_between_the_nodes(path):
    shares, most = hidden_shares(json.loads(path.read_text())), CROWDED.get(path.stem, HIDDEN)
    assert {link: round(share, 2) for link, share in shares.items() if share > most} == {}


def test_a_node_on_a_link_is_noticed():
    def node(number: int, x: int, y: int) -> dict:
        return {"id": number, "type": str(number), "pos": [x, y], "size": [100, 100], "inputs": [{"name": "in"}]}
    ends, between = [node(1, 0, 0), node(2, 400, 0)], node(3, 200, 0)
    links = [[1, 1, 0, 2, 0, "IMAGE"]]
    assert list(hidden_shares({"nodes": [*ends, between], "links": links}).values()) == [pytest.approx(1 / 3, abs=0.05)]
    assert list(hidden_shares({"nodes": [*ends, node(3, 200, 60)], "links": links}).values()) == [0]
