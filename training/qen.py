"""Task `qen`: QEN on a base UNet, on mannequins or on DeepFashion, with L_mse + L_rec (eqs. 6 to 8), a plain sum.

Trained are the fusion, the backbone at a lower rate, the control branch, which starts from the base's encoder, and keys
and values of the UNet's cross-attentions; the paper does not state the last.
"""

from __future__ import annotations

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pgpis_models.qen import CONFIGS, QEN, Appearance, QENConfig
from training.config import QENTrainConfig, TrainConfig
from training.data.captions import TOKENS
from training.method import adapter_of, below, start_from, there
from training.pair_task import PairTask


class QENTask(PairTask):
    """Trains QEN."""

    label, kind, config_kind, presets = "QEN", QEN, QENConfig, CONFIGS
    grid_weights = {"demo": {"pose": 1.0, "appearance": 1.2}}
    encoder_parts = ("backbone", "fusion")
    halves_summed = True

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        super().__init__(config, device)
        if not config.method.encoder_only:
            self.model.method.control.checkpointing = config.checkpointing

    def check(self, sizes: QENConfig) -> None:
        settings = self.config.method
        if (settings.caption_loss or settings.encoder_only) and sizes.local_queries < TOKENS:
            raise ValueError(f"method.caption_loss pulls {TOKENS} local queries to the caption's tokens, but there are "
                             f"{sizes.local_queries}; set method.model.local_queries={TOKENS} or more")
        if settings.init_pose and sizes.pose_embedding != "adapter":
            raise ValueError(f"method.init_pose is set, but the pose embedding is {sizes.pose_embedding!r}; "
                             "expected adapter: leave init_pose empty, or set method.model.pose_embedding=adapter")

    def groups(self, lr: float) -> list[dict]:
        return parameter_groups(self.model, lr, self.config.qen)

    def start(self, method: QEN, unet: nn.Module | None) -> set[str]:
        """An earlier checkpoint, else the base's encoder in the control branch, an encoder run, an ImageNet backbone, and
        the base's pose adapter."""
        settings, heads = self.config.method, method.config.unet_heads
        if unet is not None and set(self.sizes.heads_of) != {heads}:
            raise ValueError(f"{settings.base} has {self.sizes.heads_of} attention heads at its levels, the control branch "
                             f"{heads} at all of them; expected the same, since the branch starts as the base's encoder and "
                             "weights do not tell: set method.model.unet_heads")
        if settings.init:
            return set(start_from(method, settings.init, "qen", unet))
        if unet is not None:
            method.control.start_from(unet.state_dict())
        if there(settings.init_encoder, "method.init_encoder"):
            state = load_file(settings.init_encoder)
            method.backbone.load_state_dict(below(state, "backbone"))
            if below(state, "fusion"):   # an encoder run of CFLD has the backbone alone
                method.fusion.load_state_dict(below(state, "fusion"))
        if settings.backbone:
            state = torch.load(settings.backbone, map_location="cpu", weights_only=True)
            method.backbone.load_imagenet(state.get("model", state))
        adapter = adapter_of(settings)
        if adapter:
            method.pose_encoder.load_state_dict(below(adapter, "pose_encoder"))
            null = adapter["null_caption"]
            with torch.no_grad():
                method.null_tokens.zero_()
                method.null_tokens[:, :null.shape[1]] = null[:, :method.config.tokens]
        return set()

    @staticmethod
    def told(appearance: Appearance) -> Tensor:
        return appearance.tokens[:, :TOKENS]


def parameter_groups(model: nn.Module, lr: float, settings: QENTrainConfig) -> list[dict]:
    """What is trained, the backbone at its own share of the rate."""
    backbone = [p for name, p in model.named_parameters() if p.requires_grad and ".backbone." in f".{name}"]
    held = {id(p) for p in backbone}
    rest = [p for p in model.parameters() if p.requires_grad and id(p) not in held]
    return [{"params": rest, "lr": lr}, {"params": backbone, "lr": lr * settings.backbone_rate}]
