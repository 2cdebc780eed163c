"""Whether a garment transfer makes the donor's clothes: error to them and to the old ones, by method.

    python benchmarks/garment.py [--people 8] [--steps 16] [--methods cfld mcld fpdm qen] [--sheet FILE] [--json FILE]

Drawn people never trained on, full figures, each in all clothes of the next one. The mask is Garment Mask's of both photos
by DensePose and pose, the settings are Masked Sampler's own. The truth is drawn: the person in the donor's clothes, in the
same pose, so that each pixel is a texel of both. Inside the mask, where old and new clothes differ by more than 24 of 255 in
a channel: mean colour error (0..1) of what is made to the donor's clothes, to the old ones, and the first over the second,
of all people and the least and largest of one. outside: the largest difference from the photo where the mask, grown and
feathered, is 0. The bar is a ratio of at most a half and nothing outside; the exit status is 1 when a method misses it.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pgpis_models.garments.feathering import FEATHER, GROW, feathered  # noqa: E402
from pgpis_models.garments.outline import transfer_mask  # noqa: E402
from pgpis_models.pipeline import DEMO_FOLDER, Generator  # noqa: E402
from tests.helpers.dressed import densepose_of, pose_of, swap  # noqa: E402
from training.world.bank import HELD_OUT, pose_seed  # noqa: E402
from training.world.drawing import Rendering  # noqa: E402
from training.world.poses import sample_pose  # noqa: E402

METHODS, BAR, CHANGED = ("cfld", "mcld", "fpdm", "qen"), 0.5, 24


def full_figure(number: int) -> int:
    """The first view of a held-out person that shows all of the body."""
    return next(view for view in range(100) if sample_pose(pose_seed(HELD_OUT + number, view)).zoom == 1)


def masks(person: Rendering, donor: Rendering) -> tuple[np.ndarray, Tensor]:
    """(H, W) bool, the mask, and (1, 1, H, W) in 0..1, grown and feathered as Masked Sampler does."""
    mask = transfer_mask(person.image, "all clothes", densepose_of(person), pose_of(person), donor.image,
                         densepose_of(donor), pose_of(donor))
    side = min(mask.shape)
    return mask, feathered(torch.from_numpy(mask).float(), mask.shape, side * FEATHER, side * GROW)


def made(generator: Generator, person: Rendering, donor: Rendering, soft: Tensor, number: int, steps: int) -> np.ndarray:
    """(H, W, 3) uint8: the person with the donor's appearance where the mask is."""
    dense = generator.meta.method == "mcld"
    extras = {"densepose": [densepose_of(person)], "source_densepose": [densepose_of(donor)]} if dense else {}
    encoded = generator.encoded(generator.prepare(donor.image), [pose_of(person)], **extras)
    reference = torch.from_numpy(person.image).permute(2, 0, 1)[None].float() / 255
    picture = generator.edited(encoded, 1, reference=reference, mask=soft, steps=steps, first=number)
    return (picture[0].permute(1, 2, 0) * 255).round().byte().numpy()


def compared(picture: np.ndarray, person: Rendering, truth: Rendering, mask: np.ndarray, soft: Tensor) -> tuple[float, ...]:
    """Of what was made, (H, W, 3) uint8: summed colour error (0..1) to the donor's clothes and to the old ones, where they
    differ inside the mask; the number of those pixels; the largest difference from the photo outside, in 255ths."""
    where = mask & (np.abs(truth.image.astype(int) - person.image).max(-1) > CHANGED)
    donor, old = (np.abs(picture.astype(int) - each.image).mean(-1)[where].sum() / 255 for each in (truth, person))
    kept = soft[0, 0].numpy() == 0
    return donor, old, where.sum(), np.abs(picture[kept].astype(int) - person.image[kept]).max(initial=0)


def main() -> int:
    """Exit status: 1 when the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=8, help="how many, from the first held-out one on")
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--sheet", type=Path, help="also write each person, donor, truth, mask and what the methods make")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    swaps = [swap(number, full_figure(number), full_figure(number + 1)) for number in range(options.people)]
    masked = [masks(person, donor) for person, donor, _ in swaps]
    lines = [[person.image, donor.image, truth.image, np.repeat(mask[..., None] * np.uint8(255), 3, -1)]
             for (person, donor, truth), (mask, _) in zip(swaps, masked, strict=True)]
    versions, rows, missed = {"torch": torch.__version__, "python": platform.python_version()}, [], False
    print(f"{'':6}{'donor':>8}{'old':>8}{'ratio':>8}{'of one person':>16}{'outside':>9}", flush=True)
    for method in options.methods:
        generator, sums = Generator(DEMO_FOLDER / f"demo_{method}.safetensors"), []
        for number, ((person, donor, truth), (mask, soft)) in enumerate(zip(swaps, masked, strict=True)):
            picture = made(generator, person, donor, soft, number, options.steps)
            lines[number].append(picture)
            sums.append(compared(picture, person, truth, mask, soft))
        each = np.array(sums)
        donors, old = each.sum(0)[:2] / each.sum(0)[2]
        outside = int(each[:, 3].max())
        ratios = each[:, 0] / each[:, 1]
        missed |= donors > BAR * old or outside > 0
        print(f"{method:6}{donors:8.3f}{old:8.3f}{donors / old:8.2f}{f'{ratios.min():.2f} to {ratios.max():.2f}':>16}"
              f"{outside:9}", flush=True)
        rows += [{"name": f"{method} garment, {name}", "value": float(value), "unit": "", "versions": versions,
                  "settings": {"people": options.people, "steps": options.steps, "seed": 0}}
                 for name, value in (("donor", donors), ("old", old), ("ratio", donors / old), ("outside", outside))]
    if options.sheet:
        Image.fromarray(np.concatenate([np.concatenate(line, 1) for line in lines])).save(options.sheet)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
