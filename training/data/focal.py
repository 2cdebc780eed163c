"""Source-target pairs for MCLD: photo, texture map and face of the source, DensePose of the target.

Mannequins know their DensePose; their texture maps are warped once and cached. Photos have it in files that
training/prepare_mcld.py makes. Both give the same named tensors.
"""

from __future__ import annotations

import copy
import hashlib
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from pgpis_models.base import VAE_STRIDE, encode_latents, load_vae
from pgpis_models.densepose import IUV, pose_picture
from pgpis_models.face import load_embedding
from pgpis_models.mcld_config import MCLDConfig
from pgpis_models.mcld_inputs import as_input, face_crops, squashed_textures, texture_maps
from training.config import TrainConfig
from training.data.arrays import NewArray
from training.data.bank import WATCHED, Bank, open_bank
from training.data.deepfashion import PICTURE_SUFFIXES, open_picture, picture_tensor, read_pairs, table
from training.latents import bank_latents, encoder_key

HELD_OUT_GRID = 12   # pairs of the sample grids
LISTED = 10
NOBODY = "{}_nobody.txt"   # photos of a split without a person, as training/prepare_mcld.py writes them


class FocalPairs(Protocol):
    """What MCLD's task needs of its data; picklable where there are workers.

    batch: `size` pairs as CPU tensors: source and texture (B, 3, H, W) in -1..1 at the method's image size; pose
    (B, 3, H, W) in 0..1, channels V, U, part / 255; the face as crops (B, 3, P, P) with found (B,), or as face (B, W);
    and either latents (target_latents, texture_latents, source_latents (B, 4, h, w)) or target_image to encode with them.
    Mannequins also give caption (B, T, C) and person (B, 1, h, w). unseen: the same pairs of people or photos never trained
    on. held_out: a batch of these, with target.
    """

    licence: str
    loader_workers: int

    def batch(self, rng: np.random.Generator, size: int) -> dict[str, Tensor]: ...
    def unseen(self) -> FocalPairs: ...
    def held_out(self) -> dict[str, Tensor]: ...


def open_focal_pairs(config: TrainConfig, method: MCLDConfig, device: torch.device) -> FocalPairs:
    """The pairs that a config asks for. Raises ValueError for another kind of data, and for another picture size."""
    if config.data.size != method.image_size:
        raise ValueError(f"data.size is {config.data.size}, the method makes pictures of {method.image_size} (height, "
                         "width); set data.size to that, or method.model.image_size")
    if config.data.kind == "mannequins":
        return MannequinFocal(config, method, device)
    if config.data.kind == "deepfashion":
        return PhotoFocal(config, method)
    raise ValueError(f"data.kind is {config.data.kind!r}; expected mannequins or deepfashion")


# --- mannequins ----------------------------------------------------------------------------------------------

class MannequinFocal:
    """Two views of one drawn person, with the true DensePose of both."""

    licence = "demo weights trained on drawn mannequins; free to use under the pack's licence"
    loader_workers = 0

    def __init__(self, config: TrainConfig, method: MCLDConfig, device: torch.device) -> None:
        if not method.own_vision:
            raise ValueError("mannequins have no CLIP and no face recognition; expected a preset that brings its own "
                             "encoders (method.preset: demo, or method.model.vision_widths)")
        self.method = method
        self.bank, self.test = open_bank(config.data), open_bank(config.data, held_out=32, start=WATCHED)
        self.textures = bank_textures(self.bank, method, Path(config.data.cache))
        self.test_textures = bank_textures(self.test, method, Path(config.data.cache))
        self.latents = self.texture_latents = self.test_latents = self.test_texture_latents = None
        if not config.method.encoder_only:
            self.latents, self.test_latents = (bank_latents(bank, config.method.vae, config.data, device)
                                               for bank in (self.bank, self.test))
            self.texture_latents, self.test_texture_latents = (
                texture_latents(maps, config.method.vae, Path(config.data.cache), device)
                for maps in (self.textures, self.test_textures))

    def batch(self, rng: np.random.Generator, size: int) -> dict[str, Tensor]:
        who = rng.integers(self.bank.people, size=size)
        source = rng.integers(self.bank.views, size=size)
        target = (source + rng.integers(1, self.bank.views, size=size)) % self.bank.views
        result = {"source": self.bank.images(who, source), "texture": as_input(self.textures[who, source]),
                  "caption": torch.from_numpy(self.bank.caption[who])}
        if self.latents is None:
            return result
        crops, found = face_crops(result["source"], iuvs(self.bank, who, source), self.method.face_pixels)
        return result | {
            "pose": poses(self.bank, who, target), "crops": crops, "found": found,
            "target_latents": self.latents[who, target], "source_latents": self.latents[who, source],
            "texture_latents": self.texture_latents[who, source], "person": self.bank.person(who, target)}

    def unseen(self) -> MannequinFocal:
        other = copy.copy(self)
        other.bank, other.textures = self.test, self.test_textures
        other.latents, other.texture_latents = self.test_latents, self.test_texture_latents
        return other

    def held_out(self) -> dict[str, Tensor]:
        who, view = np.arange(HELD_OUT_GRID), np.zeros(HELD_OUT_GRID, int)
        source = self.test.images(who, view)
        crops, found = face_crops(source, iuvs(self.test, who, view), self.method.face_pixels)
        return {"source": source, "texture": as_input(self.test_textures[who, view]), "crops": crops, "found": found,
                "pose": poses(self.test, who, view + 1), "target": self.test.images(who, view + 1),
                "caption": torch.from_numpy(self.test.caption[who])}


def iuvs(bank: Bank, who: np.ndarray, view: np.ndarray) -> list[IUV]:
    """The true DensePose of some pictures of a bank."""
    return [IUV(np.array(bank.part[w, v]), *(np.array(bank.uv[w, v, ..., i]) / np.float32(255) for i in (0, 1)))
            for w, v in zip(who, view, strict=True)]


def poses(bank: Bank, who: np.ndarray, view: np.ndarray) -> Tensor:
    """The pose guider's input (B, 3, H, W), channels V, U, part / 255: what `densepose.pose_pictures` makes of `iuvs`."""
    picture = np.concatenate([bank.uv[who, view][..., ::-1], bank.part[who, view][..., None]], -1)
    return torch.from_numpy(picture).permute(0, 3, 1, 2).float() / 255


def bank_textures(bank: Bank, method: MCLDConfig, cache: Path) -> np.ndarray:
    """Texture maps (N, V, *image_size, 3) uint8 of every picture of the bank, as the networks read them; cached."""
    pictures = hashlib.sha256(np.ascontiguousarray(bank.image[:4]).tobytes()).hexdigest()[:8]
    height, width = method.image_size
    path = cache / f"textures-{method.texture_layout}-{height}x{width}-{pictures}-{bank.people}x{bank.views}.npy"
    if not path.is_file():
        with NewArray(path, (bank.people, bank.views, height, width, 3), np.uint8) as array:
            for person in tqdm(range(bank.people), desc="warping textures", unit="person"):
                who, view = np.full(bank.views, person), np.arange(bank.views)
                maps = texture_maps(method, np.array(bank.image[person]), iuvs(bank, who, view))
                array[person] = squashed_textures(method, maps)
    return np.load(path, mmap_mode="r")


@torch.no_grad()
def texture_latents(textures: np.ndarray, vae_path: str, cache: Path, device: torch.device) -> Tensor:
    """UNet latents (N, V, 4, h, w) float32 of texture maps (N, V, H, W, 3) uint8, on the CPU; cached by the autoencoder."""
    vae = load_vae(vae_path).to(device)
    people, views, height, width = textures.shape[:4]
    pictures = hashlib.sha256(np.ascontiguousarray(textures[:4]).tobytes()).hexdigest()[:8]
    path = cache / f"texture-latents-{encoder_key(vae)}-{pictures}-{people}x{views}.npy"
    if not path.is_file():
        with NewArray(path, (people, views, 4, height // VAE_STRIDE, width // VAE_STRIDE), np.float32) as array:
            for person in tqdm(range(people), desc="encoding textures", unit="person"):
                array[person] = encode_latents(vae, as_input(textures[person]).to(device)).float().cpu().numpy()
    return torch.from_numpy(np.load(path))


# --- photos --------------------------------------------------------------------------------------------------

def usable_pairs(root: Path, split: str) -> list[tuple[str, str]]:
    """The pairs of a split without those of photos in which training/prepare_mcld.py found nobody; says how many."""
    pairs, path = read_pairs(table(root, f"resize-pairs-{split}.csv")), root / NOBODY.format(split)
    nobody = set(path.read_text(encoding="utf-8").splitlines()) if path.is_file() else set()
    kept = [pair for pair in pairs if not nobody & set(pair)]
    if len(kept) < len(pairs):
        print(f"{split}: {len(pairs) - len(kept)} of {len(pairs)} pairs left out, whose photos show nobody ({path.name})")
    return kept


class PhotoFocal:
    """Photos in the layout of training/data/deepfashion.py with the conditions beside them, by the stem of the photo:
    {split}_densepose/*.png (as OpenCV writes part, U, V), {split}_texture/*.png (SMPL layout), {split}_face/*.npy (missing
    where no face was found).

    Pairs are drawn with replacement, so that each batch is a function of its own number. Raises FileNotFoundError naming
    up to ten missing files, with the count.
    """

    licence = "trained on photos, whose terms apply (DeepFashion: non-commercial research only)"

    def __init__(self, config: TrainConfig, method: MCLDConfig) -> None:
        self.root, self.method = Path(config.data.root), method
        self.loader_workers, self.split = config.data.workers, "train"
        self.pairs = {split: usable_pairs(self.root, split) for split in ("train", "test")}
        for split, pairs in self.pairs.items():
            if not pairs:
                raise ValueError(f"{self.root} has no {split} pairs; expected at least one")
            self._check(split, pairs)

    def _check(self, split: str, pairs: list[tuple[str, str]]) -> None:
        there = {kind: {path.name for path in (self.root / f"{split}_{kind}").glob("*")}
                 for kind in ("highres", "densepose", "texture")}
        wanted = {("highres", name) for pair in pairs for name in pair}
        wanted |= {("densepose", f"{Path(target).stem}.png") for _, target in pairs}
        wanted |= {("texture", f"{Path(source).stem}.png") for source, _ in pairs}
        missing = sorted(f"{split}_{kind}/{name}" for kind, name in wanted if name not in there[kind])
        if missing:
            raise FileNotFoundError(f"{len(missing)} of {len(wanted)} files of {self.root} are missing: "
                                    f"{'; '.join(missing[:LISTED])}. Make them: python training/prepare_mcld.py --root "
                                    f"{self.root} (photos are {', '.join(PICTURE_SUFFIXES)}), or drop these pairs")

    def item(self, split: str, index: int) -> dict[str, Tensor]:
        """One pair, without the batch axis."""
        source, target = self.pairs[split][index]
        size, folder = self.method.image_size, self.root
        stems = [Path(name).stem for name in (source, target)]
        iuv = IUV.from_picture(np.array(open_picture(folder / f"{split}_densepose" / f"{stems[1]}.png")), "v,u,part")
        texture = np.array(open_picture(folder / f"{split}_texture" / f"{stems[0]}.png"))
        face = folder / f"{split}_face" / f"{stems[0]}.npy"
        vector = load_embedding(face) if face.is_file() else np.zeros(self.method.face_width, np.float32)
        return {"source": picture_tensor(open_picture(folder / f"{split}_highres" / source), size) * 2 - 1,
                "target_image": picture_tensor(open_picture(folder / f"{split}_highres" / target), size) * 2 - 1,
                "texture": as_input(squashed_textures(self.method, texture[None]))[0],
                "pose": pose_picture(iuv, size), "face": torch.from_numpy(vector)}

    def batch(self, rng: np.random.Generator, size: int) -> dict[str, Tensor]:
        items = [self.item(self.split, index) for index in rng.integers(len(self.pairs[self.split]), size=size)]
        return {name: torch.stack([item[name] for item in items]) for name in items[0]}

    def unseen(self) -> PhotoFocal:
        other = copy.copy(self)
        other.split = "test"
        return other

    def held_out(self) -> dict[str, Tensor]:
        count = min(HELD_OUT_GRID // 2, len(self.pairs["test"]))
        items = [self.item("test", index) for index in np.linspace(0, len(self.pairs["test"]) - 1, count).astype(int)]
        result = {name: torch.stack([item[name] for item in items]) for name in items[0]}
        return result | {"target": result["target_image"]}
