"""README stays short, and what README and docs link to is there."""

from __future__ import annotations

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


def test_readme_lists_every_workflow():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [path.stem for path in sorted((ROOT / "workflows").glob("*.json")) if f"`{path.stem}`" not in text] == []
