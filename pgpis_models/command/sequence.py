"""`generate --sequence`: all frames of a pose file or folder as one moving picture, or as numbered files."""

from __future__ import annotations

import argparse
from typing import Any

from tqdm import tqdm

from ..methods import sequence_encoders
from ..pipeline import Generator
from ..poses.formats import EMPTY
from .flags import refuse
from .output import ANIMATED, as_file, check_ending, save, save_film
from .person import Person
from .poses import Choice, sequence_poses

FLAGS = ("empty", "noise", "fps")
FPS = 12.0


def add_flags(parser: argparse.ArgumentParser) -> None:
    """--sequence, --empty, --noise and --fps."""
    parser.add_argument("--sequence", action="store_true", help="all frames of the pose file or folder, in order, as one "
                        "moving picture: --out is a .webp or .gif file, or a folder of numbered frames")
    parser.add_argument("--empty", choices=EMPTY, default=None, help="a frame of a sequence without the person, or with the "
                        "person off its canvas: an error that names it (the default), or the pose before it held")
    parser.add_argument("--noise", choices=("same", "frame"), default=None, help="a sequence's frames start from one "
                        "noise (the default), or each from its own")
    parser.add_argument("--fps", type=float, default=None, help=f"frames per second of a .webp or .gif; default {FPS:.0f}")


def check_flags(options: argparse.Namespace) -> None:
    """Raises ValueError for flags of a sequence without --sequence, and for values that cannot be."""
    if not options.sequence:
        refuse(options, FLAGS, "came without --sequence, whose frames they are about. Add it, or leave them out")
    if options.fps is not None and not 0 < options.fps < float("inf"):
        raise ValueError(f"--fps is {options.fps}; expected frames per second above 0")


def run(options: argparse.Namespace, method: str, choice: Choice, weights: dict[str, float], extras: dict[str, Any]) -> None:
    """Frames leave memory as soon as they are written, but for those of one animated file. extras: of
    `Generator.sequence`."""
    sequence_encoders(method)   # one that makes no sequences says so before its poses are looked for
    if options.out.suffix:   # without one it is a folder for numbered frames
        check_ending(options.out, ANIMATED)
    poses = sequence_poses(options.pose, choice, options.empty or "error")
    generator = Generator(options.checkpoint, options.base, options.vae or options.base, options.device)
    person = Person(options, generator.method.config, poses)
    if person.said:
        print(person.said)
    person.warn(generator.picture_size)
    source, poses = generator.prepare(person.photo), person.poses
    (options.out.parent if options.out.suffix else options.out).mkdir(parents=True, exist_ok=True)
    steps, frames = options.steps or generator.defaults["steps"], []
    with tqdm(total=len(poses) * steps, unit="step") as bar:
        made = generator.sequence(source, poses, chunk=options.batch, same_noise=options.noise != "frame", mode=options.mode,
                                  weights=weights, steps=steps, sampler=options.sampler, seed=options.seed,
                                  callback=lambda _step, _total, x: bar.update(len(x)), **extras)
        number = 0
        for pictures in made:
            for picture in pictures:
                picture = person.finished(picture)
                if options.out.suffix:
                    frames.append(as_file(picture))
                else:
                    save(picture, options.out / f"{number:05d}.png")
                number += 1
    if frames:
        save_film(frames, options.out, options.fps or FPS)
