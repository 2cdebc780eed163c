"""MCLD's networks beside the UNets, their inputs from pictures, and the diffusers form of its reference network.

Parameter names are the published ones; the sizes come from MCLDConfig.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from .attention import attend
from .sites import SITES

# The seam to a UNet: (texture latent (B, 4, h, w), context (B, N, C)) -> site -> output of that block's norm1,
# (B, HW', C_site), for all 16 sites. Each binding makes one of its own UNet class from MCLD's `reference_unet` weights.
ReferenceNetwork = Callable[[Tensor, Tensor], Mapping[str, Tensor]]
REFERENCE_TIMESTEP = 0  # at which the reference network runs, in training and sampling
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class PoseGuider(nn.Module):
    """DensePose picture to a map that is added to the UNet's conv_in: convolutions to 1/8 of the resolution.

    out_channels: width of the UNet's finest level. widths: of the picture's resolution and of each halving. The last
    convolution starts at zero, so that training starts from the base model.
    """

    def __init__(self, out_channels: int, in_channels: int = 3, widths: tuple[int, ...] = (16, 32, 96, 256)) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(in_channels, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList()
        for before, after in zip(widths[:-1], widths[1:], strict=True):
            self.blocks.append(nn.Conv2d(before, before, 3, padding=1))
            self.blocks.append(nn.Conv2d(before, after, 3, padding=1, stride=2))
        self.conv_out = nn.Conv2d(widths[-1], out_channels, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)

    @property
    def stride(self) -> int:
        """Picture pixels per latent pixel."""
        return 2 ** (len(self.blocks) // 2)

    def forward(self, pose: Tensor) -> Tensor:
        """pose (B, 3, H, W) in [0, 1], channels V, U, part / 255 -> (B, C, H / 8, W / 8)."""
        h = nn.functional.silu(self.conv_in(pose))
        for block in self.blocks:
            h = nn.functional.silu(block(h))
        return self.conv_out(h)

    def load_controlnet(self, state: Mapping[str, Tensor]) -> None:
        """Starts from the conditioning embedding of a ControlNet (v1.1 seg in the authors' configuration).

        state: the ControlNet's tensors by name, `controlnet_cond_embedding.*`. Its last convolution is left out: that
        of the guider stays at zero. Raises ValueError when others are missing or of another shape.
        """
        own = {key: value for key, value in self.state_dict().items() if not key.startswith("conv_out.")}
        given = {key: state.get(f"controlnet_cond_embedding.{key}") for key in own}
        wrong = [key for key, value in given.items() if value is None or value.shape != own[key].shape]
        if wrong:
            raise ValueError(f"{len(wrong)} of {len(own)} tensors of the pose guider are missing in this ControlNet or of "
                             f"another shape: {wrong[:10]}; expected the SD1.5 ControlNet v1.1 seg, diffusers layout")
        self.load_state_dict(self.state_dict() | given)


class PerceiverAttention(nn.Module):
    """Latent queries attend to the input tokens and to themselves."""

    def __init__(self, dim: int, head_width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, heads * head_width, bias=False)
        self.to_kv = nn.Linear(dim, 2 * heads * head_width, bias=False)
        self.to_out = nn.Linear(heads * head_width, dim, bias=False)

    def forward(self, x: Tensor, latents: Tensor) -> Tensor:
        """x (B, N, D) input tokens, latents (B, Q, D) -> (B, Q, D)."""
        x, latents = self.norm1(x), self.norm2(latents)
        key, value = self.to_kv(torch.cat([x, latents], dim=1)).chunk(2, dim=-1)
        return self.to_out(attend(self.to_q(latents), key, value, self.heads))


class FaceProjector(nn.Module):
    """Face-recognition embedding to context tokens: the Resampler of IP-Adapter plus.

    in_width: of the embedding; out_width: the UNet's cross-attention width; tokens: learnt queries.
    """

    def __init__(self, in_width: int = 512, out_width: int = 768, dim: int = 1280, depth: int = 4, head_width: int = 64,
                 heads: int = 20, tokens: int = 16, ff_ratio: int = 4) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(1, tokens, dim) / dim**0.5)
        self.proj_in = nn.Linear(in_width, dim)
        self.proj_out = nn.Linear(dim, out_width)
        self.norm_out = nn.LayerNorm(out_width)
        self.layers = nn.ModuleList(
            nn.ModuleList([
                PerceiverAttention(dim, head_width, heads),
                nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, ff_ratio * dim, bias=False), nn.GELU(),
                              nn.Linear(ff_ratio * dim, dim, bias=False)),
            ]) for _ in range(depth))

    def forward(self, face: Tensor) -> Tensor:
        """face (B, N, in_width), N usually 1; zeros stand for no face -> (B, tokens, out_width)."""
        x = self.proj_in(face)
        latents = self.latents.expand(x.shape[0], -1, -1)
        for attention, feed_forward in self.layers:
            latents = latents + attention(x, latents)
            latents = latents + feed_forward(latents)
        return self.norm_out(self.proj_out(latents))


class WeightTree(nn.Module):
    """Parameters under dotted names, without a forward: weights that a binding's own network is run with.

    They are zeros until loaded; `named()` gives them flat.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        super().__init__()
        for name, shape in shapes.items():
            *path, last = name.split(".")
            module: nn.Module = self
            for part in path:
                if part not in dict(module.named_children()):
                    module.add_module(part, nn.Module())
                module = module.get_submodule(part)
            module.register_parameter(last, nn.Parameter(torch.zeros(shape)))

    def named(self) -> dict[str, nn.Parameter]:
        """Name -> the parameter itself, which a network that is given it trains too."""
        return dict(self.named_parameters())


class FaceAttention(WeightTree):
    """Key and value projections of the face tokens, one pair per site (MFCA, multi-focal conditioning aggregation).

    widths: of the UNet's four levels; context: width of the tokens. Initialised as any linear layer, as in the code.
    """

    def __init__(self, widths: tuple[int, ...], context: int) -> None:
        super().__init__({f"{self.block(name)}.{which}.weight": (widths[site.level], context)
                          for name, site in SITES.items() for which in ("to_k_ip", "to_v_ip")})
        for value in self.parameters():
            nn.init.kaiming_uniform_(value, a=5**0.5)

    @staticmethod
    def block(site: str) -> str:
        """Published name of a site's face projections, less the last two parts."""
        return f"{SITES[site].diffusers}.transformer_blocks.0.attn2.processor"

    def projections(self, site: str) -> tuple[Tensor, Tensor]:
        """(to_k, to_v) of a site, each (D, C) with D the width of the site."""
        return tuple(self.get_parameter(f"{self.block(site)}.{which}.weight") for which in ("to_k_ip", "to_v_ip"))


def through_float16(features: Tensor) -> Tensor:
    """Rounded to float16 and back, as the authors' code hands reference features over (an effect of about 5e-4).

    Gradients pass as if there were no rounding: in float16 small ones would vanish.
    """
    rounded = features.to(torch.float16).to(features.dtype)
    return features + (rounded - features).detach() if features.requires_grad else rounded


# --- the reference network on diffusers' UNet -----------------------------------------------------------------

def build_reference_unet(weights: Mapping[str, Tensor], widths: tuple[int, ...], context: int, heads: int, groups: int,
                         channels: int = 4) -> nn.Module:
    """A diffusers UNet that holds exactly `weights`, parameters themselves and no copies, without final norm and conv.

    weights: diffusers parameter name -> tensor, as of `MCLD.reference_unet.named()`. widths: of the four levels;
    context: cross-attention width; heads: attention heads; groups: of GroupNorm. Raises ImportError without diffusers,
    RuntimeError for weights of other names or shapes.
    """
    try:
        from diffusers import UNet2DConditionModel
    except ImportError as error:
        raise ImportError("the reference network needs the package diffusers here: pip install diffusers") from error
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            in_channels=channels, out_channels=channels, block_out_channels=tuple(widths), cross_attention_dim=context,
            attention_head_dim=heads,  # diffusers' name for the number of heads in SD1.5 configs
            down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
            up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3, norm_num_groups=groups)
    unet.conv_norm_out, unet.conv_out = None, nn.Identity()  # its prediction is never used
    unet.load_state_dict(dict(weights), assign=True)
    return unet


class ReferenceWriter:
    """A diffusers UNet as a `ReferenceNetwork`: runs it once and returns what norm1 of every site gives.

    Hooks stay on the UNet until `release`; the UNet computes what it did before. Raises ValueError for a UNet of another
    topology.
    """

    def __init__(self, unet: nn.Module) -> None:
        self.unet = unet
        self._features: dict[str, Tensor] | None = None
        modules = dict(unet.named_modules())
        norms = {name: f"{site.diffusers}.transformer_blocks.0.norm1" for name, site in SITES.items()}
        lacking = [path for path in norms.values() if path not in modules]
        if lacking:
            raise ValueError(f"this UNet has no {lacking[:10]}; expected the Stable Diffusion 1.x/2.x topology: attention "
                             "in three down blocks, the middle and three up blocks, one layer each")
        self._hooks = [modules[path].register_forward_hook(self._write(name)) for name, path in norms.items()]

    def _write(self, site: str) -> Callable:
        def hook(_module: nn.Module, _args: tuple, output: Tensor) -> None:
            if self._features is not None:  # None: a call of others, or gradient checkpointing running a block again
                self._features[site] = output
        return hook

    def __call__(self, latent: Tensor, context: Tensor) -> dict[str, Tensor]:
        """latent (B, 4, h, w) of the texture map, already scaled; context (B, N, C) -> site -> (B, HW', C_site)."""
        self._features = {}
        try:
            self.unet(latent, REFERENCE_TIMESTEP, encoder_hidden_states=context, return_dict=False)
            return {site: self._features[site] for site in SITES}
        finally:
            self._features = None

    def release(self) -> None:
        """Takes the hooks off again."""
        for hook in self._hooks:
            hook.remove()


# --- pictures to the networks' inputs -------------------------------------------------------------------------

def clip_pixels(pictures: np.ndarray, size: int = 224) -> Tensor:
    """Square pictures (B, S, S, 3) uint8 RGB -> (B, 3, size, size), what the CLIP image encoder is given.

    The published pipeline squashes photo and texture map to 512x512 first. Pillow's bicubic filter, CLIP's mean and
    standard deviation.
    """
    if pictures.ndim != 4 or pictures.shape[1] != pictures.shape[2] or pictures.dtype != np.uint8:
        raise ValueError(f"pictures came as {pictures.dtype} {pictures.shape}; expected square ones, uint8 (B, S, S, 3): "
                         "squash them to the size of the generated picture first")
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    return (_resized(pictures, (size, size)) / 255 - mean) / std


def _resized(pictures: np.ndarray, size: tuple[int, int]) -> Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, *size) float32, still 0..255."""
    from PIL import Image
    made = [np.array(Image.fromarray(np.ascontiguousarray(picture)).resize((size[1], size[0]), Image.Resampling.BICUBIC))
            for picture in pictures]
    return torch.from_numpy(np.stack(made)).permute(0, 3, 1, 2).float()
