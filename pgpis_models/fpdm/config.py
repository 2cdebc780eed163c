"""All sizes of FPDM, both stages: the authors', the demo's and tiny ones for tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..parts.swin_tower import SwinSizes
from ..parts.vision_tower import TowerSizes
from ..settings import later

JOINTS, WHOLE = 18, 133   # points of a pose that is drawn


@dataclass(frozen=True)
class FusionConfig:
    """Sizes of stage 1; the defaults are the authors' (CLIP ViT-L/14).

    clip: the vision tower that source, pose picture and target photo share. swin: a Swin transformer in its place (the
    demo's; it learns faster from nothing). embed: width of its projected embeddings. projection, hidden: widths inside the
    combiner. dropout: of the combiner. crop: photos are cropped to the tower's size in the training of this stage, not
    squashed. points: of a pose that is drawn, in both stages: 18 joints, as of the published weights, or
    133 with hands and face.
    """

    clip: TowerSizes = field(default_factory=TowerSizes)
    embed: int = 768
    projection: int = 768
    hidden: int = 768
    swin: SwinSizes | None = None
    dropout: float = 0.5
    crop: bool = True
    points: int = later(JOINTS)

    def __post_init__(self) -> None:
        if self.points not in (JOINTS, WHOLE):
            raise ValueError(f"points is {self.points}; expected {JOINTS} (joints) or {WHOLE} (whole body)")

    @property
    def whole(self) -> bool:
        """Whether poses are drawn with hands and face."""
        return self.points == WHOLE

    @property
    def image(self) -> tuple[int, int]:
        """(height, width) in pixels of the pictures that the tower reads."""
        return self.swin.image if self.swin else self.clip.image


_TINY = TowerSizes(image=(56, 56), patch=14, width=32, depth=2, heads=2, mlp=48)
FUSION_CONFIGS: Mapping[str, FusionConfig] = {
    "full": FusionConfig(),
    "demo": FusionConfig(embed=128, projection=128, hidden=128, dropout=0.1, crop=False, swin=SwinSizes(
        (128, 96), window=(8, 6), width=16, depths=(2, 2, 2, 2), heads=(1, 2, 4, 8))),
    "tiny": FusionConfig(_TINY, embed=24, projection=16, hidden=20),
}


@dataclass(frozen=True)
class FPDMConfig:
    """Sizes of stage 2; the defaults are the authors' (DINOv2-large, Stable Diffusion 2.1).

    fusion: stage 1, which sits inside. source: the source tower; its image is the size of its position grid.
    source_size: (height, width) of the source pixels that it reads. source_hidden: width inside the source MLP.
    image_size: (height, width) of target pictures and pose pictures. pose_canvas: (height, width) that poses are drawn
    on before they are resized to image_size; it sets the lines' relative width. pose_widths: of the pose guider.
    class_hidden: width inside the MLP from the fusion embedding to the time embedding.
    unet_widths, unet_layers, context, linear_projection: of the UNet; the time embedding is 4 * unet_widths[0] wide.
    unet_trained: parts of names of the UNet weights that belong to the method; all of them when empty.
    pose_drop, source_drop, fusion_drop: chance that a condition is null in training.
    source_swin: in place of `source` a Swin transformer that reads the photo into a few tokens (the demo's).
    source_dropout: of the source MLP.
    """

    fusion: FusionConfig = field(default_factory=FusionConfig)
    source: TowerSizes = field(default_factory=lambda: TowerSizes(image=(518, 518)))
    source_size: tuple[int, int] = (512, 512)
    source_hidden: int = 768
    image_size: tuple[int, int] = (512, 352)
    pose_canvas: tuple[int, int] = (550, 375)
    pose_widths: tuple[int, int, int, int] = (16, 32, 96, 256)
    class_hidden: int = 768
    unet_widths: tuple[int, int, int, int] = (320, 640, 1280, 1280)
    unet_layers: int = 2
    context: int = 1024
    linear_projection: bool = True
    unet_trained: tuple[str, ...] = ()
    pose_drop: float = 0.2
    source_drop: float = 0.2
    fusion_drop: float = 0.2
    source_swin: SwinSizes | None = None
    source_dropout: float = 0.2

    def __post_init__(self) -> None:
        for name in ("source_size", "image_size", "pose_canvas", "pose_widths", "unet_widths", "unet_trained"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # lists come from JSON and YAML
        for name, length in (("source_size", 2), ("image_size", 2), ("pose_canvas", 2), ("pose_widths", 4),
                             ("unet_widths", 4)):
            if len(getattr(self, name)) != length:
                raise ValueError(f"{name} is {getattr(self, name)}; expected {length} values")
        if any(side % 8 for side in self.image_size):
            raise ValueError(f"image_size is {self.image_size}; expected multiples of 8, the pixels of a latent pixel")

    @property
    def latent_size(self) -> tuple[int, int]:
        """(height, width) of the latents and of the pose guider's map."""
        return self.image_size[0] // 8, self.image_size[1] // 8

    @property
    def whole(self) -> bool:
        """Whether poses are drawn with hands and face: as stage 1 was trained."""
        return self.fusion.whole

    @property
    def photo_size(self) -> tuple[int, int]:
        """(height, width) that source photos are squashed to before anything else; (512, 512) in the authors' code."""
        return self.source_size

    @property
    def source_width(self) -> int:
        """Channels of a token of the source tower."""
        return self.source_swin.token_width if self.source_swin else self.source.width


CONFIGS: Mapping[str, FPDMConfig] = {
    "full": FPDMConfig(),
    # The drawn world at 256x192: both towers are small, the source tower with the backbone of the other methods.
    "demo": FPDMConfig(FUSION_CONFIGS["demo"], source_size=(256, 192), source_hidden=256, image_size=(256, 192),
                       pose_canvas=(256, 192), pose_widths=(16, 32, 48, 64), class_hidden=128,
                       unet_widths=(64, 64, 64, 64), context=64, linear_projection=False, source_dropout=0.0,
                       source_swin=SwinSizes((256, 192), window=(8, 6), width=32, depths=(2, 2, 4, 1), heads=(1, 2, 4, 8),
                                             tokens=32, token_width=64, decoder_depth=4, decoder_heads=2, reads="all")),
    "tiny": FPDMConfig(FUSION_CONFIGS["tiny"], TowerSizes((70, 70), 14, 32, 2, 2, 48), source_size=(64, 64),
                       source_hidden=20, image_size=(64, 48), pose_widths=(4, 8, 8, 12), class_hidden=16,
                       unet_widths=(32, 32, 32, 32), context=24),
}
