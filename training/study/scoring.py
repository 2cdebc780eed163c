"""What the answers of a study say: R2G, G2R and Jab with intervals of confidence, and how far people agree."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any

from training.study.questions import KEY, REAL

GENERATED = "generated"


def wilson(hits: int, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of a share of `count` answers (Wilson 1927), 0..1; (0, 1) of none. It takes answers as independent, which
    those of one person are not quite."""
    if not count:
        return 0.0, 1.0
    z2 = NormalDist().inv_cdf(0.5 + confidence / 2) ** 2
    centre, spread = hits + z2 / 2, (z2 * (hits * (count - hits) / count + z2 / 4)) ** 0.5
    return max(0.0, (centre - spread) / (count + z2)), min(1.0, (centre + spread) / (count + z2))


def fleiss_kappa(counts: Iterable[Sequence[int]]) -> float | None:
    """Agreement beyond chance (Fleiss 1971): 1 full, 0 as by chance; None where nobody could disagree.

    counts: per question, how often each category was chosen. Fleiss has as many answers to each question; where some
    have fewer, each question's agreement is of its own pairs of answers, and those with fewer than two do not count.
    """
    rows = [row for row in counts if sum(row) > 1]
    total = sum(map(sum, rows))
    if not rows:
        return None
    agreed = sum(sum(n * (n - 1) for n in row) / (sum(row) * (sum(row) - 1)) for row in rows) / len(rows)
    chance = sum((sum(column) / total) ** 2 for column in zip(*rows, strict=True))
    return (agreed - chance) / (1 - chance) if chance < 1 else None


def read_answers(key: dict[str, Any], files: Sequence[Path]) -> dict[str, dict[str, dict[str, str]]]:
    """Page -> person -> question -> answer. Raises ValueError for files of another study, questions and answers that it does
    not have, and a person who answered a page twice."""
    pages = {page["name"]: page for page in key["pages"]}
    found: dict[str, dict[str, dict[str, str]]] = {name: {} for name in pages}
    for file in files:
        try:
            said = json.loads(file.read_text(encoding="utf-8"))
            study, page, person, answers = (said[name] for name in ("study", "page", "person", "answers"))
            items = dict(answers)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{file} is no file of answers ({error!r}); expected what a page of the study saved") from error
        if study != key["study"] or page not in pages:
            raise ValueError(f"{file} answers page {page!r} of study {study!r}; expected one of {sorted(pages)} of study "
                             f"{key['study']!r}, whose {KEY} this is")
        allowed = {question["name"]: {REAL, GENERATED} if pages[page]["kind"] == "judge" else set(question["pictures"])
                   for question in pages[page]["questions"]}
        wrong = {question: answer for question, answer in items.items() if answer not in allowed.get(question, ())}
        if wrong:
            raise ValueError(f"{file} has answers that page {page} does not offer: {dict(list(wrong.items())[:5])}")
        if person in found[page]:
            raise ValueError(f"{file}: {person!r} answered page {page} in another file too; remove one")
        found[page][person] = items
    return found


def share(name: str, hits: int, count: int, people: int, confidence: float) -> dict[str, Any]:
    low, high = wilson(hits, count, confidence)
    return {"measure": name, "share": hits / count if count else None, "low": low, "high": high, "answers": count,
            "people": people}


def score(study: Path, files: Sequence[Path], confidence: float = 0.95) -> dict[str, Any]:
    """The measures of a study folder and files of answers.

    -> {"rows": [{method, measure (R2G, G2R or Jab), share, low, high, answers, people}], "agreement": {page: Fleiss' kappa},
    "open": {page: questions left open by all its people together}}. R2G of a method is that of the people who saw its page;
    shares are 0..1, nothing where nobody answered.
    """
    if not (study / KEY).is_file():
        raise ValueError(f"{study} has no {KEY}; expected a folder that `user_study.py make` wrote")
    key = json.loads((study / KEY).read_text(encoding="utf-8"))
    pictures, answers = key["pictures"], read_answers(key, files)
    result: dict[str, Any] = {"rows": [], "agreement": {}, "open": {}}
    for page in key["pages"]:
        people = answers[page["name"]]
        given = [(question, said[question["name"]]) for question in page["questions"] for said in people.values()
                 if question["name"] in said]
        result["open"][page["name"]] = len(people) * len(page["questions"]) - len(given)
        if page["kind"] == "judge":
            rows, votes = judged(page, given, pictures, len(people), confidence)
        else:
            rows, votes = chosen(page, given, pictures, len(people), confidence)
        result["rows"] += rows
        result["agreement"][page["name"]] = fleiss_kappa(votes)
    return result


def judged(page: dict, given: list[tuple[dict, str]], pictures: dict, people: int,
           confidence: float) -> tuple[list[dict], list[list[int]]]:
    shown = {question["name"]: pictures[question["pictures"][0]]["method"] for question in page["questions"]}
    [method] = set(shown.values()) - {REAL}
    said = Counter((shown[question["name"]] == REAL, answer) for question, answer in given)
    rows = [share(name, said[real, wrong], said[real, REAL] + said[real, GENERATED], people, confidence)
            for name, real, wrong in (("R2G", True, GENERATED), ("G2R", False, REAL))]
    votes = Counter((question["name"], answer) for question, answer in given)
    return ([{"method": method} | row for row in rows],
            [[votes[name, answer] for answer in (REAL, GENERATED)] for name in shown])


def chosen(page: dict, given: list[tuple[dict, str]], pictures: dict, people: int,
           confidence: float) -> tuple[list[dict], list[list[int]]]:
    methods = sorted({pictures[file]["method"] for question in page["questions"] for file in question["pictures"]})
    votes = Counter((question["name"], pictures[answer]["method"]) for question, answer in given)
    counts = [[votes[question["name"], method] for method in methods] for question in page["questions"]]
    hits = [sum(column) for column in zip(*counts, strict=True)]
    return ([{"method": method} | share("Jab", count, len(given), people, confidence)
             for method, count in zip(methods, hits, strict=True)], counts)


def table(result: dict[str, Any], confidence: float = 0.95) -> str:
    """The measures as Markdown, shares in per cent."""
    lines = [f"| method | measure | share % | {confidence:.0%} interval | answers | people |", "| --- " * 6 + "|"]
    for row in result["rows"]:
        value, interval = "", ""
        if row["share"] is not None:
            value, interval = f"{100 * row['share']:.1f}", f"{100 * row['low']:.1f} to {100 * row['high']:.1f}"
        lines.append(f"| {row['method']} | {row['measure']} | {value} | {interval} | {row['answers']} | {row['people']} |")
    lines += ["", "| page | Fleiss' kappa | left open |", "| --- | --- | --- |"]
    for page, kappa in result["agreement"].items():
        lines.append(f"| {page} | {'' if kappa is None else f'{kappa:.3f}'} | {result['open'][page]} |")
    return "\n".join(lines)
