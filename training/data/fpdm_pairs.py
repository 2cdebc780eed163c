"""Source-target pairs for FPDM, and their tensors for both stages."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pgpis_models.fpdm.config import JOINTS, FPDMConfig, FusionConfig
from pgpis_models.fpdm.drawing import CANVAS, PHOTO_CANVAS, augmented, on_canvas
from pgpis_models.fpdm.pictures import draw_poses
from pgpis_models.fpdm.pixels import clip_pixels, resized, target_pixels
from pgpis_models.parts.pixels import CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD
from pgpis_models.poses.keypoints import Keypoints
from training.data.deepfashion import DeepFashion, open_picture
from training.data.whole_points import FOLDER, points_file, read_points
from training.engine.config import FPDMSettings, TrainConfig
from training.engine.shares import WHOLE, Share
from training.engine.unreadable import readable

HELD_OUT_PHOTOS = 64   # of the sample grids


@dataclass(frozen=True)
class Pair:
    """source, target: (H, W, 3) uint8 RGB. pose, source_pose: of the target and of the source. where: (person, source view,
    target view) of a bank, None for photos."""

    source: np.ndarray
    target: np.ndarray
    pose: Keypoints
    source_pose: Keypoints
    where: tuple[int, int, int] | None = None


class Pairs:
    """Pairs of photos in the layout of training/data/deepfashion.py, drawn with replacement. whole: poses have hands and
    face (`set_points`)."""

    licence = "trained on photos, whose terms apply (DeepFashion: non-commercial research only)"

    def __init__(self, config: TrainConfig, device: torch.device | None = None) -> None:
        self.train, self.test = (DeepFashion(config.data.root, split) for split in ("train", "test"))
        self.loader_workers = config.data.workers
        self.whole = False
        if not self.train.pairs or not self.test.pairs:
            raise ValueError(f"{config.data.root} has {len(self.train.pairs)} training and {len(self.test.pairs)} test "
                             "pairs; expected at least one of each")

    def draw(self, rng: np.random.Generator, size: int, per_person: int = 1, share: Share = WHOLE) -> list[Pair | None]:
        """`size` pairs, None in place of those outside of the share."""
        if per_person != 1:
            raise ValueError(f"fpdm.pairs_per_person is {per_person}; photos are drawn pair by pair, expected 1")
        count = len(self.train.pairs)
        mine = share.of(range(size))
        return [readable(partial(self.pair, self.train), int(index), count) if row in mine else None
                for row, index in enumerate(rng.integers(count, size=size))]

    def unseen(self) -> Pairs:
        """The same of the test split."""
        other = copy.copy(self)
        other.train = self.test
        return other

    def held_out(self) -> list[Pair]:
        """Pairs spread over the test split."""
        count = min(HELD_OUT_PHOTOS, len(self.test.pairs))
        return [readable(partial(self.pair, self.test), int(index), len(self.test.pairs))
                for index in np.linspace(0, len(self.test.pairs) - 1, count)]

    def targets(self, pairs: Sequence[Pair], config: FPDMConfig) -> dict[str, Tensor]:
        """What stage 2 learns to make: target_image (B, 3, *config.image_size) in -1..1, to be encoded."""
        return {"target_image": latent_targets(pairs, config)}

    def pair(self, photos: DeepFashion, index: int) -> Pair:
        """Pair `index` of a split, photos and poses of the files' own size. Raises UnreadablePhoto."""
        names = photos.pairs[index]
        source, target = (np.asarray(open_picture(photos.folder / name)) for name in names)
        source_pose, pose = (photos.poses[name] for name in names)
        if self.whole:
            source_pose, pose = (read_points(points_file(photos.folder.parent, photos.split, name), picture.shape[:2])
                                 for name, picture in zip(names, (source, target), strict=True))
        return Pair(source, target, pose, source_pose)


def set_points(pictures: Any, whole: bool, config: TrainConfig) -> None:
    """Lets pictures give poses with hands and face where the method draws them. Raises ValueError where there are none."""
    folders = [photos.folder.with_name(FOLDER.format(photos.split)) for photos in (pictures.train, pictures.test)
               ] if isinstance(pictures, Pairs) else []
    if whole and not (folders and all(folder.is_dir() for folder in folders)):
        raise ValueError(f"the method draws 133 points, but data.kind={config.data.kind} at {config.data.root or 'no root'} "
                         f"has 18 joints; expected {FOLDER.format('train')} and {FOLDER.format('test')} beside the photos, "
                         "which training/prepare.py phoenix makes, and folder with --hands")
    pictures.whole = whole


def fusion_tensors(pairs: Sequence[Pair], config: FusionConfig, canvas: Sequence[int] = ()) -> dict[str, Tensor]:
    """Stage 1: source, pose and target (B, 3, H, W) for the shared tower. canvas: (height, width) of the drawing, that of
    the authors' photos when empty. Photos are cropped where the config says so, pose pictures always squashed."""
    drawn = draw_poses([pair.pose for pair in pairs], tuple(canvas) or PHOTO_CANVAS, config)
    return {"source": clip_pixels([pair.source for pair in pairs], config.image, crop=config.crop),
            "pose": clip_pixels(drawn, config.image),
            "target": clip_pixels([pair.target for pair in pairs], config.image, crop=config.crop)}


def diffusion_tensors(pairs: Sequence[Pair], config: FPDMConfig, low: np.ndarray | None = None,
                      low_size: tuple[int, int] = (256, 256)) -> dict[str, Tensor]:
    """Stage 2: source and clip_source of the photo, pose and clip_pose of the drawn pose, (B, 3, h, w) each, as
    `FPDM.forward` takes them."""
    return Normalised()(diffusion_bytes(pairs, config, low, low_size))


def diffusion_bytes(pairs: Sequence[Pair], config: FPDMConfig, low: np.ndarray | None = None,
                    low_size: tuple[int, int] = (256, 256)) -> dict[str, Tensor]:
    """The same before mean and deviation are taken off, (B, 3, h, w) uint8: a quarter of what travels to the device.

    Poses are drawn on config.pose_canvas; those that are on it already stay as they are. low: (B,) bool, sources that are
    first squashed to low_size.
    """
    read = [config.photo_size if low is None or not low[n] else low_size for n in range(len(pairs))]
    photos = [resized(pair.source, size) for pair, size in zip(pairs, read, strict=True)]
    drawn = draw_poses([pair.pose for pair in pairs], config.pose_canvas, config.fusion)
    return {"source": _stacked(photos, config.source_size), "clip_source": _stacked(photos, config.fusion.image),
            "pose": _stacked(drawn, config.image_size), "clip_pose": _stacked(drawn, config.fusion.image)}


def _stacked(pictures: Sequence[np.ndarray], size: tuple[int, int]) -> Tensor:
    return torch.from_numpy(np.stack([resized(picture, size) for picture in pictures])).permute(0, 3, 1, 2)


class Normalised(nn.Module):
    """`diffusion_bytes` -> `diffusion_tensors`, on whatever device they lie. The constants are buffers, so that nothing is
    copied there at a step."""

    def __init__(self) -> None:
        super().__init__()
        for name, values in (("imagenet", (IMAGENET_MEAN, IMAGENET_STD)), ("clip", (CLIP_MEAN, CLIP_STD))):
            self.register_buffer(name, torch.tensor(values).view(2, 1, 3, 1, 1), persistent=False)

    def forward(self, pictures: dict[str, Tensor]) -> dict[str, Tensor]:
        """(B, 3, h, w) uint8 by name -> float32: pose in 0..1, the others with mean and deviation taken off."""
        unit = {name: pictures[name].float().div_(255.0) for name in ("source", "clip_source", "pose", "clip_pose")}
        means = {"source": self.imagenet, "clip_source": self.clip, "clip_pose": self.clip}
        return {name: (value - means[name][0]) / means[name][1] if name in means else value for name, value in unit.items()}


def varied(pair: Pair | None, settings: FPDMSettings, rng: np.random.Generator,
           canvas: Sequence[int] = CANVAS, points: int = JOINTS) -> Pair | None:
    """A training pair of stage 2 (FPDM's authors' code): noise on every joint, and some pairs mirrored, photos and pose
    alike. The pose comes back on the canvas (height, width), to be drawn there. points: of the poses, 18 or 133. None,
    another process's pair, takes the same numbers."""
    noise = settings.joint_noise * rng.standard_normal((points, 2)) if settings.joint_noise else None
    flip = bool(rng.random() < settings.flip)
    if pair is None:
        return None
    pose = augmented(on_canvas(pair.pose, tuple(canvas)), noise, flip)
    if not flip:
        return replace(pair, pose=pose)
    return replace(pair, source=pair.source[:, ::-1], target=pair.target[:, ::-1], pose=pose)


def latent_targets(pairs: Sequence[Pair], config: FPDMConfig) -> Tensor:
    """Target photos for the autoencoder, (B, 3, *config.image_size) in -1..1."""
    return target_pixels([pair.target for pair in pairs], config.image_size, config.image_size)
