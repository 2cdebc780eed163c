"""LPIPS (Zhang et al. 2018), where its package and the weights are there: read where they lie, never fetched."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from torch import Tensor

INSTALL = "pip install torchvision lpips"
SMALLEST = 32   # pixels of a side that AlexNet reads


def weights_file(url: str) -> Path:
    """Where torch keeps what it once fetched from a page. Raises FileNotFoundError naming page and folder."""
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    if not file.is_file():
        raise FileNotFoundError(f"{file.name} is not in {file.parent}; have it from {url}")
    return file


def lpips_network() -> torch.nn.Module:
    """LPIPS v0.1 with AlexNet. Raises ImportError and FileNotFoundError saying what is missing."""
    try:
        import lpips
        from torchvision.models import AlexNet_Weights
    except ImportError as error:
        raise ImportError(f"the packages lpips and torchvision are needed ({error}): {INSTALL}") from error
    weights_file(AlexNet_Weights.IMAGENET1K_V1.url)
    return lpips.LPIPS(net="alex", version="0.1", verbose=False).train(False)


@cache
def _network() -> torch.nn.Module:
    return lpips_network()


@torch.no_grad()
def lpips_where_there(generated: Tensor, target: Tensor) -> Tensor | None:
    """Pictures (B, 3, H, W) in 0..1 -> (B,), 0 for equal ones; None without the network, and where it cannot read them."""
    if min(generated.shape[-2:]) < SMALLEST:
        return None
    try:
        network = _network()
    except (ImportError, OSError):
        return None
    return network(generated.cpu().float(), target.cpu().float(), normalize=True).flatten()
