"""`python -m pgpis_models.generate`: one picture, or a folder of poses, without ComfyUI.

    python -m pgpis_models.generate --checkpoint C --source A.png --pose B.json --out O.png
    python -m pgpis_models.generate --checkpoint C --source A.png --pose POSES/ --out PICTURES/

With an MCLD checkpoint poses are IUV pictures, and the person's own is given with --source-densepose.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from tqdm import tqdm

from . import generate_mcld
from .checkpoint import read_metadata
from .pipeline import Generator, open_photo
from .pose import Keypoints
from .pose_formats import from_pose_keypoint, load_openpose_json

POSE_FILES = (".json", ".png", ".jpg", ".jpeg", ".webp")


def read_pose(path: Path, canvas: tuple[int, int] | None = None) -> Keypoints:
    """A pose from an OpenPose JSON file, or from a photo where controlnet-aux is installed.

    canvas: (height, width) that a JSON file refers to when it does not say. Raises ValueError for other files.
    """
    if path.suffix.lower() == ".json":
        return from_pose_keypoint(load_openpose_json(path, canvas))[0]
    if path.suffix.lower() not in POSE_FILES:
        raise ValueError(f"pose {path} is a {path.suffix or 'nameless'} file; expected one of {', '.join(POSE_FILES)}")
    from .detect import detect_pose  # only photos need the detector
    with Image.open(path) as file:
        return detect_pose(np.asarray(ImageOps.exif_transpose(file).convert("RGB")))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m pgpis_models.generate", description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, required=True, help="a method checkpoint of this pack")
    parser.add_argument("--source", type=Path, required=True, help="photo of the person")
    parser.add_argument("--pose", type=Path, required=True, help="OpenPose JSON or photo (MCLD: IUV picture), or a folder")
    parser.add_argument("--canvas", default="", metavar="HxW",
                        help="height x width in pixels that pose files refer to; for OpenPose's own, which do not say")
    parser.add_argument("--out", type=Path, required=True, help="picture, or a folder when --pose is one")
    parser.add_argument("--base", default="", help="diffusers folder of the base model (not for demo checkpoints)")
    parser.add_argument("--vae", default="", help="autoencoder; default: that of the base")
    parser.add_argument("--source-densepose", default="", help="MCLD: IUV picture of the source photo")
    parser.add_argument("--texture", default="", help="MCLD: texture map; default: warped from photo and DensePose")
    parser.add_argument("--face", default="", help="MCLD: face embedding, .npy of insightface")
    parser.add_argument("--clip", default="", help="MCLD: folder of CLIP ViT-L/14 (not for demo checkpoints)")
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
    folder = options.pose.is_dir()
    files = pose_files(options.pose) if folder else [options.pose]
    mcld = read_metadata(options.checkpoint).method == "mcld"
    # all of them first: a bad one is known before hours of work
    poses = [generate_mcld.read_iuv(path) if mcld else read_pose(path, canvas) for path in files]
    generator = Generator(options.checkpoint, options.base, options.vae or options.base, options.device)
    photo = open_photo(options.source)
    source, extras = generator.prepare(photo), {}
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
    found = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in POSE_FILES]
    described = {path.stem for path in found if path.suffix.lower() == ".json"}
    for path in found:
        if path.stem in described and path.suffix.lower() != ".json":
            continue
        if path.stem in files:
            raise ValueError(f"{files[path.stem]} and {path.name} would both make {path.stem}.png; rename one")
        files[path.stem] = path
    if not files:
        raise ValueError(f"no poses in {folder}; expected files ending in {', '.join(POSE_FILES)}")
    return sorted(files.values())


def save(picture: torch.Tensor, path: Path) -> None:
    """Writes (3, H, W) in 0..1 as a picture; a file that exists is replaced only when the new one is whole."""
    part = path.with_name(f".{path.name}.part")
    Image.fromarray((picture.permute(1, 2, 0).cpu().numpy() * 255).round().astype(np.uint8)).save(
        part, format=Image.registered_extensions().get(path.suffix.lower(), "PNG"))
    part.replace(path)


if __name__ == "__main__":
    main()
