"""Latents of a bank's pictures, made once per autoencoder and cached on disk."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from pgpis_models.unet.autoencoder import VAE_STRIDE, encode_latents, load_vae
from training.data.arrays import NewArray
from training.data.latents import encoder_key
from training.engine.config import DataConfig
from training.world.bank import Bank

CHUNK = 16   # people whose pictures an autoencoder encodes at once


@torch.no_grad()
def bank_latents(bank: Bank, vae_path: str, data: DataConfig, device: torch.device, halved: bool = False) -> Tensor:
    """UNet latents (N, V, 4, h, w) float32 of every picture of the bank, on the CPU. halved: of pictures of half the size.

    The cache key holds the encoder's weights, so another autoencoder never meets old latents. Raises ValueError when there
    is no autoencoder.
    """
    if not vae_path or not Path(vae_path).exists():
        raise ValueError(f"no autoencoder at {vae_path!r} (method.vae); train one first: "
                         "python training/train.py --config training/configs/demo/autoencoder.yaml, and set method.vae to "
                         "output/train/demo_autoencoder/demo_autoencoder.safetensors, which it makes")
    vae = load_vae(vae_path).to(device)
    name = "half-latents" if halved else "latents"
    path = Path(data.cache) / f"{name}-{encoder_key(vae)}-{bank_key(bank)}.npy"
    if not path.is_file():
        height, width = (side // (VAE_STRIDE * (2 if halved else 1)) for side in bank.size)
        with NewArray(path, (bank.people, bank.views, 4, height, width), np.float32) as latents:
            for start in tqdm(range(0, bank.people, CHUNK), desc="encoding", unit=f"{CHUNK} people"):
                last = min(start + CHUNK, bank.people)
                who, view = np.divmod(np.arange(start * bank.views, last * bank.views), bank.views)
                images = bank.bytes(who, view).to(device).float() / 127.5 - 1
                made = encode_latents(vae, F.avg_pool2d(images, 2) if halved else images).float().cpu().numpy()
                latents[start:start + CHUNK] = made.reshape(-1, bank.views, *made.shape[1:])
    return torch.from_numpy(np.load(path))


def bank_key(bank: Bank) -> str:
    """What names the pictures of a bank, in names of caches."""
    pictures = hashlib.sha256(np.ascontiguousarray(bank.image[:4]).tobytes()).hexdigest()[:8]
    return f"{pictures}-{bank.people}x{bank.views}"
