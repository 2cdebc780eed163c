"""A user's own photos as training data: a folder per person, each photo with an OpenPose JSON file of the same stem.

    root/
      anna/  front.jpg  front.json  back.jpg  back.json
      ben/   ...

Poses are read from `front.json` or `front_keypoints.json` (the name that OpenPose gives), or detected.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from pgpis_models.files.pictures import open_rgb, orientation, readable_endings
from pgpis_models.poses.files import load_poses
from pgpis_models.poses.formats import CFLD_FRAME, from_pose_keypoint, with_canvas
from pgpis_models.poses.keypoints import Keypoints
from training.data.deepfashion import PICTURE_SUFFIXES
from training.data.fitting import misfit
from training.data.person_lists import Entry, folder_entries

Find = Callable[[Path, np.ndarray], Keypoints]   # photo's file and picture (H, W, 3) uint8 -> pose on that picture
LISTED = 10            # at most so many names are listed in an error


@dataclass(frozen=True)
class Photo:
    """path: the file as it came. name: of its copy in the flat folders. as_it_is: whether that copy is the same file,
    or a PNG of the picture upright, in RGB, over white. pose: on the upright photo's canvas."""

    path: Path
    name: str
    as_it_is: bool
    pose: Keypoints

    def picture(self) -> Image.Image:
        """The photo upright, in RGB, transparency over white."""
        return open_rgb(self.path)

    def annotation(self) -> str:
        """Its row of an annotation file."""
        return annotation_row(self.name, self.pose)


def annotation_row(name: str, pose: Keypoints) -> str:
    """name: [18 y]: [18 x] in CFLD's frame, -1 where a joint is missing."""
    pose = pose.scaled_to(CFLD_FRAME)
    rows = np.where(pose.present[:, None], np.round(pose.xy, 2), -1.0)
    rows[(rows == -1).any(1) & pose.present] += 0.01   # a joint that lies at -1 is not a missing one
    return f"{name}: {rows[:, 1].round(2).tolist()}: {rows[:, 0].round(2).tolist()}"


def read_people(root: Path, detect: Find | None = None, skip: bool = False, entries: Sequence[Entry] | None = None,
                hands: bool = False) -> dict[str, list[Photo]]:
    """The people below root that have two photos or more -> their photos.

    detect: finds the pose of a photo that has no JSON file. skip: leave out, rather than raise for, photos that cannot be
    read to their end and those without a pose that fits. entries: who is on which photo, a folder per person when None.
    hands: poses are WholeBody. Raises ValueError naming up to ten photos that cannot be used, with the count.
    """
    files = list(folder_entries(root) if entries is None else entries)
    people: dict[str, list[Photo]] = {}
    wrong, names = [], set()
    for entry in tqdm(files, desc="reading photos", unit="photo"):
        path = entry.picture
        try:
            photo = read_photo_file(path, detect, entry.person, entry.pose, hands)
        except (ValueError, OSError) as error:
            wrong.append(f"{path.relative_to(root)}: {error}")
            continue
        if photo.name in names:
            wrong.append(f"{path.relative_to(root)}: another photo makes the name {photo.name} too")
            continue
        names.add(photo.name)
        people.setdefault(entry.person, []).append(photo)
    if wrong and not skip:
        raise ValueError(f"{len(wrong)} of {len(files)} photos cannot be used: {listed(wrong)} -- save a pose beside each "
                         "as OpenPose JSON, let --detect find it, or leave them out with --skip")
    if wrong:
        print(f"left out {len(wrong)} of {len(files)} photos: {listed(wrong)}")
    alone = sorted(name for name, photos in people.items() if len(photos) < 2)
    if alone:
        print(f"left out {len(alone)} people with a single photo: {listed(alone)}")
    return {name: photos for name, photos in people.items() if len(photos) > 1}


def read_photo_file(path: Path, detect: Find | None = None, person: str | None = None, pose_file: Path | None = None,
                    hands: bool = False) -> Photo:
    """One photo with its pose. person: the folder's name when None. pose_file: its pose, the JSON file beside when None.
    Raises ValueError when it has none, or one that cannot be of this photo, and OSError when it cannot be read."""
    if path.suffix.lower() not in readable_endings():
        raise ValueError(f"{path.suffix} files are not read by the Pillow that is installed; expected one of "
                         f"{', '.join(readable_endings())}. Save it as one of these (for .heic: pip install pillow-heif)")
    picture = open_rgb(path)   # to its end: what is cut off is found here, not in training
    with Image.open(path) as file:
        as_it_is = (orientation(file) == 1 and file.mode in ("RGB", "L") and "transparency" not in file.info
                    and path.suffix.lower() in PICTURE_SUFFIXES)
    height, width = picture.size[::-1]
    beside = [pose_file] if pose_file else [path.with_name(f"{path.stem}{end}") for end in (".json", "_keypoints.json")]
    found = next((file for file in beside if file.is_file()), None)
    if found:
        frame = load_poses(found, (height, width) if found.suffix != ".json" else None)[0]
        declared = all(frame.get(f"canvas_{side}") is not None for side in ("height", "width"))
        pose = from_pose_keypoint([with_canvas(frame, (height, width))], names=[found.name], whole=hands)[0]
        if why := misfit(pose, (height, width), declared):
            raise ValueError(f"{found.name} does not fit: {why}")
    elif detect:
        pose = detect(path, np.asarray(picture))
    else:
        raise ValueError(f"no {beside[0].name} beside it")
    if pose.canvas != (height, width):
        pose = pose.scaled_to((height, width))   # detected on a smaller copy of the photo
    stem = re.sub(r'[:,"\s/\\]+', "_", f"{person or path.parent.name}__{path.stem}")   # these mean something in csv files
    return Photo(path, stem + (path.suffix.lower() if as_it_is else ".png"), as_it_is, pose)


def split_people(people: Sequence[str], test_share: float) -> tuple[list[str], list[str]]:
    """(train, test) names. Whose side a person is on depends on the name alone, so that adding people moves nobody; but
    neither side stays empty. Raises ValueError with fewer than two people, or a share that is not between 0 and 1.
    """
    if len(people) < 2 or not 0 < test_share < 1:
        raise ValueError(f"{len(people)} people with two photos or more and a test share of {test_share}; expected 2 people "
                         "or more and a share between 0 and 1")
    place = {name: int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) / 2**32 for name in people}   # 0..1
    order = sorted(people, key=lambda name: (place[name], name))
    count = min(max(1, sum(place[name] < test_share for name in people)), len(people) - 1)
    return sorted(order[count:]), sorted(order[:count])


def pairs_of(photos: Sequence[Photo]) -> list[tuple[str, str]]:
    """(source, target) names: every photo of a person to every other one."""
    return [(first.name, second.name) for first, second in permutations(photos, 2)]


def listed(names: Sequence[str]) -> str:
    """Up to ten of the names, for an error message."""
    return "; ".join(names[:LISTED]) + ("; ..." if len(names) > LISTED else "")
