"""The row that bounds all latent methods: targets through the autoencoder and back, measured as if they were generated."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from tqdm import tqdm

from pgpis_models.unet.autoencoder import VAE_STRIDE, decode_latents, encode_latents, load_vae
from training.evaluation.pairing import Pair
from training.evaluation.protocols import by_pillow

SIZES = {"cfld": (512, 512)}   # (H, W) that the authors' methods encode; others:
USUAL = (512, 352)


@torch.no_grad()
def reconstructed(pairs: Sequence[Pair], vae: str | Path, size: tuple[int, int], folder: Path, *, device: str = "cpu",
                  batch: int = 8, shift: float = 0.0) -> list[Pair]:
    """The pairs with their targets' reconstructions, PNG files in `folder`, in place of generated pictures.

    vae: our file or a diffusers folder. size: (H, W) at which targets are encoded, resized by Pillow's bicubic. shift: added
    to every latent number, as MCLD's figure 1 (a) does with 0.2. Raises ValueError for sides that are no multiples of 8.
    """
    if any(side % VAE_STRIDE for side in size):
        raise ValueError(f"--vae-size is {size[0]}x{size[1]}; expected multiples of {VAE_STRIDE}")
    network, made = load_vae(vae).to(device), {}
    targets = list(dict.fromkeys(pair.target for pair in pairs))
    for start in tqdm(range(0, len(targets), batch), desc="autoencoder", unit="batch"):
        some = targets[start:start + batch]
        pictures = torch.cat([by_pillow(path, size) for path in some]).to(device)
        latents = encode_latents(network, pictures * 2 - 1) + shift
        for number, (path, picture) in enumerate(zip(some, decode_latents(network, latents), strict=True), start):
            made[path] = folder / f"{number:05d}_{path.stem}.png"
            values = (picture.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
            Image.fromarray(values).save(made[path])
    return [Pair(made[pair.target], pair.target, pair.source) for pair in pairs]
