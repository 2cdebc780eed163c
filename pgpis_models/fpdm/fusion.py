"""Stage 1 of FPDM: the fusion model, which foresees the embedding of the target photo, and its contrastive loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..parts.pixels import CLIP_MEAN, CLIP_STD
from ..parts.swin_tower import SwinTower
from ..parts.vision_tower import VisionTower
from .config import FUSION_CONFIGS, FusionConfig
from .parts import Combiner


class FusionModel(nn.Module):
    """Stage 1: one CLIP vision tower for photos and pose pictures alike, and the combiner."""

    def __init__(self, config: FusionConfig = FUSION_CONFIGS["full"]) -> None:
        super().__init__()
        self.config = config
        self.tower = SwinTower(config.swin, CLIP_MEAN, CLIP_STD) if config.swin else VisionTower(config.clip, "clip")
        width = config.swin.pooled_width if config.swin else config.clip.width
        self.projection = nn.Linear(width, config.embed, bias=False)
        self.combiner = Combiner(config.embed, config.projection, config.hidden, config.dropout)

    def embed(self, pixels: Tensor) -> Tensor:
        """Photos or pose pictures (B, 3, H, W) of config.image, with CLIP's mean and deviation -> (B, E), not
        normalised."""
        return self.projection(self.tower.pooled(pixels))

    def forward(self, source: Tensor, pose: Tensor) -> Tensor:
        """Pixels of source photo and pose picture, as in `embed` -> the fusion embedding (B, E), of length 1."""
        return self.combiner(self.embed(source), self.embed(pose))

    def unet_weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """None: stage 1 has no UNet."""
        return {}


@dataclass(frozen=True)
class FusionLoss:
    """loss = contrastive + l1_weight * l1, with a gradient; top1, top5: shares of targets whose fusion is the nearest,
    or among the five nearest, of all candidates; mean_rank: 1 is best. Candidates that are equally near to a target share
    their places, and an embedding that is not a number has the last. Scalars; the last three without a gradient."""

    loss: Tensor
    contrastive: Tensor
    l1: Tensor
    top1: Tensor
    top5: Tensor
    mean_rank: Tensor


def gather_rows(rows: Tensor) -> tuple[Tensor, int]:
    """rows (B, E) of this process -> (those of all processes, index of the first of ours). Gradients flow back to the
    process that each row came from. One process alone gives its rows back. All must have the same B."""
    import torch.distributed as distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return rows, 0
    from torch.distributed.nn.functional import all_gather
    return torch.cat(all_gather(rows)), distributed.get_rank() * len(rows)


def fusion_loss(target: Tensor, fusion: Tensor, source: Tensor, *, temperature: float = 0.07, l1_weight: float = 1e-4,
                source_enhanced: bool = True,
                gather: Callable[[Tensor], tuple[Tensor, int]] | None = None) -> FusionLoss:
    """The contrastive loss of stage 1, source-enhanced InfoNCE (FPDM's authors' code).

    target, fusion, source: (B, E), embeddings of the target photo, fusion embedding, embedding of the source photo.
    source_enhanced: the sources join both sides, so that targets must tell fusions from sources, and sources from the
    fusions of others. Rows are targets, columns fusions: one direction only. l1 is the mean distance between source and
    fusion, unnormalised against length 1, as in the code. gather: `gather_rows` takes the candidates of all processes,
    which the authors do not; with averaged gradients the result is the loss of the joint batch. Computed in float32 or
    better, under autocast too. Raises ValueError for embeddings of different shapes.
    """
    if not target.shape == fusion.shape == source.shape or target.ndim != 2:
        raise ValueError(f"target, fusion and source embeddings are {tuple(target.shape)}, {tuple(fusion.shape)} and "
                         f"{tuple(source.shape)}; expected one shape (B, E)")
    # A cosine in half precision is off by up to 0.004, a logit by 15 times that at the usual temperature.
    with torch.autocast(target.device.type, enabled=False):
        full = torch.promote_types(target.dtype, torch.float32)
        return _fusion_loss(target.to(full), fusion.to(full), source.to(full), temperature, l1_weight, source_enhanced,
                            gather)


def _fusion_loss(target: Tensor, fusion: Tensor, source: Tensor, temperature: float, l1_weight: float,
                 source_enhanced: bool, gather: Callable[[Tensor], tuple[Tensor, int]] | None) -> FusionLoss:
    own = torch.arange(len(target), device=target.device)
    candidates, first = (fusion, 0) if gather is None else gather(fusion)
    rows, labels, difference = target, own + first, source - fusion
    if source_enhanced:
        sources = source if gather is None else gather(source)[0]
        rows = torch.cat([target, source])
        labels = torch.cat([labels, labels + len(candidates)])
        candidates = torch.cat([candidates, sources])
        difference = torch.cat([difference, torch.zeros_like(difference)])  # second half: sources against themselves
    similarity = F.normalize(rows, dim=-1) @ F.normalize(candidates, dim=-1).T   # cosines, without all pairs of vectors
    contrastive, l1 = F.cross_entropy(similarity / temperature, labels), difference.abs().mean()
    nearer, ties = places(similarity.detach(), labels)
    ties[len(target):] = 0   # sources find themselves, as the authors count: one photo may be in a batch twice
    return FusionLoss(contrastive + l1_weight * l1, contrastive, l1, hits(nearer, ties, 1), hits(nearer, ties, 5),
                      (1 + nearer + ties / 2).mean())


def places(similarity: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """similarity (R, N), labels (R,) -> (candidates that are nearer than a row's own, others that are just as near), each
    (R,) float32. What is not a number counts as nearer, so that a broken embedding has the last place, not the first."""
    own = similarity.gather(1, labels[:, None])
    level = (similarity == own).sum(1).clamp(min=1)   # its own among them
    return (similarity.shape[1] - (similarity < own).sum(1) - level).float(), (level - 1).float()


def hits(nearer: Tensor, ties: Tensor, first: int) -> Tensor:
    """Mean chance that a row's own candidate is among the `first` ones, candidates equally near in random order. Counted as
    hits, ties would make collapsed embeddings perfect."""
    return ((first - nearer) / (1 + ties)).clamp(0, 1).mean()
