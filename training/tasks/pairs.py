"""What tasks on source-target pairs share (CFLD, QEN): how these are opened, and sample grids.

Per pair the source is encoded once; the UNet learns to reconstruct the source from (source, source pose) and to make the
target from (source, target pose).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pgpis_models.methods import method_name
from pgpis_models.poses.factored import FactoredRasters
from training.data.kinds import pairs_class
from training.engine.config import TrainConfig
from training.engine.loss import posterior
from training.engine.picture import grid
from training.engine.shares import WHOLE, Share
from training.engine.task import MethodTask, MethodTraining, as_unit, configured, grid_scale, start_from, trained_weights


class PairTraining(MethodTraining):
    """The loss of a method on pairs, as `forward` of a subclass."""

    def encode_batch(self, batch: dict[str, Tensor]) -> Any:
        """What the method knows of the transfers of a batch, as its `guidance` takes it."""
        return self.method.encode(as_unit(batch["source"]), batch["target_pose"])

    def latents(self, batch: dict[str, Tensor]) -> Tensor:
        """What is to be denoised, (2B or B, 4, h, w): as the batch brings them, or drawn from its pictures' posteriors."""
        kinds = ("source", "target") if self.settings.reconstruct else ("target",)
        if "target_latents" in batch:
            return torch.cat([batch[f"{kind}_latents"] for kind in kinds])
        return self.drawn(as_unit(torch.cat([batch[f"{kind}_image"] for kind in kinds])))


class PairTask(MethodTask):
    """Trains a method's modules and the chosen UNet weights on source-target pairs.

    A subclass names the method and, where it starts from more than an earlier checkpoint, gives `start`. Raises
    ValueError when config, data, base and earlier checkpoint do not fit together, before the first step.
    """

    label: str                              # in sample grids
    kind: type[nn.Module]                   # of the method, and of its config with the presets by name
    config_kind: type
    presets: Mapping[str, Any]
    training: type[PairTraining]

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        super().__init__(config, device)
        settings = config.method
        sizes = configured(self.config_kind, self.presets, settings)
        method = self.kind(sizes)
        unet = self.open_base()
        replaced = self.start(method, unet)
        trained = trained_weights(method, unet, settings)
        self.pairs = pairs_class(config.data.kind, "pairs")(config, sizes, device)   # may encode every photo
        self.batch, self.unseen = (partial(draw_pairs, pairs, 2 if settings.reconstruct else 1, sizes.pose_channels)
                                   for pairs in (self.pairs, self.pairs.unseen()))
        self.loader_workers, self.licence = self.pairs.loader_workers, self.pairs.licence
        self.store(trained, replaced)
        self.model = self.training(method, unet, self.sizes.schedule(), trained, partial(posterior, self.vae), settings)
        self.model.to(device)

    def start(self, method: nn.Module, unet: nn.Module) -> set[str]:
        """Loads initial weights; returns the names of UNet weights that an earlier checkpoint replaced: they belong to
        the next one too."""
        init = self.config.method.init
        return set(start_from(method, init, method_name(method), unet)) if init else set()

    def grid(self) -> np.ndarray:
        """Held-out people: source, pose, made, target."""
        held = self.pairs.held_out()
        source = as_unit(held["source"])
        made = self.sample(source, held["target_pose"]) * 2 - 1
        return grid([source, held["target_pose"][:, :3] * 2 - 1, made, as_unit(held["target"])],
                    ["source", "pose", self.label, "target"], scale=grid_scale(source), per_row=3)

    def sample(self, source: Tensor, pose: Tensor, steps: int = 20, seed: int = 0) -> Tensor:
        """source (B, 3, H, W) in -1..1, pose (B, 21, h, w) in 0..1 -> pictures (B, 3, 8h', 8w') in 0..1."""
        method = self.model.method
        encoded = method.encode(source.to(self.device), pose[:, :method.config.pose_channels].to(self.device))
        return self.sampled(self.guidance(encoded), len(source), steps, seed)


def draw_pairs(pairs: Any, per_pair: int, channels: int, rng: np.random.Generator, size: int,
               share: Share = WHOLE) -> dict[str, Tensor]:
    """The share of a batch of `size` target images, with the pose rasters cut to the channels that the method reads (3: the
    drawing alone). per_pair: 2 where the source is reconstructed beside the target."""
    if (own := size // share.count) % per_pair:
        raise ValueError(f"a process gets {own} images per pass, but a pair is {per_pair} (method.reconstruct); choose a "
                         f"batch that leaves a multiple of {per_pair}")
    batch = pairs.batch(rng, size // per_pair, share)
    return {name: cut(value, channels) if name.endswith("_pose") else value for name, value in batch.items()}


def cut(raster: Tensor | FactoredRasters, channels: int) -> Tensor | FactoredRasters:
    """The first channels of rasters; factored ones are written out for it, but for their drawing (3 channels) alone."""
    if raster.shape[1] == channels:
        return raster
    if isinstance(raster, FactoredRasters):
        return raster.picture / 255 if channels == 3 else raster.full()[:, :channels].contiguous()
    return raster[:, :channels].contiguous()
