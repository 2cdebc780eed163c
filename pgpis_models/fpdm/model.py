"""FPDM: fusion embedding for pose-guided person image synthesis with a diffusion model (arXiv 2412.07333).

Stage 1 (`fusion.py`) learns to predict, from a source photo and a target pose picture, CLIP's embedding of the target
photo. Stage 2 (`FPDM`) shows a Stable Diffusion 2.1 UNet three things: tokens of the source photo in the cross-attention,
the pose at the stem, and that fusion embedding added to the time embedding. Where paper and released code disagree this
follows the code, since published weights depend on it. `drawing.py` draws the poses, `pixels.py` makes the tensors.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..parts.joining import mean_direction, one_row
from ..parts.mixing import Mixing
from ..parts.pose_guider import PoseGuider
from ..parts.swin_tower import SwinTower
from ..parts.vision_tower import VisionTower
from ..unet.guidance import Guidance, Term, check_scales
from ..unet.injections import Injections, everywhere
from ..unet.shapes import unet_shapes
from .config import CONFIGS, FPDMConfig
from .fusion import FusionModel
from .parts import ClassMLP, SourceMLP


@dataclass(frozen=True)
class Source:
    """What FPDM knows of a source person, whatever the pose: tokens (B, N, C) for the cross-attention, and the embedding
    (B, E) that each pose is fused with. For a sequence compute it once."""

    tokens: Tensor
    embedding: Tensor


@dataclass(frozen=True)
class Encoded:
    """Conditions of one generation. tokens: (B, N, C). pose_map: (B, D, h, w). fusion: (B, E), of length 1. added: (B, T),
    what the class MLP adds to the time embedding for it; added_null: (1, T), for none. Sources and poses may be one for
    many."""

    tokens: Tensor
    pose_map: Tensor
    fusion: Tensor
    added: Tensor
    added_null: Tensor


class FPDM(nn.Module):
    """The method: source person and pose to injections."""

    def __init__(self, config: FPDMConfig = CONFIGS["full"]) -> None:
        super().__init__()
        self.config = config
        self.fusion = FusionModel(config.fusion)
        self.source_tower = SwinTower(config.source_swin) if config.source_swin else VisionTower(config.source, "dinov2")
        self.source_mlp = SourceMLP(config.source_width, config.source_hidden, config.context, config.source_dropout)
        self.pose_guider = PoseGuider(config.unet_widths[0], config.pose_widths)
        self.class_mlp = ClassMLP(config.fusion.embed, config.class_hidden, 4 * config.unet_widths[0])

    def train(self, mode: bool = True) -> FPDM:
        """As for any module, but the class MLP keeps its dropout off: in the authors' training it sits in the UNet, which
        Lightning leaves in evaluation mode. Their frozen combiner did train with its dropouts on, as it does here."""
        super().train(mode)
        self.class_mlp.train(False)
        return self

    # --- encoding -------------------------------------------------------------------------------------------

    def encode_source(self, source: Tensor, clip_source: Tensor) -> Source:
        """Photos in two forms, `pixels.source_pixels` (B, 3, H, W) and `pixels.clip_pixels` (B, 3, h, w)."""
        if len(source) != len(clip_source):
            raise ValueError(f"{len(source)} photos for the source tower and {len(clip_source)} for the fusion model; "
                             "expected the same photos")
        return Source(self.source_mlp(self.source_tower(source)), self.fusion.embed(clip_source))

    def encode_pose(self, pose: Tensor) -> Tensor:
        """pose (B, 3, H, W) in [0, 1], of config.image_size -> the map (B, D, H / 8, W / 8) for the stem."""
        expected = (3, *self.config.image_size)
        if pose.ndim != 4 or tuple(pose.shape[1:]) != expected:
            raise ValueError(f"pose pictures have shape {tuple(pose.shape)}; expected (B, 3, {expected[1]}, "
                             f"{expected[2]}): draw them on the canvas {self.config.pose_canvas} and resize them")
        return self.pose_guider(pose)

    def encode(self, source: Source, pose: Tensor, clip_pose: Tensor, one_person: Tensor | None = None) -> Encoded:
        """Joins a source with poses: pose (B, 3, H, W), `pixels.unit_tensor`, and clip_pose (B, 3, h, w),
        `pixels.clip_pixels`, of the same pose pictures. One source with N poses, N with one, or N with N. Raises
        ValueError for other numbers.

        one_person: weights (B, N), or (1, N) for all poses, that sum to 1 in each row: the sources are N photos of one
        person, of whom B poses are made. Attention over the tokens of all of them, and the mean direction of their fusion
        embeddings; ours, not the paper's.
        """
        sources, poses = len(source.tokens) if one_person is None else 1, len(pose)
        if len(clip_pose) != poses:
            raise ValueError(f"{poses} pose pictures for the stem and {len(clip_pose)} for the fusion model; expected the "
                             "same poses")
        if sources != poses and 1 not in (sources, poses):
            raise ValueError(f"{sources} sources and {poses} poses; expected equal numbers, or one of either")
        embedding, pose_embedding, tokens = source.embedding, self.fusion.embed(clip_pose), source.tokens
        if one_person is None:
            rows = max(sources, poses)  # the combiner concatenates, so one row has to become many
            fusion = self.fusion.combiner(embedding.expand(rows, -1), pose_embedding.expand(rows, -1))
        else:
            pairs = [self.fusion.combiner(one.expand(poses, -1), pose_embedding) for one in embedding]
            fusion, tokens = mean_direction(torch.stack(pairs, 1), one_person), one_row(tokens)
        return Encoded(tokens, self.encode_pose(pose), fusion, self.class_mlp(fusion),
                       self.class_mlp(torch.zeros_like(fusion[:1])))

    def blended(self, first: Encoded, second: Encoded, weights: Tensor) -> Encoded:
        """Two people: source tokens linearly, fusion embeddings, of length 1, spherically; ours, not the paper's.

        The pose map stays the first one's; a fusion embedding foresees person and pose in one, so that both should be of one
        pose. weights: (N,); the row of each pair stands together. See `parts.mixing.Mixing` for numbers and errors.
        """
        mix = Mixing.of(weights, max([first.tokens, first.fusion], key=len), max([second.tokens, second.fusion], key=len),
                        len(first.pose_map))
        fusion = mix.spherical(first.fusion, second.fusion)
        weight = next(self.class_mlp.parameters())   # conditions wait on the CPU while the method may be elsewhere
        return Encoded(mix.linear(first.tokens, second.tokens), mix.kept(first.pose_map), fusion,
                       self.class_mlp(fusion.to(weight)).to(first.added), first.added_null)

    # --- injections -----------------------------------------------------------------------------------------

    def injections(self, tokens: Tensor, pose_map: Tensor, fusion: Tensor) -> Injections:
        """Conditions (as in `Encoded`) to injections. Null is zeros for tokens and pose map; a null fusion embedding is
        zeros before the class MLP, which still adds its own constant."""
        return Injections(context=everywhere(tokens), stem=pose_map, time_embedding=self.class_mlp(fusion))

    guidance_modes = ("uc_source_fusion",)

    def guidance(self, encoded: Encoded, mode: str = "uc_source_fusion", **scales: float) -> Guidance:
        """Null; source+pose; all. Scales, 2.0 unless given: source weighs source and pose, fusion the fusion embedding on
        top of them. No weight is used here, only what `encode` made, wherever that lies: in the host conditions wait on the
        CPU while the method may be on the GPU.

        Equal weights, the authors' only case, telescope: `Guidance.needed` runs two terms, and with weights of 1 the
        last one alone. (For weights below 1 the authors also run that one alone; here they interpolate.) Raises
        ValueError for another mode, and for a scale that the mode does not use.
        """
        check_scales(mode, self.guidance_scales(mode), scales)

        def shown(tokens: Tensor, pose: Tensor, added: Tensor) -> Injections:
            return Injections(context=everywhere(tokens), stem=pose, time_embedding=added)
        tokens, pose, null = encoded.tokens, encoded.pose_map, encoded.added_null
        return Guidance((Term("null", shown(torch.zeros_like(tokens[:1]), torch.zeros_like(pose[:1]), null)),
                         Term("source+pose", shown(tokens, pose, null), scales.get("source", 2.0)),
                         Term("all", shown(tokens, pose, encoded.added), scales.get("fusion", 2.0))))

    @classmethod
    def guidance_scales(cls, mode: str) -> list[str]:
        """Names of the scales that a mode of `guidance` uses. Raises ValueError for an unknown mode."""
        if mode not in cls.guidance_modes:
            raise ValueError(f"unknown guidance mode {mode!r}; expected {cls.guidance_modes[0]!r}, FPDM's only one")
        return ["source", "fusion"]

    def training_injections(self, tokens: Tensor, pose: Tensor, fusion: Tensor, drop_u: Tensor | None = None,
                            per_sample: bool = False) -> Injections:
        """Injections of B training items with conditions dropped.

        tokens: (B, N, C) of the source tower, before the source MLP. pose: (B, 3, H, W) in [0, 1]. fusion: (B, E).
        drop_u: uniform draws for pose, source and fusion, (3, 1) for one decision per batch as in the code, (3, B) for one
        per sample; drawn here when None, per_sample choosing which.
        """
        batch = len(tokens)
        if not batch == len(pose) == len(fusion):
            raise ValueError(f"{batch} sources, {len(pose)} poses and {len(fusion)} fusion embeddings; expected equal "
                             "numbers")
        if drop_u is None:
            drop_u = torch.rand(batch, 3, device=tokens.device).T if per_sample else torch.stack(
                [torch.rand((), device=tokens.device) for _ in range(3)])[:, None]
        if tuple(drop_u.shape) not in ((3, 1), (3, batch)):
            raise ValueError(f"drop_u has shape {tuple(drop_u.shape)}; expected (3, 1) or (3, {batch}): draws for pose, "
                             "source and fusion")
        rates = (self.config.pose_drop, self.config.source_drop, self.config.fusion_drop)
        keep = [draws >= rate for draws, rate in zip(drop_u, rates, strict=True)]  # three of (1 or B,)

        def kept(value: Tensor, which: int) -> Tensor:
            return value * keep[which].to(value.dtype).reshape(-1, *(1,) * (value.ndim - 1))
        return self.injections(kept(self.source_mlp(tokens), 1), kept(self.encode_pose(pose), 0), kept(fusion, 2))

    def forward(self, source: Tensor, clip_source: Tensor, pose: Tensor, clip_pose: Tensor,
                drop_u: Tensor | None = None) -> Injections:
        """`training_injections` from pixels: distributed wrappers only see calls of forward. Arguments as in
        `encode_source` and `encode`; freeze the towers and the fusion model by requires_grad."""
        return self.training_injections(self.source_tower(source), pose, self.fusion(clip_source, clip_pose), drop_u)

    # --- the UNet's side ------------------------------------------------------------------------------------

    def unet_weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """diffusers parameter name -> shape of the UNet weights that FPDM trains; its class embedding is `class_mlp`."""
        config = self.config
        shapes = unet_shapes(config.unet_widths, config.context, config.unet_layers)
        if config.linear_projection:  # Stable Diffusion 2.x: matrices where 1.x has 1 x 1 convolutions
            shapes = {name: shape[:2] if name.endswith(("proj_in.weight", "proj_out.weight")) else shape
                      for name, shape in shapes.items()}
        parts = config.unet_trained
        return {name: shape for name, shape in shapes.items() if not parts or any(part in name for part in parts)}

    def trainable_unet_weights(self) -> tuple[str, ...]:
        """The diffusers parameter names of `unet_weight_shapes`."""
        return tuple(self.unet_weight_shapes())
