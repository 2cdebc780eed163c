"""Stage 1 of FPDM: the fusion model, which foresees the embedding of the target photo."""

from __future__ import annotations

from torch import Tensor, nn

from ..parts.pixels import CLIP_MEAN, CLIP_STD
from ..parts.swin_tower import SwinTower
from ..parts.vision_tower import VisionTower
from .config import FUSION_CONFIGS, FusionConfig
from .parts import Combiner


class FusionModel(nn.Module):
    """Stage 1: one CLIP vision tower for photos and pose pictures alike, and the combiner."""

    def __init__(self, config: FusionConfig = FUSION_CONFIGS["full"]) -> None:
        super().__init__()
        self.config = config
        self.tower = SwinTower(config.swin, CLIP_MEAN, CLIP_STD) if config.swin else VisionTower(config.clip, "clip")
        width = config.swin.pooled_width if config.swin else config.clip.width
        self.projection = nn.Linear(width, config.embed, bias=False)
        self.combiner = Combiner(config.embed, config.projection, config.hidden, config.dropout)

    def embed(self, pixels: Tensor) -> Tensor:
        """Photos or pose pictures (B, 3, H, W) of config.image, with CLIP's mean and deviation -> (B, E), not
        normalised."""
        return self.projection(self.tower.pooled(pixels))

    def forward(self, source: Tensor, pose: Tensor) -> Tensor:
        """Pixels of source photo and pose picture, as in `embed` -> the fusion embedding (B, E), of length 1."""
        return self.combiner(self.embed(source), self.embed(pose))

    def unet_weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """None: stage 1 has no UNet."""
        return {}
