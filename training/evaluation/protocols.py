"""How each paper reads and measures a pair of pictures, by name; never to be mixed in one table.

| name | generated picture | target | measures |
| --- | --- | --- | --- |
| cfld | tensor resize (bicubic, antialiased), truncated to 8 bit | Pillow's bicubic | psnr, ssim (window 51), ssim_256 (range of the prediction), lpips, fid_papers |
| mcld | as cfld, whose evaluation it is | as cfld | and faces, by buffalo_s |
| fpdm | Pillow's bicubic | Pillow's bicubic | as cfld, and l1, mae |
| standard | Pillow's bicubic | Pillow's bicubic | psnr, ssim of Wang et al. 2004 (Gaussian window, range 1), lpips, fid and kid of torch-fidelity |

QEN's paper says that it measures as CFLD's code does. CFLD resizes what its network made before it is saved; here it is read from
8-bit files, which can differ by one level. FPDM's LPIPS leaves out a last batch that is not full; here all pictures count.
"""  # noqa: E501 - a table

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pgpis_models.files.pictures import open_rgb
from pgpis_models.metrics import mae_ratio, mean_error, papers_resize_quantise, psnr, ssim_gauss, ssim_win51

Measure = Callable[[Tensor, Tensor], Tensor]   # generated, target (B, 3, H, W) in 0..1 -> (B,)


def by_pillow(path: Path, size: tuple[int, int]) -> Tensor:
    """A picture (1, 3, H, W) in 0..1, resized in 8 bit by Pillow's bicubic."""
    picture = open_rgb(path).resize((size[1], size[0]), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None] / 255.0


def by_tensor(path: Path, size: tuple[int, int]) -> Tensor:
    """A picture (1, 3, H, W) in 0..1, resized as floats and truncated to 8 bit."""
    return papers_resize_quantise(torch.from_numpy(np.array(open_rgb(path))).permute(2, 0, 1)[None] / 255.0, size)


def range_of_prediction(generated: Tensor, target: Tensor) -> Tensor:
    return ssim_gauss(generated, target, data_range="prediction")


@dataclass(frozen=True)
class Protocol:
    """read_generated, read_target: (path, (height, width)) -> (1, 3, H, W). papers_fid: whether the FID is the papers'
    (`pgpis_models.metrics`), not the standard one (standard.py)."""
    read_generated: Callable[[Path, tuple[int, int]], Tensor]
    read_target: Callable[[Path, tuple[int, int]], Tensor]
    measures: dict[str, Measure]
    papers_fid: bool = True


PAPERS: dict[str, Measure] = {"psnr": psnr, "ssim": ssim_win51, "ssim_256": range_of_prediction}
PROTOCOLS = {
    "cfld": Protocol(by_tensor, by_pillow, PAPERS),
    "mcld": Protocol(by_tensor, by_pillow, PAPERS),
    "fpdm": Protocol(by_pillow, by_pillow, PAPERS | {"l1": mean_error, "mae": mae_ratio}),
    "standard": Protocol(by_pillow, by_pillow, {"psnr": psnr, "ssim": ssim_gauss}, papers_fid=False),
}
