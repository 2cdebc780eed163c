"""Latents of a bank, made once per autoencoder and cached on disk."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from pgpis_models.base import encode_latents, load_vae
from training.config import DataConfig
from training.data.bank import Bank


@torch.no_grad()
def bank_latents(bank: Bank, vae_path: str, data: DataConfig, device: torch.device) -> Tensor:
    """UNet latents (N, V, 4, H/8, W/8) float32 of every picture of the bank, on the CPU.

    The cache key holds the autoencoder's bytes, so another autoencoder never meets old latents.
    """
    if not Path(vae_path).exists():
        raise ValueError(f"no autoencoder at {vae_path!r} (method.vae); train one first: "
                         "python training/train.py --config training/configs/demo_vae.yaml")
    encoder = hashlib.sha256(_encoder_bytes(Path(vae_path))).hexdigest()[:12]
    pictures = hashlib.sha256(np.ascontiguousarray(bank.image[:4]).tobytes()).hexdigest()[:8]
    path = Path(data.cache) / f"latents-{encoder}-{pictures}-{bank.people}x{bank.views}.npy"
    if not path.is_file():
        vae = load_vae(vae_path).to(device)
        shape = (bank.people, bank.views, 4, bank.size[0] // 8, bank.size[1] // 8)
        latents = np.empty(shape, np.float32)
        for person in tqdm(range(bank.people), desc="encoding", unit="person"):
            pictures = bank.images(np.full(bank.views, person), np.arange(bank.views)).to(device)
            latents[person] = encode_latents(vae, pictures).float().cpu().numpy()
        part = path.with_suffix(".part.npy")
        np.save(part, latents)
        part.rename(path)
    return torch.from_numpy(np.load(path))


def _encoder_bytes(path: Path) -> bytes:
    """The encoder's weights: a decoder that was polished further keeps the latents."""
    if path.is_dir():
        return str(path.resolve()).encode()
    from safetensors.torch import load_file
    state = load_file(path)
    return b"".join(state[name].numpy().tobytes() for name in sorted(state) if name.startswith("taesd_encoder"))
