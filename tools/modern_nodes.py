"""Pictures of the workflows' graphs in the frontend's newer view of nodes (Nodes 2.0), and which nodes overlap there.

    python tools/modern_nodes.py OUT               all of them, with a ComfyUI of its own; nothing is run
    python tools/modern_nodes.py OUT --only NAME   one workflow, or some

Needs chromium and node, as tools/picture_workflows.py does, and a ComfyUI whose frontend has that view.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from tests.browser.chromium import drive, missing_tools, overlapping  # noqa: E402
from tests.host.saved_workflows import workflow_files  # noqa: E402
from tools.picture_workflows import host_of  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder for the pictures")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="of these workflows alone")
    parser.add_argument("--host", help="address of a running ComfyUI")
    options = parser.parse_args()
    lacking = missing_tools()
    if lacking:
        sys.exit(lacking)
    options.out.mkdir(parents=True, exist_ok=True)
    files = [path for path in workflow_files() if not options.only or path.stem in options.only]
    jobs = [{"name": path.stem, "workflow": json.loads(path.read_text()),
             "screenshot": str(options.out / f"{path.stem}.png")} for path in files]
    with host_of(options.host) as host:
        seen = drive(host.url, [], modern=jobs)["modern"]
    for one in seen:
        for first, second in overlapping(one["boxes"]):
            print(f"{one['name']}: {first} overlaps {second}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
