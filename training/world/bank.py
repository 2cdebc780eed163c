"""A bank of drawn people: every person in several poses, kept as arrays and cached on disk.

People are numbered by identity seed; the poses of a person follow from the seed too, so a bank is a function of its
settings. Held-out people start at HELD_OUT and are never drawn for training; those that a run watches itself on, at WATCHED.

It is drawn in chunks of people. A chunk writes its own bytes of the files and is marked when they are all there, so a run
that was killed goes on where it stopped, a larger bank goes on from a smaller one, and runs that draw at the same time write
the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from pgpis_models.poses.keypoints import Keypoints
from training.engine.config import DataConfig

from .captions import caption
from .drawing import render
from .poses import sample_pose
from .wardrobe import sample_identity
from .workers import pool

HELD_OUT = 1_000_000   # first identity seed of people that are never trained on
WATCHED = 1_100_000    # first of those that a run shows and measures itself on: not the people of `make demo`
WATCHED_PEOPLE = 32   # how many those are
DRAWING = 3            # raise when the renderer's pictures change, so that old caches are not used
CHUNK = 64             # people that are drawn and marked together
BEHIND = 50            # degrees that a view from behind is turned aside, at most


@dataclass(frozen=True)
class Bank:
    """Arrays over N people and V views.

    image (N, V, H, W, 3) uint8 RGB; part (N, V, H, W) uint8 DensePose part; uv (N, V, H, W, 2) uint8, 0..255 for
    0..1; keypoints (N, V, 18, 2) float32 pixels x, y; detected (N, V, 18) bool; eyes (N, V, 2, 2) float32 pixels x, y of the
    right and the left eye; eyes_visible (N, V, 2) bool; zoom (N, V) float32, 1 for full figures. first: seed of person 0.
    """

    image: np.ndarray
    part: np.ndarray
    uv: np.ndarray
    keypoints: np.ndarray
    detected: np.ndarray
    eyes: np.ndarray
    eyes_visible: np.ndarray
    zoom: np.ndarray
    first: int

    @cached_property
    def caption(self) -> np.ndarray:
        """What is told of each person, (N, T, C) float32; made when asked for, since few tasks do."""
        return np.stack([caption(sample_identity(self.first + n)) for n in range(self.people)])

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

    Raises ValueError for other kinds of data.
    """
    if data.kind != "mannequins":
        raise ValueError(f"data.kind is {data.kind!r}; this task is made for mannequins")
    people, first = (held_out, start) if held_out else (data.identities, data.seed)
    if not held_out and first + people > HELD_OUT:
        raise ValueError(f"data.seed {first} with {people} identities reaches into the held-out people, who start at "
                         f"{HELD_OUT}; expected seed + identities up to that")
    if data.turned and not (len(data.turned) == 2 and data.turned[0] <= data.turned[1]):
        raise ValueError(f"data.turned is {list(data.turned)}; expected two numbers of degrees, least and most, or none")
    # the number of people is no part of the key: a larger bank goes on from a smaller one
    key = json.dumps([DRAWING, list(data.size), first, data.views, CHUNK, *([list(data.turned)] if data.turned else [])])
    folder = Path(data.cache) / f"people-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    missing = [chunk for chunk in _chunks(people) if not _is_done(folder, *chunk)]
    if missing:
        _draw(folder, data, missing, people, first)
    arrays = {name: np.memmap(folder / f"{name}.bin", kind, "r", shape=(people, data.views, *shape))
              for name, (shape, kind) in _arrays(data.size).items()}
    return Bank(**arrays, first=first)


def open_watched(data: DataConfig) -> Bank:
    """The people that a run of this config shows and measures itself on, of whom none is trained on."""
    return open_bank(data, held_out=WATCHED_PEOPLE, start=WATCHED)


def pose_seed(identity: int, view: int) -> int:
    """The pose of a person's n-th view."""
    return identity * 64 + view


def _headings(identity: int, data: DataConfig) -> list[float | None]:
    """Degrees of each view from the camera, where the config says how they are turned; None for the pose's own."""
    if not data.turned:
        return [None] * data.views
    rng = np.random.default_rng((identity, 7104))
    turns = rng.uniform(*data.turned, data.views) * rng.choice((-1, 1), data.views)
    return list(180 + rng.uniform(-BEHIND, BEHIND) + turns.cumsum() - turns[0])


def _arrays(size: tuple[int, int]) -> dict[str, tuple[tuple[int, ...], type]]:
    """Shape and kind of what is kept of one picture."""
    height, width = size
    return {"image": ((height, width, 3), np.uint8), "part": ((height, width), np.uint8),
            "uv": ((height, width, 2), np.uint8),
            "keypoints": ((18, 2), np.float32), "detected": ((18,), np.bool_), "eyes": ((2, 2), np.float32),
            "eyes_visible": ((2,), np.bool_), "zoom": ((), np.float32)}


def _chunks(people: int) -> list[tuple[int, int]]:
    """Where each chunk starts and how many people of it are asked for."""
    return [(start, min(CHUNK, people - start)) for start in range(0, people, CHUNK)]


def _marker(folder: Path, start: int, count: int) -> Path:
    return folder / f"done-{start:06d}-{count}"


def _is_done(folder: Path, start: int, count: int) -> bool:
    return any(_marker(folder, start, ready).is_file() for ready in range(count, CHUNK + 1))


def _draw(folder: Path, data: DataConfig, missing: list[tuple[int, int]], people: int, first: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in _arrays(data.size):
        (folder / f"{name}.bin").touch()
    with pool(data.workers) as workers:
        jobs = [workers.submit(_draw_chunk, folder, start, count, first, data) for start, count in missing]
        with tqdm(total=people, initial=people - sum(count for _, count in missing), desc="drawing people",
                  unit="person") as bar:
            try:
                for job, (_, count) in zip(jobs, missing, strict=True):
                    job.result()
                    bar.update(count)
            except BaseException:
                workers.shutdown(cancel_futures=True)
                raise


def _draw_chunk(folder: Path, start: int, count: int, first: int, data: DataConfig) -> None:
    """Draws `count` people from number `start` on into their place in the files, and marks them when all is written."""
    if _is_done(folder, start, count):   # by another run meanwhile
        return
    kept = {name: np.empty((count, data.views, *shape), kind) for name, (shape, kind) in _arrays(data.size).items()}
    for n in range(count):
        for view, values in enumerate(_draw_person(first + start + n, data)):
            for name, value in values.items():
                kept[name][n, view] = value
    for name, array in kept.items():
        with open(folder / f"{name}.bin", "r+b") as file:   # grows where it is written past its end
            file.seek(start * array[0].nbytes)
            file.write(array.tobytes())
            file.flush()
            os.fsync(file.fileno())
    _marker(folder, start, count).touch()


def _draw_person(identity: int, data: DataConfig) -> list[dict[str, np.ndarray]]:
    who = sample_identity(identity)
    result = []
    for view, heading in enumerate(_headings(identity, data)):
        drawn = render(who, sample_pose(pose_seed(identity, view), heading), data.size)
        iuv = drawn.iuv()
        result.append({"image": drawn.image, "part": iuv[..., 0], "uv": iuv[..., 1:], "keypoints": drawn.keypoints,
                       "detected": drawn.detected, "eyes": drawn.eyes, "eyes_visible": drawn.eyes_visible,
                       "zoom": drawn.zoom})
    return result
