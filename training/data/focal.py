"""Source-target pairs for MCLD: photo, texture map and face of the source, DensePose of the target, from files that
training/prepare_mcld.py makes.
"""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pgpis_models.mcld.config import MCLDConfig
from pgpis_models.mcld.inputs import as_input, squashed_textures
from pgpis_models.surface.densepose import IUV, pose_picture
from pgpis_models.surface.face import load_embedding
from training.data.deepfashion import PICTURE_SUFFIXES, kept_pairs, open_picture, picture_tensor
from training.engine.config import TrainConfig
from training.engine.shares import WHOLE, Share
from training.engine.unreadable import readable

HELD_OUT_GRID = 12   # pairs of the sample grids
LISTED = 10
NOBODY = "{}_nobody.txt"   # photos of a split without a person, as training/prepare_mcld.py writes them


def usable_pairs(root: Path, split: str) -> list[tuple[str, str]]:
    """`kept_pairs` without those of photos in which training/prepare_mcld.py found nobody; says how many."""
    pairs, path = kept_pairs(root, split), root / NOBODY.format(split)
    nobody = set(path.read_text(encoding="utf-8").splitlines()) if path.is_file() else set()
    kept = [pair for pair in pairs if not nobody & set(pair)]
    if len(kept) < len(pairs):
        print(f"{split}: {len(pairs) - len(kept)} of {len(pairs)} pairs left out, whose photos show nobody ({path.name})")
    return kept


class Pairs:
    """Photos in the layout of training/data/deepfashion.py with the conditions beside them, by the stem of the photo:
    {split}_densepose/*.png (as OpenCV writes part, U, V), {split}_texture/*.png (SMPL layout), {split}_face/*.npy (missing
    where no face was found).

    Pairs are drawn with replacement, so that each batch is a function of its own number. Raises FileNotFoundError naming
    up to ten missing files, with the count.
    """

    licence = "trained on photos, whose terms apply (DeepFashion: non-commercial research only)"

    def __init__(self, config: TrainConfig, method: MCLDConfig, device: torch.device | None = None) -> None:
        if config.data.size != method.image_size:
            raise ValueError(f"data.size is {config.data.size}, the method makes pictures of {method.image_size} (height, "
                             "width); set data.size to that, or method.model.image_size")
        self.root, self.method = Path(config.data.root), method
        self.loader_workers, self.split = config.data.workers, "train"
        self.pairs = {split: usable_pairs(self.root, split) for split in ("train", "test")}
        for split, pairs in self.pairs.items():
            if not pairs:
                raise ValueError(f"{self.root} has no {split} pairs; expected at least one")
            self._check(split, pairs)

    def _check(self, split: str, pairs: list[tuple[str, str]]) -> None:
        there = {kind: {path.name for path in (self.root / f"{split}_{kind}").glob("*")}
                 for kind in ("highres", "densepose", "texture")}
        wanted = {("highres", name) for pair in pairs for name in pair}
        wanted |= {("densepose", f"{Path(target).stem}.png") for _, target in pairs}
        wanted |= {("texture", f"{Path(source).stem}.png") for source, _ in pairs}
        missing = sorted(f"{split}_{kind}/{name}" for kind, name in wanted if name not in there[kind])
        if missing:
            raise FileNotFoundError(f"{len(missing)} of {len(wanted)} files of {self.root} are missing: "
                                    f"{'; '.join(missing[:LISTED])}. Make them: python training/prepare_mcld.py --root "
                                    f"{self.root} (photos are {', '.join(PICTURE_SUFFIXES)}), or drop these pairs")

    def item(self, split: str, index: int) -> dict[str, Tensor]:
        """One pair, without the batch axis."""
        source, target = self.pairs[split][index]
        size, folder = self.method.image_size, self.root
        stems = [Path(name).stem for name in (source, target)]
        iuv = IUV.from_picture(np.array(open_picture(folder / f"{split}_densepose" / f"{stems[1]}.png")), "v,u,part")
        texture = np.array(open_picture(folder / f"{split}_texture" / f"{stems[0]}.png"))
        face = folder / f"{split}_face" / f"{stems[0]}.npy"
        vector = load_embedding(face) if face.is_file() else np.zeros(self.method.face_width, np.float32)
        return {"source": picture_tensor(open_picture(folder / f"{split}_highres" / source), size) * 2 - 1,
                "target_image": picture_tensor(open_picture(folder / f"{split}_highres" / target), size) * 2 - 1,
                "texture": as_input(squashed_textures(self.method, texture[None]))[0],
                "pose": pose_picture(iuv, size), "face": torch.from_numpy(vector)}

    def batch(self, rng: np.random.Generator, size: int, share: Share = WHOLE) -> dict[str, Tensor]:
        """The share of `size` pairs: source, target_image (B, 3, H, W) in -1..1, texture (B, 3, h, w) in -1..1, pose
        (B, 3, H, W) in 0..1, face (B, F)."""
        count = len(self.pairs[self.split])
        indices = share.of(rng.integers(count, size=size))
        items = [readable(partial(self.item, self.split), int(index), count) for index in indices]
        return {name: torch.stack([item[name] for item in items]) for name in items[0]}

    def unseen(self) -> Pairs:
        """The same of the test split."""
        other = copy.copy(self)
        other.split = "test"
        return other

    def held_out(self) -> dict[str, Tensor]:
        """As `batch`, pairs spread over the test split; and target, which is target_image."""
        pairs = len(self.pairs["test"])
        items = [readable(partial(self.item, "test"), int(index), pairs)
                 for index in np.linspace(0, pairs - 1, min(HELD_OUT_GRID // 2, pairs))]
        result = {name: torch.stack([item[name] for item in items]) for name in items[0]}
        return result | {"target": result["target_image"]}
