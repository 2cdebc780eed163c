"""CFLD: Coarse-to-Fine Latent Diffusion for Pose-Guided Person Image Synthesis (Lu et al., CVPR 2024).

The source person becomes a coarse prompt (perception-refined decoder on the deepest Swin map) and fine query biases
(hybrid-granularity appearance encoder on the shallower maps); the target pose becomes three maps on the UNet's down
path. Where paper and released code disagree this follows the code, since published weights depend on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ..parts.joining import one_row, weighted
from ..parts.mixing import Mixing
from ..parts.perception_decoder import PerceptionRefinedDecoder
from ..parts.pose_adapter import PoseAdapter
from ..poses.factored import FactoredRasters, join
from ..unet.guidance import Guidance, Term, scales_of
from ..unet.injections import Injections, everywhere
from ..unet.sites import SITES
from .config import CFLDConfig
from .parts import BRANCH_SITES, HybridGranularityAppearanceEncoder


@dataclass(frozen=True)
class Appearance:
    """What CFLD knows of a source person; it does not depend on pose or timestep.

    prompt: (B, N, C) coarse prompt. query_bias: site -> (B, HW, D). null_prompt: (1, N, C), the unconditional prompt.
    """

    prompt: Tensor
    query_bias: Mapping[str, Tensor]
    null_prompt: Tensor

    def with_pose(self, pose_maps: tuple[Tensor, ...]) -> Encoded:
        """Joins the maps of `encode_pose`; one of the two batch sizes may be 1."""
        batches = (self.prompt.shape[0], pose_maps[0].shape[0])
        if batches[0] != batches[1] and 1 not in batches:
            raise ValueError(f"{batches[0]} sources and {batches[1]} poses; expected equal numbers, or one of either")
        return Encoded(self.prompt, self.query_bias, self.null_prompt, pose_maps)


@dataclass(frozen=True)
class Encoded(Appearance):
    """An Appearance with a target pose: pose_maps are three of (B, C, h, w), for down blocks 0, 1 and 2."""

    pose_maps: tuple[Tensor, ...]


@dataclass(frozen=True)
class Link:
    """One guidance term: which inputs it shows, the scale that weighs it, and the term that it is held against."""

    term: str
    prompt: bool = False
    pose: bool = False
    biases: bool = False
    scale: str = ""
    minus: str | None = None  # the term before it when None


_NULL, _POSE = Link("null"), Link("pose", pose=True, scale="pose")
_BIASES = Link("pose+biases", pose=True, biases=True, scale="biases")
_FULL = Link("pose+appearance", prompt=True, pose=True, biases=True, scale="appearance")
# The guidance types of the released code, by its names.
GUIDANCE_MODES: Mapping[str, tuple[Link, ...]] = {
    "uc_down_full": (_NULL, _POSE, _FULL),  # eq. 7
    "uc_full": (_NULL, _FULL),
    "updown_full": (_BIASES, _FULL),
    "down_full": (_POSE, _FULL),
    "uc_down_updown_cdown": (_NULL, _POSE, _BIASES,
                             Link("pose+prompt", prompt=True, pose=True, scale="prompt", minus="pose")),
    "uc_down_updown_full": (_NULL, _POSE, _BIASES, _FULL),
}


class CFLD(nn.Module):
    """The method: source person and pose to injections. Submodules carry the published names."""

    def __init__(self, config: CFLDConfig = CFLDConfig()) -> None:
        super().__init__()
        self.config = config
        self.learnable_vector = nn.Parameter(torch.randn(1, config.prompt_tokens, config.prompt_width))
        self.backbone = config.backbone()
        self.appearance_encoder = HybridGranularityAppearanceEncoder(
            tuple(self.backbone.widths[index] for index in config.appearance_features), config.appearance_widths,
            config.appearance_heads, config.appearance_depth, config.unet_widths, config.appearance_zero_in)
        self.pose_encoder = PoseAdapter(config.pose_channels, config.pose_unshuffle, config.unet_widths,
                                        config.pose_groups)
        grid = self.backbone.grids[-1]
        self.decoder = PerceptionRefinedDecoder(config.prompt_tokens, config.prompt_width, config.decoder_depth,
                                                config.decoder_heads, grid[0] * grid[1], self.backbone.widths[-1])

    # --- encoding -------------------------------------------------------------------------------------------

    def encode_appearance(self, source: Tensor) -> Appearance:
        """source (B, 3, H, W) in [-1, 1], of config.image_size -> Appearance. Compute it once for many poses."""
        features = self.backbone(source)
        biases = self.appearance_encoder(tuple(features[index] for index in self.config.appearance_features))
        return Appearance(self.decoder(features[-1]), biases, self.learnable_vector)

    def encode_pose(self, pose: Tensor | FactoredRasters) -> tuple[Tensor, ...]:
        """pose (B, 21, h, w) in [0, 1], of config.pose_size, full or factored -> the maps for down blocks 0, 1 and 2."""
        expected = (self.config.pose_channels, *self.config.pose_size)
        if pose.ndim != 4 or tuple(pose.shape[1:]) != expected:
            raise ValueError(f"pose raster has shape {tuple(pose.shape)}; expected (B, *{expected}): draw the "
                             f"keypoints at (height, width) {self.config.pose_size}")
        return self.pose_encoder(pose)

    def encode(self, source: Tensor, pose: Tensor) -> Encoded:
        """source (B, 3, H, W) in [-1, 1] and pose (B, 21, h, w) in [0, 1]; either batch may be 1."""
        return self.encode_appearance(source).with_pose(self.encode_pose(pose))

    @staticmethod
    def blended(first: Encoded, second: Encoded, weights: Tensor) -> Encoded:
        """Style interpolation (section 4.6): prompt and all nine query biases, linearly, in the first one's pose. weights:
        (N,); the row of each pair stands together. See `parts.mixing.Mixing` for numbers and errors."""
        mix = Mixing.of(weights, first.prompt, second.prompt, len(first.pose_maps[0]))
        return replace(first, prompt=mix.linear(first.prompt, second.prompt),
                       query_bias={site: mix.linear(bias, second.query_bias[site])
                                   for site, bias in first.query_bias.items()},
                       pose_maps=tuple(mix.kept(pose) for pose in first.pose_maps))

    @staticmethod
    def joined(several: Appearance, weights: Tensor) -> Appearance:
        """N photos of one person -> one: attention over the prompt tokens of all of them, the mean of their query biases by
        weights (B, N), for B poses or for all (1, N), that sum to 1. Ours, not the paper's."""
        return Appearance(one_row(several.prompt), {site: weighted(bias, weights) for site, bias in
                                                    several.query_bias.items()}, several.null_prompt)

    def attention_maps(self, source: Tensor) -> Tensor:
        """What each prompt token looks at: (B, blocks, heads, N, h, w), summing to 1 over the grid of the last map.

        source as in `encode_appearance`. For pictures only; the ordinary path never makes these weights.
        """
        return self.decoder.attention_maps(self.backbone(source)[-1]).unflatten(-1, self.backbone.grids[-1])

    def query_maps(self, source: Tensor, kind: str) -> Tensor:
        """The mean of `attention_maps` over heads, (B, blocks, N, h, w). Raises ValueError for another kind than local."""
        if kind != "local":
            raise ValueError("CFLD has one kind of query, which counts as local; expected kind local, or a QEN checkpoint")
        return self.attention_maps(source).mean(2)

    # --- injections -----------------------------------------------------------------------------------------

    guidance_modes = tuple(GUIDANCE_MODES)   # the first is the paper's

    def guidance(self, encoded: Encoded, mode: str = "uc_down_full", **scales: float) -> Guidance:
        """The guidance chain of one generation. Modes, with L the unconditional prompt and c, p, b what is encoded
        (prompt, pose maps, query biases), each term minus the one before it unless said otherwise:

        uc_down_full (default, eq. 7)  null L; pose L,p; pose+appearance c,p,b        scales pose, appearance
        uc_full                        null; pose+appearance                          appearance
        updown_full                    pose+biases L,p,b; pose+appearance             appearance
        down_full                      pose; pose+appearance                          appearance
        uc_down_updown_cdown           null; pose; pose+biases; pose+prompt c,p minus pose    pose, biases, prompt
        uc_down_updown_full            null; pose; pose+biases; pose+appearance       pose, biases, appearance

        Scales default to 2.0. In the authors' configuration pose is DOWN_BLOCK_GUIDANCE_SCALE, appearance
        FULL_GUIDANCE_SCALE, biases ALL_BLOCK_GUIDANCE_SCALE and prompt GUIDANCE_SCALE. Raises ValueError for an
        unknown mode and for a scale that the mode does not use.
        """
        scales_of(GUIDANCE_MODES, mode, scales)
        terms = []
        for index, link in enumerate(GUIDANCE_MODES[mode]):
            injections = Injections(context=everywhere(encoded.prompt if link.prompt else encoded.null_prompt),
                                    query_bias=encoded.query_bias if link.biases else {},
                                    down_residuals=encoded.pose_maps if link.pose else ())
            terms.append(Term(link.term, injections, scales.get(link.scale, 2.0) if index else 1.0, link.minus))
        return Guidance(tuple(terms))

    @staticmethod
    def guidance_scales(mode: str) -> list[str]:
        """Names of the scales that a mode of `guidance` uses. Raises ValueError for an unknown mode."""
        return scales_of(GUIDANCE_MODES, mode)

    def training_injections(self, source: Tensor, source_pose: Tensor | FactoredRasters | None,
                            target_pose: Tensor | FactoredRasters,
                            drop_u: Tensor | None = None, appearance: Appearance | None = None) -> Injections:
        """Injections of 2B training items, B reconstructions of the source, then B transfers to the target pose.

        source (B, 3, H, W) is encoded once for both halves, or not at all when its `appearance` is given; poses
        (B, 21, h, w). Without a source_pose there are the B transfers only. drop_u: one uniform draw of the prompt
        drop per item (fresh ones when None); an item with u < config.prompt_drop gets the unconditional prompt. As in
        the code only the prompt is dropped; the paper drops source and pose.
        """
        poses = [target_pose] if source_pose is None else [source_pose, target_pose]
        if any(len(pose) != len(source) for pose in poses):
            raise ValueError(f"{len(source)} sources with {' source and '.join(str(len(pose)) for pose in poses)} target "
                             "poses; expected equal numbers")
        appearance = self.encode_appearance(source) if appearance is None else appearance
        pose_maps = self.encode_pose(join(poses))
        items = pose_maps[0].shape[0]
        if drop_u is None:
            drop_u = torch.rand(items, device=source.device)
        if drop_u.numel() != items:
            raise ValueError(f"drop_u has {drop_u.numel()} draws for {items} training items; expected one per item")
        dropped = drop_u.reshape(items, 1, 1) < self.config.prompt_drop
        prompt = torch.where(dropped, self.learnable_vector.to(appearance.prompt.dtype),
                             appearance.prompt.repeat(len(poses), 1, 1))
        biases = {site: bias.repeat(len(poses), 1, 1) for site, bias in appearance.query_bias.items()}
        return Injections(context=everywhere(prompt), query_bias=biases, down_residuals=pose_maps)

    def forward(self, source: Tensor, source_pose: Tensor, target_pose: Tensor,
                drop_u: Tensor | None = None) -> Injections:
        """`training_injections`: distributed wrappers only see calls of forward."""
        return self.training_injections(source, source_pose, target_pose, drop_u)

    # --- the UNet's side ------------------------------------------------------------------------------------

    def unet_weight_shapes(self) -> dict[str, tuple[int, int]]:
        """diffusers parameter name -> shape of the UNet weights that CFLD trains: K, V of the 9 up cross-attentions."""
        return {f"{SITES[site].diffusers}.transformer_blocks.0.attn2.{which}.weight":
                (self.config.unet_widths[SITES[site].level], self.config.prompt_width)
                for site in reversed(BRANCH_SITES) for which in ("to_k", "to_v")}

    def trainable_unet_weights(self) -> tuple[str, ...]:
        """The 18 diffusers parameter names of `unet_weight_shapes`."""
        return tuple(self.unet_weight_shapes())
