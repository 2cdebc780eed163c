"""Task `reader`: a vision tower that learns to say what a drawn person wears, from the drawn truth.

It plays the part that ImageNet, CLIP and DINOv2 play in the papers: its backbone is what the methods' encoders start from
(method.backbone). What it says, the description, no method ever sees.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pgpis_models.parts.swin_tower import SwinSizes, SwinTower
from pgpis_models.settings import build
from pgpis_models.unet.weights import write_atomically
from training.engine.config import TrainConfig
from training.engine.picture import grid
from training.engine.shares import WHOLE, Share
from training.engine.task import as_unit
from training.world.bank import Bank, open_bank, open_watched
from training.world.captions import COLOURS, TOKENS, WIDTH

SHOWN = 12            # people of the sample grid
COLOUR_WEIGHT = 4.0   # of the columns that hold colours: an error there is what one sees


@dataclass(frozen=True)
class ReaderConfig:
    """`world` of this task. tower: its image is the data's size; its backbone is that of the methods' presets `demo`."""

    tower: SwinSizes = field(default_factory=lambda: SwinSizes(
        (256, 192), window=(8, 6), width=32, depths=(2, 2, 4, 1), heads=(1, 2, 4, 8), tokens=TOKENS, token_width=WIDTH,
        decoder_depth=4, decoder_heads=2, reads="all"))


class ReaderTask:
    """Trains the tower on (photo) -> description."""

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        settings: ReaderConfig = build(ReaderConfig, config.world, "world")
        if settings.tower.image != config.data.size:
            raise ValueError(f"data.size is {config.data.size}, the tower reads {settings.tower.image}; set "
                             "world.tower.image to it")
        self.loader_workers = config.data.workers
        self.bank, self.held_out = open_bank(config.data), open_watched(config.data)
        self.batch, self.unseen = (partial(seen_people, bank) for bank in (self.bank, self.held_out))
        self.model = Reader(settings.tower).to(device)

    def groups(self, lr: float) -> list[dict]:
        return [{"params": list(self.model.parameters()), "lr": lr}]

    def grid(self) -> np.ndarray:
        """People never trained on: the photo, the main colours that are read from it, top to bottom, and the true ones."""
        who, view = np.arange(SHOWN), np.arange(SHOWN) % self.held_out.views
        photos, truth = self.held_out.images(who, view), torch.from_numpy(self.held_out.caption[who])
        named = self.model.read(photos.to(self.device)).cpu()
        return grid([photos, swatches(named, photos), swatches(truth, photos)], ["photo", "read", "truth"], scale=1,
                    per_row=6)

    def export(self, path: Path, images: int) -> None:
        """The tower, half precision: backbone.* is what the methods start from."""
        state = {name: value.detach().to("cpu", torch.float16 if value.is_floating_point() else None).contiguous()
                 for name, value in self.model.tower.state_dict().items()}
        sizes = {name: str(value) for name, value in asdict(self.model.tower.sizes).items()}
        write_atomically(path, state, {"pgpis.format": "1", "pgpis.kind": '"reader"', "pgpis.step": str(images)} | sizes)


def seen_people(bank: Bank, rng: np.random.Generator, size: int, share: Share = WHOLE) -> dict[str, Tensor]:
    """Random pictures of a bank: photo (B, 3, H, W) uint8, caption (B, T, C); the share of `size`."""
    who, view = (share.of(rng.integers(count, size=size)) for count in (bank.people, bank.views))
    return {"photo": bank.bytes(who, view), "caption": torch.from_numpy(bank.caption[who])}


class Reader(nn.Module):
    """The tower; forward is the training loss, the squared error of the description."""

    def __init__(self, sizes: SwinSizes) -> None:
        super().__init__()
        self.tower = SwinTower(sizes, mean=(0.5,) * 3, std=(0.5,) * 3)   # takes pictures in -1..1 as they are
        weight = torch.ones(WIDTH)
        weight[COLOURS] = COLOUR_WEIGHT
        self.register_buffer("weight", weight, persistent=False)

    def read(self, photos: Tensor) -> Tensor:
        """photos (B, 3, H, W), uint8 or in -1..1 -> descriptions (B, T, C)."""
        return self.tower(as_unit(photos))

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """A batch of `seen_people` -> (loss, share of the description's variance that is read)."""
        error = (self.read(batch["photo"]).float() - batch["caption"]).square()
        spread = batch["caption"] - batch["caption"].mean(0)
        return (error * self.weight).mean(), {"read": 1 - error.detach().mean() / spread.square().mean()}


def swatches(captions: Tensor, like: Tensor) -> Tensor:
    """The main colours that captions (B, T, C) name, top to bottom, as pictures of the shape of `like`."""
    colours = (captions[:, :14, COLOURS][..., :3].float() / 3 + 0.5).clamp(0, 1) * 2 - 1    # (B, 14, 3)
    return F.interpolate(colours.permute(0, 2, 1)[..., None], size=like.shape[-2:], mode="nearest")
