"""Help pages and translations are those that the tools make of the schemas, and the host finds them."""

from __future__ import annotations

import json

import pytest

from tools.node_words import LANGUAGES, LOCALES, PAGES, PREFIX, files_of, problems, stale


@pytest.fixture(scope="module")
def described(host):
    """Node id -> its entry of /object_info."""
    mapped = host.nodes.NODE_CLASS_MAPPINGS.items()
    return {name: json.loads(json.dumps(kind.GET_NODE_INFO_V1())) for name, kind in mapped if name.startswith(PREFIX)}


def test_every_text_is_translated_and_every_node_explained(described):
    assert problems(described) == [], "add them to tools/words, then run: python tools/node_words.py"


def test_pages_and_locales_are_what_the_tool_makes(described):
    assert stale(files_of(described)) == [], "run: python tools/node_words.py"


def test_a_text_without_translation_and_one_that_nobody_says_are_noticed(described):
    other = json.loads(json.dumps(described))
    other["PGPISLoadPose"]["description"] = "Something new."
    said = problems(other)
    assert said[0] == "no translation into zh, ja, ko of 'Something new.'"
    assert said[1].startswith("translated, but no schema says it") and "Reads poses from a file" in said[1]
    assert len(said) == 2
    del other["PGPISDrawPose"]
    assert "tools/words/help.md has a section ## PGPISDrawPose, which is no node" in problems(other)


def test_the_host_serves_the_translations(host, described):
    from app.custom_node_manager import CustomNodeManager
    served = CustomNodeManager().build_translations()
    for language in LANGUAGES:
        nodes = served[language]["nodeDefs"]
        assert {name for name in nodes if name.startswith(PREFIX)} == set(described)
        assert nodes["PGPISLoadPose"] == json.loads((LOCALES / language / "nodeDefs.json").read_text())["PGPISLoadPose"]
        assert served[language]["nodeCategories"]["tools"]


def test_every_page_shows_an_example_and_no_picture_is_left_over():
    pages = sorted(PAGES.glob("*.md"))
    shown = [(page, name) for page in pages for name in page.read_text().split("](")[1:]]
    assert pages and all((PAGES / name.partition(")")[0]).is_file() for _, name in shown)
    pictures = {path.stem for path in (PAGES / "pictures").glob("*")}
    assert pictures == {page.stem for page in pages}, "run: python tools/node_words.py --pictures --only NAME"
