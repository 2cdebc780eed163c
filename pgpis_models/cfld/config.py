"""All sizes of CFLD: the authors', the demo's and a tiny one for tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..parts.source import SwinSourceConfig


@dataclass(frozen=True)
class CFLDConfig(SwinSourceConfig):
    """All sizes of CFLD; the defaults are the authors'.

    Source and backbone: see SwinSourceConfig.
    appearance_features: which Swin maps (0 is the finest) feed the biases of up.3, up.2 and up.1. Their token grids
        must be those of the UNet at these blocks, so this also ties latent size to image size: see `latent_size`.
    appearance_widths, appearance_heads: of the branches for up.3, up.2 and up.1; appearance_depth: their blocks.
    appearance_zero_in: the branches' first convolution starts at zero as well as their last.
    prompt_tokens, prompt_width: the coarse prompt; its width is the UNet's cross-attention width.
    decoder_depth, decoder_heads: blocks and heads of the perception-refined decoder, which is prompt_width wide.
    pose_channels: of the pose raster (3 of the drawing, 18 heat maps).
    pose_unshuffle: raster pixels per latent pixel. pose_groups: GroupNorm groups of the pose adapter.
    unet_widths: channels of the UNet's three finest levels.
    prompt_drop: share of training items whose prompt becomes the unconditional one.
    """

    appearance_features: tuple[int, int, int] = (0, 1, 2)
    appearance_widths: tuple[int, int, int] = (64, 128, 256)
    appearance_heads: tuple[int, int, int] = (2, 4, 8)
    appearance_depth: int = 4
    appearance_zero_in: bool = True
    prompt_tokens: int = 16
    prompt_width: int = 768
    decoder_depth: int = 8
    decoder_heads: int = 24
    pose_channels: int = 21
    pose_unshuffle: int = 4
    pose_groups: int = 32
    unet_widths: tuple[int, int, int] = (320, 640, 1280)
    prompt_drop: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("appearance_features", "appearance_widths", "appearance_heads", "unet_widths"):
            if len(getattr(self, name)) != 3:
                raise ValueError(f"{name} is {getattr(self, name)}; expected three values, for up.3, up.2 and up.1")
        first = self.appearance_features[0]
        if self.appearance_features != (first, first + 1, first + 2) or first not in (0, 1):
            raise ValueError(f"appearance_features is {self.appearance_features}; expected (0, 1, 2) or (1, 2, 3), "
                             "since the UNet's levels halve as the Swin stages do")

    @property
    def latent_size(self) -> tuple[int, int]:
        """(height, width) of the latents that the query biases fit: the grid of the finest map they are made of."""
        cell = self.patch * 2 ** self.appearance_features[0]
        return self.image_size[0] // cell, self.image_size[1] // cell

    @property
    def pose_size(self) -> tuple[int, int]:
        """(height, width) of the pose raster in pixels."""
        return self.latent_size[0] * self.pose_unshuffle, self.latent_size[1] * self.pose_unshuffle


CONFIGS: Mapping[str, CFLDConfig] = {
    "full": CFLDConfig(),
    # The drawn world at 256x192: the source is read at full size, so the biases come from the three deeper maps.
    "demo": CFLDConfig(image_size=(256, 192), window=(8, 6), swin_width=32, swin_depths=(2, 2, 4, 1),
                       swin_heads=(1, 2, 4, 8), drop_path=0.0, appearance_features=(1, 2, 3),
                       appearance_widths=(32, 48, 64), appearance_heads=(1, 2, 2), appearance_depth=1,
                       prompt_width=64, decoder_depth=4, decoder_heads=2, pose_unshuffle=8, unet_widths=(64, 64, 64),
                       appearance_zero_in=False),
    "tiny": CFLDConfig(image_size=(64, 64), window=4, swin_width=8, swin_depths=(2, 2, 2, 2), swin_heads=(2, 2, 4, 4),
                       appearance_widths=(16, 24, 32), appearance_heads=(2, 3, 4), appearance_depth=2, prompt_tokens=5,
                       prompt_width=24, decoder_depth=3, decoder_heads=3, unet_widths=(32, 64, 32)),
}
