"""Autoencoders: TAESD-layout files, which ComfyUI loads as they are, or a diffusers folder."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from .weights import check_finite, difference, read_floats, shapes_of, write_atomically

LATENT_SCALE = 0.18215   # Stable Diffusion's factor between autoencoder latents and the UNet's
HOST_VAE_WIDTH = 64      # channels of the host's TAESD classes
VAE_STRIDE = 8           # image pixels per latent pixel


def load_vae(path: str | Path) -> nn.Module:
    """An autoencoder with diffusers' encode/decode, from a TAESD-layout file or a diffusers folder, evaluation mode.

    Raises ValueError when the file is something else.
    """
    path = Path(path)
    if path.is_dir():
        from diffusers import AutoencoderKL
        vae = AutoencoderKL.from_pretrained(path / "vae" if (path / "vae").is_dir() else path).train(False)
        check_finite(vae.state_dict().items(), path)
        return vae
    state = read_floats(path)
    try:
        return trim_tiny(tiny_from_taesd(state)).train(False)
    except ValueError as error:
        raise ValueError(f"{path} is {error}; expected a file made by training/train.py with task: autoencoder, or a "
                         "diffusers folder") from None


def encode_latents(vae: nn.Module, images: Tensor) -> Tensor:
    """Images (B, 3, H, W) in -1..1 -> UNet latents (B, 4, H/8, W/8), the posterior's mean for a full VAE."""
    encoded = vae.encode(images)
    return encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode() * LATENT_SCALE


def decode_latents(vae: nn.Module, latents: Tensor) -> Tensor:
    """UNet latents (B, 4, h, w) -> images (B, 3, 8 h, 8 w) in 0..1, clamped."""
    scale = 1.0 if hasattr(vae, "latent_magnitude") else LATENT_SCALE
    return (vae.decode(latents / scale).sample * 0.5 + 0.5).clamp(0, 1)


def tiny(width: int) -> nn.Module:
    """A fresh diffusers AutoencoderTiny with `width` channels everywhere (TAESD topology)."""
    from diffusers import AutoencoderTiny
    return AutoencoderTiny(encoder_block_out_channels=(width,) * 4, decoder_block_out_channels=(width,) * 4)


def taesd_from_tiny(model: nn.Module) -> dict[str, Tensor]:
    """State dict in the host's TAESD layout. Narrower models are padded with zero channels to the host's 64.

    Zero channels change nothing: convolutions read and write zeros there and ReLU keeps them.
    """
    state = {}
    for name, value in model.state_dict().items():
        part, _, index, rest = name.split(".", 3)  # encoder.layers.N.xxx
        index = int(index) + (part == "decoder")   # the host counts the clamp at the decoder's start as a layer
        last = index == (14 if part == "encoder" else 19) and rest.startswith(("weight", "bias"))
        first = index == (0 if part == "encoder" else 1) and rest.startswith("weight")
        state[f"taesd_{part}.{index}.{rest}"] = _pad(value, pad_out=not last, pad_in=not first)
    return state | {"vae_scale": torch.tensor(LATENT_SCALE), "vae_shift": torch.tensor(0.0)}


def tiny_from_taesd(state: Mapping[str, Tensor]) -> nn.Module:
    """AutoencoderTiny from a TAESD-layout state dict. Raises ValueError when keys are missing or too many."""
    model = tiny(state["taesd_encoder.0.weight"].shape[0] if "taesd_encoder.0.weight" in state else HOST_VAE_WIDTH)
    own = {}
    for name, value in state.items():
        if name in ("vae_scale", "vae_shift"):
            continue
        parts = re.fullmatch(r"taesd_(encoder|decoder)\.(\d+)\.(.+)", name)
        if parts:
            part, index, rest = parts.groups()
            name = f"{part}.layers.{int(index) - (part == 'decoder')}.{rest}"
        own[name] = value.float()
    wrong = difference(shapes_of(model.state_dict()), shapes_of(own))
    if wrong:
        raise ValueError(f"not an autoencoder in TAESD layout: {wrong}")
    model.load_state_dict(own)
    return model


def trim_tiny(model: nn.Module) -> nn.Module:
    """The model without the zero channels that `taesd_from_tiny` padded: the same function at a quarter of the cost.

    A channel goes only when no layer ever writes to it, weights and biases alike.
    """
    state = model.state_dict()
    width = state["encoder.layers.0.weight"].shape[0]
    written = sum(value.abs().flatten(1).sum(1) if value.dim() > 1 else value.abs()
                  for value in state.values() if value.shape[0] == width)
    used = int(written.nonzero().max()) + 1 if written.any() else 1
    if used == width:
        return model
    small = tiny(used)
    small.load_state_dict({name: state[name][tuple(slice(n) for n in value.shape)]
                           for name, value in small.state_dict().items()})
    return small


def save_vae(path: Path, model: nn.Module, *, step: int, data: str) -> None:
    """Writes the autoencoder in the host's layout, half precision; atomic."""
    tensors = {k: v.detach().to("cpu", torch.float16).contiguous() for k, v in taesd_from_tiny(model).items()}
    tensors |= {"vae_scale": torch.tensor(LATENT_SCALE), "vae_shift": torch.tensor(0.0)}  # exact, not halved
    write_atomically(path, tensors, {"pgpis.format": "1", "pgpis.kind": '"vae"', "pgpis.step": str(step),
                                     "pgpis.data": json.dumps(data)})


def _pad(value: Tensor, pad_out: bool, pad_in: bool) -> Tensor:
    shape = list(value.shape)
    if pad_out:
        shape[0] = HOST_VAE_WIDTH
    if value.dim() > 1 and pad_in:
        shape[1] = HOST_VAE_WIDTH
    padded = value.new_zeros(shape)
    padded[tuple(slice(n) for n in value.shape)] = value
    return padded
