"""`generate --photos`: further photos of the person of --source, such as the back, read together with it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..files.pictures import as_rgb
from ..mcld.inputs import merged_photos
from ..pipeline import Generator
from ..poses.keypoints import Keypoints
from ..surface.densepose import IUV
from ..surface.facing import weights_of
from ..surface.people import NOT_COMPARED, strangers
from ..surface.provenance import COLOURS, sources_picture
from . import mcld
from .flags import check_there, given, refuse
from .output import STILL, check_ending, save
from .person import Person

OF_EACH = {"photos_pose": "source_pose", "photos_densepose": "source_densepose"}   # what of a photo is that of --source


def add_flags(parser: argparse.ArgumentParser) -> None:
    """--photos, --photos-pose, --photos-densepose and --seen."""
    parser.add_argument("--photos", type=Path, default=None, nargs="+", metavar="PHOTO", help="further photos of the same "
                        "person, such as the back: read together with --source for every pose")
    parser.add_argument("--photos-pose", type=Path, default=None, nargs="+", metavar="FILE", help="with --source-pose: pose "
                        "file of each of --photos, or the photo itself to detect it; photos then weigh by what they show "
                        "of the pose")
    parser.add_argument("--photos-densepose", default=None, nargs="+", metavar="FILE", help="MCLD, with --source-densepose: "
                        "IUV picture of each of --photos")
    parser.add_argument("--seen", type=Path, default=None, metavar="FILE", help="MCLD, with --photos-densepose: also writes "
                        f"the texture map in a colour per photo ({', '.join(list(COLOURS)[:3])}, ...), grey where it is "
                        "invented")


def check_flags(options: argparse.Namespace, method: str) -> None:
    """Raises ValueError for flags without --photos, for what does not come once for each photo, and for uses that read one
    photo."""
    if options.photos is None:
        return refuse(options, (*OF_EACH, "seen"), "came without --photos, which they describe. Add it, or leave them out")
    if method != "mcld":
        refuse(options, ("photos_densepose", "seen"), f"came with a checkpoint of {method}; expected one of mcld, which "
               "reads texture maps. Leave it out")
    if options.seen:
        check_ending(options.seen, STILL, "--seen")
        if options.texture or not options.photos_densepose:
            came = "with --texture, which is taken in its place" if options.texture else "without --photos-densepose"
            raise ValueError(f"--seen came {came}; expected the texture map that --source-densepose and --photos-densepose "
                             f"make. {'Leave one of them out' if options.texture else 'Add them'}")
    if options.sequence or options.donor or options.source.is_dir():
        came = "--sequence" if options.sequence else "--donor" if options.donor else "a folder of photos as --source"
        raise ValueError(f"--photos came with {came}; expected one photo there. Leave one of them out")
    for name, first in OF_EACH.items():
        files, own = getattr(options, name), getattr(options, first)
        if files and (len(files) != len(options.photos) or not own):
            came = f"{len(files)} files, --photos with {len(options.photos)}"
            raise ValueError(f"{given(options, [name])} came with {came if own else 'none for --source'}; expected one for "
                             f"each of --photos, and --{first.replace('_', '-')} for --source")
    for photo in options.photos:
        check_there(argparse.Namespace(photos=photo), ("photos",))


class Several:
    """The photos of --photos beside the first one's Person, read as the generator takes photos of one person.

    people: all of them, the first one's first. pictures: their photos, (H, W, 3) uint8. views: their poses or DensePose in
    these, or None where not each has one. said: what fitting did with the further ones, and where they look like two
    people's or were not compared.
    """

    def __init__(self, options: argparse.Namespace, generator: Generator, first: Person) -> None:
        further = [Person(_alone(options, number), generator.method.config,
                          densepose=mcld.read_iuv(options.photos_densepose[number]) if options.photos_densepose else None,
                          flag="--photos-pose")
                   for number in range(len(options.photos))]
        self.people = [first, *further]
        self.source = torch.cat([generator.prepare(one.photo) for one in self.people])
        seen = [[one.densepose for one in self.people], [one.pose for one in self.people]]
        self.views: Sequence[Keypoints | IUV] | None = next((all_of for all_of in seen if None not in all_of), None)
        self.said = [one.said for one in further if one.said]
        self.pictures = [np.array(as_rgb(one.photo)) for one in self.people]
        flags = " and ".join(f"--{whose}-{'densepose' if generator.meta.method == 'mcld' else 'pose'}"
                             for whose in ("source", "photos"))
        if apart := strangers(self.pictures, self.views) if self.views else NOT_COMPARED.format(give=f"give {flags}"):
            self.said.append(f"note: {apart}")

    def weights(self, targets: Sequence[Keypoints | IUV]) -> Tensor:
        """(B or 1, N) of the photos, for these poses: `one_person` of the generator."""
        return weights_of(len(self.people), targets, self.views)

    def of_mcld(self, options: argparse.Namespace, generator: Generator) -> dict[str, Any]:
        """The extras of `mcld.person_of`, of all photos."""
        return mcld.several_photos_of(generator, [one.photo for one in self.people],
                                      [one.densepose for one in self.people if one.densepose is not None],
                                      options.texture, options.face, options.clip)

    def save_seen(self, options: argparse.Namespace, generator: Generator) -> None:
        """Writes what of the merged texture map is from which photo, as Merge Photos' `sources` shows it."""
        merged = merged_photos(generator.method.config, self.pictures, [one.densepose for one in self.people])
        options.seen.parent.mkdir(parents=True, exist_ok=True)
        save(torch.from_numpy(sources_picture(merged)).permute(2, 0, 1).float() / 255, options.seen)


def _alone(options: argparse.Namespace, number: int) -> argparse.Namespace:
    """The options of one of the further photos, as if it was the --source."""
    pose = options.photos_pose[number] if options.photos_pose else None
    return argparse.Namespace(**vars(options) | {"source": options.photos[number], "source_pose": pose, "source_mask": None,
                                                 "source_person": None})
