"""`python -m pgpis_models.generate`: one picture, or a folder of poses, without ComfyUI.

    python -m pgpis_models.generate --checkpoint C --source A.png --pose B.json --out O.png
    python -m pgpis_models.generate --checkpoint C --source A.png --pose POSES/ --out PICTURES/
    python -m pgpis_models.generate --checkpoint C --source A.png --pose VIDEO.npy --canvas 260x210 --sequence --out O.webp

With an MCLD checkpoint poses are IUV pictures, and the person's own is given with --source-densepose.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from tqdm import tqdm

from . import generate_mcld, generate_qen
from .checkpoint import read_metadata
from .pipeline import Generator, open_photo
from .pose import Keypoints
from .pose_files import POSE_SUFFIXES, load_poses
from .pose_formats import EMPTY, from_pose_keypoint

PHOTO_FILES = (".png", ".jpg", ".jpeg", ".webp")
POSE_FILES = (".json", *PHOTO_FILES)                     # what a folder of poses is made of
OTHER_POSE_FILES = tuple(kind for kind in POSE_SUFFIXES if kind not in POSE_FILES)   # or else of these
ANIMATED = (".webp", ".gif")


def read_pose(path: Path, canvas: tuple[int, int] | None = None) -> Keypoints:
    """A pose from a file that `load_poses` reads, its first frame, or from a photo where controlnet-aux is installed.

    canvas: (height, width) that a file refers to when it does not say. Raises ValueError for other files.
    """
    if path.suffix.lower() in POSE_SUFFIXES:
        return from_pose_keypoint(load_poses(path, canvas))[0]
    if path.suffix.lower() not in POSE_FILES:
        raise ValueError(f"pose {path} is a {path.suffix or 'nameless'} file; expected one of "
                         f"{', '.join((*POSE_FILES, *OTHER_POSE_FILES))}")
    from .detect import detect_pose  # only photos need the detector
    with Image.open(path) as file:
        return detect_pose(np.asarray(ImageOps.exif_transpose(file).convert("RGB")))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m pgpis_models.generate", description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, required=True, help="a method checkpoint of this pack")
    parser.add_argument("--source", type=Path, required=True, help="photo of the person")
    parser.add_argument("--pose", type=Path, required=True, help="pose file (JSON, txt, npy) or photo (MCLD: IUV "
                        "picture), or a folder of them")
    parser.add_argument("--sequence", action="store_true", help="all frames of the pose file or folder, in order, as one "
                        "moving picture: --out is a .webp or .gif file, or a folder of numbered frames")
    parser.add_argument("--empty", choices=EMPTY, default="error", help="a frame of a sequence without a person: an error "
                        "that names it, or the pose before it held")
    parser.add_argument("--noise", choices=("same", "frame"), default="same", help="a sequence's frames start from one "
                        "noise, or each from its own")
    parser.add_argument("--fps", type=float, default=12.0, help="frames per second of a .webp or .gif")
    parser.add_argument("--canvas", default="", metavar="HxW",
                        help="height x width in pixels that pose files refer to; for OpenPose's own, which do not say")
    parser.add_argument("--out", type=Path, required=True, help="picture, or a folder when --pose is one")
    parser.add_argument("--base", default="", help="diffusers folder of the base model (not for demo checkpoints)")
    parser.add_argument("--vae", default="", help="autoencoder; default: that of the base")
    parser.add_argument("--source-densepose", default="", help="MCLD: IUV picture of the source photo")
    parser.add_argument("--texture", default="", help="MCLD: texture map; default: warped from photo and DensePose")
    parser.add_argument("--face", default="", help="MCLD: face embedding, .npy of insightface")
    parser.add_argument("--clip", default="", help="MCLD: folder of CLIP ViT-L/14 (not for demo checkpoints)")
    generate_qen.add_flags(parser)
    parser.add_argument("--mode", default=None, help="guidance mode; default: the authors' of the method")
    parser.add_argument("--weight", action="append", default=[], metavar="TERM=W", help="guidance weight, repeatable")
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--sampler", choices=("ddim", "ddpm"), default=None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=4, help="poses made at once")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args(arguments)
    try:
        run(options)
    except (ValueError, OSError, ImportError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")


def run(options: argparse.Namespace) -> None:
    """Everything after the command line is read."""
    weights = dict(read_weight(item) for item in options.weight)
    canvas = read_canvas(options.canvas) if options.canvas else None
    method = read_metadata(options.checkpoint).method
    control = generate_qen.control_of(options, method)
    if options.sequence:
        return run_sequence(options, weights, canvas, control)
    folder = options.pose.is_dir()
    files = pose_files(options.pose) if folder else [options.pose]
    mcld = method == "mcld"
    # all of them first: a bad one is known before hours of work
    poses = [generate_mcld.read_iuv(path) if mcld else read_pose(path, canvas) for path in files]
    generator = Generator(options.checkpoint, options.base, options.vae or options.base, options.device)
    photo = open_photo(options.source)
    source, extras = generator.prepare(photo), control
    if mcld:
        extras = generate_mcld.person_of(generator, photo, options.source_densepose, options.texture, options.face,
                                         options.clip)
    outputs = [options.out / f"{p.stem}.png" for p in files] if folder else [options.out]
    outputs[0].parent.mkdir(parents=True, exist_ok=True)
    steps = options.steps or generator.defaults["steps"]
    with tqdm(total=len(files) * steps, unit="step") as bar:
        for start in range(0, len(files), options.batch):
            chunk = slice(start, start + options.batch)
            count, targets = len(poses[chunk]), {"densepose": poses[chunk]} if mcld else {}
            made = generator(source, poses[chunk], mode=options.mode, weights=weights, steps=steps,
                             sampler=options.sampler, seed=options.seed, first=start, **extras, **targets,
                             callback=lambda *_, n=count: bar.update(n))
            for path, picture in zip(outputs[chunk], made, strict=True):
                save(picture, path)


def run_sequence(options: argparse.Namespace, weights: dict[str, float], canvas: tuple[int, int] | None,
                 control: dict[str, Any]) -> None:
    """--sequence: frames leave memory as soon as they are written, but for those of one animated file."""
    if not options.fps > 0:
        raise ValueError(f"--fps is {options.fps}; expected frames per second above 0")
    poses = sequence_poses(options.pose, canvas, options.empty)
    if options.out.suffix and options.out.suffix.lower() not in ANIMATED:
        raise ValueError(f"--out is {options.out}; expected a {' or '.join(ANIMATED)} file, or a folder for numbered frames")
    generator = Generator(options.checkpoint, options.base, options.vae or options.base, options.device)
    source = generator.prepare(open_photo(options.source))
    (options.out.parent if options.out.suffix else options.out).mkdir(parents=True, exist_ok=True)
    steps, frames = options.steps or generator.defaults["steps"], []
    with tqdm(total=len(poses) * steps, unit="step") as bar:
        made = generator.sequence(source, poses, chunk=options.batch, same_noise=options.noise == "same", mode=options.mode,
                                  weights=weights, steps=steps, sampler=options.sampler, seed=options.seed,
                                  callback=lambda _step, _total, x: bar.update(len(x)), **control)
        number = 0
        for pictures in made:
            for picture in pictures:
                if options.out.suffix:
                    frames.append(as_file(picture))
                else:
                    save(picture, options.out / f"{number:05d}.png")
                number += 1
    if frames:
        part = options.out.with_name(f".{options.out.name}.part")
        frames[0].save(part, format=options.out.suffix[1:].upper(), save_all=True, append_images=frames[1:], loop=0,
                       duration=round(1000 / options.fps))
        part.replace(options.out)


def sequence_poses(path: Path, canvas: tuple[int, int] | None, empty: str) -> list[Keypoints]:
    """All frames of a pose file, or of the files of a folder in the order of their names. Raises ValueError for photos."""
    files = pose_files(path) if path.is_dir() else [path]
    return from_pose_keypoint([frame for file in files for frame in load_poses(file, canvas)], empty=empty)


def read_weight(text: str) -> tuple[str, float]:
    """`TERM=W` of the command line. Raises ValueError for anything else."""
    name, _, value = text.partition("=")
    try:
        return name, float(value)
    except ValueError:
        raise ValueError(f"--weight {text!r}; expected TERM=NUMBER, such as appearance=1.5") from None


def read_canvas(text: str) -> tuple[int, int]:
    """`HEIGHTxWIDTH` -> (height, width). Raises ValueError for anything else."""
    height, _, width = text.partition("x")
    if not (height.isdigit() and width.isdigit()):
        raise ValueError(f"--canvas is {text!r}; expected HEIGHTxWIDTH in pixels, such as 1101x750")
    return int(height), int(width)


def pose_files(folder: Path) -> list[Path]:
    """The poses of a folder, one per stem: where a photo has a JSON file beside it, that is its pose.

    Raises ValueError when there is none, or two photos share a stem.
    """
    files: dict[str, Path] = {}
    everything = sorted(folder.iterdir())
    found = [path for path in everything if path.suffix.lower() in POSE_FILES] \
        or [path for path in everything if path.suffix.lower() in OTHER_POSE_FILES]
    described = {path.stem for path in found if path.suffix.lower() == ".json"}
    for path in found:
        if path.stem in described and path.suffix.lower() != ".json":
            continue
        if path.stem in files:
            raise ValueError(f"{files[path.stem]} and {path.name} would both make {path.stem}.png; rename one")
        files[path.stem] = path
    if not files:
        raise ValueError(f"no poses in {folder}; expected files ending in {', '.join((*POSE_FILES, *OTHER_POSE_FILES))}")
    return sorted(files.values())


def save(picture: torch.Tensor, path: Path) -> None:
    """Writes (3, H, W) in 0..1 as a picture; a file that exists is replaced only when the new one is whole."""
    part = path.with_name(f".{path.name}.part")
    as_file(picture).save(part, format=Image.registered_extensions().get(path.suffix.lower(), "PNG"))
    part.replace(path)


def as_file(picture: torch.Tensor) -> Image.Image:
    """(3, H, W) in 0..1 -> 8 bits."""
    return Image.fromarray((picture.permute(1, 2, 0).cpu().numpy() * 255).round().astype(np.uint8))


if __name__ == "__main__":
    main()
