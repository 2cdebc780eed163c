"""Finds Chromium, node and playwright-core, and runs driver.mjs with them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

HERE = Path(__file__).resolve().parent
FOLDER = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pgpis" / "browser"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def browser() -> str | None:
    """The path of a Chromium on this machine."""
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


def playwright() -> Path:
    """Where playwright-core lies, or would."""
    return FOLDER / "node_modules" / "playwright-core"


def missing_tools() -> str:
    """What is needed and not there, in words; empty when all is. Installs playwright-core (from npm, without a browser)."""
    lacking = [name for name, found in (("chromium", browser()), ("node", shutil.which("node"))) if not found]
    if lacking:
        return f"{' and '.join(lacking)} not installed (Debian: apt-get install chromium nodejs npm)"
    if playwright().is_dir():
        return ""
    npm = shutil.which("npm")
    if not npm:
        return f"playwright-core is not in {FOLDER} and npm is not installed"
    FOLDER.mkdir(parents=True, exist_ok=True)
    result = subprocess.run([npm, "install", "--prefix", str(FOLDER), "playwright-core"], capture_output=True, text=True,
                            timeout=600)
    if result.returncode or not playwright().is_dir():
        return f"npm could not install playwright-core into {FOLDER}: {result.stderr[-500:]}"
    return ""


def drive(url: str, workflows: list[dict], timeout: float = 3600, searches: Sequence[str] = (),
          modern: Sequence[dict] = ()) -> dict:
    """Loads each workflow in the frontend at `url`, and types words into its search of nodes; loads those of `modern` in the
    newer view of nodes. See driver.mjs for what a workflow's entry asks and gets."""
    with tempfile.TemporaryDirectory(prefix="pgpis-browser-") as folder:
        job, report = Path(folder) / "job.json", Path(folder) / "report.json"
        job.write_text(json.dumps({"url": url, "browser": browser(), "playwright": str(playwright()),
                                   "report": str(report), "workflows": workflows, "searches": list(searches),
                                   "modern": list(modern)}))
        result = subprocess.run([shutil.which("node"), str(HERE / "driver.mjs"), str(job)], capture_output=True, text=True,
                                timeout=timeout)
        if result.returncode or not report.is_file():
            said = result.stdout[-3000:] + result.stderr[-3000:]
            raise RuntimeError(f"driver.mjs ended with {result.returncode}\n{said}")
        return json.loads(report.read_text())


def overlapping(boxes: list[dict]) -> list[tuple[str, str]]:
    """Titles of the nodes that lie over one another, of what driver.mjs tells of the newer view."""
    found = []
    for one, other in combinations(boxes, 2):
        (a, b, c, d), (x, y, w, h) = one["box"], other["box"]
        if min(a + c, x + w) - max(a, x) > 1 and min(b + d, y + h) - max(b, y) > 1:   # a unit: the page rounds to pixels
            found.append((one["title"], other["title"]))
    return found
