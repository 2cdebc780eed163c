"""Turns the authors' published checkpoint files into ours: `python -m pgpis_models.convert METHOD INPUT... OUTPUT`.

`python PATH/TO/pgpis_models/convert.py METHOD ...` does the same from any folder, also with a Python that does not look for
packages in the folder that it runs in (ComfyUI's portable one).

Each method has its own file, `<method>/convert.py`, with `HELP`, `add_arguments(parser)` and `run(arguments) -> str`.
Published files are pickles: they are read by an interpreter of our own, which runs nothing (files/torch_table.py).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

if not __package__:   # run as a file: as part of the package instead, whose folder must not be searched for other packages
    HERE = Path(__file__).resolve().parent
    sys.path[:] = [str(HERE.parent), *(entry for entry in sys.path if Path(entry).resolve() != HERE)]
    from pgpis_models.convert import main
    sys.exit(main())

CONVERTERS = ("cfld", "mcld", "fpdm")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns 0, or 2 after an error message."""
    parser = argparse.ArgumentParser(prog="python -m pgpis_models.convert", description=__doc__.split("\n")[0])
    methods = parser.add_subparsers(dest="method", required=True, metavar="METHOD")
    for name in CONVERTERS:
        converter = import_module(f".{name}.convert", __package__)
        method = methods.add_parser(name, help=converter.HELP, description=converter.HELP)
        converter.add_arguments(method)
        method.set_defaults(run=converter.run)
    chosen = parser.parse_args(arguments)
    try:
        print(chosen.run(chosen))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
