"""`generate --donor`: another person's clothes inside a mask, or the appearance of two people mixed."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..files.pictures import as_rgb, open_mask, open_photo
from ..framing.boxes import layout_of
from ..framing.fitting import fit_person
from ..garments.feathering import FADES, FEATHER, GROW, feathered
from ..garments.masks import SHAPE
from ..garments.outline import CLOTHES, transfer_mask
from ..pipeline import Generator
from ..poses.keypoints import Keypoints
from ..surface.densepose import IUV
from . import mcld
from .flags import given, refuse
from .person import Person, largest, people_from

FLAGS = ("donor_pose", "donor_densepose", "garment", "blend", "blend_steps", "mask_grow", "mask_feather", "mask_fade")
OF_MASKS = ("mask_grow", "mask_feather", "mask_fade")
GARMENTS = {name.split()[0]: name for name in CLOTHES}   # upper, lower, all


def add_flags(parser: argparse.ArgumentParser) -> None:
    """--donor and what goes with it."""
    parser.add_argument("--donor", type=Path, default=None, metavar="PHOTO", help="another person: with --garment or "
                        "--mask the one whose clothes are put on, with --blend the one to mix with")
    parser.add_argument("--donor-pose", type=Path, default=None, metavar="FILE", help="pose file of the donor's photo, or "
                        "the photo itself to detect it; for --garment and --fit")
    parser.add_argument("--donor-densepose", type=Path, default=None, metavar="FILE", help="IUV picture of the donor's "
                        "photo; for --garment, and always with MCLD")
    parser.add_argument("--garment", choices=list(GARMENTS), default=None, help="the donor's garment on the person, in the "
                        "photo's own pose, which --pose is then: makes the mask of old and new outline")
    parser.add_argument("--mask-grow", type=float, default=None, metavar="SHARE", help="how far the mask grows, as a share "
                        f"of the photo's shorter side; default {GROW}")
    parser.add_argument("--mask-feather", type=float, default=None, metavar="SHARE", help="breadth over which new fades "
                        f"into kept, likewise; default {FEATHER}")
    parser.add_argument("--mask-fade", choices=FADES, default=None, help="where it fades: inside the grown mask, the "
                        "default, or outside")
    parser.add_argument("--blend", type=float, default=None, metavar="WEIGHT", help="0 the person, 1 the donor, between "
                        "them both mixed")
    parser.add_argument("--blend-steps", type=int, default=None, metavar="N", help="a row of so many pictures for each "
                        "pose, from the person to the donor: --out is a folder")


def check_flags(options: argparse.Namespace) -> None:
    """Raises ValueError for flags without a donor, for a donor without a use, and for what does not go together."""
    if options.donor is None:
        return refuse(options, FLAGS, "came without --donor, the other person. Add it, or leave them out")
    masks, blends = given(options, ("mask", "garment")), given(options, ("blend", "blend_steps"))
    if not masks and not blends:
        raise ValueError("--donor came without a use; expected --garment or --mask for clothes, or --blend or --blend-steps "
                         "for a mixture. Add one")
    if options.mask and options.garment or options.blend is not None and options.blend_steps:
        raise ValueError(f"{masks if options.mask and options.garment else blends} came together; expected one of them")
    if not masks:
        refuse(options, OF_MASKS, "came without --mask and --garment, which they are about. Add one, or leave them out")
    if options.garment and options.donor_pose is None and options.donor_densepose is None:
        raise ValueError("--garment came without --donor-pose and --donor-densepose; expected one of them, of the donor's "
                         "photo: it says where the garment is")
    if not (options.garment or options.fit or options.paste):
        refuse(options, ("donor_pose",), "came without --garment and --fit, which read it. Add one, or leave it out")
    if options.sequence or options.source.is_dir() or (masks and options.pose.is_dir()):
        came = "--sequence" if options.sequence else "a folder of photos" if options.source.is_dir() else \
            "a folder of poses and a mask"
        raise ValueError(f"--donor came with {came}; "
                         "expected the one pose of the photo, or poses without --sequence to blend in")
    if options.mask and (options.fit or options.paste):
        raise ValueError("--mask came with --fit or --paste, which move the photo away from under it; expected --garment, "
                         "whose mask is made in the frame. Leave one of them out")
    if options.blend is not None and not 0 <= options.blend <= 1 or (options.blend_steps or 2) < 2:
        raise ValueError(f"{blends} is {options.blend if options.blend is not None else options.blend_steps}; expected a "
                         "weight of 0 to 1, or 2 or more steps")
    for name in ("mask_grow", "mask_feather"):
        value = getattr(options, name)
        if value is not None and not (-0.5 if name == "mask_grow" else 0) <= value <= 0.5:
            raise ValueError(f"{given(options, [name])} is {value}; expected a share of the photo's shorter side, to 0.5")


def check_method(options: argparse.Namespace, method: str) -> None:
    """Raises ValueError where the checkpoint's method wants a flag that is missing."""
    if method == "mcld" and options.donor and options.donor_densepose is None:
        raise ValueError("--donor came without --donor-densepose; expected the IUV picture of the donor's photo, from which "
                         "MCLD's texture map and face are made")
    if method != "mcld" and not (options.garment or options.fit or options.paste):
        refuse(options, ("donor_densepose",), f"came without --garment and --fit, which read it; {method} does not. Add "
               "one, or leave it out")


@dataclass(frozen=True, eq=False)
class Edit:
    """A donor and what is taken of it.

    source (1, 3, h, w): the donor's photo as `Generator.prepare` makes it. extras: of the donor, as of the person. weights
    (N,): of the blend, or None where the donor's appearance is taken whole. reference (1, 3, H, W) and mask (1, 1, H, W),
    both in 0..1: what stays, or None for whole pictures.
    """

    source: Tensor
    extras: dict[str, Any]
    weights: Tensor | None
    reference: Tensor | None = None
    mask: Tensor | None = None

    @property
    def each(self) -> int:
        """Pictures that are made of each pose."""
        return 1 if self.weights is None else len(self.weights)

    def made(self, generator: Generator, source: Tensor, poses: list, own: dict[str, Any], extras: dict[str, Any],
             **options: Any) -> Tensor:
        """Pictures (poses x each, 3, H, W) in 0..1, those of one pose together. own: extras of the person; extras: of the
        poses; options: of `Generator.edited`."""
        encoded = generator.encoded(self.source, poses, **self.extras, **extras)
        if self.weights is not None:
            first = generator.encoded(source, poses, **own, **extras)
            encoded = generator.method.blended(first, encoded, self.weights.to(generator.device))
        return generator.edited(encoded, len(poses) * self.each, reference=self.reference, mask=self.mask, each=self.each,
                                **options)


def edit_of(options: argparse.Namespace, generator: Generator, shown: Person, control: dict[str, Any]) -> Edit:
    """What the flags ask for. control: extras that are no person's. Raises ValueError naming the flag."""
    dense = generator.meta.method == "mcld"
    photo = np.array(as_rgb(open_photo(options.donor)))
    iuv = mcld.read_iuv(options.donor_densepose) if options.donor_densepose else None
    people = people_from(options.donor_pose, photo.shape[:2], "--donor-pose") if options.donor_pose else None
    pose = largest(people) if people else None
    if options.garment:
        for name, view in (("donor_pose", pose), ("donor_densepose", iuv)):
            _check_view(given(options, [name]), getattr(options, name), view, photo.shape[:2], "donor's photo")
    seen, surface = photo, iuv
    if options.fit or options.paste:
        fitted = fit_person(photo, layout_of(generator.method.config), people=people, densepose=iuv)
        seen, surface = fitted.photo, fitted.densepose
    extras = dict(control)
    if dense:
        extras = mcld.person_of(generator, seen, surface, clip=options.clip)
    weights = torch.linspace(0, 1, options.blend_steps) if options.blend_steps else \
        None if options.blend is None else torch.tensor([options.blend])
    edit = Edit(generator.prepare(seen), extras, weights)
    if not (options.mask or options.garment):
        return edit
    kept = np.array(as_rgb(shown.photo))
    if options.garment:
        own = (shown.denseposes[0], shown.pose) if dense else (shown.densepose, shown.poses[0])
        mask = transfer_mask(kept, GARMENTS[options.garment], *own, photo, iuv, pose)
    else:
        mask = open_mask(options.mask)
        if _other_shape(mask.shape, kept.shape):
            raise ValueError(f"--mask {options.mask.name} is {mask.shape[1]}x{mask.shape[0]} pixels and the photo "
                             f"{kept.shape[1]}x{kept.shape[0]}; expected one shape. Draw the mask on this photo")
    side = min(kept.shape[:2])
    soft = feathered(torch.from_numpy(np.asarray(mask, np.float32)), kept.shape[:2],
                     side * (FEATHER if options.mask_feather is None else options.mask_feather),
                     side * (GROW if options.mask_grow is None else options.mask_grow), options.mask_fade or FADES[0])
    return Edit(edit.source, extras, weights, torch.from_numpy(kept).permute(2, 0, 1)[None].float() / 255, soft)


def check_views(options: argparse.Namespace, shown: Person, target: Keypoints | IUV) -> None:
    """Raises ValueError naming the file where what --garment takes for the photo's own is of another picture. target: of
    --pose, as it was read; where the body places it in the photo, its canvas may be another."""
    size = shown.original.shape[:2]
    if not shown.placed:
        _check_view("--pose", options.pose, target, size, "photo", exact=shown.frame is None)
    if shown.frame is None:   # fitting has compared them
        _check_view("--source-densepose", options.source_densepose, shown.densepose, size, "photo")


def _check_view(flag: str, path: str | Path, view: Keypoints | IUV | None, size: tuple[int, int], what: str,
                exact: bool = True) -> None:
    """A pose lies on a canvas of the photo's shape, DensePose is of its size; if not `exact`, of its shape."""
    dense = isinstance(view, IUV)
    found = size if view is None else view.size if dense else view.canvas
    if _other_shape(found, size) or dense and exact and found != size:
        raise ValueError(f"{flag} {Path(path).name} is {'' if dense else 'on a canvas '}of {found[1]}x{found[0]} pixels and "
                         f"the {what} has {size[1]}x{size[0]}; expected one {'size' if dense and exact else 'shape'}. Give "
                         "what was found in this very photo")


def _other_shape(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    return abs(one[1] * other[0] / (one[0] * other[1]) - 1) > SHAPE


def outputs_of(paths: list[Path], edit: Edit | None) -> list[Path]:
    """The files of the pictures: with rows `pose.png` becomes `pose_0.png`, `pose_1.png`, and so on."""
    if edit is None or edit.each == 1:
        return paths
    width = len(str(edit.each - 1))
    return [path.with_name(f"{path.stem}_{step:0{width}d}{path.suffix}") for path in paths for step in range(edit.each)]
