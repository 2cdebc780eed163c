"""Writes the nodes' help pages (web/docs) and translations (locales) from the schemas and two tables.

    python tools/node_words.py               both, of what a ComfyUI of its own says of the nodes
    python tools/node_words.py --check       writes nothing; says what is missing or stale, and ends with 1 then
    python tools/node_words.py --pictures    the pictures of the help pages too (needs chromium and node)
    python tools/node_words.py --pictures --only PGPISLoadPose

English stands in the schemas alone. By hand beside them: tools/words/help.md, a section for each node (what it is for, what
its errors mean), and tools/words/translations.json, {"English": {"zh": .., "ja": .., "ko": ..}} of everything that a schema
says. What lacks a section or a translation is listed, and so is what no schema says any more.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from tools.words.schemas import inputs_of  # noqa: E402
from tools.words.types import TYPES  # noqa: E402

LANGUAGES = ("zh", "ja", "ko")
TABLE, HELP = ROOT / "tools" / "words" / "translations.json", ROOT / "tools" / "words" / "help.md"
PAGES, LOCALES, WORKFLOWS = ROOT / "web" / "docs", ROOT / "locales", ROOT / "workflows"
PREFIX = "PGPIS"
HOSTS_OWN = {"conditioning", "image", "loaders", "sampling"}   # categories that the host translates itself
MOST_CHOICES = 8      # of a list that are named
SPECIAL = "{}|@"      # mean something to the frontend's translations
NUMBERS = {"INT": "whole number", "FLOAT": "number"}
PLAIN = NUMBERS | {"STRING": "text", "BOOLEAN": "on or off", "COMBO": "choice"}   # types that need no explanation


# --- what the schemas say -----------------------------------------------------------------------------------

def outputs_of(info: dict) -> list[tuple[str, str, str]]:
    """(name, type, tooltip) of each output."""
    return list(zip(info["output_name"], info["output"], info["output_tooltips"], strict=True))


def texts_of(info: dict) -> list[str]:
    """Everything that a node's schema says in English and that is translated, in order."""
    said = [info["display_name"], info["description"]]
    for name, (_, options, _) in inputs_of(info).items():
        said += [name, options["tooltip"]]
    for name, _, tooltip in outputs_of(info):
        said += [name, tooltip]
    return said


def categories_of(nodes: dict[str, dict]) -> list[str]:
    """The parts of the nodes' categories that the host has no words for."""
    parts = {part for info in nodes.values() for part in info["category"].split("/")[1:]}
    return sorted(parts - HOSTS_OWN)


# --- help pages ---------------------------------------------------------------------------------------------

def sections() -> dict[str, str]:
    """Node id -> what tools/words/help.md says of it."""
    found = re.split(r"^## (\w+)\n", HELP.read_text(encoding="utf-8"), flags=re.M)[1:]
    return {name: text.strip() for name, text in zip(found[::2], found[1::2], strict=True)}


def shown_in() -> dict[str, list[str]]:
    """Node id -> names of the shipped workflows that use it, those inside of subgraphs too."""
    found: dict[str, list[str]] = {}
    for path in sorted(WORKFLOWS.glob("*.json")):
        for kind in sorted(set(re.findall(rf'"type": "({PREFIX}\w+)"', path.read_text(encoding="utf-8")))):
            found.setdefault(kind, []).append(path.stem)
    return found


def kind_of(kind: str | list, options: dict) -> str:
    """An input's type in words: range and default of a number, choices of a short list that is no list of files."""
    choices = kind if isinstance(kind, list) else options.get("options", []) if kind == "COMBO" else None
    if choices is not None:
        named = 2 <= len(choices) <= MOST_CHOICES and not any(re.search(r"\.\w+$", str(one)) for one in choices)
        return "one of: " + ", ".join(map(str, choices)) if named else "choice"
    default = options.get("default")
    if kind in NUMBERS:
        if options.get("max", 0) > 2**32:
            return f"{NUMBERS[kind]}, default {default}"
        return f"{NUMBERS[kind]}, {options['min']:g} to {options['max']:g}, default {default:g}"
    if kind == "BOOLEAN":
        return f"on or off, default {'on' if default else 'off'}"
    if kind == "STRING":
        return "text" if options.get("multiline") or not default else f"text, default `{default}`"
    return kind


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def page_of(name: str, info: dict, hand: str, workflows: list[str], picture: bool) -> str:
    """The help page of a node as markdown. hand: its section of help.md. Raises KeyError for a type that TYPES lacks."""
    purpose, _, errors = hand.partition("\n\n|")
    lines = [f"# {info['display_name']}", "", info["description"], "", purpose, ""]
    if picture:
        lines += [f"![A small graph](pictures/{name}.webp)", ""]
    if workflows:
        lines += [f"Shown in {', '.join(f'`{one}`' for one in workflows)} (Workflow > Browse Templates).", ""]
    given = [(one, PLAIN.get(kind, kind), tooltip) for one, kind, tooltip in outputs_of(info)]
    for title, rows in (("Inputs", _input_rows(info)), ("Outputs", given)):
        if rows:
            lines += [f"## {title}", "", _row("name", "type", "what it is"), "| --- | --- | --- |",
                      *(_row(f"**{one}**", kind, tooltip) for one, kind, tooltip in rows), ""]
    used = [kind for kind in [*(kind for kind, *_ in inputs_of(info).values()), *info["output"]]
            if isinstance(kind, str) and kind not in PLAIN]
    if used:
        lines += ["## Types", "", _row("type", "what it holds"), "| --- | --- |",
                  *(_row(kind, TYPES[kind]) for kind in dict.fromkeys(used)), ""]
    if errors:
        lines += ["## When it refuses", "", "| the message says | do |", "| --- | --- |", f"|{errors}", ""]
    return "\n".join(lines)


def _input_rows(info: dict) -> list[tuple[str, str, str]]:
    rows = []
    for name, (kind, options, optional) in inputs_of(info).items():
        spare = optional and not options["tooltip"].endswith("Needed.")   # the host is told that some of the needed are not
        rows.append((name, kind_of(kind, options) + ("; optional" if spare else ""), options["tooltip"]))
    return rows


# --- translations -------------------------------------------------------------------------------------------

def table() -> dict[str, dict[str, str]]:
    """English -> language -> translation."""
    return json.loads(TABLE.read_text(encoding="utf-8"))


def locale_of(nodes: dict[str, dict], words: dict[str, dict[str, str]], language: str) -> dict[str, dict]:
    """File name -> content of a folder of locales, as the host's /i18n reads it."""
    def said(text: str) -> str:
        return words[text][language]
    entries = {}
    for name, info in nodes.items():
        entry = {"display_name": said(info["display_name"]), "description": said(info["description"]),
                 "inputs": {one: {"name": said(one), "tooltip": said(options["tooltip"])}
                            for one, (_, options, _) in inputs_of(info).items()},
                 "outputs": {str(number): {"name": said(one), "tooltip": said(tooltip)}
                             for number, (one, _, tooltip) in enumerate(outputs_of(info))}}
        entries[name] = {key: value for key, value in entry.items() if value}
    return {"main.json": {"nodeCategories": {part: said(part) for part in categories_of(nodes)}}, "nodeDefs.json": entries}


# --- both ---------------------------------------------------------------------------------------------------

def problems(nodes: dict[str, dict]) -> list[str]:
    """What the two tables lack for these nodes (id -> entry of /object_info), and what in them no schema says any more."""
    hand, words = sections(), table()
    texts = [*categories_of(nodes), *(text for info in nodes.values() for text in texts_of(info))]
    found = [f"tools/words/help.md has no section ## {name}" for name in nodes if name not in hand]
    found += [f"tools/words/help.md has a section ## {name}, which is no node" for name in hand if name not in nodes]
    for text in dict.fromkeys(texts):
        lacking = [language for language in LANGUAGES if not words.get(text, {}).get(language)]
        if lacking:
            found.append(f"no translation into {', '.join(lacking)} of {text!r}")
    found += [f"translated, but no schema says it: {text!r}" for text in words if text not in set(texts)]
    found += [f"one of {SPECIAL} in the translation {value!r}" for entry in words.values() for value in entry.values()
              if set(value) & set(SPECIAL)]
    kinds = {kind for info in nodes.values() for kind in [*info["output"], *(one for one, *_ in inputs_of(info).values())]
             if isinstance(kind, str)}
    found += [f"tools/words/types.py does not say what {kind} holds" for kind in sorted(kinds - set(TYPES) - set(PLAIN))]
    return found


def files_of(nodes: dict[str, dict]) -> dict[Path, str]:
    """Path -> content of everything that is generated, when there are no `problems`."""
    hand, words, workflows = sections(), table(), shown_in()
    made = {PAGES / f"{name}.md": page_of(name, info, hand[name], workflows.get(name, []),
                                          (PAGES / "pictures" / f"{name}.webp").is_file()) for name, info in nodes.items()}
    for language in LANGUAGES:
        for file, content in locale_of(nodes, words, language).items():
            made[LOCALES / language / file] = json.dumps(content, ensure_ascii=False, indent=1) + "\n"
    return made


def stale(made: dict[Path, str]) -> list[str]:
    """Files that do not hold what is generated, or that nothing generates any more."""
    found = [path for path, text in made.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    return sorted(str(path.relative_to(ROOT)) for path in [*found, *left_over(made)])


def left_over(made: dict[Path, str]) -> list[Path]:
    """Pages and locale files that nothing generates any more."""
    return [path for path in (*PAGES.glob("*.md"), *LOCALES.glob("*/*.json")) if path not in made]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    parser.add_argument("--pictures", action="store_true", help="take the pictures of the help pages too")
    parser.add_argument("--only", nargs="+", help="pictures of these nodes alone")
    arguments = parser.parse_args()
    from tests.host.http_host import make_base, serve
    with tempfile.TemporaryDirectory(prefix="pgpis-words-") as folder, serve(make_base(Path(folder))) as host:
        nodes = {name: info for name, info in host.object_info.items() if name.startswith(PREFIX)}
        if arguments.pictures:
            from tools.words.pictures import take
            take(host, arguments.only or list(nodes), PAGES / "pictures")
    found = problems(nodes)
    if found:
        print("\n".join(found), file=sys.stderr)
        return 1
    made = files_of(nodes)
    if arguments.check:
        print("\n".join(f"stale: {path}" for path in stale(made)))
        return int(bool(stale(made)))
    for path, text in made.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    for path in left_over(made):
        path.unlink()
    print(f"{len(nodes)} help pages and {len(LANGUAGES)} languages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
