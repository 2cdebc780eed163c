"""QEN's control branch: the UNet's encoder and middle with zero convolutions, its cross-attention masked by the pose.

Here are its weights, under diffusers' names whatever runs them, and what a binding must know to run them. In diffusers it
runs on ControlNetModel (`control_diffusers.py`), in the host on the host's own ControlNet (`nodes/binding/control.py`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .masked_attention import seen_by_level
from .shapes import encoder_shapes, layer_shapes, skip_widths

LEVELS = 4          # of the UNet; the last has no attention on its way down
ZERO = ("controlnet_down_blocks.", "controlnet_mid_block.")   # the zero convolutions
BLOCK = ("norm1", "attn1", "norm2", "attn2", "norm3")   # order in its transformer blocks, by which optimisers number weights
MAPS = 3            # pose maps added at the end of down blocks 0, 1 and 2, where the pose embedding gives them


@dataclass(frozen=True)
class BranchSizes:
    """Sizes of a control branch: those of the base UNet whose encoder it starts from, and what masks its attention.

    widths: channels of the four levels. heads: attention heads at every site. context_width: of a query token.
    local_queries: how many of the tokens are local; they come first. mask: one of masked_attention.MASK_MODES.
    """

    widths: tuple[int, int, int, int] = (320, 640, 1280, 1280)
    heads: int = 8
    context_width: int = 768
    local_queries: int = 64
    mask: str = "full"
    layers: int = 2
    in_channels: int = 4

    def seen(self, region: Tensor | None, sample: Tensor, tokens: Tensor) -> list[Tensor | None]:
        """What each patch sees, by level: region (R, 1, H, W), sample (R, 4, h, w), tokens (R, N, C)."""
        return seen_by_level(region, tuple(sample.shape[-2:]), self.local_queries, tokens.shape[1], self.mask, LEVELS)


class ControlBranch(nn.Module):
    """The weights, as a tree of parameters under diffusers' ControlNetModel names, without a pose embedding of its own.

    Fresh weights are random but for the zero convolutions; `start_from` takes a base's encoder, as ControlNet does.
    """

    def __init__(self, sizes: BranchSizes = BranchSizes()) -> None:
        super().__init__()
        self.sizes = sizes
        self.checkpointing = False    # gradient checkpointing, in diffusers
        for name, shape in branch_shapes(sizes).items():
            owner: nn.Module = self
            *path, last = name.split(".")
            for part in path:
                if part not in owner._modules:
                    owner.add_module(part, nn.Module())
                owner = owner._modules[part]
            owner.register_parameter(last, nn.Parameter(_fresh(name, shape)))

    @torch.no_grad()
    def start_from(self, unet: Mapping[str, Tensor]) -> None:
        """Takes encoder and middle of a UNet's state dict; the zero convolutions become zero, so that nothing changes yet.

        Raises ValueError when the UNet has other sizes.
        """
        own = dict(self.named_parameters())
        wrong = [name for name, value in own.items() if not name.startswith(ZERO)
                 and (name not in unet or unet[name].shape != value.shape)]
        if wrong:
            raise ValueError(f"the base's encoder does not fit a control branch of {self.sizes}: {len(wrong)} weights "
                             f"differ, such as {wrong[:5]}; set unet_widths and prompt_width to the base's")
        for name, value in own.items():
            value.zero_() if name.startswith(ZERO) else value.copy_(unet[name])


def branch_shapes(sizes: BranchSizes) -> dict[str, tuple[int, ...]]:
    """diffusers parameter name -> shape of all weights of a branch: the UNet's encoder, and a zero convolution for each
    skip connection and for the middle."""
    shapes = encoder_shapes(sizes.widths, sizes.context_width, sizes.layers, sizes.in_channels, BLOCK)
    for number, width in enumerate(skip_widths(sizes.widths, sizes.layers)):
        shapes |= layer_shapes(f"controlnet_down_blocks.{number}", width, width, 1, 1)
    return shapes | layer_shapes("controlnet_mid_block", sizes.widths[-1], sizes.widths[-1], 1, 1)


def pose_inputs(pose: Mapping[str, Tensor]) -> tuple[Tensor | None, Sequence[Tensor | None]]:
    """(stem, [map of down block 0, 1, 2]) of a branch's named pose inputs. Raises ValueError for other names."""
    names = ["stem", *(f"map_{level}" for level in range(MAPS))]
    unknown = sorted(set(pose) - set(names))
    if unknown:
        raise ValueError(f"the control branch got {unknown}; expected pose inputs of {names}")
    return pose.get("stem"), [pose.get(name) for name in names[1:]]


def _fresh(name: str, shape: tuple[int, ...]) -> Tensor:
    if name.endswith("bias") or name.startswith(ZERO):
        return torch.zeros(shape)
    if len(shape) == 1:
        return torch.ones(shape)
    return torch.randn(shape) / math.sqrt(math.prod(shape[1:]))
