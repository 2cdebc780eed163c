"""Pairs of drawn people for MCLD, with their true DensePose; their texture maps are warped once and cached."""

from __future__ import annotations

import copy
import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from pgpis_models.mcld.config import MCLDConfig
from pgpis_models.mcld.inputs import as_input, face_crops, squashed_textures, texture_maps
from pgpis_models.surface.densepose import IUV
from pgpis_models.unet.autoencoder import VAE_STRIDE, encode_latents, load_vae
from training.data.arrays import NewArray
from training.data.latents import encoder_key
from training.engine.config import TrainConfig
from training.engine.shares import WHOLE, Share
from training.world.bank import Bank, open_bank, open_watched
from training.world.latents import CHUNK, bank_key, bank_latents
from training.world.workers import pool

HELD_OUT_GRID = 6   # pairs of the sample grids


class Pairs:
    """Two views of one drawn person, with the true DensePose of both."""

    licence = "demo weights trained on drawn mannequins; free to use under the pack's licence"

    def __init__(self, config: TrainConfig, method: MCLDConfig, device: torch.device) -> None:
        if not method.own_vision:
            raise ValueError("mannequins have no CLIP and no face recognition; expected a preset that brings its own "
                             "encoders (method.preset: demo, or method.model.vision)")
        if config.data.size != method.image_size:
            raise ValueError(f"data.size is {config.data.size}, the method makes pictures of {method.image_size} (height, "
                             "width); set data.size to that, or method.model.image_size")
        data, cache, vae = config.data, Path(config.data.cache), config.method.vae
        self.method, self.loader_workers = method, data.workers
        self.bank, self.test = open_bank(data), open_watched(data)
        self.textures, self.test_textures = (bank_textures(bank, method, cache, data.workers)
                                             for bank in (self.bank, self.test))
        self.latents, self.test_latents = (bank_latents(bank, vae, data, device, config.method.halved)
                                           for bank in (self.bank, self.test))
        self.texture_latents, self.test_texture_latents = (texture_latents(maps, vae, cache, device)
                                                           for maps in (self.textures, self.test_textures))

    def batch(self, rng: np.random.Generator, size: int, share: Share = WHOLE) -> dict[str, Tensor]:
        """The share of `size` pairs: source, texture and pose (B, 3, H, W) uint8 (pose: V, U, part); crops (B, 3, P, P) in
        -1..1 with found (B,); target_latents and texture_latents (B, 4, h, w)."""
        who = rng.integers(self.bank.people, size=size)
        source = rng.integers(self.bank.views, size=size)
        target = (source + rng.integers(1, self.bank.views, size=size)) % self.bank.views
        who, source, target = map(share.of, (who, source, target))
        crops, found = face_crops(self.bank.images(who, source), iuvs(self.bank, who, source), self.method.face_pixels)
        return {"source": self.bank.bytes(who, source), "texture": as_bytes(self.textures[who, source]),
                "pose": poses(self.bank, who, target), "crops": crops, "found": found,
                "target_latents": self.latents[who, target], "texture_latents": self.texture_latents[who, source]} | (
                    {"source_latents": self.latents[who, source]} if self.method.aggregation == "image" else {})

    def unseen(self) -> Pairs:
        """The same of people never trained on."""
        other = copy.copy(self)
        other.bank, other.textures = self.test, self.test_textures
        other.latents, other.texture_latents = self.test_latents, self.test_texture_latents
        return other

    def held_out(self) -> dict[str, Tensor]:
        """A batch of these, with target."""
        who, view = np.arange(HELD_OUT_GRID), np.zeros(HELD_OUT_GRID, int)
        source = self.test.images(who, view)
        crops, found = face_crops(source, iuvs(self.test, who, view), self.method.face_pixels)
        return {"source": source, "texture": as_input(self.test_textures[who, view]), "crops": crops, "found": found,
                "pose": poses(self.test, who, view + 1), "target": self.test.images(who, view + 1)}


def as_bytes(pictures: np.ndarray) -> Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) uint8."""
    return torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2)


def iuvs(bank: Bank, who: np.ndarray, view: np.ndarray) -> list[IUV]:
    """The true DensePose of some pictures of a bank."""
    return [IUV(np.array(bank.part[w, v]), *(np.array(bank.uv[w, v, ..., i]) / np.float32(255) for i in (0, 1)))
            for w, v in zip(who, view, strict=True)]


def poses(bank: Bank, who: np.ndarray, view: np.ndarray) -> Tensor:
    """The pose guider's input as bytes (B, 3, H, W), channels V, U, part: 255 times `densepose.pose_pictures` of `iuvs`."""
    return as_bytes(np.concatenate([bank.uv[who, view][..., ::-1], bank.part[who, view][..., None]], -1))


def bank_textures(bank: Bank, method: MCLDConfig, cache: Path, workers: int = 1) -> np.ndarray:
    """Texture maps (N, V, *image_size, 3) uint8 of every picture of the bank, as the networks read them; cached."""
    height, width = method.image_size
    path = cache / f"textures-{method.texture_layout}-{height}x{width}-{bank_key(bank)}.npy"
    if not path.is_file():
        people = range(bank.people)
        with NewArray(path, (bank.people, bank.views, height, width, 3), np.uint8) as array, \
                pool(workers) as drawing:
            made = drawing.map(_warped, (_Person(bank, person, method) for person in people), chunksize=4)
            for person, maps in zip(people, tqdm(made, total=bank.people, desc="warping textures", unit="person")):
                array[person] = maps
    return np.load(path, mmap_mode="r")


class _Person:
    """One person of a bank, as a worker process is sent it."""

    def __init__(self, bank: Bank, person: int, method: MCLDConfig) -> None:
        self.method, self.images = method, np.array(bank.image[person])
        self.iuvs = iuvs(bank, np.full(bank.views, person), np.arange(bank.views))


def _warped(person: _Person) -> np.ndarray:
    return squashed_textures(person.method, texture_maps(person.method, person.images, person.iuvs))


@torch.no_grad()
def texture_latents(textures: np.ndarray, vae_path: str, cache: Path, device: torch.device) -> Tensor:
    """UNet latents (N, V, 4, h, w) float32 of texture maps (N, V, H, W, 3) uint8, on the CPU; cached by the autoencoder."""
    vae = load_vae(vae_path).to(device)
    people, views, height, width = textures.shape[:4]
    pictures = hashlib.sha256(np.ascontiguousarray(textures[:4]).tobytes()).hexdigest()[:8]
    path = cache / f"texture-latents-{encoder_key(vae)}-{pictures}-{people}x{views}.npy"
    if not path.is_file():
        with NewArray(path, (people, views, 4, height // VAE_STRIDE, width // VAE_STRIDE), np.float32) as array:
            for start in tqdm(range(0, people, CHUNK), desc="encoding textures", unit=f"{CHUNK} people"):
                some = as_bytes(textures[start:start + CHUNK].reshape(-1, height, width, 3)).to(device).float() / 127.5 - 1
                made = encode_latents(vae, some).float().cpu().numpy()
                array[start:start + CHUNK] = made.reshape(-1, views, *made.shape[1:])
    return torch.from_numpy(np.load(path))
