"""Task `cfld`: CFLD on a base UNet, as the authors train it (section 3.4, following the released code), on mannequins or
on DeepFashion. The base stays frozen but for the keys and values of the up blocks.
"""

from __future__ import annotations

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pgpis_models.cfld import CFLD, CONFIGS, Appearance, CFLDConfig
from training.method import adapter_of, below, start_from, there
from training.pair_task import PairTask


class CFLDTask(PairTask):
    """Trains CFLD."""

    label, kind, config_kind, presets = "CFLD", CFLD, CFLDConfig, CONFIGS
    grid_weights = {"demo": {"pose": 1.0, "appearance": 1.5}}
    encoder_parts = ("backbone", "decoder")

    def start(self, method: CFLD, unet: nn.Module | None) -> set[str]:
        """An earlier checkpoint, else an encoder run, an ImageNet backbone and the base's adapter."""
        settings = self.config.method
        if settings.init:   # it holds all the others, trained further
            return set(start_from(method, settings.init, "cfld", unet))
        if there(settings.init_encoder, "method.init_encoder"):
            state = load_file(settings.init_encoder)
            for part in self.encoder_parts:
                method.get_submodule(part).load_state_dict(below(state, part))
        if settings.backbone:
            state = torch.load(settings.backbone, map_location="cpu", weights_only=True)
            method.backbone.load_imagenet(state.get("model", state))
        adapter = adapter_of(settings)
        if adapter:
            method.pose_encoder.load_state_dict(below(adapter, "pose_encoder"))
            with torch.no_grad():
                method.learnable_vector.copy_(adapter["null_caption"])
        return set()

    @staticmethod
    def told(appearance: Appearance) -> Tensor:
        return appearance.prompt

    @classmethod
    def read(cls, method: CFLD, source: Tensor) -> Tensor:
        return method.decoder(method.backbone(source)[-1])
