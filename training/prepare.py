"""Turns photos into the layout that training reads (see training/data/deepfashion.py).

    python training/prepare.py deepfashion --root DIR          the DeepFashion In-shop download, in place
    python training/prepare.py folder --root DIR --out DIR     your own photos: a folder per person, poses beside; with
                                                               --csv or --pattern any folder, such as Market-1501
    python training/prepare.py phoenix --root DIR --out DIR    RWTH-PHOENIX-Weather 2014T, with hands and face

All may be run again at any time, also after being killed: what is there already stays, and no file is ever half written.
The first two end with a picture of photos with their skeletons, skeletons.png beside the data.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from pgpis_models.files.pictures import open_rgb  # noqa: E402
from pgpis_models.poses.detection import DETECTORS, FOLDER  # noqa: E402
from pgpis_models.poses.keypoints import Keypoints  # noqa: E402
from pgpis_models.poses.wholebody import WholeBody  # noqa: E402
from training.data.deepfashion import LEFT_OUT, DeepFashion, flat_name, read_annotations, read_pairs, table  # noqa: E402
from training.data.fitting import contact_sheet, misfit, spread, upright_size  # noqa: E402
from training.data.people import Photo, listed, pairs_of, read_people, split_people  # noqa: E402
from training.data.person_lists import Entry, csv_entries, named_entries  # noqa: E402
from training.data.placing import clean, is_placed, place, whole, write_lines  # noqa: E402
from training.data.remembered import RememberedPoses  # noqa: E402
from training.data.whole_points import points_file, write_points  # noqa: E402
from training.prepare_phoenix import PAIRS, TEST_FRAMES, by_detector, from_files, prepare_phoenix  # noqa: E402

SPLITS = ("train", "test")
GENDERS = ("MEN", "WOMEN")
HIGHRES = "img_highres"     # what the download calls the folder of the photos
SHEET = "skeletons.png"     # photos with their skeletons, for a person to look at
DETECTED = "detected"       # folder of the poses that a detector found
# What the papers' split has: pairs, photos.
PAPERS = {"train": (101_966, 48_674), "test": (8_570, 4_038)}


# --- DeepFashion --------------------------------------------------------------------------------------------

def prepare_deepfashion(root: Path, skip: bool = False, photos: Path | None = None) -> None:
    """Gives every photo that the lists and pairs name its flat name in root/{train,test}_highres.

    root holds the csv files and train.lst, test.lst as CFLD's README offers them, and the unpacked img_highres.zip (its
    MEN and WOMEN folders at any depth). skip: leave out, rather than refuse, photos whose annotation does not fit them and
    those that cannot be decoded to their end: left-out-{train,test}.txt names them, and training does not use their pairs.
    photos: the folder below which photos are looked for, where several below root hold them.

    Raises FileNotFoundError naming up to ten missing photos, with the count, and ValueError for csv files of another form,
    photos in several folders, annotations that do not fit; nothing is written then. ValueError for photos that cannot be
    decoded too; the others are in place then, and another run looks only at what is not.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is not a folder; expected the one with the csv files and the photos of DeepFashion")
    wanted = {split: names_of(root, split) for split in SPLITS}
    both = sorted(set(wanted["train"]) & set(wanted["test"]))
    if both:
        print(f"warning: {len(both)} photos are in both splits: {listed(both)}")
    found = find_photos(photos or root, {name for names in wanted.values() for name in names})
    jobs, missing = [], []
    for split, names in wanted.items():
        for name in names:
            target = root / f"{split}_highres" / name
            if name in found:
                jobs.append((found[name], target))
            elif target.is_file() and target.stat().st_size:
                jobs.append((target, target))
            else:
                missing.append(f"{split}_highres/{name}")
    if missing:
        raise FileNotFoundError(f"{len(missing)} of {sum(map(len, wanted.values()))} photos are missing: {listed(missing)}. "
                                f"Found {len(found)} photos below {photos or root} (.../WOMEN/Dresses/id_00000001/"
                                "01_1_front.jpg); unpack img_highres.zip there")
    poses = {split: read_annotations(table(root, f"resize-annotation-{split}.csv")) for split in SPLITS}
    out: dict[tuple[str, str], str] = {}   # split, name -> why
    for source, target in tqdm(jobs, desc="poses", unit="photo"):
        split = target.parent.name.removesuffix("_highres")
        why = misfit_of(source, poses[split].get(target.name))
        if why:
            out[split, target.name] = why
    told(out, len(jobs), skip, "have annotations that do not fit")
    clean(root, *(root / f"{split}_highres" for split in SPLITS))
    put, broken = 0, {}
    for source, target in tqdm(jobs, desc="photos", unit="photo"):
        try:
            if not is_placed(source, target):
                open_rgb(source)   # to its end: what is cut off is found here, not in training
                put += place(source, target)
        except (OSError, ValueError) as error:
            broken[target.parent.name.removesuffix("_highres"), target.name] = str(error)
    told(broken, len(jobs), skip, "cannot be decoded")
    out |= broken
    print(f"{put} photos placed, {len(jobs) - put - len(broken)} were there")
    data = {}
    for split in SPLITS:
        lines = [f"{name}\t{why}" for (side, name), why in out.items() if side == split]
        if lines:
            write_lines(root / LEFT_OUT.format(split), lines)
        else:
            (root / LEFT_OUT.format(split)).unlink(missing_ok=True)
        data[split] = DeepFashion(root, split)
        pairs, names = PAPERS[split]
        print(f"{split}: {len(data[split])} pairs (the papers: {pairs}), {len(wanted[split])} photos ({names})")
    train = data["train"]
    names = spread(sorted({name for pair in train.pairs for name in pair}))
    show(root / SHEET, [(name, partial(open_rgb, train.folder / name), train.poses[name]) for name in names])


def misfit_of(photo: Path, pose: Keypoints | None) -> str:
    """Why an annotation row cannot be of a photo; an empty string where it can, where there is no row, and where the photo
    cannot be opened, which placing it says."""
    try:
        return misfit(pose, upright_size(photo)) if pose else ""
    except OSError:
        return ""


def told(out: dict[tuple[str, str], str], count: int, skip: bool, what: str) -> None:
    """Says which photos are left out, or raises ValueError where none may be."""
    lines = [f"{split}_highres/{name}: {why}" for (split, name), why in out.items()]
    if lines and (not skip or len(lines) == count):
        raise ValueError(f"{len(lines)} of {count} photos {what}: {listed(lines)} -- get them anew, or leave them and their "
                         "pairs out with --skip")
    if lines:
        print(f"left out {len(lines)} of {count} photos, which {what}: {listed(lines)}")


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


def find_photos(root: Path, names: Collection[str]) -> dict[str, Path]:
    """Flat name -> file of those of the names that are DeepFashion photos below root.

    Of several files of one name that of a folder `img_highres` is taken, as the download calls it, and said how many others
    there are. Raises ValueError naming them where that does not decide, and the files are not the same.
    """
    found: dict[str, list[Path]] = {}
    for folder, _folders, files in os.walk(root):
        parts = Path(folder).parts[-3:]
        if len(parts) < 3 or parts[0] not in GENDERS or not parts[2].startswith("id_"):
            continue
        for file in files:
            path = Path(folder, file)
            name = flat_name("/".join(("fashion", *parts, file)))
            if name in names and path.stat().st_size:
                found.setdefault(name, []).append(path)
    taken, doubled, unclear = {}, {}, {}
    for name, paths in found.items():
        named = [path for path in sorted(paths) if HIGHRES in path.parts[:-4]] or sorted(paths)
        taken[name] = named[0]
        if len({path.stat().st_size for path in named}) > 1 or not all(same(path, named[0]) for path in named[1:]):
            unclear[name] = [str(path.parents[3]) for path in named]
        elif len(paths) > len(named):
            doubled[name] = [str(path.parents[3]) for path in paths if path not in named]
    if unclear:
        folders = sorted({folder for some in unclear.values() for folder in some})
        raise ValueError(f"{len(unclear)} photos stand in several folders with other content: {listed(sorted(unclear))} (in "
                         f"{listed(folders)}); say with --photos which folder holds the photos")
    if doubled:
        folders = sorted({folder for some in doubled.values() for folder in some})
        print(f"note: {len(doubled)} photos are taken from {HIGHRES}, others of their names stand in {listed(folders)}")
    return taken


def same(first: Path, second: Path) -> bool:
    """Whether two files of one size have the same content."""
    return first.samefile(second) or first.read_bytes() == second.read_bytes()


# --- own photos ---------------------------------------------------------------------------------------------

def prepare_folder(root: Path, out: Path, test_share: float = 0.1, detect: str | None = None, skip: bool = False,
                   entries: Sequence[Entry] | None = None, hands: bool = False) -> None:
    """Copies people's photos to out in the same layout, with pairs within each person, and a split by person.

    Poses come from JSON files beside the photos or, with detect, from that detector, "controlnet-aux" or "rtmlib"; what it
    found is kept in out/detected. entries: who is on which photo, and perhaps in which split, a folder per person when None.
    hands: the 133 points go to out as well (training/data/whole_points.py).

    Raises ValueError for photos that cannot be used, fewer than two people, and an out folder
    that holds other photos; nothing else is written then.
    """
    if out.resolve() == root.resolve() or root.resolve() in out.resolve().parents:
        raise ValueError(f"--out {out} lies in --root {root}; expected a folder of its own")
    finder = None
    if detect:
        from pgpis_models.poses.detection import detect_pose  # only photos without JSON need it
        finder = RememberedPoses(out / DETECTED, root, partial(detect_pose, detector=detect, whole=hands), detect, hands)
    people = read_people(root, finder, skip, entries, hands)
    said = {entry.person: entry.split for entry in entries or () if entry.split}
    sides = ({split: sorted(name for name in people if said[name] == split) for split in SPLITS} if said else
             dict(zip(SPLITS, split_people(list(people), test_share), strict=True)))
    if not all(sides.values()):
        came = ", ".join(f"{len(names)} people in {split}" for split, names in sides.items())
        raise ValueError(f"{came}; expected at least one with two photos in each")
    clean(out, *(out / f"{split}_highres" for split in SPLITS))
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
                place_upright(photo, target)
            if hands:
                write_points(points_file(out, split, photo.name), photo.pose)
        pairs = [pair for name in names for pair in pairs_of(people[name])]
        write_lines(out / f"fasion-resize-annotation-{split}.csv",
                    ["name:keypoints_y:keypoints_x", *(photo.annotation() for photo in photos)])
        write_lines(out / f"fasion-resize-pairs-{split}.csv", ["from,to", *(",".join(pair) for pair in pairs)])
        print(f"{split}: {len(names)} people, {len(photos)} photos, {len(DeepFashion(out, split))} pairs")
    photos = [photo for names in sides.values() for name in names for photo in people[name]]
    show(out / SHEET, [(photo.name, photo.picture, photo.pose) for photo in spread(photos)])


def place_upright(photo: Photo, target: Path) -> None:
    """Writes the photo upright as PNG, with the time of its file, by which another run knows that it is there."""
    time = photo.path.stat().st_mtime_ns
    if target.is_file() and target.stat().st_mtime_ns == time:
        return

    def write(part: Path) -> None:
        photo.picture().save(part, format="PNG")
        os.utime(part, ns=(time, time))
    whole(target, write)


def show(path: Path, photos: Sequence[tuple[str, Callable[[], Image.Image], Keypoints]]) -> None:
    """Writes a sheet of photos (name, how to open it, pose) with their skeletons; none without photos."""
    if not photos:
        return
    sheet = contact_sheet([(name, picture(), pose) for name, picture, pose in photos])
    whole(path, lambda part: sheet.save(part, format="PNG"))
    print(f"look whether the skeletons lie on the people: {path}")


def detected_whole(picture: np.ndarray) -> WholeBody | None:
    """The largest person of a picture (H, W, 3) uint8 by rtmlib, None where there is nobody. Raises ValueError without its
    networks."""
    from pgpis_models.poses.detection import detect_poses
    found = detect_poses(picture, DETECTORS[1], whole=True)
    return max(found, key=lambda pose: float(np.prod(np.ptp(pose.xy[pose.present], axis=0))), default=None)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    fashion = commands.add_parser("deepfashion", help="the DeepFashion In-shop download")
    fashion.add_argument("--root", type=Path, required=True, help="folder with the csv files and the unpacked photos")
    fashion.add_argument("--photos", type=Path, help="folder that holds the photos, where several below --root do")
    fashion.add_argument("--skip", action="store_true", help="leave photos out that cannot be decoded or whose annotation "
                         "does not fit, with their pairs, rather than stop")
    own = commands.add_parser("folder", help="your own photos, a folder per person")
    own.add_argument("--root", type=Path, required=True, help="folder with a folder of photos per person")
    own.add_argument("--out", type=Path, required=True, help="folder to make: data.root of the training config")
    own.add_argument("--test-share", type=float, default=0.1, help="share of the people kept out of training")
    own.add_argument("--detect", nargs="?", const=DETECTORS[0], choices=DETECTORS, help="find poses of photos without JSON, "
                     f"with {DETECTORS[0]} where nothing is named; rtmlib takes its networks from {FOLDER}")
    own.add_argument("--skip", action="store_true", help="leave photos out that cannot be decoded or have no pose that "
                     "fits, rather than stop")
    own.add_argument("--csv", type=Path, help="table with person, picture and perhaps pose and split, paths below --root, "
                     "in place of a folder per person")
    own.add_argument("--pattern", help="the same from the names: a regular expression of a picture's path below --root with "
                     "the group person, and perhaps split (train, test)")
    own.add_argument("--hands", action="store_true", help="keep hands and face too, for FPDM with 133 points; poses come "
                     f"with them, or --detect {DETECTORS[1]} finds them")
    phoenix = commands.add_parser("phoenix", help="RWTH-PHOENIX-Weather 2014T, sign language")
    phoenix.add_argument("--root", type=Path, required=True, help="the unpacked release")
    phoenix.add_argument("--out", type=Path, required=True, help="folder to make: data.root of the training config")
    phoenix.add_argument("--points", type=Path, help="folder of 133 points that were found already, SPLIT/NAME.npy of shape "
                         f"(frames, 133, 2 or 3); without it rtmlib finds them, with its networks in {FOLDER}")
    phoenix.add_argument("--pairs", type=int, default=PAIRS, help="of frames of each training sequence")
    phoenix.add_argument("--test-frames", type=int, default=TEST_FRAMES, help="targets of each test sequence; 0: all")
    phoenix.add_argument("--test-split", choices=("test", "dev"), default="test")
    options = parser.parse_args(arguments)
    try:
        if options.command == "deepfashion":
            prepare_deepfashion(options.root, options.skip, options.photos)
            config, out = "deepfashion/cfld.yaml", options.root
        elif options.command == "phoenix":
            if options.pairs < 1 or options.test_frames < 0:
                raise ValueError(f"--pairs is {options.pairs} and --test-frames {options.test_frames}; expected 1 or more, "
                                 "and 0 or more")
            find = from_files(options.points) if options.points else by_detector(detected_whole)
            prepare_phoenix(options.root, options.out, find, options.pairs, options.test_frames, options.test_split)
            config, out = "phoenix/fpdm_fusion.yaml", options.out
        else:
            if options.csv and options.pattern:
                raise ValueError("--csv and --pattern came together; expected one of them")
            entries = (csv_entries(options.root, options.csv) if options.csv else
                       named_entries(options.root, options.pattern) if options.pattern else None)
            prepare_folder(options.root, options.out, options.test_share, options.detect, options.skip, entries,
                           options.hands)
            config, out = "photos/cfld.yaml", options.out
    except (ValueError, OSError) as error:
        parser.exit(2, f"prepare.py: {error}\n")
    print(f"train with: python training/train.py --config training/configs/{config} data.root={out}")


if __name__ == "__main__":
    main()
