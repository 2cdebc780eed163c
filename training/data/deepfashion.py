"""DeepFashion In-shop photos in CFLD's layout (CFLD's authors' code). Research use only; none of it is shipped.

    root/
      train_highres/  test_highres/                     photos under flat names, as `flat_name` makes them
      fasion-resize-pairs-{train,test}.csv              from,to
      fasion-resize-annotation-{train,test}.csv         name:keypoints_y:keypoints_x
      left-out-{train,test}.txt                         photos whose pairs are not used, a tab, and why; where there are any

The files are spelled "fasion" by the authors' code and "fashion" by their README: both are read.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from torch import Tensor

from pgpis_models.files.pictures import open_rgb
from pgpis_models.poses.drawing import cfld_raster
from pgpis_models.poses.formats import parse_cfld_annotation
from pgpis_models.poses.keypoints import Keypoints
from training.engine.unreadable import UnreadablePhoto

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png")
SPELLINGS = ("fasion", "fashion")
LEFT_OUT = "left-out-{}.txt"   # of a split


class DeepFashion:
    """Source-target pairs of one split.

    root:         folder of the layout above.
    split:        "train" or "test".
    image_size:   (H, W) of the pictures for the autoencoder.
    encoder_size: (H, W) of the source picture for the source encoder.
    pose_size:    (H, W) of the pose rasters.

    `item(i)` is a dict of float32 tensors:
        source, target            (3, *image_size) in [-1, 1]
        source_encoder            (3, *encoder_size) in [-1, 1]
        source_pose, target_pose  (21, *pose_size) in [0, 1]
    `pairs[i]` holds the names of item i. Pictures are resized with Pillow's bicubic filter, which antialiases; the
    aspect ratio is not kept.

    Raises FileNotFoundError naming up to ten missing files and annotation rows, with the count.
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        image_size: tuple[int, int] = (512, 512),
        encoder_size: tuple[int, int] = (256, 256),
        pose_size: tuple[int, int] = (256, 256),
    ):
        if split not in ("train", "test"):
            raise ValueError(f"split is {split!r}; expected 'train' or 'test'.")
        root = Path(root)
        self.split = split
        self.image_size, self.encoder_size, self.pose_size = image_size, encoder_size, pose_size
        self.folder = root / f"{split}_highres"
        self.pairs = kept_pairs(root, split)
        self.poses = read_annotations(table(root, f"resize-annotation-{split}.csv"))
        _check_complete(self.folder, {name for pair in self.pairs for name in pair}, self.poses)

    def __len__(self) -> int:
        return len(self.pairs)

    def item(self, index: int, flip: bool = False, pictures: bool = True) -> dict[str, Tensor]:
        """Item `index`. flip: the encoder's input is mirrored; the pictures for the autoencoder and the poses never are.
        pictures: with those for the autoencoder; without them the target's file is not even opened."""
        source_name, target_name = self.pairs[index]
        source = open_picture(self.folder / source_name)
        encoder = picture_tensor(source, self.encoder_size) * 2 - 1
        result = {
            "source_encoder": encoder.flip(-1) if flip else encoder,
            "source_pose": cfld_raster(self.poses[source_name], self.pose_size),
            "target_pose": cfld_raster(self.poses[target_name], self.pose_size),
        }
        if not pictures:
            return result
        target = open_picture(self.folder / target_name)
        result["source"] = picture_tensor(source, self.image_size) * 2 - 1
        result["target"] = picture_tensor(target, self.image_size) * 2 - 1
        return result


def open_picture(path: Path):
    """A file -> PIL picture, RGB. UnreadablePhoto when it cannot be decoded to its end."""
    try:
        return open_rgb(path)
    except OSError as error:
        raise UnreadablePhoto(str(error)) from error


def picture_tensor(picture, size: tuple[int, int]) -> Tensor:
    """PIL picture -> (3, *size) float32 in [0, 1]: Pillow's bicubic filter on 8 bits, aspect ratio not kept."""
    from PIL import Image

    resized = picture.resize((size[1], size[0]), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1).contiguous().float() / 255.0


def flat_name(path: str) -> str:
    """Name of a photo in the flat folders, from its path in the data set.

    fashion/WOMEN/Blouses_Shirts/id_00001530/02_7_additional.jpg
    becomes fashionWOMENBlouses_Shirtsid0000153002_7additional.jpg: parts joined, underscores of the id folder dropped,
    of those in the file name only the first kept. ValueError when the path has not these five parts.
    """
    parts = PurePosixPath(path.replace("\\", "/")).parts[-5:]
    if len(parts) != 5 or not parts[3].startswith("id_"):
        raise ValueError(f"{path!r} is not a DeepFashion path; expected "
                         f"fashion/GENDER/Category/id_XXXXXXXX/NN_K_view.jpg.")
    first, _, rest = parts[4].partition("_")
    return "".join((*parts[:3], parts[3].replace("_", ""), first, "_" if rest else "", rest.replace("_", "")))


def read_pairs(path: Path) -> list[tuple[str, str]]:
    """A pairs file, comma separated with the header from,to -> [(source name, target name)]."""
    with open(path, encoding="utf-8", newline="") as file:
        rows = [[field.strip() for field in row] for row in csv.reader(file) if row]
    wrong = [number for number, row in enumerate(rows, start=1) if len(row) != 2 or not all(row)]
    if not rows or rows[0] != ["from", "to"] or wrong:
        raise ValueError(f"{path} is not a pairs file (first row {rows[:1]}, rows without two names: {wrong[:10]}, "
                         f"{len(wrong)} in all); expected the header from,to and two file names per row.")
    return [(source, target) for source, target in rows[1:]]


def left_out(root: Path, split: str) -> dict[str, str]:
    """Photo -> why its pairs are not used, of those that `training/prepare.py --skip` left out."""
    path = root / LEFT_OUT.format(split)
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return {name: why for name, _, why in (line.partition("\t") for line in lines) if name}


def kept_pairs(root: Path, split: str) -> list[tuple[str, str]]:
    """The pairs of a split without those of photos that were left out; says how many."""
    pairs, out = read_pairs(table(root, f"resize-pairs-{split}.csv")), left_out(root, split)
    kept = [pair for pair in pairs if not out.keys() & set(pair)]
    if len(kept) < len(pairs):
        print(f"{split}: {len(pairs) - len(kept)} of {len(pairs)} pairs are not used, since {LEFT_OUT.format(split)} names "
              f"{len(out)} photos")
    return kept


def read_annotations(path: Path) -> dict[str, Keypoints]:
    """An annotation file, colon separated with the header name:keypoints_y:keypoints_x -> pose of each picture, on the
    256x176 frame of the annotations."""
    with open(path, encoding="utf-8") as file:
        lines = [line.strip() for line in file if line.strip()]
    header = [field.strip() for field in lines[0].split(":")] if lines else []
    if header != ["name", "keypoints_y", "keypoints_x"]:
        raise ValueError(f"{path} is not an annotation file (first row {lines[:1]}); expected the header "
                         f"name:keypoints_y:keypoints_x.")
    return {line.split(":", 1)[0].strip(): parse_cfld_annotation(line) for line in lines[1:]}


def table(root: Path, ending: str) -> Path:
    """A csv file of the layout in either spelling. Raises FileNotFoundError when there is none."""
    for spelling in SPELLINGS:
        path = root / f"{spelling}-{ending}"
        if path.is_file():
            return path
    names = " nor ".join(f"{spelling}-{ending}" for spelling in SPELLINGS)
    raise FileNotFoundError(f"{root} has neither {names}; expected one of CFLD's files. Download them as CFLD's README "
                            f"says, and give the folder that holds them.")


def _check_complete(folder: Path, names: set[str], annotated: Iterable[str]) -> None:
    files = set(_pictures(folder))
    missing = [f"file {name}" for name in sorted(names - files)] + [
        f"annotation row {name}" for name in sorted(names - set(annotated))
    ]
    if missing:
        raise FileNotFoundError(
            f"The pairs name {len(names)} pictures; {len(missing)} files or annotation rows of them are missing "
            f"(looked in {folder}): {'; '.join(missing[:10])}{'; ...' if len(missing) > 10 else ''}. "
            f"Prepare the data set again, or drop these pairs."
        )


def _pictures(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not there; expected a folder of photos. CFLD's README tells how.")
    return [path.name for path in folder.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES]
