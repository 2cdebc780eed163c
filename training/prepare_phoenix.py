"""RWTH-PHOENIX-Weather 2014T to the layout of training/data/deepfashion.py, with the 133 points of every frame beside:
the work of `training/prepare.py phoenix`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from tqdm import tqdm

from pgpis_models.files.reading import read_numbers
from pgpis_models.poses.wholebody import POINTS, WholeBody
from training.data.deepfashion import DeepFashion, open_picture
from training.data.fitting import upright_size
from training.data.people import annotation_row, listed
from training.data.phoenix import Sequence, drawn_pairs, first_to_rest, read_sequences
from training.data.placing import clean, place, write_lines
from training.data.whole_points import from_rows, points_file, read_points, write_points

SPLITS = ("train", "test")
PAIRS, TEST_FRAMES = 12, 16   # of each sequence
LEAST = 4                     # joints of the 18; with fewer a frame shows nobody

Find = Callable[[Sequence, str, int], WholeBody | None]   # sequence, split, number of the frame -> its person


def prepare_phoenix(root: Path, out: Path, find: Find, pairs: int = PAIRS, test_frames: int = TEST_FRAMES,
                    test_split: str = "test") -> None:
    """Frames of the pairs, their poses and the pairs, in `out`; runs again where it stopped.

    pairs: of frames of each training sequence. test_frames: targets of each sequence of the test split, whose source is its
    first frame; 0: all. test_split: "test" or "dev". A frame without a person is left out with its pairs. Raises ValueError
    when nothing is left, and as the readers do.
    """
    for split, theirs in zip(SPLITS, ("train", test_split), strict=True):
        sequences = read_sequences(root, theirs)
        clean(out, out / f"{split}_highres", out / f"{split}_wholebody")
        rows, lines, nobody = {}, [], []
        for sequence in tqdm(sequences, desc=split, unit="sequence"):
            if len(sequence.frames) < 2:
                continue
            chosen = drawn_pairs(sequence, pairs) if split == "train" else first_to_rest(sequence, test_frames)
            for number in sorted({frame for pair in chosen for frame in pair}):
                pose = _pose(out, split, theirs, sequence, number, find)
                if pose is None or pose.present.sum() < LEAST:
                    nobody.append(sequence.flat_name(number))
                    continue
                place(sequence.frames[number], out / f"{split}_highres" / sequence.flat_name(number))
                rows[sequence.flat_name(number)] = annotation_row(sequence.flat_name(number), pose)
            names = ((sequence.flat_name(a), sequence.flat_name(b)) for a, b in chosen)
            lines += [f"{a},{b}" for a, b in names if a in rows and b in rows]
        if not lines:
            raise ValueError(f"no pair of {split} is left of {len(sequences)} sequences: nobody was found in {len(nobody)} "
                             f"frames: {listed(nobody)}")
        if nobody:
            print(f"left out {len(nobody)} frames of {split} in which nobody was found: {listed(nobody)}")
        write_lines(out / f"fasion-resize-annotation-{split}.csv", ["name:keypoints_y:keypoints_x", *rows.values()])
        write_lines(out / f"fasion-resize-pairs-{split}.csv", ["from,to", *lines])
        speakers = len({sequence.speaker for sequence in sequences})
        print(f"{split}: {len(sequences)} sequences of {speakers} signers, {len(rows)} frames, "
              f"{len(DeepFashion(out, split))} pairs")


def _pose(out: Path, split: str, theirs: str, sequence: Sequence, number: int, find: Find) -> WholeBody | None:
    """Of a frame, as an earlier run wrote it or found anew."""
    path = points_file(out, split, sequence.flat_name(number))
    if path.is_file():
        return read_points(path, upright_size(sequence.frames[number]))
    pose = find(sequence, theirs, number)
    if pose is not None:
        write_points(path, pose)
    return pose


def from_files(folder: Path) -> Find:
    """Points that somebody has found already: folder/SPLIT/NAME.npy or folder/NAME.npy, (frames, 133, 2 or 3), x and y in
    pixels of the frames and perhaps a confidence. Raises ValueError and FileNotFoundError naming the file."""
    kept: dict[Path, np.ndarray] = {}

    def find(sequence: Sequence, split: str, number: int) -> WholeBody:
        paths = [folder / split / f"{sequence.name}.npy", folder / f"{sequence.name}.npy"]
        path = next((one for one in paths if one.is_file()), None)
        if path is None:
            raise FileNotFoundError(f"neither {paths[0]} nor {paths[1]} is there; expected the points of each sequence, or "
                                    "--detect rtmlib in place of --points")
        if path not in kept:
            kept.clear()
            kept[path] = read_numbers(path, "133 points of every frame")
            shape = kept[path].shape
            if len(shape) != 3 or shape[0] != len(sequence.frames) or shape[1] != POINTS or shape[2] not in (2, 3):
                raise ValueError(f"{path} holds an array of shape {shape}; expected ({len(sequence.frames)}, 133, 2 or 3): "
                                 "the points of every frame")
        return from_rows(kept[path][number], upright_size(sequence.frames[number]))
    return find


def by_detector(detect: Callable[[np.ndarray], WholeBody | None]) -> Find:
    """detect: picture (H, W, 3) uint8 RGB -> the person in it."""
    return lambda sequence, _split, number: detect(np.asarray(open_picture(sequence.frames[number])))
