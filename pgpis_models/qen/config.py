"""All sizes of QEN: the paper's, the demo's and a tiny one for tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..parts.source import SwinSourceConfig
from ..unet.control_branch import BranchSizes
from ..unet.masked_attention import MASK_MODES

PIXELS_PER_LATENT = 8
POSE_EMBEDDINGS = ("convolutions", "adapter")


@dataclass(frozen=True)
class QENConfig(SwinSourceConfig):
    """All sizes of QEN. Stated by the paper: image size, Swin-B, the kinds of queries, the mask. Ours, since it does not
    state them: numbers of queries, width, depth and heads of the fusion, blur and threshold of the mask ("dilate the human
    body regions"), pose embedding, drops; of the backbone its window, drop path, and the mean and deviation of the photo.

    image_size: (height, width) in pixels of the source and of the pictures made; multiples of 8 and of the backbone's.
    The backbone: see SwinSourceConfig.
    local_queries, global_queries: any number of each, but one local query at least.
    prompt_width: of a query, which is the UNet's cross-attention width. fusion_depth, fusion_heads: of the QFFT.
    mask: one of masked_attention.MASK_MODES. mask_sigma: blur in pixels of a picture 512 high; 24 holds 93 % of a drawn
        person and 38 % of the ground, 16 holds 87 and 22, 8 holds 71 and 6 (docs/papers.md). mask_threshold: of its
        peak.
    pose_embedding: `convolutions`, ControlNet's own, of a skeleton picture, into the branch's first layer; or `adapter`,
        CFLD's, of its 21-channel raster, into three levels of the branch (cheaper, and it may start from a trained one).
    pose_channels, pose_unshuffle: channels of the pose raster, and its pixels per latent pixel. pose_widths: of the
        convolutions. pose_groups: GroupNorm groups of the adapter.
    unet_widths, unet_heads, unet_layers: of the base UNet, whose encoder the control branch copies.
    prompt_drop, pose_drop: share of training items that see the null tokens, and no pose; drawn independently.
    """

    image_size: tuple[int, int] = (512, 512)
    local_queries: int = 64
    global_queries: int = 16
    prompt_width: int = 768
    fusion_depth: int = 4
    fusion_heads: int = 12
    mask: str = "full"
    mask_sigma: float = 24.0
    mask_threshold: float = 1 / 255
    pose_embedding: str = "convolutions"
    pose_channels: int = 3
    pose_unshuffle: int = 8
    pose_widths: tuple[int, ...] = (16, 32, 96, 256)
    pose_groups: int = 32
    unet_widths: tuple[int, int, int, int] = (320, 640, 1280, 1280)
    unet_heads: int = 8
    unet_layers: int = 2
    prompt_drop: float = 0.2
    pose_drop: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.unet_widths) != 4:
            raise ValueError(f"unet_widths is {self.unet_widths}; expected four values")
        for name, options in (("mask", MASK_MODES), ("pose_embedding", POSE_EMBEDDINGS)):
            if getattr(self, name) not in options:
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected one of {options}")
        if self.local_queries < 1 or self.global_queries < 0:
            raise ValueError(f"{self.local_queries} local and {self.global_queries} global queries; expected 1 or more "
                             "local and 0 or more global ones, since only local queries read the source")
        if any(side % PIXELS_PER_LATENT for side in self.image_size):
            raise ValueError(f"image_size is {self.image_size}; expected multiples of {PIXELS_PER_LATENT}")
        if self.pose_embedding == "convolutions" and self.pose_unshuffle != 2 ** (len(self.pose_widths) - 1):
            raise ValueError(f"pose_unshuffle is {self.pose_unshuffle}, but {len(self.pose_widths)} pose_widths halve the "
                             f"picture to 1/{2 ** (len(self.pose_widths) - 1)}; expected that number")

    @property
    def latent_size(self) -> tuple[int, int]:
        """(height, width) of the latents."""
        return self.image_size[0] // PIXELS_PER_LATENT, self.image_size[1] // PIXELS_PER_LATENT

    @property
    def pose_size(self) -> tuple[int, int]:
        """(height, width) of the pose raster in pixels."""
        return self.latent_size[0] * self.pose_unshuffle, self.latent_size[1] * self.pose_unshuffle

    @property
    def tokens(self) -> int:
        """Number of all queries."""
        return self.local_queries + self.global_queries

    @property
    def branch(self) -> BranchSizes:
        """Sizes of the control branch."""
        return BranchSizes(self.unet_widths, self.unet_heads, self.prompt_width, self.local_queries, self.mask,
                           self.unet_layers)


CONFIGS: Mapping[str, QENConfig] = {
    "full": QENConfig(),
    # The drawn world at 256x192.
    "demo": QENConfig(image_size=(256, 192), window=(8, 6), swin_width=32, swin_depths=(2, 2, 4, 1), swin_heads=(1, 2, 4, 8),
                      drop_path=0.0, local_queries=16, global_queries=4, prompt_width=64, fusion_depth=4, fusion_heads=2,
                      mask_sigma=8.0, pose_embedding="adapter", pose_channels=21, pose_unshuffle=8,
                      unet_widths=(64, 64, 64, 64), unet_heads=1, prompt_drop=0.1, pose_drop=0.1),
    "tiny": QENConfig(image_size=(64, 64), window=4, swin_width=8, swin_depths=(1, 1, 1, 1), swin_heads=(1, 1, 2, 2),
                      local_queries=5, global_queries=3, prompt_width=24, fusion_depth=2, fusion_heads=3,
                      pose_widths=(4, 4, 8, 8), unet_widths=(32, 32, 64, 64), unet_heads=4),
}
