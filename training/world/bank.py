"""A bank of drawn mannequins: every person in several poses, kept as arrays and cached on disk.

People are numbered by identity seed; the poses of a person follow from the seed too, so a bank is a function of its
settings. Held-out people start at HELD_OUT and are never drawn for training; those that a run watches itself on, at WATCHED.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
import shutil
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from pgpis_models.poses.keypoints import Keypoints
from training.data.arrays import ArrayFile
from training.engine.config import DataConfig
from training.world import drawing as mannequins
from training.world.captions import caption

HELD_OUT = 1_000_000   # first identity seed of people that are never trained on
WATCHED = 1_100_000    # first of those that a run shows and measures itself on: not the people of `make demo`
DRAWING = 2            # raise when the renderer's pictures change, so that old caches are not used


@dataclass(frozen=True)
class Bank:
    """Arrays over N people and V views.

    image (N, V, H, W, 3) uint8 RGB; part (N, V, H, W) uint8 DensePose part; uv (N, V, H, W, 2) uint8, 0..255 for
    0..1; keypoints (N, V, 18, 2) float32 pixels x, y; detected (N, V, 18) bool; caption (N, T, C) float32.
    """

    image: np.ndarray
    part: np.ndarray
    uv: np.ndarray
    keypoints: np.ndarray
    detected: np.ndarray
    caption: np.ndarray

    @property
    def eyes(self):
        return self.keypoints[:, :, 14:16]

    @property
    def eyes_visible(self):
        return self.detected[:, :, 14:16]

    @property
    def zoom(self):
        return np.ones(self.image.shape[:2], np.float32)

    @property
    def people(self) -> int:
        return self.image.shape[0]

    @property
    def views(self) -> int:
        return self.image.shape[1]

    @property
    def size(self) -> tuple[int, int]:
        """Height, width."""
        return self.image.shape[2], self.image.shape[3]

    def images(self, who: np.ndarray, view: np.ndarray) -> Tensor:
        """Pictures (B, 3, H, W) in -1..1."""
        return torch.from_numpy(self.image[who, view]).permute(0, 3, 1, 2).float() / 127.5 - 1

    def bytes(self, who: np.ndarray, view: np.ndarray) -> Tensor:
        """Pictures (B, 3, H, W) uint8."""
        return torch.from_numpy(self.image[who, view]).permute(0, 3, 1, 2)

    def parts(self, who: np.ndarray, view: np.ndarray) -> Tensor:
        """DensePose part of every pixel, (B, H, W) uint8, 0 for the background."""
        return torch.from_numpy(self.part[who, view])

    def person(self, who: np.ndarray, view: np.ndarray, cell: int = 8) -> Tensor:
        """Where the person is, at latent size: (B, 1, H/8, W/8) share of each cell that shows it, 0..1."""
        inside = torch.from_numpy(self.part[who, view] > 0)[:, None].float()
        return F.avg_pool2d(inside, cell)

    def poses(self, who: np.ndarray, view: np.ndarray) -> list[Keypoints]:
        """What a pose detector would report, one per picture."""
        return [Keypoints(self.keypoints[w, v], self.detected[w, v], self.size) for w, v in zip(who, view, strict=True)]


def open_bank(data: DataConfig, held_out: int = 0, start: int = HELD_OUT) -> Bank:
    """The bank of a config, drawn on first use. held_out: that many people never trained on, instead, from `start` on.

    The cache appears under its final name only when it is complete. Raises ValueError for other kinds of data.
    """
    if data.kind != "mannequins":
        raise ValueError(f"data.kind is {data.kind!r}; this task is made for mannequins")
    people, first = (held_out, start) if held_out else (data.identities, data.seed)
    if not held_out and first + people > HELD_OUT:
        raise ValueError(f"data.seed {first} with {people} identities reaches into the held-out people, who start at "
                         f"{HELD_OUT}; expected seed + identities up to that")
    key = json.dumps([DRAWING, list(data.size), people, first, data.views])
    folder = Path(data.cache) / f"mannequins-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    if not folder.is_dir():
        _draw(folder, data, people, first)
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in
              ("image", "part", "uv", "keypoints", "detected")}
    captions = np.stack([caption(mannequins.sample_identity(first + n)) for n in range(people)])
    return Bank(**arrays, caption=captions)


def pose_seed(identity: int, view: int) -> int:
    """The pose of a person's n-th view."""
    return identity * 64 + view


def _draw(folder: Path, data: DataConfig, people: int, first: int) -> None:
    height, width = data.size
    part = folder.with_suffix(f".{secrets.token_hex(4)}.part")
    part.mkdir(parents=True)
    shapes = {"image": ((height, width, 3), np.uint8), "part": ((height, width), np.uint8),
              "uv": ((height, width, 2), np.uint8), "keypoints": ((18, 2), np.float32), "detected": ((18,), bool)}
    try:
        with contextlib.ExitStack() as files:   # closed before the folder moves
            arrays = {name: files.enter_context(ArrayFile(part / f"{name}.npy", (people, data.views, *shape), kind))
                      for name, (shape, kind) in shapes.items()}
            jobs = ((first + n, data.views, data.size) for n in range(people))
            with ProcessPoolExecutor(max(1, data.workers)) as pool:
                drawn = pool.map(_draw_person, *zip(*jobs, strict=True), chunksize=8)
                for n, views in enumerate(tqdm(drawn, total=people, desc="drawing people", unit="person")):
                    for view, values in enumerate(views):
                        for name, value in values.items():
                            arrays[name][n, view] = value
        _move(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _move(part: Path, folder: Path) -> None:
    """Gives a complete folder its name, unless another run has made the same one meanwhile."""
    try:
        part.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise


def _draw_person(identity: int, views: int, size: tuple[int, int]) -> list[dict[str, np.ndarray]]:
    who = mannequins.sample_identity(identity)
    result = []
    for view in range(views):
        drawn = mannequins.render(who, mannequins.sample_pose(pose_seed(identity, view)), size)
        iuv = drawn.iuv()
        result.append({"image": drawn.image, "part": iuv[..., 0], "uv": iuv[..., 1:],
                       "keypoints": drawn.keypoints, "detected": drawn.detected})
    return result
