"""The hand-written part of the nodes' help: the messages that it explains are messages of the pack."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tools.node_words import sections

ROOT = Path(__file__).resolve().parents[1]
HOSTS_OWN = {"Value not in list"}
OPEN = re.compile(r"\.\.\.|\b(?:N|M|X|WxH)\b")   # what differs from case to case in a message


@cache
def messages() -> str:
    """Every string of the nodes and of what they call, what is filled in as one odd character, one string a line."""
    found = []
    for path in (path for folder in ("nodes", "pgpis_models") for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(part.value if isinstance(part, ast.Constant) else "\0" for part in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(text.replace("\n", " ") for text in found)


@pytest.mark.parametrize("node", sections())
def test_messages_are_those_that_the_pack_gives(node):
    invented = []
    for said in re.findall(r"^\| (.*?) \|", sections()[node], flags=re.M):
        said = said.removesuffix(" (a warning)")
        pattern = r"[^\n]*?".join(re.escape(part.strip()) for part in OPEN.split(said) if part.strip())
        if said not in HOSTS_OWN and not re.search(pattern.replace(r"\ ", r"[ \0]+"), messages()):
            invented.append(said)
    assert invented == []


def test_every_section_says_what_the_node_is_for_and_what_its_errors_mean():
    assert [name for name, text in sections().items() if len(text.partition("\n\n|")[0]) < 60 or "\n| " not in text] == []
