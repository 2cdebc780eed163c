"""FPDM: fusion embedding for pose-guided person image synthesis with a diffusion model (arXiv 2412.07333).

Stage 1 (`fpdm_fusion.py`) learns to predict, from a source photo and a target pose picture, CLIP's embedding of the target
photo. Stage 2 (`FPDM`) shows a Stable Diffusion 2.1 UNet three things: tokens of the source photo in the cross-attention,
the pose at the stem, and that fusion embedding added to the time embedding. Where paper and released code disagree this
follows the code, since published weights depend on it. `fpdm_pose.py` draws the poses and makes the tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from .convert import unet_shapes
from .fpdm_fusion import FUSION_CONFIGS, FusionConfig, FusionLoss, FusionModel, fusion_loss, gather_rows
from .fpdm_parts import ClassMLP, PoseGuider, SourceMLP, TowerSizes, VisionTower
from .fpdm_swin import SwinSizes, SwinTower
from .guidance import Guidance, Term, check_scales
from .injections import Injections, everywhere

__all__ = ["CONFIGS", "Encoded", "FPDM", "FPDMConfig", "FUSION_CONFIGS", "FusionConfig", "FusionLoss", "FusionModel",
           "Source", "fusion_loss", "gather_rows"]


@dataclass(frozen=True)
class FPDMConfig:
    """Sizes of stage 2; the defaults are the authors' (DINOv2-large, Stable Diffusion 2.1).

    fusion: stage 1, which sits inside. source: the source tower; its image is the size of its position grid.
    source_size: (height, width) of the source pixels that it reads. source_hidden: width inside the source MLP.
    image_size: (height, width) of target pictures and pose pictures. pose_canvas: (height, width) that poses are drawn
    on before they are resized to image_size; it sets the lines' relative width. pose_widths: of the pose guider.
    class_hidden: width inside the MLP from the fusion embedding to the time embedding.
    unet_widths, unet_layers, context, linear_projection: of the UNet; the time embedding is 4 * unet_widths[0] wide.
    unet_trained: parts of names of the UNet weights that belong to the method; all of them when empty.
    pose_drop, source_drop, fusion_drop: chance that a condition is null in training.
    source_swin: in place of `source` a Swin transformer that reads the photo into a few tokens (the demo's).
    source_dropout: of the source MLP.
    """

    fusion: FusionConfig = field(default_factory=FusionConfig)
    source: TowerSizes = field(default_factory=lambda: TowerSizes(image=(518, 518)))
    source_size: tuple[int, int] = (512, 512)
    source_hidden: int = 768
    image_size: tuple[int, int] = (512, 352)
    pose_canvas: tuple[int, int] = (550, 375)
    pose_widths: tuple[int, int, int, int] = (16, 32, 96, 256)
    class_hidden: int = 768
    unet_widths: tuple[int, int, int, int] = (320, 640, 1280, 1280)
    unet_layers: int = 2
    context: int = 1024
    linear_projection: bool = True
    unet_trained: tuple[str, ...] = ()
    pose_drop: float = 0.2
    source_drop: float = 0.2
    fusion_drop: float = 0.2
    source_swin: SwinSizes | None = None
    source_dropout: float = 0.2

    def __post_init__(self) -> None:
        for name in ("source_size", "image_size", "pose_canvas", "pose_widths", "unet_widths", "unet_trained"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # lists come from JSON and YAML
        for name, length in (("source_size", 2), ("image_size", 2), ("pose_canvas", 2), ("pose_widths", 4),
                             ("unet_widths", 4)):
            if len(getattr(self, name)) != length:
                raise ValueError(f"{name} is {getattr(self, name)}; expected {length} values")
        if any(side % 8 for side in self.image_size):
            raise ValueError(f"image_size is {self.image_size}; expected multiples of 8, the pixels of a latent pixel")

    @property
    def latent_size(self) -> tuple[int, int]:
        """(height, width) of the latents and of the pose guider's map."""
        return self.image_size[0] // 8, self.image_size[1] // 8

    @property
    def photo_size(self) -> tuple[int, int]:
        """(height, width) that source photos are squashed to before anything else; (512, 512) in the authors' code."""
        return self.source_size

    @property
    def source_width(self) -> int:
        """Channels of a token of the source tower."""
        return self.source_swin.token_width if self.source_swin else self.source.width


CONFIGS: Mapping[str, FPDMConfig] = {
    "full": FPDMConfig(),
    # The mannequin world at 128x96: both towers are small, poses are drawn at twice that size. The source tower has the
    # sizes of the demo's CFLD (backbone and decoder), so that it can start from that.
    "demo": FPDMConfig(FUSION_CONFIGS["demo"], source_size=(128, 96), source_hidden=256, image_size=(128, 96),
                       pose_canvas=(256, 192), pose_widths=(16, 32, 48, 64), class_hidden=128,
                       unet_widths=(64, 64, 64, 64), context=64, linear_projection=False, source_dropout=0.0,
                       pose_drop=0.1, source_drop=0.1, fusion_drop=0.1, source_swin=SwinSizes(
                           (128, 96), window=(8, 6), width=32, depths=(2, 2, 4, 2), heads=(1, 2, 4, 8), tokens=16,
                           token_width=64, decoder_depth=4, decoder_heads=2)),
    "tiny": FPDMConfig(FUSION_CONFIGS["tiny"], TowerSizes((70, 70), 14, 32, 2, 2, 48), source_size=(64, 64),
                       source_hidden=20, image_size=(64, 48), pose_widths=(4, 8, 8, 12), class_hidden=16,
                       unet_widths=(32, 32, 32, 32), context=24),
}


# --- stage 2 ------------------------------------------------------------------------------------------------

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
        self.pose_guider = PoseGuider(config.pose_widths, config.unet_widths[0])
        self.class_mlp = ClassMLP(config.fusion.embed, config.class_hidden, 4 * config.unet_widths[0])

    def train(self, mode: bool = True) -> FPDM:
        """As for any module, but the class MLP keeps its dropout off: in the authors' training it sits in the UNet, which
        Lightning leaves in evaluation mode. Their frozen combiner did train with its dropouts on, as it does here."""
        super().train(mode)
        self.class_mlp.train(False)
        return self

    # --- encoding -------------------------------------------------------------------------------------------

    def encode_source(self, source: Tensor, clip_source: Tensor) -> Source:
        """One photo in two forms, `fpdm_pose.source_pixels` (B, 3, H, W) and `fpdm_pose.clip_pixels` (B, 3, h, w)."""
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

    def encode(self, source: Source, pose: Tensor, clip_pose: Tensor) -> Encoded:
        """Joins a source with poses, `fpdm_pose.unit_tensor` and `fpdm_pose.clip_pixels` of the same pose pictures. One
        source with N poses, N with one, or N with N. Raises ValueError for other numbers."""
        sources, poses = len(source.tokens), len(pose)
        if len(clip_pose) != poses:
            raise ValueError(f"{poses} pose pictures for the stem and {len(clip_pose)} for the fusion model; expected the "
                             "same poses")
        if sources != poses and 1 not in (sources, poses):
            raise ValueError(f"{sources} sources and {poses} poses; expected equal numbers, or one of either")
        embedding, pose_embedding = source.embedding, self.fusion.embed(clip_pose)
        rows = max(sources, poses)  # the combiner concatenates, so one row has to become many
        fusion = self.fusion.combiner(embedding.expand(rows, -1), pose_embedding.expand(rows, -1))
        return Encoded(source.tokens, self.encode_pose(pose), fusion, self.class_mlp(fusion),
                       self.class_mlp(torch.zeros_like(fusion[:1])))

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
                            per_sample: bool = False, told: bool = False) -> Injections:
        """Injections of B training items with conditions dropped.

        tokens: (B, N, C) of the source tower, before the source MLP; with told the context itself, which passes no MLP.
        pose: (B, 3, H, W) in [0, 1]. fusion: (B, E). drop_u: uniform draws for pose, source and fusion, (3, 1) for one
        decision per batch as in the code, (3, B) for one per sample; drawn here when None, per_sample choosing which.
        """
        batch = len(tokens)
        if not batch == len(pose) == len(fusion):
            raise ValueError(f"{batch} sources, {len(pose)} poses and {len(fusion)} fusion embeddings; expected equal "
                             "numbers")
        if drop_u is None:
            drop_u = torch.rand(3, batch if per_sample else 1, device=tokens.device)
        if tuple(drop_u.shape) not in ((3, 1), (3, batch)):
            raise ValueError(f"drop_u has shape {tuple(drop_u.shape)}; expected (3, 1) or (3, {batch}): draws for pose, "
                             "source and fusion")
        rates = drop_u.new_tensor([[self.config.pose_drop], [self.config.source_drop], [self.config.fusion_drop]])
        keep = drop_u >= rates  # (3, 1 or B)

        def kept(value: Tensor, which: int) -> Tensor:
            return value * keep[which].to(value.dtype).reshape(-1, *(1,) * (value.ndim - 1))
        context = tokens if told else self.source_mlp(tokens)
        return self.injections(kept(context, 1), kept(self.encode_pose(pose), 0), kept(fusion, 2))

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
