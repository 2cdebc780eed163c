"""The networks behind LPIPS and the papers' FID: read where they lie, never fetched."""

from __future__ import annotations

from pathlib import Path

import torch

INSTALL = "pip install torchvision lpips"


def weights_file(url: str) -> Path:
    """Where torch keeps what it once fetched from a page. Raises FileNotFoundError naming page and folder."""
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    if not file.is_file():
        raise FileNotFoundError(f"{file.name} is not in {file.parent}; have it from {url}")
    return file


def inception() -> torch.nn.Module:
    """torchvision's Inception-v3 with ImageNet weights, up to pool3: (B, 3, 299, 299) -> (B, 2048). Raises ImportError and
    FileNotFoundError saying what is missing."""
    try:
        from torchvision.models import Inception_V3_Weights, inception_v3
    except ImportError as error:
        raise ImportError(f"the package torchvision is missing: {INSTALL}") from error
    file = weights_file(Inception_V3_Weights.IMAGENET1K_V1.url)
    model = inception_v3(init_weights=False, transform_input=False)
    model.load_state_dict(torch.load(file, weights_only=True))
    model.fc = torch.nn.Identity()
    return model.train(False)


def lpips_network() -> torch.nn.Module:
    """LPIPS v0.1 with AlexNet. Raises as `inception`."""
    try:
        import lpips
        from torchvision.models import AlexNet_Weights
    except ImportError as error:
        raise ImportError(f"the packages lpips and torchvision are needed ({error}): {INSTALL}") from error
    weights_file(AlexNet_Weights.IMAGENET1K_V1.url)
    return lpips.LPIPS(net="alex", version="0.1", verbose=False).train(False)
