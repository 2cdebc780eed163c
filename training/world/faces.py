"""MCLD's measures of faces (section 4, table 2) of drawn people, by the demo's own face encoder."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pgpis_models.mcld.inputs import encode_faces, face_crops
from pgpis_models.mcld.model import MCLD
from training.evaluation.faces import similarity
from training.world.bank import Bank
from training.world.focal import iuvs
from training.world.measures import SOURCE_VIEW, TARGET_VIEW, pictures

REAL = "real pictures"


def score_faces(made: dict[str, Tensor], bank: Bank, method: MCLD) -> dict[str, dict[str, float]]:
    """FS and dist of faces, the mean over the people whose face can be compared: one row per method, and REAL.

    made: name -> pictures (N, 3, H, W) in 0..1 of the bank's targets. method: a demo's MCLD, whose encoder reads heads where
    the drawn truth has them. fs_tgt, dist_tgt: against the target, of those that show both eyes in it; fs_ref, dist_ref:
    against the source, of those that show them in both. REAL has sources against targets. fs in -1..1, higher is nearer;
    dist from 0, in the embedding's units.
    """
    seen = {view: bank.eyes_visible[:, view].all(-1) for view in (SOURCE_VIEW, TARGET_VIEW)}
    target, source = (embeddings(pictures(bank, view), bank, view, method) for view in (TARGET_VIEW, SOURCE_VIEW))
    both = seen[SOURCE_VIEW] & seen[TARGET_VIEW]
    rows = {REAL: _row("tgt", source, target, both)}
    for name, picture in made.items():
        own = embeddings(picture, bank, TARGET_VIEW, method)
        rows[name] = _row("tgt", own, target, seen[TARGET_VIEW]) | _row("ref", own, source, both)
    return rows


@torch.no_grad()
def embeddings(picture: Tensor, bank: Bank, view: int, method: MCLD) -> np.ndarray:
    """Pictures (N, 3, H, W) in 0..1 of everybody in a view -> (N, face_width)."""
    people = np.arange(bank.people)
    where = iuvs(bank, people, np.full(bank.people, view))
    return encode_faces(method, *face_crops(picture * 2 - 1, where, method.config.face_pixels)).numpy()


def _row(suffix: str, a: np.ndarray, b: np.ndarray, which: np.ndarray) -> dict[str, float]:
    pairs = np.array([similarity(a[who], b[who]) for who in np.flatnonzero(which)]).reshape(-1, 2)
    fs, dist = pairs.mean(0) if len(pairs) else (float("nan"), float("nan"))
    return {f"fs_{suffix}": float(fs), f"dist_{suffix}": float(dist)}
