"""Task `cfld`: CFLD on a base UNet, as the authors train it (section 3.4, following the released code). Trained are its
encoders and the keys and values of the up blocks; the rest of the base stays frozen unless the config says otherwise.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from pgpis_models.cfld.config import CONFIGS, CFLDConfig
from pgpis_models.cfld.model import CFLD
from pgpis_models.unet.injections import Injections, harmonise
from training.engine.config import TrainConfig
from training.engine.loss import noisy_timesteps
from training.engine.task import as_unit, load_backbone, start_from
from training.tasks.pairs import PairTask, PairTraining


class CFLDTraining(PairTraining):
    """The loss of CFLD. drops_all: a dropped item loses biases and pose too."""

    drops_all = False

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """A batch of `Pairs` -> (L_mse of eq. 5, its parts). Items: B reconstructions of the source, then B transfers."""
        z = self.latents(batch)                                            # (2B, 4, h, w): source, then target
        source_pose = batch["source_pose"] if self.settings.reconstruct else None
        # section 3.4: source and target pose are made from one reading of the source; a share of prompts is dropped (code)
        drop_u = torch.rand(len(z), device=z.device) if self.drops_all else None
        injections = self.method(as_unit(batch["source"]), source_pose, batch["target_pose"], drop_u)
        if drop_u is not None:
            injections = without_all(injections, drop_u < self.method.config.prompt_drop)
        t = noisy_timesteps(self.settings, len(z), self.schedule, z.device)   # eq. 6: favours noise
        noise = torch.randn_like(z)
        z_t = self.schedule.add_noise(z, noise, t)
        prediction = self.binding(z_t, t, harmonise([injections], len(z)).stacked())
        loss = (prediction.float() - self.schedule.target(z, noise, t)).square().mean()   # eq. 5
        return loss, {}


def without_all(injections: Injections, dropped: Tensor) -> Injections:
    """The rows of dropped (B,) bool without query biases and pose maps: zeros, as sampling has them without source and pose
    (section 3.4: "drop both x_s and x_p"); their prompt is the unconditional one already."""
    kept = ~dropped
    return replace(
        injections,
        query_bias={site: bias * kept.view(-1, 1, 1) for site, bias in injections.query_bias.items()},
        down_residuals=tuple(maps * kept.view(-1, 1, 1, 1) for maps in injections.down_residuals))


class CFLDTask(PairTask):
    """Trains CFLD."""

    label, kind, config_kind, presets, training = "CFLD", CFLD, CFLDConfig, CONFIGS, CFLDTraining

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        super().__init__(config, device)
        self.model.drops_all = config.cfld.drop == "all"

    def start(self, method: CFLD, unet: nn.Module) -> set[str]:
        """An earlier checkpoint, else a trained backbone."""
        settings = self.config.method
        if settings.init:   # it holds all the others, trained further
            return set(start_from(method, settings.init, "cfld", unet))
        if settings.backbone:
            load_backbone(method.backbone, settings.backbone)
        return set()
