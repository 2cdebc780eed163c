"""`python -m pgpis_models.generate`: one picture, or a folder of poses, without ComfyUI.

    python -m pgpis_models.generate --checkpoint C --source A.png --pose B.json --out O.png
    python -m pgpis_models.generate --checkpoint C --source A.png --pose POSES/ --out PICTURES/
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from .pipeline import Generator
from .pose import Keypoints
from .pose_formats import from_pose_keypoint, load_openpose_json

POSE_FILES = (".json", ".png", ".jpg", ".jpeg", ".webp")


def read_pose(path: Path) -> Keypoints:
    """A pose from an OpenPose JSON file, or from a photo where controlnet-aux is installed."""
    if path.suffix == ".json":
        return from_pose_keypoint(load_openpose_json(path))[0]
    if path.suffix.lower() not in POSE_FILES:
        raise ValueError(f"pose {path} is a {path.suffix or 'nameless'} file; expected one of {', '.join(POSE_FILES)}")
    from .detect import detect_pose  # only photos need the detector
    return detect_pose(np.asarray(Image.open(path).convert("RGB")))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m pgpis_models.generate", description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, required=True, help="a method checkpoint of this pack")
    parser.add_argument("--source", type=Path, required=True, help="photo of the person")
    parser.add_argument("--pose", type=Path, required=True, help="OpenPose JSON or photo, or a folder of them")
    parser.add_argument("--out", type=Path, required=True, help="picture, or a folder when --pose is one")
    parser.add_argument("--base", default="", help="diffusers folder of the base model (not for demo checkpoints)")
    parser.add_argument("--vae", default="", help="autoencoder; default: that of the base")
    parser.add_argument("--mode", default="uc_down_full", help="guidance mode of the method")
    parser.add_argument("--weight", action="append", default=[], metavar="TERM=W", help="guidance weight, repeatable")
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--sampler", choices=("ddim", "ddpm"), default=None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=4, help="poses made at once")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args(arguments)
    try:
        run(options)
    except (ValueError, FileNotFoundError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")


def run(options: argparse.Namespace) -> None:
    """Everything after the command line is read."""
    weights = dict(item.partition("=")[::2] for item in options.weight)
    weights = {name: float(value) for name, value in weights.items()} or None
    folder = options.pose.is_dir()
    files = sorted(p for p in options.pose.iterdir() if p.suffix.lower() in POSE_FILES) if folder else [options.pose]
    if not files:
        raise ValueError(f"no poses in {options.pose}; expected files ending in {', '.join(POSE_FILES)}")
    generator = Generator(options.checkpoint, options.base, options.vae or options.base, options.device)
    source = generator.prepare(np.asarray(Image.open(options.source)))
    outputs = [options.out / f"{p.stem}.png" for p in files] if folder else [options.out]
    outputs[0].parent.mkdir(parents=True, exist_ok=True)
    steps = options.steps or generator.defaults["steps"]
    with tqdm(total=len(files) * steps, unit="step") as bar:
        for start in range(0, len(files), options.batch):
            chunk = slice(start, start + options.batch)
            poses = [read_pose(path) for path in files[chunk]]
            made = generator(source, poses, mode=options.mode, weights=weights, steps=steps, sampler=options.sampler,
                             seed=options.seed, first=start, callback=lambda *_, n=len(poses): bar.update(n))
            for path, picture in zip(outputs[chunk], made):
                save(picture, path)


def save(picture: torch.Tensor, path: Path) -> None:
    """Writes (3, H, W) in 0..1 as a picture; a file that exists is replaced only when the new one is whole."""
    part = path.with_name(f".{path.name}.part")
    Image.fromarray((picture.permute(1, 2, 0).cpu().numpy() * 255).round().astype(np.uint8)).save(
        part, format=Image.registered_extensions().get(path.suffix.lower(), "PNG"))
    part.replace(path)


if __name__ == "__main__":
    main()
