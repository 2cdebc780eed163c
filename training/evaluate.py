"""Measures generated pictures as the pose-transfer papers do:
`python training/evaluate.py --generated DIR --targets DIR --size 256x176 --json F`.

Pictures are paired by file name. SSIM and PSNR need nothing; LPIPS needs the package `lpips` with its weights; the
papers' FID needs torchvision's Inception weights in torch's cache and a folder of real training pictures (--real); face
similarity needs insightface and its models (--faces). What cannot be had is left out and named, never replaced.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from pgpis_models.metrics import (  # noqa: E402
    frechet_distance,
    inception_input,
    papers_resize_quantise,
    psnr,
    ssim_gauss,
    ssim_win51,
)
from pgpis_models.pictures import ENDINGS, open_rgb  # noqa: E402
from pgpis_models.surface.face import find_face, load_app  # noqa: E402

PICTURES = ENDINGS


def pairs(generated: Path, targets: Path) -> list[tuple[Path, Path]]:
    """Files of the same stem in both folders. Raises ValueError listing those without a partner or with two."""
    made, wanted = by_stem(generated), by_stem(targets)
    lonely = sorted(set(made) ^ set(wanted))
    if lonely or not made:
        raise ValueError(f"{len(made)} pictures in {generated}, {len(wanted)} in {targets}, {len(lonely)} without a partner "
                         f"of the same name {lonely[:10]}; expected the same names in both")
    return [(made[stem], wanted[stem]) for stem in made]


def by_stem(folder: Path) -> dict[str, Path]:
    """The pictures of a folder. Raises ValueError when it is none, or two pictures differ in their suffix only."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder; expected one with pictures ({', '.join(PICTURES)})")
    files: dict[str, Path] = {}
    for path in sorted(p for p in folder.iterdir() if p.suffix.lower() in PICTURES):
        if path.stem in files:
            raise ValueError(f"{folder} has {files[path.stem].name} and {path.name}; expected one picture of each name")
        files[path.stem] = path
    return files


def load(path: Path, size: tuple[int, int], quantise: bool) -> Tensor:
    """A picture (1, 3, H, W) in 0..1, as the papers measure it: tensor resize and truncation for generated pictures,
    Pillow's bicubic for real ones."""
    picture = open_rgb(path)
    if quantise:
        return papers_resize_quantise(torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None] / 255.0, size)
    picture = picture.resize((size[1], size[0]), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None] / 255.0


def inception() -> torch.nn.Module | None:
    """torchvision's Inception-v3 up to pool3, if its ImageNet weights lie in torch's cache; nothing is downloaded."""
    try:
        from torchvision.models import Inception_V3_Weights, inception_v3
    except ImportError:
        return None
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(Inception_V3_Weights.IMAGENET1K_V1.url).name
    if not file.is_file():
        return None
    model = inception_v3(init_weights=False, transform_input=False)
    model.load_state_dict(torch.load(file, weights_only=True))
    model.fc = torch.nn.Identity()
    return model.train(False)


def lpips_network() -> torch.nn.Module | None:
    """LPIPS with AlexNet v0.1, if the package is installed and torchvision's AlexNet weights are cached."""
    try:
        import lpips
        from torchvision.models import AlexNet_Weights
    except ImportError:
        return None
    if not (Path(torch.hub.get_dir()) / "checkpoints" / Path(AlexNet_Weights.IMAGENET1K_V1.url).name).is_file():
        return None
    return lpips.LPIPS(net="alex", version="0.1", verbose=False).train(False)


def face_similarity(made: Tensor, target: Tensor, app: Any) -> tuple[float, float] | None:
    """MCLD's measure of a face (1, 3, H, W) in 0..1 against another: cosine and Euclidean distance of the raw embeddings
    of the largest faces, or None where either picture shows none. app: of `pgpis_models.surface.face.load_app`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a picture without a face is counted, not warned of
        faces = [find_face(app, (p[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)) for p in (made, target)]
    if None in faces:
        return None
    a, b = (face.embedding.astype(np.float64) for face in faces)
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b))), float(np.linalg.norm(a - b))


@torch.no_grad()
def measure(files: list[tuple[Path, Path]], size: tuple[int, int], real: Path | None = None,
            faces: Any = None) -> dict[str, object]:
    """All measures that can be had -> name: mean over the pairs; `left_out` says what is missing and why.

    faces: recogniser for `face_similarity`; pairs without a face in both pictures do not count there, `face_pairs` do.
    """
    perceptual, network, left_out = lpips_network(), inception() if real else None, []
    if perceptual is None:
        left_out.append("lpips: the package lpips or AlexNet's weights are not here")
    if network is None:
        left_out.append("fid_papers: needs --real and torchvision's Inception weights in torch's cache")
    if faces is None:
        left_out.append("face_cosine, face_distance: they need --faces and the package insightface")
    rows: dict[str, list[float]] = {}
    features = []
    for made_file, target_file in tqdm(files, unit="pair"):
        made, target = load(made_file, size, True), load(target_file, size, False)
        row = {"psnr": psnr(made, target), "ssim": ssim_win51(made, target),
               "ssim_256": ssim_gauss(made, target, data_range="prediction")}
        if perceptual is not None:
            row["lpips"] = perceptual(made, target, normalize=True).flatten()
        if faces is not None and (similar := face_similarity(made, target, faces)) is not None:
            row["face_cosine"], row["face_distance"] = similar
        for name, value in row.items():
            rows.setdefault(name, []).append(float(value))
        if network is not None:
            features.append(network(inception_input(made))[0])
    result: dict[str, object] = {name: float(np.mean(values)) for name, values in rows.items()}
    if network is not None and real is not None:
        photos = by_stem(real).values()
        truth = [network(inception_input(load(p, size, False)))[0] for p in tqdm(photos, unit="photo")]
        result["fid_papers"] = frechet_distance(torch.stack(truth), torch.stack(features))
    if faces is not None:
        result["face_pairs"] = len(rows.get("face_cosine", ()))
    return result | {"pairs": len(files), "size": list(size), "left_out": left_out}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--generated", type=Path, required=True)
    parser.add_argument("--targets", type=Path, required=True)
    parser.add_argument("--real", type=Path, help="folder of training photos, the papers' real set for FID")
    parser.add_argument("--faces", type=Path, help="insightface's folder (holds models/buffalo_s), for face similarity")
    parser.add_argument("--size", default="256x176", help="height x width at which pictures are measured")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    height, _, width = options.size.partition("x")
    if not (height.isdigit() and width.isdigit()):
        parser.error(f"--size is {options.size!r}; expected HEIGHTxWIDTH, such as 256x176")
    try:
        result = measure(pairs(options.generated, options.targets), (int(height), int(width)), options.real,
                         load_app(options.faces, "buffalo_s") if options.faces else None)
    except ValueError as error:
        parser.error(str(error))
    for name, value in result.items():
        print(f"{name:12} {value:.4f}" if isinstance(value, float) else f"{name:12} {value}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
