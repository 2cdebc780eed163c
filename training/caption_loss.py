"""Demo only: how far what an encoder says is from the caption of the person, by its numbers or by what one would see.

By numbers every error counts alike, but for colours and build. What one sees of them is uneven: of how thick the limbs are
a little error moves every outline, of the colour of the eyes a large one is next to nothing. So the error may be measured
in the base's picture instead, to first order: a change e of the caption changes the picture by J e, and the mean of |J e|^2
over people is e' G e with G the mean of J' J, one matrix for all. It costs a matrix product where the picture itself would
cost the base and the decoder, forth and back. No published training of these methods has it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from pgpis_models.base import decode_latents, load_unet, load_vae
from pgpis_models.injections import Injections, everywhere, harmonise
from pgpis_models.pose import cfld_factored
from training.base import CaptionedUNet, companion, raster_size
from training.config import DataConfig, MethodConfig
from training.data.arrays import NewArray
from training.data.bank import DRAWING, Bank, open_bank
from training.data.captions import BUILD, COLOURS
from training.method import there

COLOUR_WEIGHT = 4.0   # of the colour columns of a caption: an error there is what one sees
BUILD_WEIGHT = 4.0    # of the build's numbers: they move every outline, and are the last that an encoder learns to read
SHRUNK = 0.3          # share of the metric's diagonal in it: what is estimated from few gradients must not look free
PEOPLE = 256          # whose pictures the metric is taken of
FROM = 1_200_000      # identity seed of the first of them: never trained on, watched or shown
GRADIENTS = 2048
AT_ONCE = 32


class CaptionError:
    """Mean error of prompts against captions, both (B, T, C).

    metric: (T * C, T * C), `picture_metric`'s. share: how much of the error is measured by it, 0 to 1; the rest is the
    squared error of the numbers, of which colours and build count four times.
    """

    def __init__(self, metric: Tensor | None = None, share: float = 0.0) -> None:
        self.metric, self.share = metric, share if metric is not None else 0.0

    def __call__(self, prompt: Tensor, caption: Tensor) -> Tensor:
        error = prompt.float() - caption
        weight = caption.new_ones(caption.shape[1:])
        weight[:, COLOURS] = COLOUR_WEIGHT
        weight[BUILD] = BUILD_WEIGHT
        plain = (error.square() * weight).mean()
        if self.metric is None:
            return plain
        flat = error.flatten(1)
        with torch.autocast(flat.device.type, enabled=False):   # a sum of large and small numbers
            seen = ((flat @ self.metric) * flat).mean()
        return (1 - self.share) * plain + self.share * seen


def open_caption_error(settings: MethodConfig, data: DataConfig, device: torch.device) -> CaptionError:
    """The error that a config asks for; where method.caption_metric is above 0, measures the base's pictures for it, which
    takes 90 s on one CPU core and is kept in data.cache. By numbers alone, said aloud, where the base has no adapter beside
    it. Raises ValueError where base or autoencoder are missing."""
    share = settings.caption_metric
    if not share or not (settings.caption_loss or settings.encoder_only):
        return CaptionError()
    files = {"method.base": Path(settings.base), "method.vae": Path(settings.vae)}
    for name, path in files.items():
        if not path.is_file():
            raise ValueError(f"method.caption_metric is {share} and asks the base for pictures, but {name} is "
                             f"{str(path)!r}, which is not there; expected what demo_base.yaml and demo_vae.yaml make, "
                             "or method.caption_metric=0")
    adapter = companion(files["method.base"])
    if not there(str(adapter), "the adapter of method.base (for method.caption_metric)"):
        return CaptionError()
    about: list = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (*files.values(), adapter)]
    about += [DRAWING, *data.size, data.views, PEOPLE, FROM, GRADIENTS, SHRUNK]
    path = Path(data.cache) / f"caption-metric-{hashlib.sha256(json.dumps(about).encode()).hexdigest()[:12]}.npy"
    if not path.is_file():
        metric = base_metric(settings, open_bank(data, held_out=PEOPLE, start=FROM), device, GRADIENTS).cpu().numpy()
        with NewArray(path, metric.shape, np.float32) as kept:
            kept[:] = metric
    return CaptionError(torch.from_numpy(np.load(path)).to(device), share)


def base_metric(settings: MethodConfig, bank: Bank, device: torch.device, count: int) -> Tensor:
    """`picture_metric` of the base of a config, told caption and pose, in the one step from pure noise that decides the
    demo's pictures. count: gradients to take, of AT_ONCE pictures at a time."""
    unet, sizes = load_unet(settings.base)
    model = CaptionedUNet(unet, sizes, 0.0, 0.0, 1.0)
    model.load_companion(companion(Path(settings.base)))
    model.requires_grad_(False).train(False).to(device)
    vae = load_vae(settings.vae).requires_grad_(False).to(device, memory_format=torch.channels_last)
    schedule, rng = sizes.schedule(), np.random.default_rng(0)
    dice = torch.Generator().manual_seed(0)   # the run's own draws stay as they are

    def batches() -> Iterable[tuple[Tensor, Callable[[Tensor], Tensor]]]:
        for _ in tqdm(range(count // AT_ONCE), desc="what captions change in pictures", unit_scale=AT_ONCE, unit="img"):
            who, view = rng.integers(bank.people, size=AT_ONCE), rng.integers(bank.views, size=AT_ONCE)
            pose = cfld_factored(bank.poses(who, view), raster_size(bank.size)).to(device)
            noisy = torch.randn(AT_ONCE, 4, bank.size[0] // 8, bank.size[1] // 8, generator=dice).to(device)
            last = torch.full((AT_ONCE,), schedule.steps - 1, device=device)

            def picture(caption: Tensor, noisy: Tensor = noisy, last: Tensor = last, pose: object = pose) -> Tensor:
                told = Injections(context=everywhere(caption), down_residuals=model.pose_encoder(pose))
                made = model.binding(noisy, last, harmonise([told], len(noisy)).stacked())
                return decode_latents(vae, schedule.to_x0(made.float(), noisy, last)) * 2 - 1
            yield torch.from_numpy(bank.caption[who]).to(device), picture
    return picture_metric(batches(), dice)


def picture_metric(batches: Iterable[tuple[Tensor, Callable[[Tensor], Tensor]]], dice: torch.Generator) -> Tensor:
    """Mean of J' J (T * C, T * C) over captions (B, T, C), J the derivative of their pictures, each batch with the function
    that makes them; scaled to a mean of 1 on the diagonal, and SHRUNK towards that.

    J' u of a picture of noise u has the mean square J' J, and one pass back gives it.
    """
    total, rows = None, 0
    for captions, picture in batches:
        captions = captions.float().requires_grad_(True)
        with torch.enable_grad():
            made = picture(captions)
            found, = torch.autograd.grad((made * torch.randn(made.shape, generator=dice).to(made.device)).sum(), captions)
        found = found.float().flatten(1)
        total = found.T @ found + (0 if total is None else total)
        rows += len(found)
    if total is None:
        raise ValueError("no captions; expected at least one batch")
    own = total.diagonal().clone()
    if not bool(own.sum() > 0):
        raise ValueError("captions change nothing in the base's pictures; expected a trained base that listens to them")
    return ((1 - SHRUNK) * total + SHRUNK * torch.diag(own)) / own.mean()
