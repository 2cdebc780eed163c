"""QEN: Learnable Query-Enhanced Pose Transformation (Wang and Shuai).

Learnable queries fuse four Swin maps of the source person into tokens, which stand in for the text; the target pose
enters through a ControlNet whose cross-attention to the local queries is masked to the pose region. No code was
published. What the paper leaves open is a setting here, and its docstring says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from ..parts.joining import weighted, weighted_row
from ..parts.mixing import Mixing
from ..parts.pose_adapter import PoseAdapter
from ..parts.pose_guider import PoseGuider
from ..parts.query_fusion import QueryFusionTransformer
from ..poses.factored import FactoredRasters, join
from ..poses.region import checked_region, skeleton_region
from ..unet.control_branch import ControlBranch
from ..unet.guidance import Guidance, Term, scales_of
from ..unet.injections import Control, Injections, everywhere
from ..unet.sites import SITES
from .config import QENConfig


@dataclass(frozen=True)
class Appearance:
    """What QEN knows of a source person: tokens (B, N, C), local ones first; null_tokens (1, N, C), of nobody.

    branch: (B, N, C), what the control branch sees of the person; the tokens where None."""

    tokens: Tensor
    null_tokens: Tensor
    branch: Tensor | None = field(default=None, kw_only=True)


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
            self.pose_encoder = PoseGuider(config.unet_widths[0], config.pose_widths, config.pose_channels)
        self.control = ControlBranch(config.branch)

    # --- encoding -------------------------------------------------------------------------------------------

    def encode_appearance(self, source: Tensor) -> Appearance:
        """source (B, 3, H, W) in [-1, 1], of config.image_size -> Appearance. Compute it once for many poses."""
        return Appearance(self.fusion(self.backbone(source)), self.null_tokens)

    def encode_pose(self, pose: Tensor | FactoredRasters, region: Tensor | None = None,
                    warn: bool = True) -> tuple[dict[str, Tensor], Tensor]:
        """pose (B, C, h, w) in [0, 1] of config.pose_size, whose first three channels are the skeleton's drawing
        -> (inputs of the control branch, pose region (B, 1, H, W)).

        region: (B or 1, 1, any, any) in place of the drawing's own. A region without a pixel inside becomes everywhere,
        which is attention without a mask, with a warning unless `warn` is False. Raises ValueError for a raster of another
        size.
        """
        config = self.config
        expected = (config.pose_channels, *config.pose_size)
        if pose.ndim != 4 or tuple(pose.shape[1:]) != expected:
            raise ValueError(f"pose raster has shape {tuple(pose.shape)}; expected (B, {', '.join(map(str, expected))}): "
                             f"draw the keypoints at (height, width) {config.pose_size}")
        drawn = pose.picture if isinstance(pose, FactoredRasters) else pose[:, :3]
        if region is None:
            region = skeleton_region(drawn, config.image_size, config.mask_sigma, config.mask_threshold)
        region = checked_region(region, config.image_size, warn)
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
        return Encoded(appearance.tokens, appearance.null_tokens, inputs, region, float(strength), float(start), float(end),
                       branch=appearance.branch)

    @staticmethod
    def blended(first: Encoded, second: Encoded, weights: Tensor) -> Encoded:
        """Two people's tokens, linearly, in the first one's pose; ours, not the paper's. weights: (N,); the row of each pair
        stands together. See `parts.mixing.Mixing` for numbers and errors."""
        poses = max(len(first.region), *(len(value) for value in first.pose.values()))
        mix, branch = Mixing.of(weights, first.tokens, second.tokens, poses), None
        if first.branch is not None or second.branch is not None:
            branch = mix.linear(*(one.tokens if one.branch is None else one.branch for one in (first, second)))
        return replace(first, tokens=mix.linear(first.tokens, second.tokens), region=mix.kept(first.region), branch=branch,
                       pose={name: mix.kept(value) for name, value in first.pose.items()})

    @staticmethod
    def joined(several: Appearance, weights: Tensor) -> Appearance:
        """N photos of one person -> one, by weights (B, N), for B poses or for all (1, N), that sum to 1: the UNet attends
        to the tokens of all of them, to each by its weight; the control branch, whose mask counts its local queries, to
        their mean. Ours, not the paper's."""
        return Appearance(weighted_row(several.tokens, weights), several.null_tokens,
                          branch=weighted(several.tokens, weights))

    def attention_maps(self, source: Tensor) -> Tensor:
        """What each query looks at: (B, blocks, N, h, w) on the finest grid of the backbone, local queries first; each map
        sums to 1. For pictures only."""
        return self.fusion.attention_maps(self.backbone(source))

    def query_maps(self, source: Tensor, kind: str) -> Tensor:
        """`attention_maps` of the local or the global queries alone. Raises ValueError where there are no global ones."""
        local = self.config.local_queries
        if kind == "global" and not self.config.global_queries:
            raise ValueError("this QEN has no global queries; expected kind local")
        maps = self.attention_maps(source)
        return maps[:, :, :local] if kind == "local" else maps[:, :, local:]

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
            seen = tokens if encoded.branch is None or not link.prompt else encoded.branch
            control = self._control(seen, encoded) if link.pose else None
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
        inputs, region = self.encode_pose(join(poses), warn=False)
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
