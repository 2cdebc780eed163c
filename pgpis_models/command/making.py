"""Pictures of photos and poses, batch by batch: what one process of `generate --source FOLDER` holds."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, cat

from ..pipeline import Generator
from ..poses.keypoints import Keypoints
from .batches import in_batches
from .output import save
from .pairing import Pair
from .person import Person


def lacking(pairs: Sequence[Pair]) -> list[Pair]:
    """Those whose pictures are not there."""
    return [pair for pair in pairs if not pair.out.is_file()]


@dataclass(frozen=True, eq=False)
class Inputs:
    """A batch as it is read: the people of N photos as (N, 3, H, W), B poses, and of which photo each is."""

    people: Mapping[Path, Person]
    sources: Tensor
    poses: Sequence[Keypoints]
    which: Sequence[int]
    numbers: Sequence[int]


class Maker:
    """A generator, and what it makes pairs of.

    options: the command's flags; weights, extras: as of `Generator.pairs`. pairs: all of the photos that it will see. poses:
    by file.
    """

    def __init__(self, options: argparse.Namespace, weights: dict[str, float], extras: dict[str, Any], pairs: Sequence[Pair],
                 poses: Mapping[Path, Keypoints]) -> None:
        self.options, self.extras, self.poses = options, extras, poses
        self.generator = Generator(options.checkpoint, options.base, options.vae or options.base, options.device,
                                   options.lora)
        self.sampling = {"mode": options.mode, "weights": weights, "steps": options.steps, "sampler": options.sampler,
                         "seed": options.seed}
        self.of_photo: dict[Path, dict[Path, int]] = {}   # photo -> pose -> its place among those of the photo
        for pair in pairs:
            own = self.of_photo.setdefault(pair.photo, {})
            own.setdefault(pair.pose, len(own))
        self.people: dict[Path, Person] = {}   # of the batch that was read last

    def run(self, pairs: Sequence[Pair], done: Callable[[int], Any]) -> None:
        """Makes and writes the pictures, `options.batch` at a time. done: told how many were written."""
        def write(batch: Sequence[Pair], inputs: Inputs, pictures: Tensor) -> None:
            for pair, picture in zip(batch, pictures, strict=True):
                pair.out.parent.mkdir(parents=True, exist_ok=True)
                save(inputs.people[pair.photo].finished(picture), pair.out)
            done(len(batch))
        in_batches(pairs, self.options.batch, self.read, self.make, write)

    def read(self, pairs: Sequence[Pair]) -> Inputs:
        """The batch's photos, each once."""
        photos = list(dict.fromkeys(pair.photo for pair in pairs))
        self.people = {photo: self.people.get(photo) or self._person(photo) for photo in photos}
        return Inputs(
            self.people, cat([self.generator.prepare(person.photo) for person in self.people.values()]),
            [self.people[pair.photo].poses[self.of_photo[pair.photo][pair.pose]] for pair in pairs],
            [photos.index(pair.photo) for pair in pairs], [pair.number for pair in pairs])

    def make(self, inputs: Inputs) -> Tensor:
        """Pictures (B, 3, h, w) in 0..1, on the CPU."""
        return self.generator.pairs(inputs.sources, inputs.poses, inputs.which, inputs.numbers, **self.sampling,
                                    **self.extras).cpu()

    def _person(self, photo: Path) -> Person:
        own, beside = argparse.Namespace(**vars(self.options) | {"source": photo}), photo.with_suffix(".json")
        if beside.is_file() and (own.fit or own.paste):
            own.source_pose = beside
        return Person(own, self.generator.method.config, [self.poses[pose] for pose in self.of_photo[photo]])
