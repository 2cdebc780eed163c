"""`generate --source FOLDER`: every photo of a folder in poses of another, under names that begin with the photo's own, so
that a label in it (a re-identification set's 0002_c1s1_000451_03.jpg) stays what it was."""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..pipeline import Generator
from .flags import refuse
from .output import save
from .person import Person
from .poses import Choice, picture_files, pose_files, read_pose

FLAGS = ("each",)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """--each."""
    parser.add_argument("--each", type=int, default=None, metavar="N", help="with a folder as --source: so many of the "
                        "poses for each photo, drawn by --seed; default: all")


def check_flags(options: argparse.Namespace) -> None:
    """Raises ValueError for --each without a folder of photos, and for what a folder of photos does not go with."""
    if not options.source.is_dir():
        refuse(options, FLAGS, "came with one photo; expected --source to be a folder. Leave it out")
    elif options.sequence or options.source_pose or options.source_mask:
        raise ValueError("--source is a folder of photos; expected one photo with --sequence, --source-pose and "
                         "--source-mask. Poses of the photos are read from JSON files of their names beside them")


def run(options: argparse.Namespace, method: str, choice: Choice, weights: dict[str, float], extras: dict[str, Any]) -> None:
    """Writes PHOTO_POSE.png into --out, a folder; pictures that are there stay. With --fit a photo's pose is the JSON file
    of its name beside it. Raises ValueError for mcld, and for more poses asked for than there are."""
    if method == "mcld":
        raise ValueError("--source is a folder of photos and the checkpoint of mcld, which needs DensePose of each; "
                         "expected one of cfld, fpdm or qen, or one photo")
    photos = picture_files(options.source)
    files = pose_files(options.pose) if options.pose.is_dir() else [options.pose]
    poses = [read_pose(path, choice, method == "qen") for path in files]
    count = len(files) if options.each is None else options.each
    if count > len(files):
        raise ValueError(f"--each is {count}, but --pose has {len(files)} pose(s); expected as many at most")
    generator = Generator(options.checkpoint, options.base, options.vae or options.base, options.device, options.lora)
    options.out.mkdir(parents=True, exist_ok=True)
    for number, photo in enumerate(tqdm(photos, unit="photo")):
        drawn = random.Random(f"{options.seed} {photo.name}").sample(range(len(files)), count)
        wanted = [one for one in sorted(drawn) if not _path(options, photo, files[one]).is_file()]
        beside = photo.with_suffix(".json")
        own = argparse.Namespace(**vars(options) | {"source": photo})
        if beside.is_file() and (options.fit or options.paste):
            own.source_pose = beside
        person = Person(own, generator.method.config, [poses[one] for one in wanted]) if wanted else None
        for start in range(0, len(wanted), options.batch):
            chunk = slice(start, start + options.batch)
            numbers = [number * len(files) + one for one in wanted[chunk]]
            made = generator(generator.prepare(person.photo), person.poses[chunk], mode=options.mode, weights=weights,
                             steps=options.steps, sampler=options.sampler, seed=options.seed, numbers=numbers, **extras)
            for one, picture in zip(wanted[chunk], made, strict=True):
                save(person.finished(picture), _path(options, photo, files[one]))


def _path(options: argparse.Namespace, photo: Path, pose: Path) -> Path:
    return options.out / f"{photo.stem}_{pose.stem}.png"
