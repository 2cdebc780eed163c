"""Fit Person: a photo of any size with what says where the person is -> everything in the method's own frame."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..parts.pixels import resized
from ..poses.formats import MIN_CONFIDENCE, from_pose_keypoint, people_seen
from ..poses.keypoints import Keypoints
from ..surface.densepose import IUV, check_picture
from .bodies import Body, Move, body_of_densepose, body_of_mask, body_of_pose, into_place, seen_in
from .boxes import Frame, Layout, box_about
from .finding import before_ground, ground_colour, people_in
from .proportions import OF_PERSON, PROPORTIONS, in_proportions

PADDINGS = ("border", "ground")
SAME_SHAPE = 0.01   # a pose's canvas of the photo's shape, but of another size, is a smaller copy of it
log = logging.getLogger(__name__)


class NobodyTold(ValueError):
    """Nothing says where the person of a photo is."""


@dataclass(frozen=True, eq=False)
class Fitted:
    """What Fit Person gives, all in one frame; None where it was not given.

    photo: (h, w, 3) uint8. pose, densepose, mask (h, w) bool: of the person in the photo. targets, target_denseposes: what
    it is to become. frame: for `pasting.pasted`. said: one sentence about what was done.
    """

    photo: np.ndarray
    pose: Keypoints | None
    densepose: IUV | None
    mask: np.ndarray | None
    targets: list[Keypoints]
    target_denseposes: list[IUV]
    frame: Frame
    said: str


def fit_person(photo: np.ndarray, layout: Layout, *, people: Sequence[Keypoints] | None = None, densepose: IUV | None = None,
               mask: np.ndarray | None = None, targets: Sequence[Keypoints] = (), target_denseposes: Sequence[IUV] = (),
               person: int | str = "largest", padding: str = "border", together: bool = False,
               proportions: str = OF_PERSON) -> Fitted:
    """Frames a person as the method of `layout` (`boxes.layout_of(config)`) was trained: cropped and padded, never squashed.

    photo: (H, W, 3) uint8. people, densepose, mask (H, W): where the person is in the photo, any of them: the poses found in
    it (`people_in_photo`), its DensePose, the pixels of one or more people. With none of them a person in front of a plain
    ground is found, and a photo of the frame's own shape is taken as it is. person: which one, "largest" or an index, in
    the order of `people`, from left to right in a mask.
    targets, target_denseposes: what the person is to become, each on any canvas: brought to the person's size and place by
    the body. The frame holds them all. together: they are frames of one movement, and all are moved as the first one is.
    padding: what lies beyond the photo repeats its "border", or is the colour of its "ground".
    proportions: limbs of the target poses are as long as those "of the person", as far as its pose in the photo shows them
    (`proportions.in_proportions`), or "as given".

    Raises ValueError that names the input: nobody in it, a pose outside the photo, a mask of another size.
    """
    check_picture(photo, "the photo")
    if padding not in PADDINGS:
        raise ValueError(f"padding is {padding!r}; expected one of {', '.join(PADDINGS)}")
    if proportions not in PROPORTIONS:
        raise ValueError(f"proportions is {proportions!r}; expected one of {', '.join(PROPORTIONS)}")
    size = photo.shape[:2]
    _check_sizes(size, densepose, mask)
    notes: list[str] = []
    pose, which = _chosen(_on_photo(people, size), person) if people is not None else (None, "")
    region = None
    if densepose is not None:
        region = densepose.part_mask()
        if not region.any():
            raise ValueError("the DENSEPOSE of the photo shows nobody; expected that of the person in it")
    elif mask is not None:
        region, which = _person_in_mask(mask, pose, person, which)
    elif pose is None:
        region, which = _found(photo, layout, person)
    body = _body(pose, densepose, region, size)
    if body is None:
        return _as_it_is(photo, layout, targets, target_denseposes, which)
    targets = [_somebody(target, number) for number, target in enumerate(targets, 1)]
    if pose is not None and proportions == OF_PERSON:
        targets = in_proportions(targets, pose, together)
    bodies = [body_of_pose(target) for target in targets]
    pose_moves = _moves(bodies, body, together)
    bodies = [body_of_densepose(_some_part(iuv, number)) for number, iuv in enumerate(target_denseposes, 1)]
    dense_moves = _moves(bodies, body if densepose is None else body_of_densepose(densepose), together)
    shown = [move.body(other) for move, other in (*pose_moves, *dense_moves)]
    box = box_about(layout, seen_in(body, size), shown, size)
    frame = Frame(size, box, layout.size, layout.made, which, _thumbnail(photo))
    notes += [which or "the person", _placed_in(frame)]
    legless = [str(number) for number, (_, other) in enumerate(pose_moves, 1) if other.feet is None]
    if legless and body.feet is not None:
        notes.append(f"target pose {', '.join(legless)} shows no feet, as if the picture ended above them")
    said = "; ".join(notes)
    log.info("Fit Person: %s", said)
    return Fitted(
        _cut_out(photo, box, layout.size, padding), None if pose is None else frame.pose(pose),
        None if densepose is None else frame.densepose(densepose), None if region is None else frame.map(region),
        [frame.pose(move.pose(target, size)) for target, (move, _) in zip(targets, pose_moves, strict=True)],
        [frame.densepose(iuv, move.scale, move.shift)
         for iuv, (move, _) in zip(target_denseposes, dense_moves, strict=True)],
        frame, said)


def people_in_photo(frame: dict, min_confidence: float = MIN_CONFIDENCE, what: str = "the pose of the photo",
                    instead: str = "or give a mask of where it is") -> list[Keypoints]:
    """`people_seen` of the one frame of a photo. Raises ValueError, beginning with `what` and ending with what may be done
    `instead`, when there is nobody, and as `from_pose_keypoint` does."""
    from_pose_keypoint([frame], "largest", min_confidence, empty="nobody")   # its form
    found = people_seen(frame, min_confidence)
    if not found:
        raise ValueError(f"{what} shows nobody; expected joints of confidence {min_confidence} or more. Use a photo that "
                         f"shows a person, {instead}")
    return found


# --- which person -------------------------------------------------------------------------------------------

def _check_sizes(size: tuple[int, int], densepose: IUV | None, mask: np.ndarray | None) -> None:
    for name, value in (("DENSEPOSE", None if densepose is None else densepose.part), ("MASK", mask)):
        if value is not None and value.shape != size:
            shape = "x".join(map(str, value.shape[::-1]))
            raise ValueError(f"the {name} is {shape} pixels, the photo {size[1]}x{size[0]}; expected the same. Make it of "
                             "this photo")


def _on_photo(people: Sequence[Keypoints], size: tuple[int, int]) -> list[Keypoints]:
    """Poses in pixels of the photo. A canvas of the photo's shape is a smaller or larger copy of it."""
    if not people:
        raise ValueError("the pose of the photo shows nobody; expected one person or more. Use a photo that shows a person")
    moved = []
    for pose in people:
        shape = pose.canvas[1] / pose.canvas[0] * size[0] / size[1]
        if abs(shape - 1) > SAME_SHAPE:
            raise ValueError(f"the pose of the photo is on a canvas of {pose.canvas[1]}x{pose.canvas[0]} pixels, the photo "
                             f"has {size[1]}x{size[0]}; expected the pose found in this photo. A pose from another picture "
                             "is a target pose")
        moved.append(pose if pose.canvas == size else pose.scaled_to(size))
    return moved


def _chosen(people: list[Keypoints], person: int | str) -> tuple[Keypoints, str]:
    """The person and what to call it. One whose joints all lie outside the photo counts only when asked for, as an error."""
    inside = [pose.on_canvas.any() for pose in people]
    if person == "largest":
        if not any(inside):
            x, y = (round(float(value)) for value in people[0].xy[people[0].present][0])
            height, width = people[0].canvas
            raise ValueError(f"the pose of the photo lies outside it: a joint at {x}, {y} in {width}x{height} pixels, and "
                             "none within; expected the pose found in this photo, with its canvas")
        areas = [(x1 - x0) * (y1 - y0) if here else -1.0
                 for here, (x0, y0, x1, y1) in zip(inside, (pose.bounds for pose in people), strict=True)]
        index = int(np.argmax(areas))
        return people[index], _named(index, len(people), True)
    if not isinstance(person, int) or not 0 <= person < len(people):
        raise ValueError(f"person is {person!r}, but the pose of the photo shows {len(people)}; expected 'largest' or an "
                         f"index from 0 to {len(people) - 1}")
    if not inside[person]:
        raise ValueError(f"person {person} of the pose of the photo lies outside the photo; expected one with a joint in it")
    return people[person], _named(person, len(people), False)


def _named(index: int, count: int, largest: bool) -> str:
    """What to call a person in messages."""
    if count == 1:
        return "the person"
    return f"person {index} of {count}, {'the largest' if largest else 'as chosen'}"


def _person_in_mask(mask: np.ndarray, pose: Keypoints | None, person: int | str, which: str) -> tuple[np.ndarray, str]:
    region = mask > 0.5
    if not region.any():
        raise ValueError("the MASK of the photo is black: it shows nobody; expected white where the person is")
    return _one_of(people_in(region), pose, person, which, "the MASK of the photo")


def _one_of(people: np.ndarray, pose: Keypoints | None, person: int | str, which: str, what: str) -> tuple[np.ndarray, str]:
    """One of the people of a mask, as `people_in` numbers them: the one on whom most joints of the pose lie, else as
    `person` says."""
    if pose is not None:
        x, y = pose.xy[pose.on_canvas].astype(int).T
        return people == 1 + int(np.argmax(np.bincount(people[y, x], minlength=2)[1:])), which
    sizes = np.bincount(people.ravel())[1:]
    if person == "largest":
        index = int(np.argmax(sizes))
    elif isinstance(person, int) and 0 <= person < len(sizes):
        index = person
    else:
        raise ValueError(f"person is {person!r}, but {what} shows {len(sizes)}; expected 'largest' or an index from 0 to "
                         f"{len(sizes) - 1}, from left to right")
    return people == index + 1, _named(index, len(sizes), person == "largest")


def _found(photo: np.ndarray, layout: Layout, person: int | str) -> tuple[np.ndarray | None, str]:
    """Whoever stands before a plain ground; None for a photo that has no such ground but the frame's own shape."""
    region = before_ground(photo)
    height, width = photo.shape[:2]
    if region is None:
        if abs(width / height * layout.size[0] / layout.size[1] - 1) < SAME_SHAPE * 2:
            return None, "the whole photo, which has the frame's shape"
        raise NobodyTold(f"nothing says where the person is in a photo of {width}x{height} pixels, whose ground is not "
                         "plain; expected its pose, its DensePose or a mask of the person. Give one (source_pose, "
                         "source_densepose or source_mask; at Fit Person pose, densepose or mask), or crop the photo to the "
                         f"shape {_shape(layout.size)}")
    if not region.any():
        raise ValueError(f"the photo of {width}x{height} pixels shows nobody: all of it has the colour of its border; "
                         "expected a person")
    return _one_of(people_in(region), None, person, "", "the photo")


def _shape(size: tuple[int, int]) -> str:
    """Width to height of (h, w), such as 3:4."""
    common = math.gcd(*size)
    return f"{size[1] // common}:{size[0] // common}"


def _body(pose: Keypoints | None, densepose: IUV | None, region: np.ndarray | None, size: tuple[int, int]) -> Body | None:
    """By the joints where they are known, with the extent of DensePose or mask; None when nothing is known."""
    if pose is None and region is None:
        return None
    seen = None if region is None else body_of_densepose(densepose) if densepose is not None else body_of_mask(region)
    if pose is None:
        return seen
    body = body_of_pose(pose)
    if seen is None:
        return body
    return Body(seen.box, body.size, body.middle, body.feet, max(body.sole, seen.box[3]) if body.feet is None
                else seen.box[3] if seen.box[3] < size[0] else body.sole)


# --- into the frame -----------------------------------------------------------------------------------------

def _moves(bodies: list[Body], place: Body, together: bool) -> list[tuple[Move, Body]]:
    moves = [into_place(body, place) for body in (bodies[:1] * len(bodies) if together else bodies)]
    return list(zip(moves, bodies, strict=True))


def _somebody(target: Keypoints, number: int) -> Keypoints:
    if not target.present.any():
        raise ValueError(f"target pose {number} shows nobody; expected joints. Use a picture that shows a person")
    return target


def _some_part(iuv: IUV, number: int) -> IUV:
    if not iuv.part.any():
        raise ValueError(f"target DENSEPOSE {number} shows nobody; expected body parts. Use a picture that shows a person")
    return iuv


def _as_it_is(photo: np.ndarray, layout: Layout, targets: Sequence[Keypoints], target_denseposes: Sequence[IUV],
              which: str) -> Fitted:
    """A photo of the frame's shape in which nothing says where the person is: targets are brought in by their canvas."""
    size = photo.shape[:2]
    box = (0, 0, size[1], size[0])
    frame = Frame(size, box, layout.size, layout.made, which, _thumbnail(photo))
    dense = [Frame(iuv.size, (0, 0, *iuv.size[::-1]), layout.size, layout.made, "", b"").densepose(iuv)
             for iuv in target_denseposes]
    return Fitted(_cut_out(photo, box, layout.size, "border"), None, None, None,
                  [target.scaled_to(layout.size) for target in targets], dense, frame, which)


def _cut_out(photo: np.ndarray, box: tuple[int, int, int, int], size: tuple[int, int], padding: str) -> np.ndarray:
    """The box of a photo, padded where it reaches beyond and brought to `size`."""
    height, width = photo.shape[:2]
    x0, y0, x1, y1 = box
    part = photo[max(y0, 0):min(y1, height), max(x0, 0):min(x1, width)]
    around = ((max(-y0, 0), max(y1 - height, 0)), (max(-x0, 0), max(x1 - width, 0)), (0, 0))
    if padding == "border":
        part = np.pad(part, around, mode="edge")
    else:
        colour = np.round(ground_colour(photo)).astype(np.uint8)
        part = np.stack([np.pad(part[..., c], around[:2], constant_values=colour[c]) for c in range(3)], axis=-1)
    return np.ascontiguousarray(resized(np.ascontiguousarray(part), size))


def _placed_in(frame: Frame) -> str:
    if frame.whole:
        return f"the whole photo of {frame.original[1]}x{frame.original[0]} pixels"
    x0, y0, x1, y1 = frame.box
    return (f"the part of {x1 - x0}x{y1 - y0} pixels at {x0}, {y0} of a photo of {frame.original[1]}x{frame.original[0]}, "
            f"at {frame.scale:.2f} times its size")


def _thumbnail(photo: np.ndarray) -> bytes:
    from PIL import Image
    return Image.fromarray(photo).resize((16, 16), Image.Resampling.BOX).tobytes()
