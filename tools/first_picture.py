"""Makes docs/pictures/first.png, what README begins with: four people, source, pose, what comes out, the truth.

    python tools/first_picture.py --people 0,8,6,14
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from pgpis_models.pipeline import DEMO_FOLDER, Generator  # noqa: E402
from pgpis_models.poses.drawing import draw_openpose  # noqa: E402
from training.demo import SIZE, extras  # noqa: E402
from training.engine.config import DataConfig  # noqa: E402
from training.engine.picture import grid  # noqa: E402
from training.world.bank import open_bank  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--people", default="0,8,6,14", help="numbers of people never trained on")
    parser.add_argument("--method", default="mcld")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--per-row", type=int, default=2)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "pictures" / "first.png")
    options = parser.parse_args()
    who = np.array([int(number) for number in options.people.split(",")])
    data = DataConfig(size=SIZE, workers=2, cache=str(ROOT / "output" / "demo" / "cache"))
    bank = open_bank(data, held_out=int(who.max()) + 1)
    source, target = np.zeros(len(who), int), np.ones(len(who), int)
    generator = Generator(DEMO_FOLDER / f"demo_{options.method}.safetensors")
    poses = bank.poses(who, target)
    made = generator(bank.images(who, source), poses, steps=options.steps,
                     **extras(options.method, bank, who, source, target)) * 2 - 1
    drawn = torch.from_numpy(np.stack([draw_openpose(pose, SIZE) for pose in poses])).permute(0, 3, 1, 2) / 127.5 - 1
    columns = [bank.images(who, source), drawn, made, bank.images(who, target)]
    sheet = grid(columns, ["photo", "pose", options.method.upper(), "truth"], scale=1, per_row=options.per_row)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet).save(options.out, optimize=True)


if __name__ == "__main__":
    main()
