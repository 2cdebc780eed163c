"""`generate --fit` and `--paste`: the person framed out of a photo of any size, and the result back in that photo."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..files.pictures import as_rgb, open_mask, open_photo, open_rgb
from ..framing.boxes import Frame, layout_of
from ..framing.fitting import PADDINGS, Fitted, fit_person, people_in_photo
from ..framing.limits import limits
from ..framing.pasting import FEATHER, pasted_picture
from ..framing.proportions import OF_PERSON, PROPORTIONS
from ..poses.files import POSE_SUFFIXES, load_poses
from ..poses.keypoints import Keypoints
from ..surface.densepose import IUV
from .flags import given, refuse

FLAGS = ("source_pose", "source_mask", "source_person", "padding", "proportions")
PASTE_FLAGS = ("feather",)
SOURCE_POSE = "--source-pose"
# flag of a photo's pose -> what may be given beside it
INSTEAD = {SOURCE_POSE: "or with --fit a mask by --source-mask", "--donor-pose": "or its DensePose by --donor-densepose",
           "--photos-pose": "or leave --photos-pose and --source-pose out"}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """--fit, --paste and what goes with them."""
    parser.add_argument("--fit", action="store_true", help="frame the person of a photo of any size and shape as the method "
                        "was trained, and bring the poses to the person's size and place")
    parser.add_argument("--paste", action="store_true", help="put the result back into the photo, at its resolution; fits "
                        "first")
    parser.add_argument("--source-pose", type=Path, default=None, metavar="FILE", help="with --fit or --photos: pose file "
                        "of the photo, or the photo itself to detect it; without this, a mask or DensePose, the person "
                        "stands before a plain ground")
    parser.add_argument("--source-mask", type=Path, default=None, metavar="FILE", help="with --fit: picture of the photo's "
                        "size, white where the person is")
    parser.add_argument("--source-person", type=int, default=None, metavar="N", help="with --fit: which person of the "
                        "photo, from 0; default: the largest")
    parser.add_argument("--padding", choices=PADDINGS, default=None, help="with --fit: what lies beyond the photo repeats "
                        "its border (the default), or is the colour of its ground")
    parser.add_argument("--proportions", choices=[name.replace(" ", "-") for name in PROPORTIONS], default=None,
                        help="with --fit: limbs of the poses are as long as the person's, as far as --source-pose shows "
                        "them (the default), or as given")
    parser.add_argument("--feather", type=int, default=None, metavar="PIXELS", help="with --paste: pixels of the photo over "
                        f"which the result fades in; default {FEATHER}")


def check_flags(options: argparse.Namespace) -> None:
    """Raises ValueError for flags without --fit or --paste, and for values that cannot be."""
    if not options.paste:
        refuse(options, PASTE_FLAGS, "came without --paste, which it is about. Add it, or leave it out")
    if not (options.fit or options.paste):
        alone = FLAGS[1:] if options.photos else FLAGS   # of several photos the poses say what each shows
        refuse(options, alone, "came without --fit, which they are about. Add it, or leave them out")
    for name in ("source_person", "feather"):
        value = getattr(options, name)
        if value is not None and value < 0:
            raise ValueError(f"{given(options, [name])} is {value}; expected 0 or more")


class Person:
    """The source person of a run: its photo as the method reads it and, fitted, the way back.

    photo: (H, W, 3) uint8 for the method. poses, denseposes: the targets in the same frame; placed: whether by the body, and
    not by their canvas alone. densepose: of the photo. pose: of the photo, with --source-pose, which `flag` is named for
    further photos. said: what fitting did, "" without --fit.
    """

    def __init__(self, options: argparse.Namespace, config: Any, poses: Sequence[Keypoints] = (),
                 denseposes: Sequence[IUV] = (), densepose: IUV | None = None, flag: str = SOURCE_POSE) -> None:
        self.original = open_photo(options.source)
        self.photo, self.poses, self.denseposes, self.densepose = self.original, list(poses), list(denseposes), densepose
        self.frame: Frame | None = None
        self.pose: Keypoints | None = None
        self.placed, self.flag = False, flag
        self.paste, self.feather, self.said = options.paste, FEATHER if options.feather is None else options.feather, ""
        if options.fit or options.paste:
            self.original = np.array(as_rgb(self.original))
            self._take(self._fitted(options, config))
        elif options.source_pose:
            self.pose = largest(people_from(options.source_pose, self.original.shape[:2], flag))

    def _fitted(self, options: argparse.Namespace, config: Any) -> Fitted:
        size = self.original.shape[:2]
        return fit_person(
            self.original, layout_of(config),
            people=people_from(options.source_pose, size, self.flag) if options.source_pose else None,
            densepose=self.densepose, mask=open_mask(options.source_mask) if options.source_mask else None,
            targets=self.poses, target_denseposes=self.denseposes, padding=options.padding or "border",
            proportions=(options.proportions or OF_PERSON).replace("-", " "),
            person="largest" if options.source_person is None else options.source_person, together=options.sequence)

    def _take(self, fitted: Fitted) -> None:
        self.photo, self.poses, self.denseposes = fitted.photo, fitted.targets, fitted.target_denseposes
        self.densepose, self.frame, self.said, self.pose = fitted.densepose, fitted.frame, fitted.said, fitted.pose
        self.placed = any(found is not None for found in (fitted.pose, fitted.densepose, fitted.mask))

    def warn(self, size: tuple[int, int], others: Sequence[Person] = ()) -> None:
        """Prints what stands against the pictures; size: (H, W) of what is made. others: further photos of the person."""
        poses, iuvs = ([one for one in seen if one is not None] for seen in zip(
            *((one.pose, one.densepose) for one in (self, *others)), strict=True))
        for sentence in limits(size=size, poses=self.poses, source_poses=poses, denseposes=self.denseposes,
                               source_denseposes=iuvs, together=bool(others)):
            print(f"note: {sentence}")

    def finished(self, made: Tensor, mask: Tensor | None = None) -> Tensor:
        """A made picture (3, h, w) in 0..1 as it is saved: with --paste in the photo; where the mask (h, w) is 0, the photo
        stays."""
        if not self.paste or self.frame is None:
            return made
        picture = pasted_picture(made.cpu().float(), self.frame, self.original, feather=self.feather, mask=mask,
                                 match=mask is None)
        return torch.from_numpy(picture).permute(2, 0, 1).float() / 255


def largest(people: Sequence[Keypoints]) -> Keypoints:
    """Who covers most of the photo."""
    return max(people, key=lambda one: float(np.prod(np.array(one.bounds[2:]) - one.bounds[:2])))


def people_from(path: Path, size: tuple[int, int], flag: str = SOURCE_POSE) -> list[Keypoints]:
    """Everybody in a photo of (H, W) pixels, from a pose file of one frame or, detected, from the photo itself. flag: of
    INSTEAD. Raises ValueError naming it and the file."""
    if path.suffix.lower() in POSE_SUFFIXES:
        frames = load_poses(path, size)
        if len(frames) != 1:
            raise ValueError(f"{flag} {path.name} has {len(frames)} frames; expected the one of the photo")
        return people_in_photo(frames[0], what=f"{flag} {path.name}", instead=INSTEAD[flag])
    from ..poses.detection import detect_poses  # only photos need the detector
    found = detect_poses(np.array(open_rgb(path)))
    if not found:
        raise ValueError(f"{flag} {path.name}: no person found; give a pose file, {INSTEAD[flag]}")
    return found
