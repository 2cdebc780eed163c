"""MCLD's reference network: the seam to a UNet that each binding fills, and its diffusers form."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from ..unet.sites import SITES

# The seam to a UNet: (texture latent (B, 4, h, w), context (B, N, C)) -> site -> output of that block's norm1,
# (B, HW', C_site), for all 16 sites. Each binding makes one of its own UNet class from MCLD's `reference_unet` weights.
ReferenceNetwork = Callable[[Tensor, Tensor], Mapping[str, Tensor]]
REFERENCE_TIMESTEP = 0  # at which the reference network runs, in training and sampling


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
            # a tensor made on the device: of a number diffusers would copy one there, and wait for it
            time = torch.full((len(latent),), REFERENCE_TIMESTEP, device=latent.device)
            self.unet(latent, time, encoder_hidden_states=context, return_dict=False)
            return {site: self._features[site] for site in SITES}
        finally:
            self._features = None

    def release(self) -> None:
        """Takes the hooks off again."""
        for hook in self._hooks:
            hook.remove()
