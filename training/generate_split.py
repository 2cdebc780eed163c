"""Makes the pictures of a whole test split, to be measured with training/evaluate.py:

    python training/generate_split.py --checkpoint C --root DATA --out OUT [--base FOLDER]
    python training/evaluate.py --generated OUT/generated --targets OUT/targets --size 256x176 --json scores.json

DATA has the layout that training/prepare.py makes (for MCLD with the conditions of training/prepare_mcld.py). Runs again
where it stopped: pictures that are there stay, and a picture's noise depends on its place in the split alone. With
`accelerate launch` each process makes its share.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from pgpis_models.command.batches import Process, in_batches, launched  # noqa: E402
from pgpis_models.command.mcld import person_of, read_iuv  # noqa: E402
from pgpis_models.generate import read_weight, save  # noqa: E402
from pgpis_models.mcld.inputs import ClipEncoder  # noqa: E402
from pgpis_models.parts.pixels import CLIP_MEAN  # noqa: E402
from pgpis_models.pipeline import Generator  # noqa: E402
from pgpis_models.poses.keypoints import Keypoints  # noqa: E402
from training.data.deepfashion import kept_pairs, open_picture, read_annotations, table  # noqa: E402
from training.data.fitting import upright_size  # noqa: E402
from training.data.focal import usable_pairs  # noqa: E402
from training.data.placing import place, whole, write_lines  # noqa: E402
from training.data.whole_points import points_file, read_points  # noqa: E402

SPLITS = ("test", "train")
SETTINGS = "settings.json"
LOST = "lost"   # folder of what could not be made


def pair_name(pair: tuple[str, str]) -> str:
    """What the picture of a pair is called, without a suffix."""
    return "_to_".join(Path(name).stem for name in pair)


class Split:
    """What a method reads of the pairs of one split. without_photo: MCLD sees texture map and face alone, and a picture of
    CLIP's mean colour in the photo's place, as a dropped one of its training. Raises FileNotFoundError and ValueError as the
    readers do."""

    def __init__(self, root: Path, split: str, generator: Generator, clip: str = "", without_photo: bool = False) -> None:
        self.root, self.split, self.generator, self.without_photo = root, split, generator, without_photo
        self.mcld = generator.meta.method == "mcld"
        if without_photo and not self.mcld:
            raise ValueError(f"--without-photo is MCLD's (B4 of its table 3); the checkpoint is of {generator.meta.method}")
        self.pairs = usable_pairs(root, split) if self.mcld else kept_pairs(root, split)
        made = set(self.pairs)   # the authors measure these; LOST lists the others
        self.lost = [pair for pair in kept_pairs(root, split) if pair not in made] if self.mcld else []
        self.clip = ClipEncoder(clip, generator.device) if self.mcld and clip else None
        self.poses = {} if self.mcld else read_annotations(table(root, f"resize-annotation-{split}.csv"))
        named = {name for pair in self.pairs for name in pair}
        missing = sorted(named - {path.name for path in self.folder("highres").glob("*")})
        if self.mcld:
            there = {path.stem for path in self.folder("densepose").glob("*.png")}
            missing += [f"DensePose of {pair[1]} (training/prepare_mcld.py)" for pair in self.pairs
                        if Path(pair[1]).stem not in there]
        else:
            missing += [f"annotation row {name}" for name in sorted({pair[1] for pair in self.pairs} - set(self.poses))]
        if missing:
            raise FileNotFoundError(f"the pairs of {root} name {len(named)} photos; {len(missing)} files or annotation rows "
                                    f"are missing (looked in {self.folder('highres')}): {'; '.join(missing[:10])}")

    def folder(self, kind: str) -> Path:
        return self.root / f"{self.split}_{kind}"

    def read(self, numbers: Sequence[int]) -> dict[str, Any]:
        """Arguments of `Generator.pairs`; each photo is read once."""
        pairs = [self.pairs[number] for number in numbers]
        names = list(dict.fromkeys(source for source, _ in pairs))
        photos = [np.asarray(open_picture(self.folder("highres") / name)) for name in names]
        found: dict[str, Any] = {"sources": torch.cat([self.generator.prepare(photo) for photo in photos]),
                                 "which": [names.index(source) for source, _ in pairs], "numbers": numbers}
        if not self.mcld:
            return found | {"poses": [self.pose(target) for _, target in pairs]}
        people = [self.person(photo, Path(name).stem) for photo, name in zip(photos, names, strict=True)]
        width = self.generator.method.config.face_width
        person = {"textures": np.concatenate([one["textures"] for one in people]),
                  "faces": torch.cat([one.get("faces", torch.zeros(1, width)).cpu() for one in people])}
        if self.clip is not None:
            person["clip"] = self.clip
        if self.without_photo:
            found["sources"] = torch.tensor(CLIP_MEAN).view(1, 3, 1, 1).expand_as(found["sources"]) * 2 - 1
        return found | {"person": person, "poses": [read_iuv(self.folder("densepose") / f"{Path(target).stem}.png")
                                                    for _, target in pairs]}

    def pose(self, name: str) -> Keypoints:
        """Of a photo; with hands and face where the method draws them."""
        if not getattr(self.generator.method.config, "whole", False):
            return self.poses[name]
        return read_points(points_file(self.root, self.split, name), upright_size(self.folder("highres") / name))

    def person(self, photo: np.ndarray, stem: str) -> dict[str, Any]:
        """MCLD's extras of one source; its texture map from the file, or from its DensePose where there is none."""
        texture, face, iuv = (self.folder(kind) / f"{stem}.{ending}" for kind, ending in
                              (("texture", "png"), ("face", "npy"), ("densepose", "png")))
        own = self.generator.method.config.own_vision
        return person_of(self.generator, photo, str(iuv) if own or not texture.is_file() else "",
                         str(texture) if texture.is_file() else "", str(face) if face.is_file() else "")


def generate(split: Split, out: Path, settings: dict[str, Any], batch: int, process: Process = Process()) -> int:
    """Makes what this process shall and is not there yet; returns how many pictures that were.

    Raises ValueError when `out` holds pictures made with other settings.
    """
    check_settings(out / SETTINGS, settings)
    share = process.share(range(len(split.pairs)))
    wanted = [number for number in share if not made_path(out, split.pairs[number]).is_file()]
    (out / "generated").mkdir(parents=True, exist_ok=True)
    options = {name: settings[name] for name in ("mode", "weights", "steps", "sampler", "seed")}
    with tqdm(total=len(share), initial=len(share) - len(wanted), unit="img", disable=process.index > 0) as bar:
        def write(numbers: Sequence[int], _inputs: dict[str, Any], pictures: torch.Tensor) -> None:
            for number, picture in zip(numbers, pictures, strict=True):
                source, target = pair = split.pairs[number]
                place(split.folder("highres") / source, out / "sources" / f"{pair_name(pair)}{Path(source).suffix}")
                place(split.folder("highres") / target, out / "targets" / f"{pair_name(pair)}{Path(target).suffix}")
                save(picture, made_path(out, pair))   # last: what is there is complete
            bar.update(len(numbers))
        in_batches(wanted, batch, split.read, lambda inputs: split.generator.pairs(**inputs, **options).cpu(), write)
    return len(wanted)


def place_lost(split: Split, out: Path) -> None:
    """Pairs in which DensePose found nobody: listed, with the source photo where a generated picture would be."""
    if not split.lost:
        return
    for source, target in split.lost:
        name = pair_name((source, target))
        place(split.folder("highres") / source, out / LOST / "generated" / f"{name}{Path(source).suffix}")
        place(split.folder("highres") / target, out / LOST / "targets" / f"{name}{Path(target).suffix}")
    write_lines(out / LOST / "pairs.csv", ["from,to", *(",".join(pair) for pair in split.lost)])
    print(f"{len(split.lost)} of {len(split.lost) + len(split.pairs)} pairs cannot be made, since DensePose found nobody in "
          f"a photo of them: {out / LOST / 'pairs.csv'}; evaluate.py measures them too with --lost {out / LOST}")


def made_path(out: Path, pair: tuple[str, str]) -> Path:
    return out / "generated" / f"{pair_name(pair)}.png"


def check_settings(path: Path, settings: dict[str, Any]) -> None:
    if path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        changed = sorted(name for name in settings if before.get(name) != settings[name]
                         and (name in before or settings[name]))   # what is newer than the pictures, and off
        if changed:
            was = ", ".join(f"{name} was {before.get(name)!r}" for name in changed)
            raise ValueError(f"{path.parent} holds pictures made with other settings: {was}. Choose another --out, or "
                             "remove the folder")
        return
    whole(path, lambda part: part.write_text(json.dumps(settings, indent=2), encoding="utf-8"))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0].rstrip(":"))
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--root", type=Path, required=True, help="data set, as training/prepare.py makes it")
    parser.add_argument("--out", type=Path, required=True, help="gets generated/, targets/ and sources/, same names in all")
    parser.add_argument("--split", choices=SPLITS, default="test")
    parser.add_argument("--base", default="", help="diffusers folder of the base model (not for demo checkpoints)")
    parser.add_argument("--vae", default="", help="autoencoder; default: that of the base")
    parser.add_argument("--clip", default="", help="MCLD: folder of CLIP ViT-L/14 (not for demo checkpoints)")
    parser.add_argument("--without-photo", action="store_true", help="MCLD: texture map and face alone, B4 of its table 3")
    parser.add_argument("--mode", default=None, help="guidance mode; default: the authors' of the method")
    parser.add_argument("--weight", action="append", default=[], metavar="TERM=W", help="guidance weight, repeatable")
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--sampler", choices=("ddim", "ddpm"), default=None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=8, help="pictures made at once")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args(arguments)
    try:
        weights = dict(read_weight(item) for item in options.weight)
        if options.batch < 1:
            raise ValueError(f"--batch is {options.batch}; expected 1 or more")
        process = launched()
        generator = Generator(options.checkpoint, options.base, options.vae or options.base, process.device(options.device))
        split = Split(options.root, options.split, generator, options.clip, options.without_photo)
        settings = {"checkpoint": str(options.checkpoint), "split": options.split, "mode": options.mode, "weights": weights,
                    "steps": options.steps, "sampler": options.sampler, "seed": options.seed,
                    "without_photo": options.without_photo}
        count = generate(split, options.out, settings, options.batch, process)
        if process.index == 0:
            place_lost(split, options.out)
    except (ValueError, OSError, ImportError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    print(f"{count} pictures made, {len(process.share(split.pairs)) - count} were there. Measure them:\n"
          f"python training/evaluate.py --generated {options.out / 'generated'} --targets {options.out / 'targets'} "
          f"--sources {options.out / 'sources'} --protocol {split.generator.meta.method.replace('qen', 'cfld')} "
          "--size 256x176 --json scores.json")


if __name__ == "__main__":
    main()
