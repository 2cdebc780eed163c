"""Scores as a Markdown table and as a CSV of pictures."""

from __future__ import annotations

import csv
from pathlib import Path

from training.evaluation.pairing import Pair


def markdown(result: dict, title: str) -> str:
    """One row per measure: mean, standard deviation over the pictures, and how many of them counted."""
    lines = [f"{title}: protocol {result['protocol']}, {result['size'][0]}x{result['size'][1]}, {result['pairs']} pairs", "",
             *_rows(result)]
    for kind, what in (("autoencoder", "The autoencoder's own reconstruction of the targets"),
                       ("all", "All pairs, those that could not be made with the source photo in the picture's place")):
        if kind in result:
            lines += ["", f"{what}, {result[kind]['pairs']} pairs:", "", *_rows(result[kind])]
    if videos := result.get("by_sequence"):
        lines += ["", f"Of each sequence first, then over {videos['sequences']} sequences:", "",
                  "| measure | mean | deviation | sequences |", "| --- | --- | --- | --- |"]
        lines += [f"| {name} | {videos[name]:.4f} | {spread:.4f} | {videos['counted'][name]} |"
                  for name, spread in videos["spread"].items()]
    return "\n".join([*lines, *(f"\nLeft out: {reason}." for reason in result["left_out"]), ""])


def _rows(result: dict) -> list[str]:
    lines = ["| measure | mean | deviation | pictures |", "| --- | --- | --- | --- |"]
    for name, spread in result["spread"].items():
        lines.append(f"| {name} | {result[name]:.4f} | {spread:.4f} | {result['counted'][name]} |")
    lines += [f"| {name} | {result[name]:.4f} | | |" for name in ("fid_papers", "fid", "kid", "kid_deviation")
              if name in result]
    return lines + [f"| {kind} pictures without a face | {count} | | |"
                    for kind, count in result.get("without_face", {}).items()]


def write_pictures(path: Path, pairs: list[Pair], rows: list[dict[str, float]]) -> None:
    """A row per pair: its files, and its own values; a measure that it does not have is empty."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", encoding="utf-8", newline="") as text:
        table = csv.writer(text)
        table.writerow(["generated", "target", "source", *names])
        for pair, row in zip(pairs, rows, strict=True):
            values = (repr(row[name]) if name in row else "" for name in names)
            table.writerow([pair.made, pair.target, pair.source or "", *values])
