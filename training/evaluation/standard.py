"""The standard FID (Heusel et al. 2017) and KID (Binkowski et al. 2018) by torch-fidelity, whose network is TensorFlow's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from training.evaluation.networks import weights_file

WEIGHTS = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
SUBSET = 1000   # pictures of a subset of KID; fewer where there are not as many


class Bytes(Dataset):
    """Pictures as (3, H, W) uint8. read: (path, size) -> (1, 3, H, W) in 0..1."""

    def __init__(self, paths: Sequence[Path], read: Callable[[Path, tuple[int, int]], Tensor],
                 size: tuple[int, int]) -> None:
        self.paths, self.read, self.size = paths, read, size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        return (self.read(self.paths[index], self.size)[0] * 255).round().to(torch.uint8)


def distances(made: Bytes, real: Bytes, device: str, batch: int) -> dict[str, float]:
    """fid, kid (mean over subsets) and kid_deviation. Raises ImportError and FileNotFoundError saying what is missing."""
    try:
        import torch_fidelity
    except ImportError as error:
        raise ImportError("the package torch-fidelity is missing: pip install torch-fidelity") from error
    found = torch_fidelity.calculate_metrics(
        input1=made, input2=real, fid=True, kid=True, cuda=torch.device(device).type == "cuda", batch_size=batch,
        kid_subset_size=min(SUBSET, len(made), len(real)), feature_extractor_weights_path=str(weights_file(WEIGHTS)),
        cache=False, verbose=False)
    return {"fid": found["frechet_inception_distance"], "kid": found["kernel_inception_distance_mean"],
            "kid_deviation": found["kernel_inception_distance_std"]}
