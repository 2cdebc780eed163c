"""Drawn people who sign, as a data set in the layout of RWTH-PHOENIX-Weather 2014T, with the 133 points of every frame:

    python training/world/signing.py --out output/data/signing [--sequences 200 10] [--frames 24]
    python training/prepare.py phoenix --root output/data/signing --points output/data/signing/points --out output/data/signs

Hands and fingers are where a sign says, in front of the chest; the signs are made up. Signers of the test split sign in the
training split too, as in PHOENIX, whose nine signers are in all splits.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from pgpis_models.body.landmarks import whole_points  # noqa: E402
from pgpis_models.body.skeleton import Arm, Bends, Leg, Pose  # noqa: E402
from training.world.drawing import placed, render  # noqa: E402
from training.world.wardrobe import sample_identity  # noqa: E402

SIZE = (260, 210)      # height, width of PHOENIX's frames, pixels
SIGNERS = 9            # of PHOENIX
FIRST_SIGNER = 2_000_000   # identity seed of the first one: nobody of the demo
LEGS = (Leg(0.05, 0.0, 0.02), Leg(0.05, 0.0, 0.02))
HOLD = 6               # frames from one sign to the next
FRAMES = "features/fullFrame-210x260px"
TABLES = "annotations/manual/PHOENIX-2014-T.{}.corpus.csv"
COLUMNS = ("name", "video", "start", "end", "speaker", "orth", "translation")
OPEN, FIST = (0.1,) * 5, (1.4, 2.6, 2.6, 2.6, 2.6)
SHAPES: tuple[Bends, ...] = (OPEN, FIST, (1.4, 0.0, 2.6, 2.6, 2.6), (1.4, 0.0, 0.0, 2.6, 2.6), (0.0, 2.6, 2.6, 2.6, 2.6),
                             (0.0, 2.6, 2.6, 2.6, 0.0), (0.8, 1.2, 1.2, 1.2, 1.2))   # of hands, by their fingers


def sign(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A held sign as numbers: arms (2, 4) lift, swing, bend and how far up the forearm points; hands (2, 5); head (3,)."""
    arms = np.stack([rng.uniform((0.25, 0.5, 1.5, 0.1), (0.85, 1.2, 2.1, 1.0)) for _ in range(2)])
    if rng.random() < 0.3:   # one hand rests
        arms[rng.integers(2)] = (0.12, 0.2, 0.35, 0.0)
    return {"arms": arms, "hands": np.array([SHAPES[n] for n in rng.integers(len(SHAPES), size=2)]),
            "head": rng.uniform(-0.12, 0.12, 3)}


def signing_poses(seed: int, frames: int) -> list[Pose]:
    """The poses of a sequence: signs that follow from the seed, with smooth ways between them."""
    rng = np.random.default_rng((seed, 8117))
    signs = [sign(rng) for _ in range(-(-frames // HOLD) + 1)]
    poses = []
    for frame in range(frames):
        at, share = divmod(frame / HOLD, 1)
        share = share * share * (3 - 2 * share)
        now = {name: (1 - share) * signs[int(at)][name] + share * signs[int(at) + 1][name] for name in signs[0]}
        arms = tuple(Arm(lift, swing, bend, (-0.45, up, 1.0)) for lift, swing, bend, up in now["arms"].tolist())
        turned, nod, roll = now["head"].tolist()
        poses.append(Pose(0.0, lean=0.0, tilt=0.0, head_turn=turned, head_nod=nod, arms=arms, legs=LEGS,
                          zoom=1.7, y=0.07, head_roll=roll, hands=tuple(map(tuple, now["hands"].tolist()))))
    return poses


def signed_frame(signer: int, pose: Pose, size: tuple[int, int] = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """(H, W, 3) uint8 of a signer, and the points (133, 3): x, y in pixels and 1 where they lie in the picture, else 0."""
    who = sample_identity(FIRST_SIGNER + signer)
    skeleton, _, view = placed(who, pose, size)
    points = view.project(whole_points(skeleton, who.build))[:, :2]
    inside = ((points >= 0) & (points < (size[1], size[0]))).all(1)
    return render(who, pose, size).image, np.concatenate([points, inside[:, None]], axis=1)


def write_split(out: Path, split: str, first: int, sequences: int, frames: int, size: tuple[int, int] = SIZE) -> None:
    """Sequences of a split in the published layout, and points/SPLIT/NAME.npy (frames, 133, 3) beside."""
    rows = ["|".join(COLUMNS)]
    (out / "points" / split).mkdir(parents=True, exist_ok=True)
    for number in tqdm(range(sequences), desc=split, unit="sequence"):
        name, signer = f"drawn_{split}_{number:04d}", number % SIGNERS
        folder = out / FRAMES / split / name
        folder.mkdir(parents=True, exist_ok=True)
        points = []
        for frame, pose in enumerate(signing_poses(first + number, frames), start=1):
            picture, found = signed_frame(signer, pose, size)
            Image.fromarray(picture).save(folder / f"images{frame:04d}.png")
            points.append(found)
        np.save(out / "points" / split / f"{name}.npy", np.stack(points).astype(np.float32))
        rows.append("|".join([name, f"{name}/1/*.png", "-1", "-1", f"Signer{signer + 1:02d}", "DRAWN", "gezeichnet"]))
    table = out / TABLES.format(split)
    table.parent.mkdir(parents=True, exist_ok=True)
    table.write_text("\n".join(rows) + "\n", encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0].rstrip(":"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sequences", type=int, nargs=2, default=(200, 10), metavar=("TRAIN", "TEST"))
    parser.add_argument("--frames", type=int, default=24, help="of each sequence")
    options = parser.parse_args(arguments)
    if min(*options.sequences, options.frames) < 1:
        parser.error("--sequences and --frames: expected 1 or more")
    first = 0
    for split, count in zip(("train", "test"), options.sequences, strict=True):
        write_split(options.out, split, first, count, options.frames)
        first += count


if __name__ == "__main__":
    main()
