"""The network behind the papers' FID: read where it lies, never fetched. That of LPIPS: pgpis_models/metrics.py."""

from __future__ import annotations

import torch

from pgpis_models.files.torch_states import read_torch_file
from pgpis_models.metrics import INSTALL, weights_file


def inception() -> torch.nn.Module:
    """torchvision's Inception-v3 with ImageNet weights, up to pool3: (B, 3, 299, 299) -> (B, 2048). Raises ImportError and
    FileNotFoundError saying what is missing."""
    try:
        from torchvision.models import Inception_V3_Weights, inception_v3
    except ImportError as error:
        raise ImportError(f"the package torchvision is missing: {INSTALL}") from error
    file = weights_file(Inception_V3_Weights.IMAGENET1K_V1.url)
    model = inception_v3(init_weights=False, transform_input=False)
    model.load_state_dict(read_torch_file(file))
    model.fc = torch.nn.Identity()
    return model.train(False)
