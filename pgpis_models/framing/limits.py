"""What can be known beforehand of a picture that will be a guess; docs/limits.md shows what comes of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..poses.heading import Heading, eyes_apart, heading_of
from ..poses.keypoints import Keypoints
from ..surface.coloured_parts import has_charts
from ..surface.densepose import IUV
from ..surface.unseen import share_seen
from ..unet.autoencoder import VAE_STRIDE

FAR = 120.0     # degrees between the views of photo and target, from which on the methods make up most of the person
UNSEEN = 0.5    # share of the target's surface that the photo must show
NAMED = 5       # pictures that a sentence names

TURNED = ("{which} {turn} seen from a view turned by {most:.0f} degrees from the photo: what the photo does not show is "
          "made up. Take a photo from the other side, or several of the person")
HIDDEN = ("{photo} shows {least:.0%} of the body's surface that {which} {show}: the rest is made up. Take a photo of the "
          "other side, or several of the person")
SMALL = ("the face of {which} is small: its eyes would be {least:.0f} pixels apart, and the autoencoder's cells are "
         f"{VAE_STRIDE}. Come closer, or make a larger picture (a second pass)")


def limits(*, size: tuple[int, int] | None = None, poses: Sequence[Keypoints] = (), source_poses: Sequence[Keypoints] = (),
           denseposes: Sequence[IUV] = (), source_denseposes: Sequence[IUV] = (), together: bool = False) -> list[str]:
    """Sentences, one for each thing that stands against the pictures; none where nothing does, or nothing is known.

    poses, denseposes: the targets. source_poses, source_denseposes: of the photos, one for all or one each; together: all
    of one person, of whom the best photo counts for each target. size: (H, W) of what is made, pixels; poses fill it as
    their canvas.
    """
    said = []
    turns = _turns([heading_of(pose) for pose in source_poses], [heading_of(pose) for pose in poses], together)
    if far := {number: turn for number, turn in turns.items() if turn > FAR}:
        said.append(TURNED.format(which=_named(far), turn="are" if len(far) > 1 else "is", most=max(far.values())))
    shares = {number: max(known) for number, (several, target) in enumerate(
        _paired(source_denseposes, denseposes, together), 1) if has_charts(target) and (
        known := [share for one in several if has_charts(one) and (share := share_seen(one, target)) is not None])}
    if hidden := {number: share for number, share in shares.items() if share < UNSEEN}:
        photo = "the best of the photos" if together and len(source_denseposes) > 1 else "the photo"
        said.append(HIDDEN.format(photo=photo, which=_named(hidden), show="show" if len(hidden) > 1 else "shows",
                                  least=min(hidden.values())))
    eyes = {number: eyes_apart(pose, size) for number, pose in enumerate(poses, 1)} if size else {}
    if small := {number: apart for number, apart in eyes.items() if apart is not None and apart < VAE_STRIDE}:
        said.append(SMALL.format(which=_named(small), least=min(small.values())))
    return said


def _turns(sources: list[Heading | None], targets: list[Heading | None], together: bool) -> dict[int, float]:
    """Degrees between the views of each target and of the photo nearest to it, counted from 1, where both are known."""
    return {number: min(one.to(target) for one in several if one is not None)
            for number, (several, target) in enumerate(_paired(sources, targets, together), 1)
            if target is not None and any(one is not None for one in several)}


def _paired(sources: Sequence, targets: Sequence, together: bool) -> list[tuple[Sequence, Any]]:
    """(sources, target) of each picture: all of them together; else one source for all, one target for all, or one each,
    and nothing where the numbers say neither."""
    if together:
        return [(sources, target) for target in targets]
    count = max(len(sources), len(targets))
    if not sources or not targets or {len(sources), len(targets)} - {1, count}:
        return []
    return [((sources[n if len(sources) > 1 else 0],), targets[n if len(targets) > 1 else 0]) for n in range(count)]


def _named(found: dict[int, float]) -> str:
    numbers = ", ".join(map(str, list(found)[:NAMED])) + (", ..." if len(found) > NAMED else "")
    return f"target{'s' if len(found) > 1 else ''} {numbers}"
