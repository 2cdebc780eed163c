"""Source-target pairs for training a method: mannequins from a bank, or photos in the DeepFashion layout.

Both give the same named tensors, so a task does not know which it trains on. Batches are made on the CPU, in worker
processes where reading photos is slow, and never touch the autoencoder.
"""

from __future__ import annotations

import copy
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from pgpis_models.base import VAE_STRIDE
from pgpis_models.cfld import CFLDConfig
from pgpis_models.pose import cfld_factored, cfld_rasters
from training.config import TrainConfig
from training.data.bank import WATCHED, Bank, open_bank
from training.data.deepfashion import DeepFashion
from training.latents import PhotoPosteriors, bank_latents, draw

HELD_OUT_GRID = 18   # people of the sample grids
HELD_OUT_PHOTOS = 6  # pairs of photos of the sample grids
# What a batch calls the entries of a DeepFashion item.
BATCH_NAMES = {"source_encoder": "source", "source": "source_image", "target": "target_image"}
FLIP = 0.5           # probability that the encoder's input is mirrored, where data.flip asks for it


class Pairs(Protocol):
    """What a training task needs of its data; picklable, so that worker processes can make batches.

    batch: `size` pairs as CPU tensors: source (B, 3, H, W) in -1..1 for the source encoder; source_pose and target_pose
    (B, 21, h, w) in 0..1; and either latents of both, source_latents and target_latents (B, 4, h, w), or the pictures
    to encode, source_image and target_image (B, 3, H, W) in -1..1. Mannequins also give caption (B, T, C) and person.
    unseen: the same pairs of people or photos never trained on. held_out: source, target, target_pose of some of these.
    """

    licence: str
    loader_workers: int

    def batch(self, rng: np.random.Generator, size: int) -> dict[str, Tensor]: ...
    def unseen(self) -> Pairs: ...
    def held_out(self) -> dict[str, Tensor]: ...


def open_pairs(config: TrainConfig, method: CFLDConfig, device: torch.device) -> Pairs:
    """The pairs that a config asks for, at the sizes that a method wants.

    Raises ValueError for another kind of data, and for a picture size that is not the method's.
    """
    wanted = tuple(n * VAE_STRIDE for n in method.latent_size)
    if config.data.size != wanted:
        raise ValueError(f"data.size is {config.data.size}, the method makes pictures of {wanted} (height, width); set "
                         f"data.size to that, or method.model.image_size and window to fit")
    if config.data.kind == "mannequins":
        return MannequinPairs(config, method, device)
    if config.data.kind == "deepfashion":
        return DeepFashionPairs(config, method, device)
    raise ValueError(f"data.kind is {config.data.kind!r}; expected mannequins or deepfashion")


class MannequinPairs:
    """Two views of one drawn person."""

    licence = "demo weights trained on drawn mannequins; free to use under the pack's licence"
    loader_workers = 0

    def __init__(self, config: TrainConfig, method: CFLDConfig, device: torch.device) -> None:
        if config.data.size != method.image_size:
            raise ValueError(f"mannequins are drawn once, at data.size {config.data.size}, but the method reads sources "
                             f"of {method.image_size}; set image_size and patch so that they agree")
        self.bank: Bank = open_bank(config.data)
        self.test: Bank = open_bank(config.data, held_out=32, start=WATCHED)
        self.latents = self.test_latents = None
        if not config.method.encoder_only:
            self.latents, self.test_latents = (bank_latents(bank, config.method.vae, config.data, device)
                                               for bank in (self.bank, self.test))
        self.raster = method.pose_size
        self.flip, self.reconstruct = config.data.flip, config.method.reconstruct
        self.pictures = bool(config.method.pixels)   # a batch brings what is to be made as pictures too, with their parts

    def batch(self, rng: np.random.Generator, size: int) -> dict[str, Tensor]:
        who = rng.integers(self.bank.people, size=size)
        source = rng.integers(self.bank.views, size=size)
        target = (source + rng.integers(1, self.bank.views, size=size)) % self.bank.views
        result = {"source": self.bank.images(who, source), "caption": torch.from_numpy(self.bank.caption[who])}
        if self.latents is not None:
            result |= {"source_latents": self.latents[who, source], "target_latents": self.latents[who, target],
                       "source_pose": cfld_factored(self.bank.poses(who, source), self.raster),
                       "target_pose": cfld_factored(self.bank.poses(who, target), self.raster)}
            person = [self.bank.person(who, view) for view in (source, target)]
            result["person"] = torch.cat(person) if self.reconstruct else person[1]
            if self.pictures:
                shown = {"picture": self.bank.images, "part": self.bank.parts}
                for name, of in shown.items():
                    views = (source, target) if self.reconstruct else (target,)
                    result[name] = torch.cat([of(who, view) for view in views])
        if self.flip:
            flipped = torch.from_numpy(rng.random(size) < FLIP)[:, None, None, None]
            result["source"] = torch.where(flipped, result["source"].flip(-1), result["source"])
        return result

    def unseen(self) -> MannequinPairs:
        other = copy.copy(self)
        other.bank, other.latents = self.test, self.test_latents
        return other

    def held_out(self) -> dict[str, Tensor]:
        who, source = np.arange(HELD_OUT_GRID), np.zeros(HELD_OUT_GRID, int)
        return {"source": self.test.images(who, source), "target": self.test.images(who, source + 1),
                "target_pose": cfld_rasters(self.test.poses(who, source + 1), self.raster),
                "caption": torch.from_numpy(self.test.caption[who])}


class DeepFashionPairs:
    """Pairs of photos in the layout of training/data/deepfashion.py, as CFLD's authors feed them.

    Pairs are drawn with replacement rather than epoch by epoch, so that each batch is a function of its own number.
    Without cached latents a batch brings the pictures and the training step encodes them; with data.cache_latents each
    photo is encoded once, and a batch brings random samples of the stored posteriors.
    """

    def __init__(self, config: TrainConfig, method: CFLDConfig, device: torch.device) -> None:
        data = config.data
        sizes = {"image_size": data.size, "encoder_size": method.image_size, "pose_size": method.pose_size}
        self.train = DeepFashion(data.root, "train", **sizes)
        self.test = DeepFashion(data.root, "test", **sizes)
        if not self.train.pairs or not self.test.pairs:
            raise ValueError(f"{data.root} has {len(self.train.pairs)} training and {len(self.test.pairs)} test pairs; "
                             "expected at least one of each")
        self.licence = "trained on photos, whose terms apply (DeepFashion: non-commercial research only)"
        self.loader_workers, self.flip = data.workers, data.flip
        self.posteriors = PhotoPosteriors(self.train, config, device) if data.cache_latents else None

    def batch(self, rng: np.random.Generator, size: int) -> dict[str, Tensor]:
        indices = rng.integers(len(self.train), size=size)
        flips = (rng.random(size) < FLIP) & self.flip
        items = [self.train.item(index, flip=bool(flip), pictures=self.posteriors is None)
                 for index, flip in zip(indices, flips, strict=True)]
        result = {BATCH_NAMES.get(name, name): torch.stack([item[name] for item in items]) for name in items[0]
                  if name != "ground_truth"}
        if self.posteriors is not None:
            for side, name in enumerate(("source_latents", "target_latents")):
                stored = self.posteriors([self.train.pairs[index][side] for index in indices])
                result[name] = draw(stored, torch.from_numpy(rng.standard_normal(stored[:, 0].shape, dtype=np.float32)))
        return result

    def unseen(self) -> DeepFashionPairs:
        """Their latents are not cached: a batch brings pictures."""
        other = copy.copy(self)
        other.train, other.posteriors = self.test, None
        return other

    def held_out(self) -> dict[str, Tensor]:
        """Pairs spread over the test split."""
        count = min(HELD_OUT_PHOTOS, len(self.test))
        items = [self.test.item(index) for index in np.linspace(0, len(self.test) - 1, count).astype(int)]
        return {"source": torch.stack([item["source_encoder"] for item in items]),
                "target": torch.stack([item["target"] for item in items]),
                "target_pose": torch.stack([item["target_pose"] for item in items])}
