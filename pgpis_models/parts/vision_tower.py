"""One vision transformer for CLIP's and DINOv2's image towers, with their published parameter names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..unet.attention import attend


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
