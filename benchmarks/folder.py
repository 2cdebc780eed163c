"""A folder of pairs by one command, against as many calls: of the command, and of a generator that is loaded once.

    python benchmarks/folder.py [--json FILE] [--pairs 200] [--batch 8] [--steps 4] [--weight 1] [--anew 8] [--rounds 3]

The demo's QEN, drawn people never trained on, one photo in eight poses each, as PNG files. Every side reads its files,
encodes photo and pose, samples, decodes and writes: the folder by `generate --source FOLDER`, with its loading; the calls
one pair after another. `--steps 4 --weight 1` is what a distilled checkpoint does: 4 steps of one row. Wall clock, with
as many threads of PyTorch as --threads says. The folder and the loaded generator take turns on a part of the pairs each,
and their ratio is the median over rounds; calls of the command are timed on the first --anew pairs, in processes of their
own, and their mean counts. The bar is 1.5 for the folder over calls of the command; the exit status is 1 when it is
missed.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image

HERE = Path(__file__).resolve().parent
for path in (str(HERE), str(HERE.parent)):   # the script beside, and the pack
    if path not in sys.path:
        sys.path.insert(0, path)

from second_pass import SOURCE, frame_of, view  # noqa: E402

from pgpis_models.command.output import save  # noqa: E402
from pgpis_models.command.poses import read_pose  # noqa: E402
from pgpis_models.files.pictures import open_photo  # noqa: E402
from pgpis_models.generate import main as generate  # noqa: E402
from pgpis_models.pipeline import DEMO_FOLDER, Generator  # noqa: E402

BAR = 1.5
EACH = 8   # poses of a photo
CHECKPOINT = DEMO_FOLDER / "demo_qen.safetensors"


def write_pairs(folder: Path, count: int) -> list[tuple[str, str]]:
    """Photos and poses in two folders, and their pairs, also as pairs.csv."""
    for name in ("photos", "poses"):
        (folder / name).mkdir(parents=True)
    for number in range(-(-count // EACH)):
        Image.fromarray(view(number, SOURCE).image).save(folder / "photos" / f"person{number}.png")
    for number in range(EACH):
        (folder / "poses" / f"pose{number}.json").write_text(json.dumps(frame_of(view(100 + number, SOURCE))))
    pairs = [(f"person{number // EACH}.png", f"pose{number % EACH}.json") for number in range(count)]
    (folder / "pairs.csv").write_text("source,pose\n" + "".join(f"{a},{b}\n" for a, b in pairs))
    return pairs


def flags(options: argparse.Namespace) -> list[str]:
    weights = [f"--weight={name}={options.weight}" for name in ("pose", "appearance")]
    return ["--checkpoint", str(CHECKPOINT), "--steps", str(options.steps), "--device", options.device, *weights]


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def by_folder(folder: Path, out: Path, options: argparse.Namespace, first: int, count: int) -> None:
    """One command for these of the pairs."""
    rows = (folder / "pairs.csv").read_text().splitlines()
    listed = folder / f"part{first}.csv"
    listed.write_text("\n".join([rows[0], *rows[1 + first:1 + first + count]]) + "\n")
    generate([*flags(options), "--source", str(folder / "photos"), "--pose", str(folder / "poses"), "--pairs", str(listed),
              "--out", str(out), "--batch", str(options.batch)])


def one_by_one(folder: Path, out: Path, options: argparse.Namespace, pairs: list[tuple[str, str]]) -> None:
    """A generator, loaded once, called for each."""
    generator, weights = Generator(CHECKPOINT, device=options.device), {"pose": options.weight, "appearance": options.weight}
    out.mkdir(parents=True)
    for number, (photo, pose) in enumerate(pairs):
        source = generator.prepare(open_photo(folder / "photos" / photo))
        [made] = generator(source, [read_pose(folder / "poses" / pose)], first=number, steps=options.steps, weights=weights)
        save(made, out / f"{number}.png")


def anew(folder: Path, out: Path, options: argparse.Namespace, pair: tuple[str, str]) -> None:
    """A process for one pair."""
    files = ["--source", str(folder / "photos" / pair[0]), "--pose", str(folder / "poses" / pair[1]), "--out", str(out)]
    subprocess.run([sys.executable, "-m", "pgpis_models.generate", *flags(options), *files], cwd=HERE.parent, check=True,
                   capture_output=True)


def main() -> int:
    """Exit status: 1 when the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--weight", type=float, default=1.0, help="of every guidance term; at 1 one row is run")
    parser.add_argument("--anew", type=int, default=8, help="calls of the command that are timed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch, for the folder and the loaded generator")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rounds, loaded = [], []
    with tempfile.TemporaryDirectory(prefix="pgpis-folder-") as name:
        folder = Path(name)
        pairs = write_pairs(folder, options.pairs)
        by_folder(folder, folder / "warm", options, 0, options.batch)   # warms up
        for number in range(options.rounds):
            first, last = (options.pairs * edge // options.rounds for edge in (number, number + 1))
            sides = {"folder": lambda: by_folder(folder, folder / f"f{number}", options, first, last - first),  # noqa: B023
                     "loaded": lambda: one_by_one(folder, folder / f"l{number}", options, pairs[first:last])}   # noqa: B023
            taken = {side: seconds(sides[side]) for side in sorted(sides, reverse=bool(number % 2))}
            rounds.append(taken["folder"] / (last - first))
            loaded.append(taken["loaded"] / (last - first))
            print(f"pairs {first + 1} to {last}: folder {rounds[-1]:.3f} s each, loaded generator {loaded[-1]:.3f} s",
                  flush=True)
        calls = [seconds(lambda: anew(folder, folder / f"c{number}.png", options, pairs[number]))  # noqa: B023
                 for number in range(options.anew)]
    ratios = [b / a for a, b in zip(rounds, loaded, strict=True)]
    each, call = statistics.median(rounds), statistics.mean(calls)
    met = call / each >= BAR
    print(f"a pair of a folder of {options.pairs}: {each:.3f} s; of a loaded generator {statistics.median(loaded):.3f} s, "
          f"{statistics.median(ratios):.2f} times ({min(ratios):.2f}..{max(ratios):.2f}); of a call of the command "
          f"{call:.2f} s ({min(calls):.2f}..{max(calls):.2f}), {call / each:.1f} times, bar {BAR}: "
          f"{'met' if met else 'MISSED'}")
    settings = {"pairs": options.pairs, "batch": options.batch, "steps": options.steps, "weight": options.weight,
                "anew": options.anew, "rounds": options.rounds, "threads": options.threads, "clock": "wall",
                "device": options.device, "machine": platform.processor() or platform.machine()}
    versions = {"torch": torch.__version__, "python": platform.python_version()}
    rows = [{"name": "folder, a pair", "value": each, "unit": "s"},
            {"name": "loaded generator, a pair", "value": statistics.median(loaded), "unit": "s"},
            {"name": "command, a pair", "value": call, "unit": "s"},
            {"name": "loaded generator / folder", "value": statistics.median(ratios), "unit": "times faster"},
            {"name": "command / folder", "value": call / each, "unit": "times faster", "bar": BAR}]
    if options.json:
        options.json.write_text(json.dumps([row | {"settings": settings, "versions": versions} for row in rows], indent=1)
                                + "\n")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
