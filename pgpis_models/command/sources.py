"""`generate --source FOLDER`: photos of a folder in poses of another, under names that begin with the photo's own, so that a
label in it (a re-identification set's 0002_c1s1_000451_03.jpg) stays what it was."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from tqdm import tqdm

from . import cluster
from .batches import Process
from .flags import refuse
from .making import Maker, lacking
from .pairing import drawn_pairs, listed_pairs
from .poses import Choice, read_pose

FLAGS = ("each", "pairs", "ray")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """--each, --pairs and --ray."""
    parser.add_argument("--each", type=int, default=None, metavar="N", help="with a folder as --source: so many of the "
                        "poses for each photo, drawn by --seed; default: all")
    parser.add_argument("--pairs", type=Path, default=None, metavar="FILE.csv", help="with folders as --source and --pose: "
                        "which photo comes in which pose; columns source, pose and perhaps out, paths below the folders")
    parser.add_argument("--ray", default=None, metavar="ADDRESS", help="with a folder as --source: made on a Ray cluster "
                        "(its address, auto or local), whose machines see the same files under the same names")


def check_flags(options: argparse.Namespace) -> None:
    """Raises ValueError for flags of a folder of photos without one, and for what does not go together."""
    if not options.source.is_dir():
        refuse(options, FLAGS, "came with one photo; expected --source to be a folder. Leave it out")
    elif options.sequence or options.source_pose or options.source_mask:
        raise ValueError("--source is a folder of photos; expected one photo with --sequence, --source-pose and "
                         "--source-mask. Poses of the photos are read from JSON files of their names beside them")
    if options.pairs and options.each is not None:
        raise ValueError("--each came with --pairs, which says the poses of each photo; expected one of them")
    if options.pairs and not options.pose.is_dir():
        raise ValueError(f"--pairs came with --pose {options.pose.name}; expected the folder that its poses are in")


def run(options: argparse.Namespace, method: str, choice: Choice, weights: dict[str, float], extras: dict[str, Any],
        process: Process) -> None:
    """Writes this process's pictures into --out, a folder; pictures that are there stay. With --fit a photo's pose is the
    JSON file of its name beside it. Raises ValueError for mcld and as `pairing` does, and what a photo that cannot be read
    raises, when those before it are written."""
    if method == "mcld":
        raise ValueError("--source is a folder of photos and the checkpoint of mcld, which needs DensePose of each; "
                         "expected one of cfld, fpdm or qen, or one photo")
    if options.ray:
        options = cluster.everywhere(options)
    pairs = listed_pairs(options.pairs, options.source, options.pose, options.out) if options.pairs else \
        drawn_pairs(options.source, options.pose, options.out, options.each, options.seed)
    share = process.share(pairs)
    wanted = lacking(share)
    photos = {pair.photo for pair in wanted}
    together = [pair for pair in pairs if pair.photo in photos]   # a photo's frame holds all of its poses
    files = dict.fromkeys(pair.pose for pair in together)
    # all of them first: a bad one is known before hours of work
    poses = {path: read_pose(path, choice, method == "qen") for path in files}
    options.out.mkdir(parents=True, exist_ok=True)
    arguments = (options, weights, extras, together, poses)
    with tqdm(total=len(share), initial=len(share) - len(wanted), unit="img", disable=process.index > 0) as bar:
        if options.ray:
            cluster.run(options.ray, arguments, wanted, bar.update)
        elif wanted:
            Maker(*arguments).run(wanted, bar.update)
