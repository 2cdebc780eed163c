"""Task `decoder`: polishes the demo's decoder on latents that a method makes, beside those of true pictures.

A method's latents differ from encoded ones in a way of their own: outlines that it is not sure of are blurred in latent
space, and a decoder that never saw such latents answers with fringes. The encoder stays as it is, so everything that was
trained on its latents stays valid.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from pgpis_models.base import decode_latents, load_vae, save_vae
from pgpis_models.pipeline import Generator
from training.config import TrainConfig
from training.data.bank import WATCHED, Bank, open_bank
from training.demo import extras
from training.latents import bank_latents
from training.picture import grid

SHOWN = 16
AT_ONCE = 32
ABSOLUTE = 0.1   # weight of the absolute error beside the squared one


class DecoderTask:
    """Trains the decoder of `method.vae` alone. Raises ValueError for files that are missing."""

    loader_workers = 0

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        self.config, self.device, settings = config, device, config.decoder
        for name, path in (("decoder.checkpoint", settings.checkpoint), ("method.base", config.method.base),
                           ("method.vae", config.method.vae)):
            if not Path(path).is_file():
                raise ValueError(f"{name} is {path!r}, which is not there; expected a demo file that training/train.py made")
        self.bank: Bank = open_bank(config.data)
        self.held_out: Bank = open_bank(config.data, held_out=SHOWN, start=WATCHED)
        latents, shown_latents = (bank_latents(bank, config.method.vae, config.data, device)
                                  for bank in (self.bank, self.held_out))
        generator = Generator(settings.checkpoint, config.method.base, config.method.vae, device)
        rng = np.random.default_rng(config.seed)
        who = rng.integers(self.bank.people, size=settings.pairs)
        view = rng.integers(self.bank.views, size=settings.pairs)
        source = (view + rng.integers(1, self.bank.views, size=settings.pairs)) % self.bank.views
        made = made_latents(generator, self.bank, who, source, view, config.seed)
        everybody, first, second = np.arange(SHOWN), np.zeros(SHOWN, int), np.ones(SHOWN, int)
        self.shown = made_latents(generator, self.held_out, everybody, first, second, config.seed)
        self.batch = MadeAndTrue(self.bank, latents, who, view, made, settings.share)
        self.unseen = MadeAndTrue(self.held_out, shown_latents, everybody, second, self.shown, settings.share)
        vae = load_vae(config.method.vae).requires_grad_(False)
        vae.decoder.requires_grad_(True)
        self.model = DecoderLoss(vae, config.autoencoder.foreground).to(device, memory_format=torch.channels_last)

    def groups(self, lr: float) -> list[dict]:
        return [{"params": list(self.model.vae.decoder.parameters()), "lr": lr}]

    def grid(self) -> np.ndarray:
        """Held-out people: truth, the truth through the autoencoder, and what the method made."""
        truth = self.held_out.images(np.arange(SHOWN), np.ones(SHOWN, int)).to(self.device)
        vae = self.model.vae
        return grid([truth, vae(truth).sample, decode_latents(vae, self.shown) * 2 - 1], ["truth", "decoded", "method"],
                    scale=2, per_row=2)

    def export(self, path: Path, images: int) -> None:
        save_vae(path, self.model.vae, step=images, data=self.config.data.kind)


@dataclass(frozen=True)
class MadeAndTrue:
    """Batches of whole pictures of a bank with latents (B, 4, h, w), of which the first `share` are the method's (made, of
    people `who` in views `view`), the others the autoencoder's own (latents, (N, V, 4, h, w)); image, person."""

    bank: Bank
    latents: Tensor
    who: np.ndarray
    view: np.ndarray
    made: Tensor
    share: float

    def __call__(self, rng: np.random.Generator, size: int) -> dict[str, Tensor]:
        made = round(self.share * size)
        pick = rng.integers(len(self.who), size=made)
        others = rng.integers(self.bank.people, size=size - made), rng.integers(self.bank.views, size=size - made)
        who, view = (np.concatenate(both) for both in ((self.who[pick], others[0]), (self.view[pick], others[1])))
        return {"latents": torch.cat([self.made[pick], self.latents[others]]), "image": self.bank.images(who, view),
                "person": torch.from_numpy(self.bank.part[who, view] > 0)[:, None].float()}


def made_latents(generator: Generator, bank: Bank, who: np.ndarray, source: np.ndarray, target: np.ndarray,
                 seed: int) -> Tensor:
    """(N, 4, h, w) latents that a method makes of people `who` from one view in the pose of another, as it is used."""
    made = []
    for start in tqdm(range(0, len(who), AT_ONCE), desc="latents of the method", unit_scale=AT_ONCE, unit="img"):
        people, old, new = (values[start:start + AT_ONCE] for values in (who, source, target))
        more = extras(generator.meta.method, bank, people, old, new)
        made.append(generator.latents(bank.images(people, old), bank.poses(people, new), seed=seed, first=start,
                                      **more).cpu())
    return torch.cat(made)


class DecoderLoss(nn.Module):
    """Weighted squared error, which blurs what is not known rather than inventing it, and a little absolute error."""

    def __init__(self, vae: nn.Module, foreground: float) -> None:
        super().__init__()
        self.vae, self.foreground = vae, foreground

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        error = self.vae.decode(batch["latents"]).sample.float() - batch["image"]
        weight = 1 + (self.foreground - 1) * batch["person"]
        loss = (weight / weight.mean() * (error.square() + ABSOLUTE * error.abs())).mean()
        return loss, {"psnr": -10 * torch.log10(F.mse_loss(error.detach() / 2, torch.zeros_like(error)))}
