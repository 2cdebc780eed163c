"""The user studies of CFLD 4.4 (R2G, G2R, Jab) and QEN 4.4 (Jab), on pages that need no server:

    python training/user_study.py make --out STUDY --real OUT/targets --method cfld=OUT/generated --method qen=OUT2/generated
    python training/user_study.py score STUDY ANSWERS/*.json --json study.json

`make` writes STUDY/people, to be handed out (each person opens one page in a browser and sends back the file that it saves),
and STUDY/key.json, to be kept: only it says what each picture is.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from training.study.questions import Study  # noqa: E402
from training.study.scoring import score, table  # noqa: E402


def method(text: str) -> tuple[str, Path]:
    name, equals, folder = text.partition("=")
    if not (name and equals and folder):
        raise argparse.ArgumentTypeError(f"{text!r}; expected NAME=FOLDER, such as cfld=out/generated")
    return name, Path(folder)


def size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    if not (height.isdigit() and width.isdigit() and int(height) and int(width)):
        raise argparse.ArgumentTypeError(f"{text!r}; expected HEIGHTxWIDTH, such as 256x176")
    return int(height), int(width)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0].rstrip(":"))
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("make", help="write the pages of a study")
    make.add_argument("--out", type=Path, required=True)
    make.add_argument("--real", type=Path, required=True, help="folder of ground truths")
    make.add_argument("--method", type=method, action="append", required=True, metavar="NAME=FOLDER",
                      help="generated pictures of a method, named as the ground truths; repeatable")
    make.add_argument("--choices", type=int, default=25, help="questions of Jab; 0: none")
    make.add_argument("--judged", type=int, default=30, help="real and as many generated pictures of R2G and G2R; 0: none")
    make.add_argument("--size", type=size, default=None, help="of all pictures; default: of the generated ones")
    make.add_argument("--seed", type=int, default=0, help="which pictures, in which order")
    scored = commands.add_parser("score", help="measure the answers")
    scored.add_argument("study", type=Path, help="folder that `make` wrote")
    scored.add_argument("answers", type=Path, nargs="+", help="files that the pages saved")
    scored.add_argument("--confidence", type=float, default=0.95)
    scored.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    try:
        if options.command == "make":
            methods = dict(options.method)
            if len(methods) < len(options.method):
                raise ValueError(f"--method names {[name for name, _ in options.method]}; expected each once")
            study = Study(options.real, methods, options.choices, options.judged, options.seed, options.size)
            print("Hand out", ", ".join(str(path) for path in study.write(options.out)))
            return
        if not 0 < options.confidence < 1:
            raise ValueError(f"--confidence is {options.confidence}; expected a share between 0 and 1, such as 0.95")
        result = score(options.study, options.answers, options.confidence)
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    print(table(result, options.confidence))
    if options.json:
        options.json.write_text(json.dumps(result | {"confidence": options.confidence}, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
