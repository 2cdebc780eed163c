"""Full-width networks of each method with random weights, made on the device itself: nothing is downloaded or read.

Modules are built on the meta device, then filled with random numbers where they will run. Every weight is random, zero
convolutions too, so that nothing is skipped or cheap because it is zero.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pgpis_models.cfld.config import CONFIGS as CFLD_CONFIGS
from pgpis_models.cfld.config import CFLDConfig
from pgpis_models.cfld.model import CFLD, Appearance
from pgpis_models.fpdm.config import CONFIGS as FPDM_CONFIGS
from pgpis_models.fpdm.model import FPDM
from pgpis_models.mcld.config import CONFIGS as MCLD_CONFIGS
from pgpis_models.mcld.model import MCLD
from pgpis_models.mcld.pixels import clip_pixels
from pgpis_models.mcld.reference import ReferenceWriter
from pgpis_models.noise.schedule import NoiseSchedule
from pgpis_models.parts.vision_tower import TowerSizes, VisionTower
from pgpis_models.qen.config import CONFIGS as QEN_CONFIGS
from pgpis_models.qen.config import QENConfig
from pgpis_models.qen.model import QEN
from pgpis_models.unet.autoencoder import VAE_STRIDE, encode_latents
from pgpis_models.unet.base import SD21, BaseSizes
from pgpis_models.unet.guidance import Guidance
from pgpis_models.unet.sites import SITES

METHODS = ("cfld", "mcld", "fpdm", "qen")
TEXT_TOKENS = 77                       # of the bare UNet's context
TINY_WIDTHS = (32, 32, 64, 64)
TINY_CONTEXT = 24
Size = tuple[int, int]


# --- weights ------------------------------------------------------------------------------------------------

def made(build: Callable[[], nn.Module], device: torch.device, dtype: torch.dtype = torch.float32) -> nn.Module:
    """`build()` with random weights of dtype on the device, in evaluation mode; buffers keep their values."""
    with torch.device("meta"):
        module = build()
    for owner in module.modules():
        for name, value in list(owner._parameters.items()):
            if value is not None:
                filled = torch.empty(value.shape, device=device, dtype=dtype)
                owner._parameters[name] = nn.Parameter(randomised(filled, name), requires_grad=value.requires_grad)
        for name, value in list(owner._buffers.items()):
            if value is not None:
                value = torch.zeros(value.shape, dtype=value.dtype) if value.is_meta else value
                owner._buffers[name] = value.to(device, dtype if value.is_floating_point() else value.dtype)
    return module.train(False)


@torch.no_grad()
def randomised(value: Tensor, name: str) -> Tensor:
    """Random in place: weights keep the size of what they are multiplied with; gains are near 1, biases near 0."""
    if value.ndim > 1:
        return value.normal_(0, 1 / math.sqrt(math.prod(value.shape[1:])))
    return value.normal_(1.0 if name == "weight" else 0.0, 0.02)


def autoencoder(device: torch.device, dtype: torch.dtype, tiny: bool) -> nn.Module:
    """Stable Diffusion's autoencoder."""
    from diffusers import AutoencoderKL
    widths, groups = ((8, 8, 8, 8), 4) if tiny else ((128, 256, 512, 512), 32)
    return made(lambda: AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4, block_out_channels=widths,
        layers_per_block=1 if tiny else 2, norm_num_groups=groups, latent_channels=4), device, dtype)


def base_sizes(name: str, tiny: bool) -> BaseSizes:
    """Stable Diffusion 2.1 for FPDM, 1.5 for the others; or tiny ones of the same kinds."""
    sizes = SD21 if name == "fpdm" else BaseSizes()
    small = {"block_out_channels": TINY_WIDTHS, "cross_attention_dim": TINY_CONTEXT}
    return replace(sizes, **small, **({"head_dim": 8} if name == "fpdm" else {"heads": 4})) if tiny else sizes


# --- methods at any size of picture -------------------------------------------------------------------------

@dataclass(frozen=True)
class AnySizeCFLD(CFLDConfig):
    """CFLD whose source is read at its published size, whatever the size of the latents (height, width)."""

    latents: Size = (64, 64)

    @property
    def latent_size(self) -> Size:
        return self.latents


class FittedCFLD(CFLD):
    """CFLD whose query biases are brought to the UNet's own grids: Swin cannot halve the odd ones of 352 pixels."""

    def encode_appearance(self, source: Tensor) -> Appearance:
        """source (B, 3, H, W) in [-1, 1] of config.image_size -> Appearance for config.latents."""
        found, biases = super().encode_appearance(source), {}
        for site, bias in found.query_bias.items():
            level = SITES[site].level
            have = self.backbone.grids[self.config.appearance_features[level]]
            want = tuple(-(-side // 2 ** level) for side in self.config.latents)
            if have != want:
                maps = bias.transpose(1, 2).unflatten(2, have)
                bias = F.interpolate(maps, size=want, mode="bilinear").flatten(2).transpose(1, 2)
            biases[site] = bias
        return replace(found, query_bias=biases)


@dataclass(frozen=True)
class AnySizeQEN(QENConfig):
    """QEN whose source is read at `photo` (height, width), the nearest size that a Swin transformer can halve."""

    photo: Size = (512, 512)

    def backbone(self) -> nn.Module:
        return QENConfig(**{**vars_of(self, QENConfig), "image_size": self.photo}).backbone()


def vars_of(config: Any, kind: type) -> dict[str, Any]:
    """The fields of a dataclass `kind` as the config has them, without going into nested ones."""
    return {item.name: getattr(config, item.name) for item in dataclasses.fields(kind)}


def swin_photo(size: Size, tiny: bool) -> tuple[Size, Size]:
    """(photo, window), (height, width) each, for pictures of `size`: the patches' grid can be halved three times, and the
    window fills all four grids."""
    photo = tuple(-(-side // 32) * 32 for side in size)

    def fills(window: int, side: int) -> bool:
        return all(side // stride % min(window, side // stride) == 0 for stride in (4, 8, 16, 32))
    window = tuple(max(n for n in range(1, (4 if tiny else 16) + 1) if fills(n, side)) for side in photo)
    return photo, window


class RandomClip(nn.Module):
    """CLIP ViT-L/14 with its projection, as MCLD reads pictures with it."""

    def __init__(self, tiny: bool) -> None:
        super().__init__()
        sizes = TowerSizes((28, 28), 14, 32, 1, 2, 48) if tiny else TowerSizes()
        self.tower = VisionTower(sizes, "clip")
        self.projection = nn.Linear(sizes.width, TINY_CONTEXT if tiny else 768, bias=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """pixels (B, 3, H, W) of the tower's size -> (B, X)."""
        return self.projection(self.tower.pooled(pixels))

    @torch.no_grad()
    def of_pictures(self, pictures: Any) -> Tensor:
        """Square pictures (B, S, S, 3) uint8 on the CPU, as training gives them -> (B, X)."""
        pixels = clip_pixels(pictures, self.tower.sizes.image[0])
        return self(pixels.to(self.projection.weight.device))


# --- a method with all that a generation needs --------------------------------------------------------------

@dataclass
class Bundle:
    """A method on its base at one size of picture, ready to run."""

    name: str
    method: nn.Module
    unet: nn.Module
    vae: nn.Module
    sizes: BaseSizes
    size: Size                                 # (height, width) of the pictures, pixels
    device: torch.device
    dtype: torch.dtype
    schedule: NoiseSchedule
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def latent(self) -> Size:
        return self.size[0] // VAE_STRIDE, self.size[1] // VAE_STRIDE

    def random(self, *shape: int) -> Tensor:
        """Uniform in 0..1 on the device."""
        return torch.rand(shape, device=self.device, dtype=self.dtype)

    def inputs(self, batch: int) -> dict[str, Tensor]:
        """What `encode` reads of `batch` people, on the device: pictures and poses, not yet through any network."""
        return INPUTS[self.name](self, batch)

    def guidance(self, inputs: dict[str, Tensor]) -> Guidance:
        """Encoders once, then the method's own guidance chain at its default weights, without what telescopes."""
        return self.method.guidance(ENCODE[self.name](self, inputs)).needed()


def bundle(name: str, size: Size, device: torch.device, dtype: torch.dtype, tiny: bool) -> Bundle:
    """A method at full width (or tiny) for pictures of `size` (height, width), multiples of 8. Raises ValueError for other
    sizes, KeyError for an unknown method."""
    sizes = base_sizes(name, tiny)
    unet, vae = made(sizes.build, device, dtype), autoencoder(device, dtype, tiny)
    config, kind = CONFIGS[name](size, tiny)
    method = made(lambda: kind(config), device, dtype)
    own = getattr(method, "noise_schedule", lambda: None)()
    found = Bundle(name, method, unet, vae, sizes, size, device, dtype, own or sizes.schedule())
    if name == "mcld":
        found.extra = {"clip": made(lambda: RandomClip(tiny), device, dtype),
                       "reference": ReferenceWriter(method.reference())}
    return found


def _cfld(size: Size, tiny: bool) -> tuple[AnySizeCFLD, type[nn.Module]]:
    config = CFLD_CONFIGS["tiny" if tiny else "full"]
    config = replace(config, unet_widths=TINY_WIDTHS[:3], appearance_widths=(16, 24, 32)) if tiny else config
    latents = (size[0] // VAE_STRIDE, size[1] // VAE_STRIDE)
    return AnySizeCFLD(**vars_of(config, CFLDConfig), latents=latents), FittedCFLD


def _mcld(size: Size, tiny: bool) -> tuple[Any, type[nn.Module]]:
    config = replace(MCLD_CONFIGS["tiny" if tiny else "full"], image_size=size)
    if tiny:
        config = replace(config, unet_widths=TINY_WIDTHS, unet_heads=4, unet_groups=32, prompt_width=TINY_CONTEXT)
    return config, MCLD


def _fpdm(size: Size, tiny: bool) -> tuple[Any, type[nn.Module]]:
    config = replace(FPDM_CONFIGS["tiny" if tiny else "full"], image_size=size)
    if tiny:
        config = replace(config, unet_widths=TINY_WIDTHS, context=TINY_CONTEXT, linear_projection=True)
    return config, FPDM


def _qen(size: Size, tiny: bool) -> tuple[AnySizeQEN, type[nn.Module]]:
    photo, window = swin_photo(size, tiny)
    config = replace(QEN_CONFIGS["tiny" if tiny else "full"], image_size=size, window=window)
    if tiny:
        config = replace(config, unet_widths=TINY_WIDTHS, unet_heads=4, prompt_width=TINY_CONTEXT)
    return AnySizeQEN(**vars_of(config, QENConfig), photo=photo), QEN


CONFIGS: dict[str, Callable[[Size, bool], tuple[Any, type[nn.Module]]]] = {
    "cfld": _cfld, "mcld": _mcld, "fpdm": _fpdm, "qen": _qen}


# --- inputs and encoders ------------------------------------------------------------------------------------

def _pair_inputs(bundle: Bundle, batch: int) -> dict[str, Tensor]:
    config = bundle.method.config
    photo = getattr(config, "photo", config.image_size)
    return {"source": bundle.random(batch, 3, *photo) * 2 - 1,
            "pose": bundle.random(batch, config.pose_channels, *config.pose_size)}


def _mcld_inputs(bundle: Bundle, batch: int) -> dict[str, Tensor]:
    config, clip = bundle.method.config, bundle.extra["clip"].tower.sizes.image
    return {"source": bundle.random(batch, 3, *clip), "texture": bundle.random(batch, 3, *clip),
            "texture_map": bundle.random(batch, 3, *config.image_size) * 2 - 1,
            "pose": bundle.random(batch, 3, *config.image_size), "face": bundle.random(batch, config.face_width)}


def _fpdm_inputs(bundle: Bundle, batch: int) -> dict[str, Tensor]:
    config = bundle.method.config
    wanted = {"source": config.source_size, "clip_source": config.fusion.image, "pose": config.image_size,
              "clip_pose": config.fusion.image}
    return {name: bundle.random(batch, 3, *size) for name, size in wanted.items()}


def _pair_encode(bundle: Bundle, inputs: dict[str, Tensor]) -> Any:
    return bundle.method.encode(inputs["source"], inputs["pose"])


def _mcld_encode(bundle: Bundle, inputs: dict[str, Tensor]) -> Any:
    clip, latent = bundle.extra["clip"], encode_latents(bundle.vae, inputs["texture_map"])
    return bundle.method.encode(clip(inputs["source"]), inputs["pose"], clip(inputs["texture"]), latent, inputs["face"],
                                bundle.extra["reference"])


def _fpdm_encode(bundle: Bundle, inputs: dict[str, Tensor]) -> Any:
    source = bundle.method.encode_source(inputs["source"], inputs["clip_source"])
    return bundle.method.encode(source, inputs["pose"], inputs["clip_pose"])


INPUTS = {"cfld": _pair_inputs, "mcld": _mcld_inputs, "fpdm": _fpdm_inputs, "qen": _pair_inputs}
ENCODE = {"cfld": _pair_encode, "mcld": _mcld_encode, "fpdm": _fpdm_encode, "qen": _pair_encode}
