"""Swin transformer backbone (Liu et al., ICCV 2021) as CFLD uses it: four feature maps, no head, no final norm.

Parameter names are those of the original Swin code, so published state dicts load under a plain prefix. Beyond the
original, images and windows may be rectangular.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Size = tuple[int, int]  # (height, width)
MASKED = -100.0  # added to the logits between regions that only the cyclic shift made neighbours (authors' value)


@dataclass(frozen=True)
class StageGeometry:
    """Token grid of a stage, its effective window, and the shift of its odd blocks; all (height, width) in tokens."""

    grid: Size
    window: Size
    shift: Size


def stage_geometries(image_size: Size, patch: int, window: int | Size, stages: int) -> tuple[StageGeometry, ...]:
    """The geometry of each stage; the grid halves from stage to stage.

    Along an axis where the window reaches the grid, the window is the grid and there is no shift; elsewhere odd
    blocks shift by half a window. Raises ValueError when sizes do not divide.
    """
    wanted = (window, window) if isinstance(window, int) else tuple(window)
    if any(size % patch for size in image_size):
        raise ValueError(f"image size {tuple(image_size)} is not a multiple of the patch size {patch}")
    grid = (image_size[0] // patch, image_size[1] // patch)
    result = []
    for stage in range(stages):
        effective = (min(wanted[0], grid[0]), min(wanted[1], grid[1]))
        if any(g % w for g, w in zip(grid, effective)):
            raise ValueError(f"stage {stage} has a grid of {grid} tokens (height, width), which windows of {effective} "
                             f"do not fill; choose a window that divides the grid, or another image size")
        shift = tuple(0 if g <= w else w // 2 for g, w in zip(grid, wanted))
        result.append(StageGeometry(grid, effective, shift))
        if stage + 1 < stages:
            if any(g % 2 for g in grid):
                raise ValueError(f"stage {stage} has an odd grid of {grid} tokens, which cannot be merged 2 x 2; "
                                 f"expected an image size divisible by {patch * 2 ** (stages - 1)}")
            grid = (grid[0] // 2, grid[1] // 2)
    return tuple(result)


def _position_index(window: Size) -> Tensor:
    """(N, N) int64, N = h w: row of the bias table for (query, key); (dy + h - 1) (2 w - 1) + (dx + w - 1)."""
    y = torch.arange(window[0], device="cpu").repeat_interleave(window[1])  # (N,)
    x = torch.arange(window[1], device="cpu").repeat(window[0])
    dy, dx = y[:, None] - y[None, :], x[:, None] - x[None, :]  # query minus key
    return (dy + window[0] - 1) * (2 * window[1] - 1) + (dx + window[1] - 1)


def _shift_mask(geometry: StageGeometry) -> Tensor:
    """(windows, N, N) float32: 0 between tokens of one region of the shifted image, MASKED between regions."""
    def regions(length: int, window: int, shift: int) -> Tensor:
        index = torch.arange(length, device="cpu")
        return (index >= length - window).long() + (index >= length - shift).long() if shift else index * 0

    row, column = (regions(*axis) for axis in zip(geometry.grid, geometry.window, geometry.shift))
    region = (3 * row[:, None] + column[None, :])[None, :, :, None]  # (1, H, W, 1)
    region = partition(region, geometry.window)[0, :, :, 0]  # (windows, N)
    return (region[:, :, None] != region[:, None, :]).float() * MASKED


def partition(x: Tensor, window: Size) -> Tensor:
    """(B, H, W, C) -> (B, windows, N, C), windows and their tokens row-major."""
    batch, height, width, channels = x.shape
    x = x.view(batch, height // window[0], window[0], width // window[1], window[1], channels)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(batch, -1, window[0] * window[1], channels)


def unpartition(x: Tensor, window: Size, grid: Size) -> Tensor:
    """The inverse of `partition`: (B, windows, N, C) -> (B, H, W, C)."""
    batch, channels = x.shape[0], x.shape[-1]
    x = x.view(batch, grid[0] // window[0], grid[1] // window[1], window[0], window[1], channels)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(batch, *grid, channels)


class WindowAttention(nn.Module):
    """Multi-head self-attention within windows, with a learned bias per relative position."""

    def __init__(self, dim: int, heads: int, window: Size) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"{heads} heads do not divide the width {dim}")
        self.heads = heads
        self.relative_position_bias_table = nn.Parameter(
            torch.empty((2 * window[0] - 1) * (2 * window[1] - 1), heads))
        # Computed on the CPU by name, so that it holds values even in a module that is built on the meta device.
        self.register_buffer("relative_position_index", _position_index(window), persistent=False)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        nn.init.normal_(self.relative_position_bias_table, std=0.02)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x (B, W, N, C) -> (B, W, N, C), W windows of N tokens; mask (W, N, N) is added to the logits."""
        batch, windows, tokens, dim = x.shape
        qkv = self.qkv(x).view(batch, windows, tokens, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(3, 0, 1, 4, 2, 5)  # each (B, W, heads, N, d)
        bias = self.relative_position_bias_table[self.relative_position_index.flatten()]
        bias = bias.view(tokens, tokens, self.heads).permute(2, 0, 1)  # (heads, N, N)
        # Where all windows share the bias they join the batch; where the mask differs per window they join the
        # heads. Either way the bias broadcasts over the batch and the fused kernels see four axes.
        first = 0 if mask is None else 1
        if mask is not None:
            bias = (bias[None] + mask[:, None].to(bias.dtype)).flatten(0, 1)  # (W heads, N, N)
        q, k, v = (t.flatten(first, first + 1) for t in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None].to(q.dtype))
        out = out.reshape(batch, windows, self.heads, tokens, dim // self.heads).transpose(2, 3)
        return self.proj(out.flatten(3))


class Mlp(nn.Module):
    """Linear, exact GELU, Linear."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, dim) -> the same shape."""
        return self.fc2(F.gelu(self.fc1(x)))


class SwinBlock(nn.Module):
    """Pre-norm block: (shifted) window attention, then MLP; each branch under stochastic depth in training."""

    def __init__(self, dim: int, heads: int, geometry: StageGeometry, shifted: bool, mlp_ratio: float,
                 drop_path: float) -> None:
        super().__init__()
        self.grid, self.window, self.drop_path = geometry.grid, geometry.window, drop_path
        self.shift = geometry.shift if shifted else (0, 0)
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, heads, geometry.window)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.register_buffer("attn_mask", _shift_mask(geometry) if any(self.shift) else None, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, H W, C) -> (B, H W, C)."""
        x = x + self._drop(self._attention(self.norm1(x)))
        return x + self._drop(self.mlp(self.norm2(x)))

    def _attention(self, x: Tensor) -> Tensor:
        x = x.view(x.shape[0], *self.grid, x.shape[-1])
        if any(self.shift):
            x = torch.roll(x, (-self.shift[0], -self.shift[1]), dims=(1, 2))
        x = unpartition(self.attn(partition(x, self.window), self.attn_mask), self.window, self.grid)
        if any(self.shift):
            x = torch.roll(x, self.shift, dims=(1, 2))
        return x.flatten(1, 2)

    def _drop(self, branch: Tensor) -> Tensor:
        """Stochastic depth: drops the branch for whole samples and scales the others up, so the mean stays."""
        if not self.training or self.drop_path == 0.0:
            return branch
        keep = 1.0 - self.drop_path
        kept = branch.new_empty(branch.shape[0], 1, 1).bernoulli_(keep)
        return branch * (kept / keep)


class PatchMerging(nn.Module):
    """Joins 2 x 2 tokens: (B, H W, C) -> (B, H W / 4, 2 C)."""

    def __init__(self, dim: int, grid: Size) -> None:
        super().__init__()
        self.grid = grid
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)
        self.norm = nn.LayerNorm(4 * dim)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, H W, dim) -> (B, H W / 4, 2 dim)."""
        x = x.view(x.shape[0], *self.grid, x.shape[-1])
        # (even row, even column), (odd, even), (even, odd), (odd, odd): the order of the original code
        x = torch.cat([x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], -1)
        return self.reduction(self.norm(x.flatten(1, 2)))


class PatchEmbed(nn.Module):
    """Image (B, 3, H, W) -> tokens (B, H W / patch**2, dim), normalised."""

    def __init__(self, patch: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch, patch)
        self.norm = nn.LayerNorm(dim)

    def forward(self, image: Tensor) -> Tensor:
        """image (B, 3, H, W) -> (B, H W / patch**2, dim)."""
        return self.norm(self.proj(image).flatten(2).transpose(1, 2))


class SwinStage(nn.Module):
    """The blocks of one resolution and, but for the last stage, the merging that follows them."""

    def __init__(self, dim: int, heads: int, geometry: StageGeometry, drop_paths: list[float], mlp_ratio: float,
                 merge: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(SwinBlock(dim, heads, geometry, index % 2 == 1, mlp_ratio, rate)
                                    for index, rate in enumerate(drop_paths))
        self.downsample = PatchMerging(dim, geometry.grid) if merge else None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, H W, C) -> (the feature map of this stage, the input of the next)."""
        for block in self.blocks:
            x = block(x)
        return x, x if self.downsample is None else self.downsample(x)


class SwinBackbone(nn.Module):
    """Swin transformer that returns the output of every stage before its patch merging, un-normalised.

    The defaults are Swin-B as CFLD runs it: 256 x 256 pixels, window 16 (effective 16, 16, 16, 8). There is no
    absolute position embedding and, as in the authors' code, no final LayerNorm.

    Args:
        image_size: (height, width) in pixels; every other size is refused.
        window: side of the attention windows in tokens, or (height, width).
        width: channels of the first stage; they double from stage to stage.
        depths, heads: blocks and attention heads of each stage.
        patch: pixels per token side.
        mlp_ratio: hidden width of the MLP over its width.
        drop_path: stochastic depth of the last block; it rises linearly from 0 at the first. Training only.
    """

    def __init__(self, image_size: Size = (256, 256), window: int | Size = 16, width: int = 128,
                 depths: tuple[int, ...] = (2, 2, 18, 2), heads: tuple[int, ...] = (4, 8, 16, 32), patch: int = 4,
                 mlp_ratio: float = 4.0, drop_path: float = 0.2) -> None:
        super().__init__()
        if len(depths) != len(heads):
            raise ValueError(f"depths {tuple(depths)} and heads {tuple(heads)} must have one entry per stage each")
        self.image_size = tuple(image_size)
        geometries = stage_geometries(self.image_size, patch, window, len(depths))
        self.grids = tuple(geometry.grid for geometry in geometries)
        self.widths = tuple(width * 2 ** stage for stage in range(len(depths)))
        blocks = sum(depths)
        rates = iter([drop_path * index / max(blocks - 1, 1) for index in range(blocks)])
        self.patch_embed = PatchEmbed(patch, width)
        self.layers = nn.ModuleList(
            SwinStage(self.widths[stage], heads[stage], geometries[stage], [next(rates) for _ in range(depths[stage])],
                      mlp_ratio, merge=stage + 1 < len(depths)) for stage in range(len(depths)))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)  # the original truncates at 100 std: no truncation
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """image (B, 3, H, W) in [-1, 1] -> one map per stage, (B, h w, C) with row-major tokens.

        Swin-B at 256 x 256: (B, 4096, 128), (B, 1024, 256), (B, 256, 512), (B, 64, 1024). The range is that of
        CFLD (mean 0.5, std 0.5), not ImageNet's. Raises ValueError for another image size.
        """
        if image.ndim != 4 or image.shape[1] != 3 or tuple(image.shape[2:]) != self.image_size:
            raise ValueError(f"source image has shape {tuple(image.shape)}; expected (B, 3, {self.image_size[0]}, "
                             f"{self.image_size[1]}): resize it")
        x = self.patch_embed(image)
        features = []
        for layer in self.layers:
            feature, x = layer(x)
            features.append(feature)
        return tuple(features)

    @torch.no_grad()
    def load_imagenet(self, state: Mapping[str, Tensor]) -> None:
        """Starts from a published Swin classifier (or its {"model": state} file), of another geometry if need be.

        Classifier head, final norm and rebuildable buffers are left out; bias tables of another window are resized
        bicubically, as in the authors' loader (no antialiasing, align_corners False). Raises ValueError when any
        other key is missing, unknown or of the wrong shape.
        """
        if isinstance(state.get("model"), Mapping):
            state = state["model"]
        rebuilt = ("relative_position_index", "relative_coords_table", "attn_mask")
        loaded = {key: value for key, value in state.items()
                  if not key.endswith(rebuilt) and not key.startswith(("norm.", "head."))}
        own = self.state_dict()
        windows = {f"layers.{i}.blocks.{j}.attn.relative_position_bias_table": block.window
                   for i, layer in enumerate(self.layers) for j, block in enumerate(layer.blocks)}
        for key in windows.keys() & loaded.keys():
            loaded[key] = resize_bias_table(loaded[key], windows[key])
        wrong = [f"missing {key}" for key in own.keys() - loaded.keys()]
        wrong += [f"unexpected {key}" for key in loaded.keys() - own.keys()]
        wrong += [f"{key} {tuple(loaded[key].shape)} instead of {tuple(own[key].shape)}"
                  for key in own.keys() & loaded.keys() if own[key].shape != loaded[key].shape]
        if wrong:
            raise ValueError(f"not a Swin checkpoint of this size, {len(wrong)} keys differ: {sorted(wrong)[:10]}; "
                             "expected the widths and depths of this configuration")
        self.load_state_dict(loaded)


def resize_bias_table(table: Tensor, window: Size) -> Tensor:
    """Bias table ((2 S - 1)**2, heads) of a square window S -> ((2 h - 1)(2 w - 1), heads), bicubic.

    A table of the right length comes back as it is. Raises ValueError when the table is not of a square window.
    """
    target = (2 * window[0] - 1, 2 * window[1] - 1)
    length, heads = table.shape
    if length == target[0] * target[1]:
        return table
    side = round(length ** 0.5)
    if side * side != length:
        raise ValueError(f"a relative position table of {length} rows is not of a square window; cannot resize it to "
                         f"{target}")
    grid = table.float().t().reshape(1, heads, side, side)
    grid = F.interpolate(grid, size=target, mode="bicubic", align_corners=False)
    return grid.reshape(heads, -1).t().contiguous()
