"""The conditioning embedding of ControlNet: MCLD's and FPDM's pose guider, and QEN's pose embedding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

WIDTHS = (16, 32, 96, 256)   # ControlNet's own


class PoseGuider(nn.Module):
    """Pose picture to a map of the latents' size, by convolutions of which every second one halves the picture.

    out: channels of the map, those of the UNet's conv_in. widths: of the picture's resolution and of each halving.
    channels: of the picture. Parameter names are diffusers'. The last convolution starts at zero, so that training starts
    from the unchanged base.
    """

    def __init__(self, out: int, widths: Sequence[int] = WIDTHS, channels: int = 3) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList()
        for before, after in pairwise(widths):
            self.blocks.append(nn.Conv2d(before, before, 3, padding=1))
            self.blocks.append(nn.Conv2d(before, after, 3, padding=1, stride=2))
        self.conv_out = nn.Conv2d(widths[-1], out, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)

    @property
    def stride(self) -> int:
        """Picture pixels per pixel of the map: 8 with four widths."""
        return 2 ** (len(self.blocks) // 2)

    def forward(self, pose: Tensor) -> Tensor:
        """pose (B, channels, H, W) in 0..1 -> (B, out, H / stride, W / stride)."""
        h = F.silu(self.conv_in(pose))
        for block in self.blocks:
            h = F.silu(block(h))
        return self.conv_out(h)

    def load_controlnet(self, state: Mapping[str, Tensor]) -> None:
        """Starts from the conditioning embedding of a ControlNet (v1.1 seg in the configuration of MCLD's authors).

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
