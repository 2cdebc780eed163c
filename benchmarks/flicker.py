"""How much a walking person flickers: variance of each texel over the frames, with and without what holds frames still.

    python benchmarks/flicker.py [--method qen] [--people 3] [--frames 8] [--steps 12] [--sheet FILE] [--json FILE]

Drawn people never trained on walk; each frame is made by the demo's checkpoint, all from one photo of the person. At the
true IUV of the drawn frame each pixel is a texel of the body; flicker is the variance of a texel's colour (summed over red,
green and blue, each 0..1) over the frames that show it, averaged over the texels that three frames or more show. Pixels at
the outline, where body and ground mix, are left out. The row `drawn` is of the drawn frames themselves: what light and
pixels leave. The bar is half of the flicker of frames made one by one; the exit status is 1 when it is missed.
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

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pgpis_models.framing.limbs import surface_of_pose  # noqa: E402
from pgpis_models.metrics import psnr  # noqa: E402
from pgpis_models.noise.carried import Carried  # noqa: E402
from pgpis_models.pipeline import DEMO_FOLDER, Generator  # noqa: E402
from pgpis_models.poses.keypoints import Keypoints  # noqa: E402
from pgpis_models.surface.carrying import carried_by  # noqa: E402
from pgpis_models.surface.densepose import IUV  # noqa: E402
from training.world.bank import HELD_OUT, pose_seed  # noqa: E402
from training.world.drawing import Rendering, render  # noqa: E402
from training.world.motion import walk  # noqa: E402
from training.world.poses import sample_pose  # noqa: E402
from training.world.wardrobe import sample_identity  # noqa: E402

SIZE, BAR, SEED = (256, 192), 0.5, 0
TEXELS, SHOWN = 24, 3   # of a part's side; frames that must show a texel
ALONE, DRAWN, HELD = "made one by one", "drawn", "one noise, first frame in place"
WAYS = {   # name -> (one noise, what carries it along the body, strength of the first frame: beside 1, in place 2)
    ALONE: (False, None, 0.0),
    "one noise for all": (True, None, 0.0),
    "noise follows the body (DensePose)": (True, "densepose", 0.0),
    "noise follows the body (skeleton)": (True, "skeleton", 0.0),
    "first frame beside": (False, None, 1.0),
    "one noise, first frame beside": (True, None, 1.0),
    "body noise (DensePose), first frame beside": (True, "densepose", 1.0),
    "body noise (skeleton), first frame beside": (True, "skeleton", 1.0),
    HELD: (True, None, 2.0),
    "body noise (DensePose), first frame in place": (True, "densepose", 2.0),
}


def iuv_of(drawn: Rendering) -> IUV:
    """The exact DensePose of a drawn frame."""
    return IUV(drawn.part, drawn.u, drawn.v)


def flicker(pictures: np.ndarray, frames: list[Rendering]) -> float:
    """pictures (F, H, W, 3) in 0..1 of the frames -> mean variance of a texel's colour over them."""
    values, counts = (np.zeros((len(frames), 24 * TEXELS**2, depth)) for depth in (3, 1))
    for number, (picture, drawn) in enumerate(zip(pictures, frames, strict=True)):
        inner = drawn.part > 0
        for axis in (0, 1):
            for step in (1, -1):
                inner &= np.roll(drawn.part > 0, step, axis)
        along, across = (np.minimum((value[inner] * TEXELS).astype(int), TEXELS - 1) for value in (drawn.v, drawn.u))
        texel = ((drawn.part[inner].astype(int) - 1) * TEXELS + along) * TEXELS + across
        np.add.at(values[number], texel, picture[inner])
        np.add.at(counts[number], texel, 1.0)
    seen = counts > 0
    mean = values / np.maximum(counts, 1)
    shown = seen.sum(0)
    middle = mean.sum(0) / np.maximum(shown, 1)
    variance = (np.square(mean - middle) * seen).sum(0) / np.maximum(shown, 1)
    return float(variance.sum(-1)[shown[:, 0] >= SHOWN].mean())


def carried(frames: list[Rendering], poses: list[Keypoints], by: str | None, size: tuple[int, int]) -> Carried | None:
    """What carries the noise along the frames."""
    if by is None:
        return None
    surfaces = [iuv_of(one) for one in frames] if by == "densepose" else [surface_of_pose(pose, SIZE) for pose in poses]
    return carried_by(surfaces, size)


def made(generator: Generator, person: int, frames: list[Rendering], way: str, steps: int) -> np.ndarray:
    """(F, H, W, 3) in 0..1: a held-out person in the frames."""
    same, by, strength = WAYS[way]
    source = render(sample_identity(person), sample_pose(pose_seed(person, 0)), SIZE)
    poses = [Keypoints(one.keypoints, one.detected, SIZE) for one in frames]
    person_of = {}
    if generator.meta.method == "mcld":
        person_of, targets = {"source_densepose": [iuv_of(source)]}, [iuv_of(one) for one in frames]
    else:
        targets = poses
    pictures = generator.sequence(generator.prepare(source.image), targets, chunk=len(frames), same_noise=same, steps=steps,
                                  carried=carried(frames, poses, by, generator.method.config.latent_size),
                                  first_frame=strength, seed=SEED, person=person_of)
    return torch.cat(list(pictures)).movedim(1, -1).numpy()


def main() -> int:
    """Exit status: 1 when the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="qen", choices=("cfld", "fpdm", "mcld", "qen"), help="whose demo checkpoint")
    parser.add_argument("--people", type=int, default=3, help="how many, from the first held-out one on")
    parser.add_argument("--frames", type=int, default=8, help="of a step of both feet")
    parser.add_argument("--steps", type=int, default=12, help="sampling steps")
    parser.add_argument("--ways", nargs="*", choices=WAYS, default=list(WAYS), help="of those in the table")
    parser.add_argument("--sheet", type=Path, help="also write the first person's frames, a row for each way")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    generator = Generator(DEMO_FOLDER / f"demo_{arguments.method}.safetensors")
    people = [HELD_OUT + number for number in range(arguments.people)]
    walks = [walk(sample_identity(person), arguments.frames, SIZE) for person in people]
    true = [np.stack([one.image for one in frames]) / 255 for frames in walks]
    settings = {name: getattr(arguments, name) for name in ("method", "people", "frames", "steps")} | {"seed": SEED}
    versions = {"torch": torch.__version__, "python": platform.python_version()}
    found: dict[str, np.ndarray] = {}
    rows, result = [true[0]], []
    print(f"{'demo ' + arguments.method:<44} {'flicker':>8} {'of alone':>9} {'range over people':>18} {'psnr':>6}")
    for way in [ALONE, DRAWN, *(way for way in arguments.ways if way != ALONE)]:
        pictures = true
        if way != DRAWN:
            pictures = [made(generator, *each, way, arguments.steps) for each in zip(people, walks, strict=True)]
            rows.append(pictures[0])
        found[way] = np.array([flicker(*each) for each in zip(pictures, walks, strict=True)])
        near = [float(psnr(*(torch.from_numpy(each).movedim(-1, 1).float() for each in pair)).mean())
                for pair in zip(pictures, true, strict=True)]
        ratios, share = found[way] / found[ALONE], float(found[way].mean() / found[ALONE].mean())
        print(f"{way:<44} {found[way].mean():>8.5f} {share:>9.3f} {ratios.min():>11.2f}..{ratios.max():<5.2f} "
              f"{np.mean(near):>6.2f}", flush=True)
        result.append({"name": f"flicker, {way}", "value": float(found[way].mean()), "unit": "variance", "of alone": share,
                       "settings": settings, "versions": versions})
    if arguments.sheet:
        sheet = np.concatenate([np.concatenate(list(row), 1) for row in rows])
        Image.fromarray((sheet * 255).round().astype(np.uint8)).save(arguments.sheet)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0 if HELD not in found or found[HELD].mean() <= BAR * found[ALONE].mean() else 1


if __name__ == "__main__":
    sys.exit(main())
