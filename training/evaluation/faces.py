"""MCLD's measures of faces (section 4, table 2): FS, the cosine similarity, and dist, the Euclidean distance, of embeddings.

Raw embeddings of the largest faces, on the pictures as they are measured, as the authors' code has it; that code compares
with the target only, `ref` is the paper's.
"""

from __future__ import annotations

import warnings
from collections import Counter
from typing import Any

import numpy as np
from torch import Tensor

from pgpis_models.surface.face import find_face

ENCODER, DETECTION = "buffalo_s", (512, 352)   # MCLD's evaluation; its conditions are antelopev2's


def similarity(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """FS and dist of two embeddings (512,), in float64."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b))), float(np.linalg.norm(a - b))


class Faces:
    """Measures pairs one after another and counts what shows no face.

    app: of `pgpis_models.surface.face.load_app`. `without`: kind of picture -> how many show none.
    """

    def __init__(self, app: Any) -> None:
        self.app, self.without = app, Counter({"generated": 0, "target": 0})

    def embedding(self, picture: Tensor, kind: str) -> np.ndarray | None:
        """Of the largest face in a picture (3, H, W) in 0..1, or None, which is counted."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")   # a picture without a face is counted, not warned of
            face = find_face(self.app, (picture.permute(1, 2, 0).cpu().numpy() * 255).round().astype(np.uint8))
        self.without[kind] += face is None
        return None if face is None else face.embedding

    def __call__(self, made: Tensor, target: Tensor, source: Tensor | None = None) -> dict[str, float]:
        """fs_tgt, dist_tgt of the generated picture against the target; with a source fs_ref, dist_ref against it and
        ref_fs_tgt, ref_dist_tgt of it against the target, the paper's row of real pictures. What lacks a face in either
        picture is left out."""
        kinds = {"generated": made, "target": target} | ({} if source is None else {"source": source})
        found = {kind: self.embedding(picture, kind) for kind, picture in kinds.items()}
        row = {}
        for suffix, a, b in (("tgt", "generated", "target"), ("ref", "generated", "source"), ("real", "source", "target")):
            if found.get(a) is not None and found.get(b) is not None:
                names = ("ref_fs_tgt", "ref_dist_tgt") if suffix == "real" else (f"fs_{suffix}", f"dist_{suffix}")
                row |= dict(zip(names, similarity(found[a], found[b]), strict=True))
        return row
