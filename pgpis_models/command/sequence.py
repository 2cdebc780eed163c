"""`generate --sequence`: all frames of a pose file or folder as one moving picture, or as numbered files."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from ..framing.limbs import surface_of_pose
from ..methods import sequence_encoders
from ..noise.carried import Carried
from ..pipeline import Generator
from ..poses.formats import EMPTY
from ..poses.keypoints import Keypoints
from ..surface.carrying import carried_by
from ..surface.densepose import IUV
from ..unet.attention import FIRST_ALONE
from . import mcld
from .flags import refuse
from .output import ANIMATED, as_file, check_ending, save, save_film
from .person import Person
from .poses import Choice, sequence_poses

FLAGS = ("empty", "noise", "first_frame", "fps")
FPS = 12.0
NOISES = ("same", "frame", "body")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """--sequence, --empty, --noise, --first-frame and --fps."""
    parser.add_argument("--sequence", action="store_true", help="all frames of the pose file or folder, in order, as one "
                        "moving picture: --out is a .webp or .gif file, or a folder of numbered frames; MCLD: a folder of "
                        "IUV pictures")
    parser.add_argument("--empty", choices=EMPTY, default=None, help="a frame of a sequence without the person, or with the "
                        "person off its canvas: an error that names it (the default), or the pose before it held")
    parser.add_argument("--noise", choices=NOISES, default=None, help="a sequence's frames start from one noise (the "
                        "default), each from its own, or from that of the first frame carried along by the body")
    parser.add_argument("--first-frame", type=float, default=None, metavar="S", help="how far a sequence's frames "
                        "see the first one, so that what it made up stays: 0 (the default), 1 beside themselves, "
                        "2 in place of themselves, which flickers least")
    parser.add_argument("--fps", type=float, default=None, help=f"frames per second of a .webp or .gif; default {FPS:.0f}")


def check_flags(options: argparse.Namespace) -> None:
    """Raises ValueError for flags of a sequence without --sequence, and for values that cannot be."""
    if not options.sequence:
        refuse(options, FLAGS, "came without --sequence, whose frames they are about. Add it, or leave them out")
    if options.fps is not None and not 0 < options.fps < float("inf"):
        raise ValueError(f"--fps is {options.fps}; expected frames per second above 0")
    if options.first_frame is not None and not 0 <= options.first_frame <= FIRST_ALONE:
        raise ValueError(f"--first-frame is {options.first_frame}; expected 0 to {FIRST_ALONE}")


def run(options: argparse.Namespace, method: str, choice: Choice, weights: dict[str, float], extras: dict[str, Any]) -> None:
    """Frames leave memory as soon as they are written, but for those of one animated file. extras: of
    `Generator.sequence`."""
    sequence_encoders(method)   # one that makes no sequences says so before its poses are looked for
    if options.out.suffix:   # without one it is a folder for numbered frames
        check_ending(options.out, ANIMATED)
    dense, empty = method == "mcld", options.empty or "error"
    targets = mcld.sequence_iuvs(options.pose, empty) if dense else sequence_poses(options.pose, choice, empty)
    generator = Generator(options.checkpoint, options.base, options.vae or options.base, options.device, options.lora)
    config = generator.method.config
    if dense:
        own = mcld.read_iuv(options.source_densepose) if options.source_densepose else None
        person = Person(options, config, denseposes=targets, densepose=own)
        targets = person.denseposes
        extras = {"person": mcld.person_of(generator, person.photo, person.densepose, options.texture, options.face,
                                           options.clip)}
    else:
        person = Person(options, config, targets)
        targets = person.poses
    if person.said:
        print(person.said)
    person.warn(generator.picture_size)
    source = generator.prepare(person.photo)
    (options.out.parent if options.out.suffix else options.out).mkdir(parents=True, exist_ok=True)
    steps, frames = options.steps or generator.defaults["steps"], []
    with tqdm(total=len(targets) * steps, unit="step") as bar:
        made = generator.sequence(source, targets, chunk=options.batch, same_noise=options.noise != "frame",
                                  carried=carried(generator, targets) if options.noise == "body" else None,
                                  first_frame=options.first_frame or 0.0, mode=options.mode, weights=weights, steps=steps,
                                  sampler=options.sampler, seed=options.seed,
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


def carried(generator: Generator, targets: Sequence[Keypoints | IUV]) -> Carried:
    """What carries the noise along the frames: their DensePose, or their skeletons."""
    surfaces = (one if isinstance(one, IUV) else surface_of_pose(one, generator.picture_size) for one in targets)
    return carried_by(surfaces, generator.method.config.latent_size)
