"""README stays short, and what README and docs link to is there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """The headings of a page, as links to them spell them."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
            for heading in re.findall(r"^#+ (.*)$", text, flags=re.M)}


def test_readme_is_read_in_three_minutes():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_link_leads_somewhere(page):
    """Files and headings; addresses of the web are not looked at."""
    broken = []
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        name, _, heading = link.partition("#")
        if ":" in name:
            continue
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (heading and heading not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_readme_lists_every_page_of_docs():
    linked = {Path(link.partition("#")[0]).name for link in LINK.findall((ROOT / "README.md").read_text(encoding="utf-8"))}
    assert {page.name for page in PAGES[1:]} - linked == set()


def test_readme_lists_every_node():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    names = [name for path in sorted((ROOT / "nodes").rglob("*.py"))
             for name in re.findall(r'node_id="PGPIS\w+", display_name="([^"(]+)', path.read_text(encoding="utf-8"))]
    assert len(names) > 40 and [name for name in names if name.strip().removesuffix(" Embedding") not in text] == []


def test_the_example_pose_is_that_of_the_first_workflow():
    from pgpis_models.body.frames import Figure, seen_whole, to_frames
    from pgpis_models.body.library import library
    from pgpis_models.poses.formats import from_pose_keypoint
    saved = json.loads((ROOT / "workflows" / "00_start_here.json").read_text())
    [(name, width, height, _)] = [node["widgets_values"] for node in saved["nodes"] if node["type"] == "PGPISPoseLibrary"]
    state = library(ROOT / "web" / "pose_library" / "poses.json")[name].state
    figure = seen_whole(Figure(state), (height, width))
    [expected] = from_pose_keypoint(to_frames([figure], [figure.draw((height, width))]))
    [shipped] = from_pose_keypoint(json.loads((ROOT / "docs" / "examples" / "dancing.json").read_text()))
    assert shipped.canvas == expected.canvas and (shipped.present == expected.present).all()
    assert abs(shipped.xy - expected.xy)[shipped.present].max() < 0.06


def test_readme_lists_every_workflow():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [path.stem for path in sorted((ROOT / "workflows").glob("*.json")) if f"`{path.stem}`" not in text] == []


def commands(page: Path) -> list[tuple[Path, str]]:
    """(script, arguments) of the commands on a page that run a script of this repository."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for block in re.findall(r"```.*?\n(.*?)```", text, flags=re.S) for line in block.splitlines()]
    lines += re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.S))
    run = re.compile(r"(?:python |accelerate launch )?((?:training|benchmarks|tools)/[\w/]+\.py)(?: (.*))?$")
    found = (run.match(line) for line in lines)
    return [(ROOT / one[1], one[2] or "") for one in found if one]


def test_the_commands_of_the_pages_have_the_flags_and_configs_that_they_name():
    pages = [page for page in PAGES if page.stem != "new_method"]   # which has its files written; test_new_method_page.py
    seen = [(page, *one) for page in pages for one in commands(page)]
    assert len(seen) > 40 and sum(page.stem == "papers" for page, _, _ in seen) > 15
    for page, script, arguments in seen:
        assert script.is_file(), (page.name, script)
        text = script.read_text(encoding="utf-8")
        unknown = [flag for flag in re.findall(r"(?<!\S)--[a-z][a-z-]*", arguments) if f'"{flag}"' not in text]
        configs = [name for name in re.findall(r"--config (\S+\.yaml)", arguments) if not (ROOT / name).is_file()
                   and not name.endswith("/X.yaml")]
        assert unknown == configs == [], (page.name, script.name, arguments)
