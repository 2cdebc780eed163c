"""The networks of FPDM: one vision transformer for both of its towers, the combiner, and three small encoders.

The towers are the CLIP vision model of stage 1 and the DINOv2 model that makes the source tokens. They are built here
rather than taken from transformers, whose parameter names change between versions (DINOv2's attention did) and would
change the names in our checkpoints; `CLIP_NAMES` and `DINOV2_NAMES` say what the published files call each parameter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import attend


@dataclass(frozen=True)
class TowerSizes:
    """A vision transformer.

    image: (height, width) in pixels that the position grid stands for. patch: pixels. width, depth, heads: of the
    transformer blocks. mlp: hidden width of their feed-forward.
    """

    image: tuple[int, int] = (224, 224)
    patch: int = 14
    width: int = 1024
    depth: int = 24
    heads: int = 16
    mlp: int = 4096

    def __post_init__(self) -> None:
        object.__setattr__(self, "image", tuple(self.image))  # lists come from JSON and YAML
        if len(self.image) != 2 or min(self.image) < self.patch:
            raise ValueError(f"a vision tower's image is {self.image} with patches of {self.patch}; expected (height, "
                             "width), each one patch or more")
        if self.width % self.heads:
            raise ValueError(f"{self.heads} attention heads do not divide the width {self.width} of a vision tower")

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of patches; pixels beyond the last whole patch are not seen."""
        return self.image[0] // self.patch, self.image[1] // self.patch


class TowerBlock(nn.Module):
    """Pre-norm self-attention and feed-forward; in DINOv2 each result is scaled per channel before it is added."""

    def __init__(self, sizes: TowerSizes, eps: float, layer_scale: bool) -> None:
        super().__init__()
        width = sizes.width
        self.heads, self.quick_gelu = sizes.heads, not layer_scale
        self.norm1 = nn.LayerNorm(width, eps)
        self.to_q, self.to_k, self.to_v, self.to_out = (nn.Linear(width, width) for _ in range(4))
        self.norm2 = nn.LayerNorm(width, eps)
        self.fc1, self.fc2 = nn.Linear(width, sizes.mlp), nn.Linear(sizes.mlp, width)
        self.scale1 = nn.Parameter(torch.ones(width)) if layer_scale else None
        self.scale2 = nn.Parameter(torch.ones(width)) if layer_scale else None

    def forward(self, x: Tensor) -> Tensor:
        """x (B, N, C) -> (B, N, C)."""
        h = self.norm1(x)
        h = self.to_out(attend(self.to_q(h), self.to_k(h), self.to_v(h), self.heads))
        x = x + (h if self.scale1 is None else h * self.scale1)
        h = self.fc1(self.norm2(x))
        h = self.fc2(h * torch.sigmoid(1.702 * h) if self.quick_gelu else F.gelu(h))  # CLIP's "quick GELU"
        return x + (h if self.scale2 is None else h * self.scale2)


class VisionTower(nn.Module):
    """A vision transformer: CLIP's (`kind` "clip", Radford et al. 2021) or DINOv2 ("dinov2", Oquab et al. 2023)."""

    def __init__(self, sizes: TowerSizes, kind: str) -> None:
        super().__init__()
        if kind not in ("clip", "dinov2"):
            raise ValueError(f"a vision tower of kind {kind!r}; expected 'clip' or 'dinov2'")
        clip = kind == "clip"
        eps = 1e-5 if clip else 1e-6
        rows, columns = sizes.grid
        self.sizes, self.kind = sizes, kind
        self.patch = nn.Conv2d(3, sizes.width, sizes.patch, sizes.patch, bias=not clip)
        self.token = nn.Parameter(0.02 * torch.randn(sizes.width))
        self.position = nn.Parameter(0.02 * torch.randn(rows * columns + 1, sizes.width))
        self.norm_in = nn.LayerNorm(sizes.width, eps) if clip else None
        self.blocks = nn.ModuleList(TowerBlock(sizes, eps, not clip) for _ in range(sizes.depth))
        self.norm_out = nn.LayerNorm(sizes.width, eps)

    def embed(self, pixels: Tensor) -> Tensor:
        """pixels (B, 3, H, W), normalised as the tower wants -> the class token and patches with their positions, (B,
        1 + h w, C), h = H // patch.

        Raises ValueError for pictures without a whole patch, and in CLIP's tower for another size than its own.
        """
        if pixels.ndim != 4 or pixels.shape[1] != 3 or min(pixels.shape[2:]) < self.sizes.patch:
            raise ValueError(f"pixels came as {tuple(pixels.shape)}; expected (B, 3, H, W) with sides of "
                             f"{self.sizes.patch} pixels or more")
        patches = self.patch(pixels)  # (B, C, h, w)
        if self.kind == "clip" and tuple(patches.shape[2:]) != self.sizes.grid:
            raise ValueError(f"the fusion model's CLIP tower got pixels of {tuple(pixels.shape[2:])}; expected "
                             f"{self.sizes.image}: resize the pictures to it")
        tokens = torch.cat([self.token.expand(len(patches), 1, -1), patches.flatten(2).transpose(1, 2)], 1)
        return tokens + self.positions(tuple(patches.shape[2:]))

    def positions(self, grid: tuple[int, int]) -> Tensor:
        """Position embeddings (1 + h w, C) of a grid of h x w patches.

        Resampled by the scale factor (n + 0.1) / N as transformers 4.40 did, with which FPDM was trained, not to the
        size n as later versions do: the bicubic taps lie elsewhere, and the difference is not small.
        """
        if grid == self.sizes.grid:
            return self.position
        own = self.sizes.grid
        maps = self.position[1:].float().T.reshape(1, -1, *own)  # (1, C, H, W)
        scale = tuple((n + 0.1) / have for n, have in zip(grid, own, strict=True))
        maps = F.interpolate(maps, scale_factor=scale, mode="bicubic", align_corners=False)
        if tuple(maps.shape[2:]) != grid:
            raise ValueError(f"positions of {own} patches resampled to {tuple(maps.shape[2:])} instead of {grid}; use "
                             "pictures nearer to the tower's own size")
        return torch.cat([self.position[:1], maps.flatten(2)[0].T.to(self.position.dtype)])

    def hidden(self, pixels: Tensor) -> Tensor:
        """pixels as in `embed` -> (B, 1 + h w, C) after the last block, before the last norm."""
        h = self.embed(pixels)
        if self.norm_in is not None:
            h = self.norm_in(h)
        for block in self.blocks:
            h = block(h)
        return h

    def pooled(self, pixels: Tensor) -> Tensor:
        """pixels as in `embed` -> the class token after the last norm, (B, C)."""
        return self.norm_out(self.hidden(pixels)[:, 0])

    def forward(self, pixels: Tensor) -> Tensor:
        """pixels as in `embed` -> tokens (B, 1 + h w, C), class token first, after the last norm."""
        return self.norm_out(self.hidden(pixels))


# --- published names: ours -> published -------------------------------------------------------------------

_BLOCK = ("norm1", "to_q", "to_k", "to_v", "to_out", "norm2", "fc1", "fc2")
CLIP_NAMES: Mapping[str, str] = {
    "patch": "embeddings.patch_embedding", "token": "embeddings.class_embedding",
    "position": "embeddings.position_embedding.weight", "norm_in": "pre_layrnorm", "norm_out": "post_layernorm",
    "blocks": "encoder.layers",
    **dict(zip(_BLOCK, ("layer_norm1", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj",
                        "layer_norm2", "mlp.fc1", "mlp.fc2"), strict=True))}
DINOV2_NAMES: Mapping[str, str] = {
    "patch": "embeddings.patch_embeddings.projection", "token": "embeddings.cls_token",
    "position": "embeddings.position_embeddings", "norm_out": "layernorm", "blocks": "encoder.layer",
    **dict(zip(_BLOCK, ("norm1", "attention.attention.query", "attention.attention.key", "attention.attention.value",
                        "attention.output.dense", "norm2", "mlp.fc1", "mlp.fc2"), strict=True)),
    "scale1": "layer_scale1.lambda1", "scale2": "layer_scale2.lambda1"}
DINOV2_UNUSED = ("embeddings.mask_token",)


def published_tower_name(name: str, kind: str) -> str:
    """A parameter name of a VisionTower -> its name in the published files of CLIP's vision_model or DINOv2."""
    names = CLIP_NAMES if kind == "clip" else DINOV2_NAMES
    return ".".join(names.get(part, part) for part in name.split("."))


def published_tower_shape(name: str, shape: Sequence[int], kind: str) -> tuple[int, ...]:
    """The published shape of a parameter: DINOv2 keeps leading axes of length 1 that ours do not have."""
    extra = {"token": 2, "position": 1}.get(name, 0) if kind == "dinov2" else 0
    return (1,) * extra + tuple(shape)


# --- the small networks -------------------------------------------------------------------------------------

class Combiner(nn.Module):
    """Joins the embeddings of a source person and a pose picture, after CLIP4Cir's combiner (Baldrati et al. 2022).

    width: of the embeddings. projection, hidden: widths inside. dropout: in four places. Published names.
    """

    def __init__(self, width: int, projection: int, hidden: int, dropout: float = 0.5) -> None:
        super().__init__()
        self.kpt_projection_layer = nn.Linear(width, projection)
        self.image_projection_layer = nn.Linear(width, projection)
        self.combiner_layer = nn.Linear(2 * projection, hidden)
        self.output_layer = nn.Linear(hidden, width)
        self.dynamic_scalar = nn.Sequential(nn.Linear(2 * projection, hidden), nn.ReLU(), nn.Dropout(dropout),
                                            nn.Linear(hidden, 1), nn.Sigmoid())
        self.dropout = nn.Dropout(dropout)

    def raw(self, source: Tensor, pose: Tensor) -> Tensor:
        """source, pose (B, E), not normalised -> (B, E), not normalised."""
        k = self.dropout(F.relu(self.kpt_projection_layer(pose)))
        i = self.dropout(F.relu(self.image_projection_layer(source)))
        both = torch.cat([k, i], -1)  # pose first
        share = self.dynamic_scalar(both)  # (B, 1): how much of the pose's own embedding passes
        change = self.output_layer(self.dropout(F.relu(self.combiner_layer(both))))
        return change + share * pose + (1.0 - share) * source

    def forward(self, source: Tensor, pose: Tensor) -> Tensor:
        """source, pose (B, E) -> the fusion embedding (B, E), of length 1."""
        return F.normalize(self.raw(source, pose), dim=-1)


class SourceMLP(nn.Module):
    """Source tokens (B, N, C) to context tokens (B, N, D): Linear, GELU, dropout, norm, Linear, dropout."""

    def __init__(self, width: int, hidden: int, context: int, dropout: float = 0.2) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout), nn.LayerNorm(hidden),
                                 nn.Linear(hidden, context), nn.Dropout(dropout))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.net(tokens)


class ClassMLP(nn.Module):
    """Fusion embedding (B, E) to the time embedding's width (B, D): Linear, GELU, dropout, Linear, dropout."""

    def __init__(self, width: int, hidden: int, time: int, dropout: float = 0.2) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, time),
                                 nn.Dropout(dropout))

    def forward(self, fusion: Tensor) -> Tensor:
        return self.net(fusion)


class PoseGuider(nn.Module):
    """Pose picture to a map that is added after the UNet's conv_in (the conditioning embedding of ControlNet).

    widths: channels of the four resolutions 1, 1/2, 1/4, 1/8. out: channels of conv_in's output. The last convolution
    starts at zero, so that training starts from the unchanged base.
    """

    def __init__(self, widths: Sequence[int], out: int, channels: int = 3) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList()
        for before, after in pairwise(widths):
            self.blocks.append(nn.Conv2d(before, before, 3, padding=1))
            self.blocks.append(nn.Conv2d(before, after, 3, padding=1, stride=2))
        self.conv_out = nn.Conv2d(widths[-1], out, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)

    def forward(self, pose: Tensor) -> Tensor:
        """pose (B, 3, H, W) in [0, 1] -> (B, out, H / 8, W / 8)."""
        h = F.silu(self.conv_in(pose))
        for block in self.blocks:
            h = F.silu(block(h))
        return self.conv_out(h)
