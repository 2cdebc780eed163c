"""All sizes of MCLD: the authors', the demo's and a tiny one for tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..parts.source import lists_to_tuples
from ..parts.swin_tower import SwinSizes
from ..surface.layout import LAYOUTS

FACE_WEIGHT = 0.5      # lambda of the face branch, constant in training and sampling; that of the other branch is 1
CHOICES = {"aggregation": ("stages", "concat", "image"), "schedule": ("authors", "base"), "texture_layout": tuple(LAYOUTS)}


@dataclass(frozen=True)
class MCLDConfig:
    """All sizes of MCLD; the defaults are the authors'.

    image_size: (height, width) in pixels to which photos, poses and texture maps are squashed.
    latent_channels, unet_widths, unet_heads, unet_groups: of both UNets; widths of the four levels, heads of attention.
    prompt_width: the UNet's cross-attention width, and the length of the CLIP embeddings.
    pose_widths: channels of the pose guider at each resolution, the first at that of the picture.
    face_width: length of the face-recognition embedding. face_tokens: tokens made of it.
    face_dim, face_depth, face_heads, face_head_width, face_ff: of the projector that makes them.
    reference_float16: reference features pass through float16, as in the authors' code whatever the precision.
    image_tokens: tokens of the source photo (I) and of the texture map (A), each.
    aggregation: "stages" gives each stage its own tokens (table 1); of table 3's baselines "image" gives all stages I,
        "concat" all stages I, A and F in one context. use_face: without it face tokens go nowhere (baselines B2, B5).
    schedule: "authors" samples on the authors' noise schedule, "base" on that of the base model.
    texture_layout: of the texture map, "smpl" (512 x 512 texels) or "atlas" (1200 x 800).
    trained_unet: patterns of the denoising UNet's weights that are trained and stored.
    vision: a Swin tower that the checkpoint brings in place of CLIP, for photo and texture map alike; its tokens are
        image_tokens, prompt_width wide. With it comes a small face encoder in place of face recognition, of channels
        face_widths at each halving of a face crop with face_pixels at a side. None: both come from outside.
    """

    image_size: tuple[int, int] = (512, 512)
    latent_channels: int = 4
    unet_widths: tuple[int, int, int, int] = (320, 640, 1280, 1280)
    unet_heads: int = 8
    unet_groups: int = 32
    prompt_width: int = 768
    pose_widths: tuple[int, ...] = (16, 32, 96, 256)
    face_width: int = 512
    face_tokens: int = 16
    face_dim: int = 1280
    face_depth: int = 4
    face_heads: int = 20
    face_head_width: int = 64
    face_ff: int = 4
    reference_float16: bool = True
    image_tokens: int = 1
    aggregation: str = "stages"
    use_face: bool = True
    schedule: str = "authors"
    texture_layout: str = "smpl"
    trained_unet: tuple[str, ...] = ("*",)
    vision: SwinSizes | None = None
    face_widths: tuple[int, int, int] = (16, 32, 48)
    face_pixels: int = 32

    def __post_init__(self) -> None:
        lists_to_tuples(self)
        if len(self.unet_widths) != 4 or any(width % self.unet_heads for width in self.unet_widths):
            raise ValueError(f"unet_widths is {self.unet_widths} with {self.unet_heads} heads; expected four widths that "
                             "the number of heads divides")
        if any(side % self.pose_stride for side in self.image_size):
            raise ValueError(f"image_size is {self.image_size}; expected multiples of {self.pose_stride}, the pixels per "
                             "latent pixel")
        if self.vision and (self.vision.tokens, self.vision.token_width, self.vision.image) != (
                self.image_tokens, self.prompt_width, self.image_size):
            raise ValueError(f"vision reads {self.vision.image} into {self.vision.tokens} tokens of "
                             f"{self.vision.token_width}; expected image_size {self.image_size}, image_tokens "
                             f"{self.image_tokens} and prompt_width {self.prompt_width}")
        for name, options in CHOICES.items():
            if getattr(self, name) not in options:
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected one of {', '.join(options)}")

    @property
    def pose_stride(self) -> int:
        """Pose picture pixels per latent pixel: one halving per entry of pose_widths after the first."""
        return 2 ** (len(self.pose_widths) - 1)

    @property
    def latent_size(self) -> tuple[int, int]:
        """(height, width) of the latents at image_size."""
        return self.image_size[0] // self.pose_stride, self.image_size[1] // self.pose_stride

    @property
    def own_vision(self) -> bool:
        """Whether the checkpoint brings its image encoders; otherwise CLIP and face recognition come from outside."""
        return self.vision is not None


CONFIGS: Mapping[str, MCLDConfig] = {
    "full": MCLDConfig(),
    # The drawn world at 256x192. Its base was told what to draw by 16 tokens, so photo and texture map become 16 tokens
    # each rather than one; both UNets together take 17 MB in half precision.
    "demo": MCLDConfig(image_size=(256, 192), unet_widths=(64, 64, 64, 64), unet_heads=1, prompt_width=64,
                       pose_widths=(16, 32, 48, 64), face_width=64, face_tokens=4, face_dim=64, face_depth=2, face_heads=2,
                       face_head_width=32, face_ff=2, image_tokens=16, schedule="base", texture_layout="atlas",
                       face_pixels=48, vision=SwinSizes(
                           (256, 192), window=(8, 6), width=32, depths=(2, 2, 4, 1), heads=(1, 2, 4, 8), tokens=16,
                           token_width=64, decoder_depth=2, decoder_heads=2, reads="all")),
    "tiny": MCLDConfig(image_size=(64, 64), unet_widths=(8, 16, 24, 24), unet_heads=2, unet_groups=4, prompt_width=20,
                       pose_widths=(4, 6, 8, 10), face_width=12, face_dim=24, face_depth=2, face_heads=3,
                       face_head_width=8),
}
