"""Task `fpdm_fusion`: stage 1 of FPDM. One tower and the combiner learn to foresee the embedding of the target photo from
the source photo and the target's pose picture, by source-enhanced InfoNCE (FPDM's authors' code)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from pgpis_models.checkpoint import save_checkpoint
from pgpis_models.fpdm.config import FUSION_CONFIGS, FusionConfig
from pgpis_models.fpdm.fusion import FusionModel
from pgpis_models.parts.swin_tower import SwinTower
from pgpis_models.parts.vision_tower import VisionTower, published_tower_name, published_tower_shape
from pgpis_models.unet.weights import difference, shapes_of
from training.data.fpdm_pairs import fusion_tensors, set_points
from training.data.kinds import pairs_class
from training.engine.config import FPDMSettings, TrainConfig
from training.engine.picture import grid
from training.engine.shares import WHOLE, Share
from training.engine.task import configured, start_from

SHOWN = 18   # pairs of the sample grid


class FusionTask:
    """Trains the fusion model on source-target pairs.

    Raises ValueError when config, data and starting weights do not fit together, before the first step.
    """

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        self.config, self.device, settings = config, device, config.fpdm
        sizes = configured(FusionConfig, FUSION_CONFIGS, config.method)
        self.pictures = pairs_class(config.data.kind, "fpdm_pairs")(config)
        set_points(self.pictures, sizes.whole, config)
        self.loader_workers = self.pictures.loader_workers
        self.batch, self.unseen = (FusionBatches(pictures, sizes, settings)
                                   for pictures in (self.pictures, self.pictures.unseen()))
        method = FusionModel(sizes)
        if config.method.init:   # its tower is trained further than any other start
            start_from(method, config.method.init, "fpdm_fusion")
        elif settings.clip:
            load_published(method.tower, method.projection, settings.clip)
        self.model = FusionTraining(method, settings).to(device)

    def groups(self, lr: float) -> list[dict]:
        return [{"params": list(self.model.parameters()), "lr": lr}]

    def grid(self) -> np.ndarray:
        """Pairs never trained on: source, pose, target, and the picture whose embedding is nearest to the fusion."""
        pairs = self.pictures.held_out()
        tensors = fusion_tensors(pairs, self.model.method.config, self.config.fpdm.pose_canvas)
        method = self.model.method
        fusion = method(tensors["source"].to(self.device), tensors["pose"].to(self.device))
        targets = F.normalize(method.embed(tensors["target"].to(self.device)), dim=-1)
        found = tensors["target"][(fusion @ targets.T).argmax(1).cpu()]
        columns = [tensors["source"], tensors["pose"], tensors["target"], found]
        return grid([pixels[:SHOWN] / 2 for pixels in columns], ["source", "pose", "target", "found"], scale=1, per_row=3)

    def export(self, path: Path, images: int) -> None:
        demo = self.config.data.kind == "mannequins"
        save_checkpoint(path, self.model.method, {}, base="demo" if demo else "sd21", step=images,
                        data=self.config.data.name or self.config.data.kind,
                        licence=self.config.data.licence or self.pictures.licence, dtype=torch.float16 if demo else None)


@dataclass(frozen=True)
class FusionBatches:
    """Training batches of stage 1."""

    pictures: Any
    sizes: FusionConfig
    own: FPDMSettings

    def __call__(self, rng: np.random.Generator, size: int, share: Share = WHOLE) -> dict[str, Tensor]:
        """The share of `size` pairs, for one process and one pass. Raises ValueError when it would show one person."""
        if (own := size // share.count) // 2 < self.own.pairs_per_person:
            raise ValueError(f"a batch of {own} for a process and pass with {self.own.pairs_per_person} pairs of each "
                             "person leaves nobody to tell apart; expected at least two people: raise batch, or lower "
                             "accumulate or fpdm.pairs_per_person")
        pairs = share.of(self.pictures.draw(rng, size, self.own.pairs_per_person, share))
        tensors = fusion_tensors(pairs, self.sizes, self.own.pose_canvas)
        for name in ("source", "pose"):
            kept = torch.from_numpy(share.of(rng.random(size) >= self.own.input_drop))
            tensors[name] = tensors[name] * kept[:, None, None, None]
        return tensors


class FusionTraining(nn.Module):
    """The loss of stage 1, with its measures: top1 and top5 (shares of rows whose own candidate is the nearest, or among the
    five nearest, of all), rank (mean, 1 is best) and l1. As the authors log them, half of the rows are sources, which always
    find themselves: 0.5 is where top1 starts."""

    def __init__(self, method: FusionModel, settings: FPDMSettings) -> None:
        super().__init__()
        self.method, self.settings = method, settings

    def train(self, mode: bool = True) -> FusionTraining:
        """The tower stays in evaluation mode, as Lightning leaves it in the authors' training."""
        super().train(mode)
        self.method.tower.train(False)
        return self

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """source, pose and target (B, 3, H, W) -> (loss, its parts)."""
        method, settings = self.method, self.settings
        rows = len(batch["source"])  # one call for all three: the tower is shared
        source, pose, target = method.embed(torch.cat([batch["source"], batch["pose"], batch["target"]])).split(rows)
        fusion = method.combiner(source, pose)
        found = fusion_loss(target.float(), fusion.float(), source.float(), temperature=settings.temperature,
                            l1_weight=settings.l1_weight, source_enhanced=settings.source_enhanced,
                            gather=gather_rows if settings.gather else None)
        return found.loss, {"top1": found.top1, "top5": found.top5, "rank": found.mean_rank, "l1": found.l1.detach()}


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


# --- sizes and starting weights, of both stages -----------------------------------------------------------

def load_published(tower: VisionTower | SwinTower, projection: nn.Linear | None, path: str) -> None:
    """CLIP's or DINOv2's published weights (a safetensors file as transformers saves them) into a tower, and CLIP's
    projection. Other entries, such as CLIP's text half, are left. Raises ValueError for missing or unfitting ones, and for a
    Swin tower, which has no published weights."""
    if isinstance(tower, SwinTower):
        what = "fpdm.dinov2" if projection is None else "fpdm.clip"
        raise ValueError(f"{what} is {path}, but the tower is a Swin transformer; expected a vision transformer, as in the "
                         "preset full (a Swin tower starts from method.backbone)")
    state = load_file(path)
    prefix = next((p for p in ("vision_model.", "dinov2.") if any(name.startswith(p) for name in state)), "")
    wanted = {name: (prefix + published_tower_name(name, tower.kind), value.shape)
              for name, value in tower.state_dict().items()}
    shapes = {theirs: published_tower_shape(name, shape, tower.kind) for name, (theirs, shape) in wanted.items()}
    if projection is not None:
        shapes["visual_projection.weight"] = tuple(projection.weight.shape)
    wrong = difference(shapes, shapes_of(state), extras=True)
    if wrong:
        raise ValueError(f"{path} does not hold the tower of the method: {wrong}; expected the published weights of its "
                         f"kind ({tower.kind}) and size")
    tower.load_state_dict({name: state[theirs].float().reshape(shape) for name, (theirs, shape) in wanted.items()})
    if projection is not None:
        projection.load_state_dict({"weight": state["visual_projection.weight"].float()})
