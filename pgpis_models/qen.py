"""QEN: Learnable Query-Enhanced Pose Transformation (Wang and Shuai).

Learnable queries fuse four Swin maps of the source person into tokens, which stand in for the text; the target pose
enters through a ControlNet whose cross-attention to the local queries is masked to the pose region. No code was
published. What the paper leaves open is a setting here, and its docstring says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from .cfld_parts import PoseAdapter
from .control_branch import BranchSizes, ControlBranch
from .guidance import Guidance, Term, scales_of
from .injections import Control, Injections, everywhere
from .pose_factored import FactoredRasters, join
from .pose_mask import MASK_MODES, checked_region, skeleton_region
from .qen_parts import PoseStack, QueryFusionTransformer
from .sites import SITES
from .source_config import SwinSourceConfig

PIXELS_PER_LATENT = 8
POSE_EMBEDDINGS = ("convolutions", "adapter")


@dataclass(frozen=True)
class QENConfig(SwinSourceConfig):
    """All sizes of QEN. Stated by the paper: image size, Swin-B, the kinds of queries, the mask. Ours, since it does not
    state them: numbers of queries, width, depth and heads of the fusion, blur and threshold of the mask, pose embedding,
    drops.

    image_size: (height, width) in pixels of the source and of the pictures made; multiples of 8 and of the backbone's.
    The backbone: see SwinSourceConfig.
    local_queries, global_queries: any number of each, but one local query at least.
    prompt_width: of a query, which is the UNet's cross-attention width. fusion_depth, fusion_heads: of the QFFT.
    mask: one of pose_mask.MASK_MODES. mask_sigma: blur in pixels of a picture 512 high. mask_threshold: of its peak.
    pose_embedding: `convolutions`, ControlNet's own, of a skeleton picture, into the branch's first layer; or `adapter`,
        CFLD's, of its 21-channel raster, into three levels of the branch (cheaper, and it may start from a trained one).
    pose_channels, pose_unshuffle: channels of the pose raster, and its pixels per latent pixel. pose_widths: of the
        convolutions. pose_groups: GroupNorm groups of the adapter.
    unet_widths, unet_heads, unet_layers: of the base UNet, whose encoder the control branch copies.
    prompt_drop, pose_drop: share of training items that see the null tokens, and no pose; drawn independently.
    """

    image_size: tuple[int, int] = (512, 512)
    local_queries: int = 64
    global_queries: int = 16
    prompt_width: int = 768
    fusion_depth: int = 4
    fusion_heads: int = 12
    mask: str = "full"
    mask_sigma: float = 8.0
    mask_threshold: float = 1 / 255
    pose_embedding: str = "convolutions"
    pose_channels: int = 3
    pose_unshuffle: int = 8
    pose_widths: tuple[int, ...] = (16, 32, 96, 256)
    pose_groups: int = 32
    unet_widths: tuple[int, int, int, int] = (320, 640, 1280, 1280)
    unet_heads: int = 8
    unet_layers: int = 2
    prompt_drop: float = 0.2
    pose_drop: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.unet_widths) != 4:
            raise ValueError(f"unet_widths is {self.unet_widths}; expected four values")
        for name, options in (("mask", MASK_MODES), ("pose_embedding", POSE_EMBEDDINGS)):
            if getattr(self, name) not in options:
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected one of {options}")
        if self.local_queries < 1 or self.global_queries < 0:
            raise ValueError(f"{self.local_queries} local and {self.global_queries} global queries; expected 1 or more "
                             "local and 0 or more global ones, since only local queries read the source")
        if any(side % PIXELS_PER_LATENT for side in self.image_size):
            raise ValueError(f"image_size is {self.image_size}; expected multiples of {PIXELS_PER_LATENT}")
        if self.pose_embedding == "convolutions" and self.pose_unshuffle != 2 ** (len(self.pose_widths) - 1):
            raise ValueError(f"pose_unshuffle is {self.pose_unshuffle}, but {len(self.pose_widths)} pose_widths halve the "
                             f"picture to 1/{2 ** (len(self.pose_widths) - 1)}; expected that number")

    @property
    def latent_size(self) -> tuple[int, int]:
        """(height, width) of the latents."""
        return self.image_size[0] // PIXELS_PER_LATENT, self.image_size[1] // PIXELS_PER_LATENT

    @property
    def pose_size(self) -> tuple[int, int]:
        """(height, width) of the pose raster in pixels."""
        return self.latent_size[0] * self.pose_unshuffle, self.latent_size[1] * self.pose_unshuffle

    @property
    def tokens(self) -> int:
        """Number of all queries."""
        return self.local_queries + self.global_queries

    @property
    def branch(self) -> BranchSizes:
        """Sizes of the control branch."""
        return BranchSizes(self.unet_widths, self.unet_heads, self.prompt_width, self.local_queries, self.mask,
                           self.unet_layers)


CONFIGS: Mapping[str, QENConfig] = {
    "full": QENConfig(),
    # The mannequin world at 128x96. Sixteen local queries may learn to say the captions that the demo's base knows.
    "demo": QENConfig(image_size=(128, 96), window=(8, 6), swin_width=32, swin_depths=(2, 2, 4, 2), swin_heads=(1, 2, 4, 8),
                      drop_path=0.0, local_queries=16, global_queries=4, prompt_width=64, fusion_depth=4, fusion_heads=2,
                      pose_embedding="adapter", pose_channels=21, pose_unshuffle=16, unet_widths=(64, 64, 64, 64),
                      unet_heads=2, prompt_drop=0.1, pose_drop=0.1),
    "tiny": QENConfig(image_size=(64, 64), window=4, swin_width=8, swin_depths=(1, 1, 1, 1), swin_heads=(1, 1, 2, 2),
                      local_queries=5, global_queries=3, prompt_width=24, fusion_depth=2, fusion_heads=3,
                      pose_widths=(4, 4, 8, 8), unet_widths=(32, 32, 64, 64), unet_heads=4),
}


@dataclass(frozen=True)
class Appearance:
    """What QEN knows of a source person: tokens (B, N, C), local ones first; null_tokens (1, N, C), of nobody."""

    tokens: Tensor
    null_tokens: Tensor


@dataclass(frozen=True)
class Encoded(Appearance):
    """An Appearance with a target pose.

    pose: what the control branch adds, `stem` or `map_0` .. `map_2`, each (B, C, h, w). region: (B, 1, H, W) of 0 and 1,
    where its attention sees local queries. strength, start, end: of the control branch, as a ControlNet's.
    """

    pose: Mapping[str, Tensor]
    region: Tensor
    strength: float = 1.0
    start: float = 0.0
    end: float = 1.0

    def blended(self, other: Encoded, weight: float) -> Encoded:
        """This one with the tokens (1 - weight) own + weight other's; ours, not the paper's. Batches may differ only where
        one is 1. Raises ValueError for tokens of other numbers or widths."""
        shapes = [tuple(one.tokens.shape) for one in (self, other)]
        if shapes[0][1:] != shapes[1][1:] or (shapes[0][0] != shapes[1][0] and 1 not in (shapes[0][0], shapes[1][0])):
            raise ValueError(f"cannot blend tokens of {shapes[0]} and {shapes[1]} (sources, queries, width); expected two "
                             "of one checkpoint, of equal numbers or one")
        return replace(self, tokens=torch.lerp(self.tokens, other.tokens, weight))


@dataclass(frozen=True)
class Link:
    """One guidance term: which inputs it shows, and the scale that weighs it against the term before."""

    term: str
    prompt: bool = False
    pose: bool = False
    scale: str = ""


_NULL, _POSE = Link("null"), Link("pose", pose=True, scale="pose")
_FULL = Link("pose+appearance", prompt=True, pose=True, scale="appearance")
# Named as CFLD's, whose cumulative guidance this is; the paper does not state its guidance.
GUIDANCE_MODES: Mapping[str, tuple[Link, ...]] = {
    "uc_down_full": (_NULL, _POSE, _FULL),
    "uc_full": (_NULL, _FULL),
    "down_full": (_POSE, _FULL),
}


class QEN(nn.Module):
    """The method: source person and pose to injections."""

    guidance_modes = tuple(GUIDANCE_MODES)

    def __init__(self, config: QENConfig = QENConfig()) -> None:
        super().__init__()
        self.config = config
        self.null_tokens = nn.Parameter(torch.randn(1, config.tokens, config.prompt_width))
        self.backbone = config.backbone()
        self.fusion = QueryFusionTransformer(config.local_queries, config.global_queries, config.prompt_width,
                                             config.fusion_depth, config.fusion_heads, self.backbone.widths,
                                             self.backbone.grids)
        if config.pose_embedding == "adapter":
            self.pose_encoder = PoseAdapter(config.pose_channels, config.pose_unshuffle, config.unet_widths[:3],
                                            config.pose_groups)
        else:
            self.pose_encoder = PoseStack(config.pose_channels, config.pose_widths, config.unet_widths[0])
        self.control = ControlBranch(config.branch)

    # --- encoding -------------------------------------------------------------------------------------------

    def encode_appearance(self, source: Tensor) -> Appearance:
        """source (B, 3, H, W) in [-1, 1], of config.image_size -> Appearance. Compute it once for many poses."""
        return Appearance(self.fusion(self.backbone(source)), self.null_tokens)

    def encode_pose(self, pose: Tensor | FactoredRasters, region: Tensor | None = None) -> tuple[dict[str, Tensor], Tensor]:
        """pose (B, C, h, w) in [0, 1] of config.pose_size, whose first three channels are the skeleton's drawing
        -> (inputs of the control branch, pose region (B, 1, H, W)).

        region: (B or 1, 1, any, any) in place of the drawing's own. A region without a pixel inside becomes everywhere,
        which is attention without a mask, with a warning. Raises ValueError for a raster of another size.
        """
        config = self.config
        expected = (config.pose_channels, *config.pose_size)
        if pose.ndim != 4 or tuple(pose.shape[1:]) != expected:
            raise ValueError(f"pose raster has shape {tuple(pose.shape)}; expected (B, {', '.join(map(str, expected))}): "
                             f"draw the keypoints at (height, width) {config.pose_size}")
        drawn = pose.picture if isinstance(pose, FactoredRasters) else pose[:, :3]
        if region is None:
            region = skeleton_region(drawn, config.image_size, config.mask_sigma, config.mask_threshold)
        region = checked_region(region, config.image_size)
        made = self.pose_encoder(pose)
        inputs = {"stem": made} if isinstance(made, Tensor) else {f"map_{level}": m for level, m in enumerate(made)}
        batches = (pose.shape[0], region.shape[0])
        if batches[0] != batches[1] and 1 not in batches:
            raise ValueError(f"{batches[0]} poses and {batches[1]} masks; expected equal numbers, or one of either")
        return inputs, region.to(made.dtype if isinstance(made, Tensor) else made[0].dtype)

    def encode(self, source: Tensor, pose: Tensor, region: Tensor | None = None, strength: float = 1.0,
               start: float = 0.0, end: float = 1.0) -> Encoded:
        """source (B, 3, H, W) in [-1, 1] and pose (B, C, h, w) in [0, 1]; either batch may be 1. See `with_pose`."""
        return self.with_pose(self.encode_appearance(source), pose, region, strength, start, end)

    def with_pose(self, appearance: Appearance, pose: Tensor, region: Tensor | None = None, strength: float = 1.0,
                  start: float = 0.0, end: float = 1.0) -> Encoded:
        """An Appearance that was read once, with a pose. See `encode_pose`, and `injections.Control` for strength, start and
        end. Raises ValueError for numbers that do not go together."""
        if not (math.isfinite(strength) and strength >= 0):
            raise ValueError(f"the control branch's strength is {strength}; expected 0 or more, 1 as trained")
        if not 0 <= start <= end <= 1:
            raise ValueError(f"the control branch runs from {start} to {end} of the sampling; expected 0 <= start <= "
                             "end <= 1")
        inputs, region = self.encode_pose(pose, region)
        batches = {appearance.tokens.shape[0], region.shape[0], *(value.shape[0] for value in inputs.values())} - {1}
        if len(batches) > 1:
            raise ValueError(f"{len(appearance.tokens)} sources, {pose.shape[0]} poses and {region.shape[0]} masks; "
                             "expected equal numbers, or one of each that differs")
        return Encoded(appearance.tokens, appearance.null_tokens, inputs, region, float(strength), float(start), float(end))

    def attention_maps(self, source: Tensor) -> Tensor:
        """What each query looks at: (B, blocks, N, h, w) on the finest grid of the backbone, local queries first; each map
        sums to 1. For pictures only."""
        return self.fusion.attention_maps(self.backbone(source))

    # --- injections -----------------------------------------------------------------------------------------

    def guidance(self, encoded: Encoded, mode: str = "uc_down_full", **scales: float) -> Guidance:
        """The guidance chain of one generation. Modes, with L the null tokens, c the tokens, p the pose, each term minus
        the one before it:

        uc_down_full (default)  null L; pose L,p; pose+appearance c,p    scales pose, appearance
        uc_full                 null; pose+appearance                    appearance
        down_full               pose; pose+appearance                    appearance

        Scales default to 2.0. Raises ValueError for an unknown mode and for a scale that the mode does not use.
        """
        scales_of(GUIDANCE_MODES, mode, scales)
        terms = []
        for index, link in enumerate(GUIDANCE_MODES[mode]):
            tokens = encoded.tokens if link.prompt else encoded.null_tokens
            control = self._control(tokens, encoded) if link.pose else None
            terms.append(Term(link.term, Injections(context=everywhere(tokens), control=control),
                              scales.get(link.scale, 2.0) if index else 1.0))
        return Guidance(tuple(terms))

    @staticmethod
    def guidance_scales(mode: str) -> list[str]:
        """Names of the scales that a mode of `guidance` uses. Raises ValueError for an unknown mode."""
        return scales_of(GUIDANCE_MODES, mode)

    def _control(self, tokens: Tensor, encoded: Encoded) -> Control:
        return Control(self.control, {"tokens": tokens, "region": encoded.region, **encoded.pose}, encoded.strength,
                       encoded.start, encoded.end)

    def training_injections(self, source: Tensor, source_pose: Tensor | FactoredRasters | None,
                            target_pose: Tensor | FactoredRasters, drop_u: Tensor | None = None,
                            appearance: Appearance | None = None) -> Injections:
        """Injections of 2B training items, B reconstructions of the source (L_rec, eq. 7), then B transfers (eq. 6).

        source (B, 3, H, W) is encoded once for both halves, or not at all when its `appearance` is given; poses as in
        `encode_pose`. Without a source_pose there are the B transfers only. drop_u: two uniform draws per item (2B, 2),
        fresh ones when None: below config.prompt_drop it gets the null tokens, below config.pose_drop no pose.
        """
        poses = [target_pose] if source_pose is None else [source_pose, target_pose]
        if any(len(pose) != len(source) for pose in poses):
            raise ValueError(f"{len(source)} sources with {' source and '.join(str(len(pose)) for pose in poses)} target "
                             "poses; expected equal numbers")
        appearance = self.encode_appearance(source) if appearance is None else appearance
        inputs, region = self.encode_pose(join(poses))
        items = region.shape[0]
        if drop_u is None:
            drop_u = torch.rand(items, 2, device=source.device)
        if drop_u.shape != (items, 2):
            raise ValueError(f"drop_u has shape {tuple(drop_u.shape)} for {items} training items; expected ({items}, 2)")
        dropped = drop_u[:, :1, None] < self.config.prompt_drop
        tokens = torch.where(dropped, appearance.null_tokens.to(appearance.tokens.dtype),
                             appearance.tokens.repeat(len(poses), 1, 1))
        control = self._control(tokens, Encoded(tokens, appearance.null_tokens, inputs, region))
        on = drop_u[:, 1] >= self.config.pose_drop
        on[0] |= ~on.any()    # some pose in every pass: distributed training wants all gradients
        return Injections(context=everywhere(tokens), control=replace(control, on=on.to(torch.int64)))

    def forward(self, source: Tensor, source_pose: Tensor, target_pose: Tensor,
                drop_u: Tensor | None = None) -> Injections:
        """`training_injections`: distributed wrappers only see calls of forward."""
        return self.training_injections(source, source_pose, target_pose, drop_u)

    # --- the UNet's side ------------------------------------------------------------------------------------

    def unet_weight_shapes(self) -> dict[str, tuple[int, int]]:
        """diffusers parameter name -> shape of the UNet weights that QEN trains: K, V of all 16 cross-attentions, since its
        tokens stand in for text (the paper does not state what of the UNet it trains)."""
        return {f"{site.diffusers}.transformer_blocks.0.attn2.{which}.weight":
                (self.config.unet_widths[site.level], self.config.prompt_width)
                for site in SITES.values() for which in ("to_k", "to_v")}

    def trainable_unet_weights(self) -> tuple[str, ...]:
        """The 32 diffusers parameter names of `unet_weight_shapes`."""
        return tuple(self.unet_weight_shapes())
