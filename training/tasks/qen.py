"""Task `qen`: QEN on a base UNet, with L_mse + L_rec (eqs. 6 to 8), a plain sum.

Trained are the fusion, the backbone at a lower rate, the control branch, which starts from the base's encoder, and keys
and values of the UNet's cross-attentions; rates, and what of the UNet is trained, are ours: the paper does not state them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pgpis_models.qen.config import CONFIGS, QENConfig
from pgpis_models.qen.model import QEN
from pgpis_models.unet.injections import harmonise
from training.engine.config import QENTrainConfig, TrainConfig
from training.engine.loss import noisy_timesteps
from training.engine.task import as_unit, load_backbone, start_from
from training.tasks.pairs import PairTask, PairTraining


class QENTraining(PairTraining):
    """The loss of QEN."""

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """A batch of `Pairs` -> (L of eq. 8, its parts). Items: B reconstructions of the source, then B transfers."""
        z = self.latents(batch)                                            # (2B, 4, h, w): source, then target
        source_pose = batch["source_pose"] if self.settings.reconstruct else None
        injections = self.method(as_unit(batch["source"]), source_pose, batch["target_pose"])
        rows = harmonise([injections], len(z))
        t = noisy_timesteps(self.settings, len(z), self.schedule, z.device)
        noise = torch.randn_like(z)
        prediction = self.binding(self.schedule.add_noise(z, noise, t), t, rows.stacked(), rows.control)
        error = (prediction.float() - self.schedule.target(z, noise, t)).square().mean((1, 2, 3))
        if not self.settings.reconstruct:
            return error.mean(), {}
        l_rec, l_mse = (half.mean() for half in error.chunk(2))            # eqs. 7 and 6
        return l_mse + l_rec, {"mse": l_mse.detach(), "rec": l_rec.detach()}   # eq. 8


class QENTask(PairTask):
    """Trains QEN."""

    label, kind, config_kind, presets, training = "QEN", QEN, QENConfig, CONFIGS, QENTraining

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        super().__init__(config, device)
        self.model.method.control.checkpointing = config.checkpointing

    def groups(self, lr: float) -> list[dict]:
        return parameter_groups(self.model, lr, self.config.qen)

    def start(self, method: QEN, unet: nn.Module) -> set[str]:
        """An earlier checkpoint, else the base's encoder in the control branch, and a trained backbone."""
        settings, heads = self.config.method, method.config.unet_heads
        if set(self.sizes.heads_of) != {heads}:
            raise ValueError(f"{settings.base} has {self.sizes.heads_of} attention heads at its levels, the control branch "
                             f"{heads} at all of them; expected the same, since the branch starts as the base's encoder and "
                             "weights do not tell: set method.model.unet_heads")
        if settings.init:
            return set(start_from(method, settings.init, "qen", unet))
        method.control.start_from(unet.state_dict())
        if settings.backbone:
            load_backbone(method.backbone, settings.backbone)
        return set()


def parameter_groups(model: nn.Module, lr: float, settings: QENTrainConfig) -> list[dict]:
    """What is trained, the backbone at its own share of the rate."""
    backbone = [p for name, p in model.named_parameters() if p.requires_grad and ".backbone." in f".{name}"]
    held = {id(p) for p in backbone}
    rest = [p for p in model.parameters() if p.requires_grad and id(p) not in held]
    return [{"params": rest, "lr": lr}, {"params": backbone, "lr": lr * settings.backbone_rate}]
