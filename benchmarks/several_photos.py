"""What a photo from behind adds to one from the front: texel error of one and of both photos, by method.

    python benchmarks/several_photos.py [--people 16] [--steps 8] [--methods mcld qen cfld fpdm] [--json FILE]
    python benchmarks/several_photos.py --two-tone                   people whose clothes have other colours behind
    python benchmarks/several_photos.py --strangers --people 60      how often the warning of two people is wrong

Drawn people never trained on, each from the front, from behind, and in a target pose that is turned away from the first
photo by 70 to 180 degrees, with the demo's weights. hidden: mean colour error at the target's true IUV over texels that the
first photo hides, with that photo alone and with both; ratio: the second over the first. seen: the same over texels that the
first photo shows. --two-tone: trunk and legs have the colours of another person's clothes behind, which no photo from the
front tells; drawn cloth runs on from front to back otherwise. --strangers: two views of each person, in all pairs that show
enough of the same parts; of one person, the share that looks like two people's, and of two people, the share that looks like
one's, by DensePose, by texture map and by pose.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import platform
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pgpis_models.mcld.config import CONFIGS  # noqa: E402
from pgpis_models.mcld.inputs import as_input, texture_maps  # noqa: E402
from pgpis_models.pipeline import DEMO_FOLDER, Generator  # noqa: E402
from pgpis_models.poses.keypoints import Keypoints  # noqa: E402
from pgpis_models.surface.densepose import IUV, part_numbers  # noqa: E402
from pgpis_models.surface.facing import weights_of  # noqa: E402
from pgpis_models.surface.people import APART, differences, views_of_maps  # noqa: E402
from training.world.bank import HELD_OUT, pose_seed  # noqa: E402
from training.world.drawing import Pose, Rendering, render  # noqa: E402
from training.world.part_errors import texel_error  # noqa: E402
from training.world.poses import sample_pose  # noqa: E402
from training.world.wardrobe import sample_identity  # noqa: E402

SIZE, METHODS = (256, 192), ("mcld", "qen", "cfld", "fpdm")
FRONT, BACK, TARGET = 0, 1, 2
COLOURS = ("top", "top_second", "bottom", "bottom_second")
BEHIND = ("torso back", *(f"{side} {limb} leg back" for side in ("left", "right") for limb in ("upper", "lower")))
TURNED = (70.0, 180.0)   # degrees by which a target is turned away, at least and at most; every other one to the left


def views(number: int, people: int, two_tone: bool = False) -> list[Rendering]:
    """Front, back and target of a held-out person, full figures in three poses."""
    seed, share = HELD_OUT + number, number / max(people - 1, 1)
    full = [pose for pose in (sample_pose(pose_seed(seed, view)) for view in range(12)) if pose.zoom == 1][:3]
    headings = (0.0, 180.0, (TURNED[0] + share * (TURNED[1] - TURNED[0])) * (-1) ** number)
    turned = [dataclasses.replace(pose, heading=math.radians(heading), head_turn=0.0)
              for pose, heading in zip(full, headings, strict=True)]
    return [two_toned(seed, pose) if two_tone else render(sample_identity(seed), pose, SIZE) for pose in turned]


def two_toned(seed: int, pose: Pose) -> Rendering:
    """The person of this seed with the colours of the next one's clothes behind, on trunk and legs."""
    own, other = (sample_identity(seed + more) for more in (0, 1))
    front, back = (render(who, pose, SIZE) for who in (own, dataclasses.replace(
        own, **{name: getattr(other, name) for name in COLOURS})))
    behind = np.isin(front.part, part_numbers(BEHIND))
    return dataclasses.replace(front, image=np.where(behind[..., None], back.image, front.image))


def made(generator: Generator, drawn: list[Rendering], count: int, number: int, steps: int) -> Tensor:
    """The target from the first `count` photos, (1, 3, H, W) in 0..1."""
    poses = [Keypoints(view.keypoints, view.detected, SIZE) for view in drawn]
    iuvs = [IUV.from_picture(view.iuv()) for view in drawn]
    more = {"densepose": iuvs[TARGET:], "source_densepose": iuvs[:count]} if generator.meta.method == "mcld" else {}
    if count > 1:
        more["one_person"] = weights_of(count, poses[TARGET:], poses[:count])
    sources = as_input(np.stack([view.image for view in drawn[:count]]))
    return generator(sources, poses[TARGET:], steps=steps, first=number, **more)


def errors(pictures: Tensor, people: list[list[Rendering]]) -> tuple[float, float]:
    """(seen, hidden) of pictures (N, 3, H, W) in 0..1 against the targets, apart by what the first photo shows."""
    target = torch.stack([as_input(drawn[TARGET].image[None])[0] for drawn in people]) / 2 + 0.5

    def maps(view: int) -> tuple[Tensor, ...]:
        found = [IUV.from_picture(drawn[view].iuv()) for drawn in people]
        part = torch.from_numpy(np.stack([iuv.part.astype(np.int64) for iuv in found]))
        return part, *(torch.from_numpy(np.stack([getattr(iuv, name) for iuv in found])).double() for name in "uv")
    return texel_error(pictures, target, *maps(TARGET), *maps(FRONT))


def mistaken(people: int) -> dict[str, tuple[float, int, float, int]]:
    """kind of view -> (share of one person's pairs taken for two people's, their number, share of two people's taken for
    one's, their number)."""
    drawn = [render(sample_identity(HELD_OUT + number), sample_pose(pose_seed(HELD_OUT + number, view)), SIZE)
             for number in range(people) for view in (0, 1)]
    same = np.repeat(np.arange(people), 2)[:, None] == np.repeat(np.arange(people), 2)
    once, found = np.triu(np.ones_like(same), 1), {}
    photos, iuvs = [one.image for one in drawn], [IUV.from_picture(one.iuv()) for one in drawn]
    maps = np.concatenate([texture_maps(CONFIGS["demo"], photo[None], [iuv])
                           for photo, iuv in zip(photos, iuvs, strict=True)])
    for kind, pictures, views in (("DensePose", photos, iuvs), ("texture map", maps, views_of_maps(maps)),
                                  ("pose", photos, [Keypoints(one.keypoints, one.detected, SIZE) for one in drawn])):
        apart = differences(pictures, views)
        one, two = (apart[once & pairs & np.isfinite(apart)] for pairs in (same, ~same))
        found[kind] = (float((one > APART).mean()), len(one), float((two <= APART).mean()), len(two))
    return found


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=16, help="how many, from the first held-out one on")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    parser.add_argument("--pictures", type=Path, help="also write a strip for each method: photos, one, both, target")
    parser.add_argument("--two-tone", action="store_true", help="people whose clothes have other colours behind")
    parser.add_argument("--strangers", action="store_true", help="only how often the warning of two people is wrong")
    options = parser.parse_args()
    if options.strangers:
        found = mistaken(options.people)
        for kind, (two, pairs, one, others) in found.items():
            print(f"by {kind}: one person's photos taken for two people's {two:.1%} of {pairs}, two people's for one's "
                  f"{one:.1%} of {others}")
        if options.json:
            settings = {"people": options.people, "size": list(SIZE), "threshold": APART}
            options.json.write_text(json.dumps([
                {"name": f"{kind}, {name}", "value": value, "unit": "", "settings": settings, "versions": {}}
                for kind, row in found.items() for name, value in (("one as two", row[0]), ("two as one", row[2]))]) + "\n")
        return
    people = [views(number, options.people, options.two_tone) for number in range(options.people)]
    settings = {name: getattr(options, name) for name in ("people", "steps", "two_tone")}
    settings |= {"size": list(SIZE), "turned": list(TURNED)}
    versions, rows = {"torch": torch.__version__, "python": platform.python_version()}, []
    print(f"{'':6}{'hidden, one':>13}{'both':>8}{'ratio':>8}{'seen, one':>12}{'both':>8}{'ratio':>8}", flush=True)
    for method in options.methods:
        path = DEMO_FOLDER / f"demo_{method}.safetensors"
        if not path.is_file():
            print(f"{method}: no {path}")
            continue
        generator = Generator(path)
        one, both = (torch.cat([made(generator, drawn, count, number, options.steps) for number, drawn in enumerate(people)])
                     for count in (1, 2))
        (seen, hidden), (seen_both, hidden_both) = errors(one, people), errors(both, people)
        found = {"hidden, one": hidden, "hidden, both": hidden_both, "hidden, ratio": hidden_both / hidden,
                 "seen, one": seen, "seen, both": seen_both, "seen, ratio": seen_both / seen}
        rows += [{"name": f"{method} {name}", "value": value, "unit": "", "settings": settings, "versions": versions}
                 for name, value in found.items()]
        print(f"{method:6}{hidden:13.3f}{hidden_both:8.3f}{found['hidden, ratio']:8.2f}{seen:12.3f}{seen_both:8.3f}"
              f"{found['seen, ratio']:8.2f}", flush=True)
        if options.pictures:
            options.pictures.mkdir(parents=True, exist_ok=True)
            lines = [torch.cat([*(as_input(view.image[None])[0] / 2 + 0.5 for view in drawn[:2]), one[number].cpu(),
                                both[number].cpu(), as_input(drawn[TARGET].image[None])[0] / 2 + 0.5], 2)
                     for number, drawn in enumerate(people)]
            sheet = (torch.cat(lines, 1).permute(1, 2, 0) * 255).round().byte().numpy()
            Image.fromarray(sheet).save(options.pictures / f"{method}.png")
        if options.json:
            options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
