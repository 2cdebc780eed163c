"""Makes the pictures of docs/limits.md: the failures that the papers name, by the demo's models on drawn people.

    python tools/picture_limits.py [--models FOLDER] [--out docs/pictures/limits] [NAME ...]
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pgpis_models.body.skeleton import Arm, Pose  # noqa: E402
from pgpis_models.parts.pixels import resized  # noqa: E402
from pgpis_models.pipeline import DEMO_FOLDER, Generator  # noqa: E402
from pgpis_models.poses.drawing import draw_openpose  # noqa: E402
from pgpis_models.poses.keypoints import Keypoints  # noqa: E402
from pgpis_models.surface.densepose import IUV  # noqa: E402
from pgpis_models.surface.texture import warp  # noqa: E402
from training.engine.picture import grid  # noqa: E402
from training.world.bank import HELD_OUT  # noqa: E402
from training.world.drawing import Rendering, render  # noqa: E402
from training.world.motion import walking_pose  # noqa: E402
from training.world.wardrobe import sample_identity  # noqa: E402

SIZE, STEPS = (256, 192), 16
LIMBS = {"right arm": (3, 16, 18, 20, 22), "left arm": (4, 15, 17, 19, 21)}   # DensePose's hand, upper and lower arm
STANDING = walking_pose(0.12)
CLOSE = {"zoom": 2.0, "y": 0.06}


def seen(who: int, pose: Pose) -> Rendering:
    """Person number `who` of those never trained on."""
    return render(sample_identity(HELD_OUT + who), pose, SIZE)


def turned(pose: Pose, degrees: float, **changes) -> Pose:
    return dataclasses.replace(pose, heading=math.radians(degrees), **changes)


def iuv_of(drawn: Rendering) -> IUV:
    return IUV(drawn.part, drawn.u, drawn.v)


def keypoints(drawn: Rendering) -> Keypoints:
    return Keypoints(drawn.keypoints, drawn.detected, SIZE)


class Maker:
    """The demo's methods, each loaded when it is needed."""

    def __init__(self, models: Path) -> None:
        self.models, self.loaded = models, {}

    def __call__(self, method: str, source: np.ndarray, poses: list[Keypoints], **options) -> list[np.ndarray]:
        """Pictures (H, W, 3) uint8 of the person of a picture in each pose."""
        if method not in self.loaded:
            files = (self.models / f"demo_{name}.safetensors" for name in (method, "base", "vae"))
            self.loaded[method] = Generator(*files)
        generator = self.loaded[method]
        made = generator(generator.prepare(source), poses, steps=STEPS, **options)
        return [resized(picture, SIZE) for picture in (made * 255).round().byte().permute(0, 2, 3, 1).numpy()]

    def mcld(self, source: Rendering, target: Rendering, iuv: IUV | None = None) -> np.ndarray:
        return self("mcld", source.image, [keypoints(target)], densepose=[iuv or iuv_of(target)],
                    source_densepose=[iuv_of(source)])[0]


def strip(pictures: dict[str, np.ndarray]) -> np.ndarray:
    """Pictures of one size side by side with their names."""
    return grid([picture[None] for picture in pictures.values()], list(pictures), scale=1, per_row=1)


def dense(iuv: IUV) -> np.ndarray:
    return iuv.to_picture("part,u,v") * np.array([10, 1, 1], np.uint8)


def texture(drawn: Rendering) -> np.ndarray:
    """The known part of the texture map, squashed into a picture of the others' size."""
    picture = warp(drawn.image, iuv_of(drawn), "atlas", "fast", "near").picture
    return np.asarray(Image.fromarray(picture).resize(SIZE[::-1], Image.Resampling.BILINEAR))


def wrong_pose(make: Maker) -> np.ndarray:
    source, target = seen(3, turned(STANDING, 10)), seen(3, turned(walking_pose(0.6), -20))
    wrong = iuv_of(target)
    part = np.where(np.isin(wrong.part, LIMBS["left arm"]), 0, wrong.part).astype(np.uint8)
    wrong = IUV(part, np.where(part > 0, wrong.u, 0), np.where(part > 0, wrong.v, 0))
    return strip({"photo": source.image, "estimated pose": dense(wrong), "MCLD": make.mcld(source, target, wrong),
                  "true": target.image})


def incomplete_texture(make: Maker) -> np.ndarray:
    source, target = seen(6, turned(STANDING, 0, **CLOSE)), seen(6, turned(STANDING, 15))
    return strip({"photo": source.image, "its texture": texture(source), "MCLD": make.mcld(source, target),
                  "true": target.image})


def squeezed_texture(make: Maker) -> np.ndarray:
    source, target = seen(8, turned(STANDING, 0, scale=0.22)), seen(8, turned(STANDING, 0, **CLOSE))
    return strip({"photo": source.image, "its texture": texture(source), "MCLD": make.mcld(source, target),
                  "true": target.image})


def missing_face(make: Maker) -> np.ndarray:
    source, target = seen(10, turned(STANDING, 180, **CLOSE)), seen(10, turned(STANDING, 10, **CLOSE))
    return strip({"photo": source.image, "pose": dense(iuv_of(target)), "MCLD": make.mcld(source, target),
                  "true": target.image})


def far_view(make: Maker) -> np.ndarray:
    source, target = seen(13, turned(STANDING, 0)), seen(13, turned(STANDING, 175))
    made = make("qen", source.image, [keypoints(target)])[0]
    return strip({"photo": source.image, "MCLD": make.mcld(source, target), "QEN": made, "true": target.image})


def in_the_wild(make: Maker) -> np.ndarray:
    source, target = seen(15, turned(STANDING, 0)), seen(15, turned(walking_pose(0.6), 25))
    rng = np.random.default_rng(5)
    ground = np.asarray(Image.fromarray(rng.integers(0, 256, (16, 12, 3)).astype(np.uint8)).resize(
        SIZE[::-1], Image.Resampling.BICUBIC))
    busy = np.where((source.part > 0)[..., None], source.image, ground)
    plain, wild = (make("qen", picture, [keypoints(target)])[0] for picture in (source.image, busy))
    return strip({"photo, plain": source.image, "QEN": plain, "photo, busy": busy, "QEN ": wild})


def hands(make: Maker) -> np.ndarray:
    up = Arm(2.2, 0.3, 1.4, (-0.5, 0.6, 0.6))
    pose = turned(STANDING, 0, arms=(STANDING.arms[0], up), zoom=1.7, y=0.16)
    source, target = seen(17, turned(STANDING, 10, **CLOSE)), seen(17, pose)
    made = make("qen", source.image, [keypoints(target)])[0]
    x, y = target.keypoints[7]   # the left wrist
    box = (int(np.clip(x - 24, 0, SIZE[1] - 48)), int(np.clip(y - 46, 0, SIZE[0] - 64)))

    def near(picture: np.ndarray) -> np.ndarray:
        part = Image.fromarray(picture).crop((*box, box[0] + 48, box[1] + 64))
        return np.asarray(part.resize(SIZE[::-1], Image.Resampling.NEAREST))
    return strip({"pose": draw_openpose(keypoints(target), SIZE), "QEN": made, "its hand": near(made),
                  "true hand": near(target.image)})


def flicker(make: Maker) -> np.ndarray:
    source = seen(19, turned(STANDING, 10, **CLOSE))
    poses = [keypoints(seen(19, turned(walking_pose(0.1 + 0.01 * n), 5, **CLOSE))) for n in range(2)]
    own = [make("qen", source.image, [pose], seed=n)[0] for n, pose in enumerate(poses)]
    same = [make("qen", source.image, [pose], seed=0)[0] for pose in poses]

    def change(frames: list[np.ndarray]) -> np.ndarray:
        return np.clip(np.abs(frames[1].astype(int) - frames[0]) * 3, 0, 255).astype(np.uint8)
    return strip({"frame 1": own[0], "frame 2": own[1], "change, a noise each": change(own),
                  "change, one noise": change(same)})


PICTURES: dict[str, Callable[[Maker], np.ndarray]] = {
    "wrong_pose": wrong_pose, "incomplete_texture": incomplete_texture, "squeezed_texture": squeezed_texture,
    "missing_face": missing_face, "far_view": far_view, "in_the_wild": in_the_wild, "hands": hands, "flicker": flicker}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(PICTURES)}; all when none is given")
    parser.add_argument("--models", type=Path, default=DEMO_FOLDER)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "pictures" / "limits")
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.names) - set(PICTURES)):
        parser.error(f"{', '.join(unknown)}: expected names of {', '.join(PICTURES)}")
    options.out.mkdir(parents=True, exist_ok=True)
    make = Maker(options.models)
    with torch.no_grad():
        for name in options.names or PICTURES:
            Image.fromarray(PICTURES[name](make)).save(options.out / f"{name}.webp", quality=88, method=6)
            print(options.out / f"{name}.webp")


if __name__ == "__main__":
    main()
