"""Turns photos into the layout that training reads (see training/data/deepfashion.py).

    python training/prepare.py deepfashion --root DIR          the DeepFashion In-shop download, in place
    python training/prepare.py folder --root DIR --out DIR     your own photos: a folder per person, poses beside

Both may be run again at any time: what is there already stays, and no file is ever half written.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from pgpis_models.poses.detection import DETECTORS, FOLDER  # noqa: E402
from training.data.deepfashion import DeepFashion, flat_name, read_annotations, read_pairs, table  # noqa: E402
from training.data.people import listed, pairs_of, read_people, split_people  # noqa: E402

SPLITS = ("train", "test")
GENDERS = ("MEN", "WOMEN")
# What the papers' split has: pairs, photos.
PAPERS = {"train": (101_966, 48_674), "test": (8_570, 4_038)}


# --- DeepFashion --------------------------------------------------------------------------------------------

def prepare_deepfashion(root: Path) -> None:
    """Gives every photo that the lists and pairs name its flat name in root/{train,test}_highres.

    root holds the csv files and train.lst, test.lst as CFLD's README offers them, and the unpacked img_highres.zip (its
    MEN and WOMEN folders at any depth). Raises FileNotFoundError naming up to ten missing photos, with the count, and
    ValueError for csv files of another form; nothing is written then.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is not a folder; expected the one with the csv files and the photos of DeepFashion")
    wanted = {split: names_of(root, split) for split in SPLITS}
    both = sorted(set(wanted["train"]) & set(wanted["test"]))
    if both:
        print(f"warning: {len(both)} photos are in both splits: {listed(both)}")
    photos = find_photos(root)
    jobs, missing = [], []
    for split, names in wanted.items():
        for name in names:
            target = root / f"{split}_highres" / name
            if name in photos:
                jobs.append((photos[name], target))
            elif not (target.is_file() and target.stat().st_size):
                missing.append(f"{split}_highres/{name}")
    if missing:
        raise FileNotFoundError(f"{len(missing)} of {sum(map(len, wanted.values()))} photos are missing: {listed(missing)}. "
                                f"Found {len(photos)} photos below {root} (.../WOMEN/Dresses/id_00000001/01_1_front.jpg); "
                                "unpack img_highres.zip there")
    put = sum(place(source, target) for source, target in tqdm(jobs, desc="photos", unit="photo"))
    print(f"{put} photos placed, {sum(map(len, wanted.values())) - put} were there")
    for split in SPLITS:
        data = DeepFashion(root, split)
        pairs, names = PAPERS[split]
        print(f"{split}: {len(data)} pairs (the papers: {pairs}), {len(wanted[split])} photos ({names})")


def names_of(root: Path, split: str) -> list[str]:
    """The photos of a split: those of its .lst file, which is the papers' real set for FID, and those of its pairs.

    Raises FileNotFoundError when a csv file is missing or pairs name photos without an annotation row, ValueError when
    a csv file has another form.
    """
    paired = {name for pair in read_pairs(table(root, f"resize-pairs-{split}.csv")) for name in pair}
    path = table(root, f"resize-annotation-{split}.csv")
    lacking = sorted(paired - set(read_annotations(path)))
    if lacking:
        raise FileNotFoundError(f"{path} has no row for {len(lacking)} of the {len(paired)} photos that the pairs name: "
                                f"{listed(lacking)}. Download both csv files again")
    names = root / f"{split}.lst"
    if not names.is_file():
        print(f"note: no {names}: only the photos of the pairs are prepared. Training needs no more; the papers' FID does")
        return sorted(paired)
    return sorted(paired | {line.strip() for line in names.read_text(encoding="utf-8").splitlines() if line.strip()})


def find_photos(root: Path) -> dict[str, Path]:
    """Flat name -> file of every DeepFashion photo below root; of two resolutions the larger file."""
    photos: dict[str, Path] = {}
    for folder, _folders, files in os.walk(root):
        parts = Path(folder).parts[-3:]
        if len(parts) < 3 or parts[0] not in GENDERS or not parts[2].startswith("id_"):
            continue
        for file in files:
            path = Path(folder, file)
            if path.suffix.lower() != ".jpg" or not path.stat().st_size:
                continue
            name = flat_name("/".join(("fashion", *parts, file)))
            if name not in photos or path.stat().st_size > photos[name].stat().st_size:
                photos[name] = path
    return photos


# --- own photos ---------------------------------------------------------------------------------------------

def prepare_folder(root: Path, out: Path, test_share: float = 0.1, detect: str | None = None,
                   skip: bool = False) -> None:
    """Copies people's photos to out in the same layout, with pairs within each person, and a split by person.

    Poses come from JSON files beside the photos or, with detect, from that detector, "controlnet-aux" or "rtmlib". Raises
    ValueError for photos that cannot be used, fewer than two people, and an out folder that holds other photos; nothing is
    written then.
    """
    if out.resolve() == root.resolve() or root.resolve() in out.resolve().parents:
        raise ValueError(f"--out {out} lies in --root {root}; expected a folder of its own")
    finder = None
    if detect:
        from pgpis_models.poses.detection import detect_pose  # only photos without JSON need it
        finder = partial(detect_pose, detector=detect)
    people = read_people(root, finder, skip)
    sides = dict(zip(SPLITS, split_people(list(people), test_share), strict=True))
    for split, names in sides.items():
        ours = {photo.name for name in names for photo in people[name]}
        folder = out / f"{split}_highres"
        strangers = sorted(set(os.listdir(folder)) - ours) if folder.is_dir() else []
        if strangers:
            raise ValueError(f"{folder} holds {len(strangers)} files that are not of this data: {listed(strangers)}. "
                             "Choose an empty folder for --out, or delete them")
    for split, names in sides.items():
        photos = [photo for name in names for photo in people[name]]
        for photo in tqdm(photos, desc=split, unit="photo"):
            target = out / f"{split}_highres" / photo.name
            if photo.as_it_is:
                place(photo.path, target)
            else:
                whole(target, lambda part, photo=photo: photo.picture().save(part, format="PNG"))
        pairs = [pair for name in names for pair in pairs_of(people[name])]
        write_csv(out / f"fasion-resize-annotation-{split}.csv",
                  ["name:keypoints_y:keypoints_x", *(photo.annotation() for photo in photos)])
        write_csv(out / f"fasion-resize-pairs-{split}.csv", ["from,to", *(",".join(pair) for pair in pairs)])
        print(f"{split}: {len(names)} people, {len(photos)} photos, {len(DeepFashion(out, split))} pairs")


# --- files --------------------------------------------------------------------------------------------------

def place(source: Path, target: Path) -> bool:
    """Hard-links a file, or copies it where that cannot be. False when the target is there, of the same size."""
    if target.is_file() and target.stat().st_size == source.stat().st_size:
        return False

    def link_or_copy(part: Path) -> None:
        try:
            os.link(source, part)
        except OSError:   # another file system, or one without links
            shutil.copyfile(source, part)
    whole(target, link_or_copy)
    return True


def whole(target: Path, write: Callable[[Path], object]) -> None:
    """Lets `write` make a file beside the target, which then takes its name: it is never seen half written."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.{secrets.token_hex(4)}.part")
    try:
        write(part)
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def write_csv(path: Path, lines: list[str]) -> None:
    """A text file of these lines, whole at any moment."""
    whole(path, lambda part: part.write_text("\n".join(lines) + "\n", encoding="utf-8"))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    fashion = commands.add_parser("deepfashion", help="the DeepFashion In-shop download")
    fashion.add_argument("--root", type=Path, required=True, help="folder with the csv files and the unpacked photos")
    own = commands.add_parser("folder", help="your own photos, a folder per person")
    own.add_argument("--root", type=Path, required=True, help="folder with a folder of photos per person")
    own.add_argument("--out", type=Path, required=True, help="folder to make: data.root of the training config")
    own.add_argument("--test-share", type=float, default=0.1, help="share of the people kept out of training")
    own.add_argument("--detect", nargs="?", const=DETECTORS[0], choices=DETECTORS, help="find poses of photos without JSON, "
                     f"with {DETECTORS[0]} where nothing is named; rtmlib takes its networks from {FOLDER}")
    own.add_argument("--skip", action="store_true", help="leave photos without a pose out, rather than stop")
    options = parser.parse_args(arguments)
    try:
        if options.command == "deepfashion":
            prepare_deepfashion(options.root)
            config, out = "deepfashion/cfld.yaml", options.root
        else:
            prepare_folder(options.root, options.out, options.test_share, options.detect, options.skip)
            config, out = "photos/cfld.yaml", options.out
    except (ValueError, OSError) as error:
        parser.exit(2, f"prepare.py: {error}\n")
    print(f"train with: python training/train.py --config training/configs/{config} data.root={out}")


if __name__ == "__main__":
    main()
