"""Latents of photos: made once per autoencoder and cached on disk, or made during training."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from pgpis_models.unet.autoencoder import VAE_STRIDE, load_vae
from training.data.arrays import NewArray
from training.data.deepfashion import DeepFashion, open_picture, picture_tensor
from training.engine.config import TrainConfig
from training.engine.loss import CHUNK, posterior
from training.engine.unreadable import UnreadablePhoto


class PhotoPosteriors:
    """Mean and standard deviation of the latents of every photo that pairs name, encoded once and cached on disk.

    Stored in half precision, in which the authors encode. A photo that cannot be read is named, and its row is nan.
    """

    def __init__(self, photos: DeepFashion, config: TrainConfig, device: torch.device) -> None:
        names = sorted({name for pair in photos.pairs for name in pair})
        self.row = {name: row for row, name in enumerate(names)}
        vae = load_vae(config.method.vae).to(device)
        height, width = photos.image_size
        about = f"{encoder_key(vae)}-{_photo_key(photos.folder, names)}-{height}x{width}"
        self.folder = photos.folder
        self.path = Path(config.data.cache) / f"posteriors-{about}.npy"
        if not self.path.is_file():
            shape = (len(names), 2, 4, height // VAE_STRIDE, width // VAE_STRIDE)
            with NewArray(self.path, shape, np.float16) as array:
                for start in tqdm(range(0, len(names), CHUNK), desc="encoding", unit=f"{CHUNK} photos"):
                    some = [_tensor(photos, name) for name in names[start:start + CHUNK]]
                    with torch.autocast(device.type, enabled=device.type == "cuda"):
                        made = posterior(vae, torch.stack(some).nan_to_num().to(device)).cpu()
                    made[torch.stack([one.isnan().any() for one in some])] = torch.nan
                    array[start:start + len(some)] = made.numpy()
        self.array = np.load(self.path, mmap_mode="r")

    def __call__(self, names: list[str]) -> Tensor:
        """(B, 2, 4, h, w) float32: mean and standard deviation of these photos."""
        return torch.from_numpy(self.array[[self.row[name] for name in names]].astype(np.float32))

    def check(self, name: str) -> None:
        """Raises UnreadablePhoto for a photo that could not be read when latents were made."""
        if np.isnan(self.array[self.row[name], 0, 0, 0, 0]):
            raise UnreadablePhoto(f"{self.folder / name} could not be read when its latents were made; get it anew and "
                                  f"delete {self.path}")

    def __getstate__(self) -> dict:
        # worker processes map the file, rather than receive its content
        return {"row": self.row, "path": self.path, "folder": self.folder}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state, array=np.load(state["path"], mmap_mode="r"))


def _tensor(photos: DeepFashion, name: str) -> Tensor:
    """A photo for the autoencoder, (3, H, W) in -1..1; nan when it cannot be read, which is printed."""
    try:
        return picture_tensor(open_picture(photos.folder / name), photos.image_size) * 2 - 1
    except UnreadablePhoto as error:
        tqdm.write(f"left out: {error}")
        return torch.full((3, *photos.image_size), torch.nan)


def encoder_key(vae: nn.Module) -> str:
    """Twelve hex digits that name the weights which make latents."""
    digest = hashlib.sha256()
    for name, value in sorted(vae.state_dict().items()):
        if name.startswith(("encoder", "quant_conv")):
            digest.update(name.encode())
            digest.update(value.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:12]


def _photo_key(folder: Path, names: list[str]) -> str:
    """Twelve hex digits that name these photos, by their names and sizes on disk."""
    known = [(name, (folder / name).stat().st_size) for name in names]
    return hashlib.sha256(repr(known).encode()).hexdigest()[:12]
