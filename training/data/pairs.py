"""Source-target pairs for training a method, of photos in the DeepFashion layout.

Batches are made on the CPU, in worker processes, and never touch the autoencoder.
"""

from __future__ import annotations

import copy
from functools import partial

import numpy as np
import torch
from torch import Tensor

from pgpis_models.unet.autoencoder import VAE_STRIDE
from training.data.deepfashion import DeepFashion
from training.data.kinds import PairSizes
from training.data.latents import PhotoPosteriors
from training.engine.config import TrainConfig
from training.engine.loss import draw
from training.engine.shares import WHOLE, Share
from training.engine.unreadable import readable

HELD_OUT_PHOTOS = 6  # pairs of photos of the sample grids
# What a batch calls the entries of a DeepFashion item.
BATCH_NAMES = {"source_encoder": "source", "source": "source_image", "target": "target_image"}
FLIP = 0.5           # probability that the encoder's input is mirrored, where data.flip asks for it


class Pairs:
    """Pairs of photos in the layout of training/data/deepfashion.py, as CFLD's authors feed them.

    Pairs are drawn with replacement rather than epoch by epoch, so that each batch is a function of its own number.
    Without cached latents a batch brings the pictures and the training step encodes them; with data.cache_latents each
    photo is encoded once, and a batch brings random samples of the stored posteriors.
    """

    def __init__(self, config: TrainConfig, method: PairSizes, device: torch.device) -> None:
        data = config.data
        wanted = tuple(n * VAE_STRIDE for n in method.latent_size)
        if data.size != wanted:
            raise ValueError(f"data.size is {data.size}, the method makes pictures of {wanted} (height, width); set "
                             "data.size to that, or method.model.image_size and window to fit")
        if data.cache_latents and config.method.halved:
            raise ValueError("data.cache_latents keeps latents of full size, but method.halved wants others; set one of "
                             "them to false")
        sizes = {"image_size": data.size, "encoder_size": method.image_size, "pose_size": method.pose_size}
        self.train = DeepFashion(data.root, "train", **sizes)
        self.test = DeepFashion(data.root, "test", **sizes)
        if not self.train.pairs or not self.test.pairs:
            raise ValueError(f"{data.root} has {len(self.train.pairs)} training and {len(self.test.pairs)} test pairs; "
                             "expected at least one of each")
        self.licence = "trained on photos, whose terms apply (DeepFashion: non-commercial research only)"
        self.loader_workers, self.flip = data.workers, data.flip
        self.posteriors = PhotoPosteriors(self.train, config, device) if data.cache_latents else None

    def batch(self, rng: np.random.Generator, size: int, share: Share = WHOLE) -> dict[str, Tensor]:
        """The share of `size` pairs: source (B, 3, h, w) in -1..1, source_pose and target_pose (B, 21, h', w') in 0..1; with
        them source_image and target_image (B, 3, H, W) in -1..1, or cached source_latents and target_latents
        (B, 4, H / 8, W / 8)."""
        indices = share.of(rng.integers(len(self.train), size=size))
        flips = share.of((rng.random(size) < FLIP) & self.flip)
        drawn = [readable(partial(self.numbered, flip=bool(flip)), int(index), len(self.train))
                 for index, flip in zip(indices, flips, strict=True)]
        indices, items = zip(*drawn, strict=True)
        result = {BATCH_NAMES.get(name, name): torch.stack([item[name] for item in items]) for name in items[0]}
        if self.posteriors is not None:
            for side, name in enumerate(("source_latents", "target_latents")):
                stored = self.posteriors([self.train.pairs[index][side] for index in indices])
                noise = rng.standard_normal((size, *stored.shape[2:]), dtype=np.float32)
                result[name] = draw(stored, torch.from_numpy(share.of(noise)))
        return result

    def numbered(self, index: int, flip: bool) -> tuple[int, dict[str, Tensor]]:
        """The index and its item, without pictures where latents are stored. Raises UnreadablePhoto."""
        if self.posteriors is not None:
            for name in self.train.pairs[index]:
                self.posteriors.check(name)
        return index, self.train.item(index, flip=flip, pictures=self.posteriors is None)

    def unseen(self) -> Pairs:
        """Their latents are not cached: a batch brings pictures."""
        other = copy.copy(self)
        other.train, other.posteriors = self.test, None
        return other

    def held_out(self) -> dict[str, Tensor]:
        """Pairs spread over the test split: source, target and target_pose as in `batch`."""
        count = min(HELD_OUT_PHOTOS, len(self.test))
        items = [readable(self.test.item, int(index), len(self.test))
                 for index in np.linspace(0, len(self.test) - 1, count)]
        return {"source": torch.stack([item["source_encoder"] for item in items]),
                "target": torch.stack([item["target"] for item in items]),
                "target_pose": torch.stack([item["target_pose"] for item in items])}
