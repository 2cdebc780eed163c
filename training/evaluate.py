"""Measures generated pictures as the pose-transfer papers do.

    python training/evaluate.py --generated DIR --targets DIR --size 256x176 --json F

--protocol cfld, mcld, fpdm or standard: each reads and measures as that paper's code (training/evaluation/protocols.py).
Pictures are paired by the papers' naming, or by --pairs FILE.csv. SSIM and PSNR need nothing; LPIPS, the papers' FID and the
standard FID and KID need networks, and the latter three --real, a folder of training pictures; faces need --faces, the
folder of insightface, and --sources for the comparison with the source. What cannot be had is left out and named, with page
and folder, never replaced.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from pgpis_models.metrics import lpips_network  # noqa: E402
from pgpis_models.surface.face import MODELS, load_app  # noqa: E402
from training.evaluation.faces import DETECTION, ENCODER, Faces  # noqa: E402
from training.evaluation.frechet import frechet_distance, inception_input  # noqa: E402
from training.evaluation.networks import inception  # noqa: E402
from training.evaluation.pairing import Pair, by_stem, listed_pairs, pairs  # noqa: E402
from training.evaluation.protocols import PROTOCOLS  # noqa: E402
from training.evaluation.reconstruction import SIZES, USUAL, reconstructed  # noqa: E402
from training.evaluation.report import markdown, write_pictures  # noqa: E402
from training.evaluation.sequences import by_sequence, sequence_of  # noqa: E402
from training.evaluation.standard import Bytes, distances  # noqa: E402


def batches(items: Sequence, size: int) -> Iterable[Sequence]:
    return (items[start:start + size] for start in range(0, len(items), size))


def stacked(read: Callable[[Path, tuple[int, int]], Tensor], paths: Iterable[Path], size: tuple[int, int],
            device: str) -> Tensor:
    return torch.cat([read(path, size) for path in paths]).to(device)


def had(load: Callable[[], torch.nn.Module], name: str, left_out: list[str], device: str) -> torch.nn.Module | None:
    """A network on the device, or None and why."""
    try:
        return load().to(device)
    except (ImportError, OSError) as error:
        left_out.append(f"{name}: {error}")
        return None


@torch.no_grad()
def measure(files: Sequence[Pair], size: tuple[int, int], real: Path | None = None, faces: Any = None, *,
            protocol: str = "cfld", device: str = "cpu", batch: int = 8) -> tuple[dict[str, Any], list[dict[str, float]]]:
    """All measures that can be had, and those of each pair.

    size: (height, width) of the pictures as they are measured. faces: insightface's app. -> {name: mean over the pairs that
    have it, `spread` and `counted`: its standard deviation and number, `without_face`: pictures without, `left_out`: what is
    missing and why}, [{name: value} per pair].
    """
    rules, left_out, rows, features = PROTOCOLS[protocol], [], [], []
    perceptual = had(lpips_network, "lpips", left_out, device)
    network = None
    photos = [] if real is None else list(by_stem(real).values())
    standard: dict[str, float] = {}
    if real is None:
        name = "fid_papers" if rules.papers_fid else "fid, kid"
        left_out.append(f"{name}: needs --real, a folder of all training pictures")
    elif not rules.papers_fid:
        try:
            standard = distances(Bytes([pair.made for pair in files], rules.read_generated, size),
                                 Bytes(photos, rules.read_target, size), device, batch)
        except (ImportError, OSError) as error:
            left_out.append(f"fid, kid: {error}")
    else:
        network = had(inception, "fid_papers", left_out, device)
    if faces is None:
        left_out.append(f"fs_tgt, dist_tgt, fs_ref, dist_ref: they need --faces, a folder with models/{ENCODER} of "
                        "github.com/deepinsight/insightface/releases, and --sources")
    meter = None if faces is None else Faces(faces)
    with tqdm(total=len(files), unit="pair") as bar:
        for group in batches(files, batch):
            made = stacked(rules.read_generated, (pair.made for pair in group), size, device)
            target = stacked(rules.read_target, (pair.target for pair in group), size, device)
            columns = {name: value(made, target) for name, value in rules.measures.items()}
            if perceptual is not None:
                columns["lpips"] = perceptual(made, target, normalize=True).flatten()
            rows += [{name: float(values[n]) for name, values in columns.items()} for n in range(len(group))]
            if meter is not None:
                for n, pair in enumerate(group):
                    source = None if pair.source is None else rules.read_target(pair.source, size)[0]
                    rows[len(rows) - len(group) + n] |= meter(made[n], target[n], source)
            if network is not None:
                features.append(network(inception_input(made)).cpu())
            bar.update(len(group))
    result = summary(rows) | standard
    if network is not None:
        truth = [network(inception_input(stacked(rules.read_target, group, size, device))).cpu()
                 for group in tqdm(list(batches(photos, batch)), unit="batch of real photos")]
        result["fid_papers"] = frechet_distance(torch.cat(truth), torch.cat(features))
    if meter is not None:
        result["without_face"] = dict(meter.without)
    return result | {"protocol": protocol, "pairs": len(files), "size": list(size), "left_out": left_out}, rows


def summary(rows: list[dict[str, float]]) -> dict[str, Any]:
    values: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            values.setdefault(name, []).append(value)
    means: dict[str, Any] = {name: float(np.mean(column)) for name, column in values.items()}
    with np.errstate(invalid="ignore"):   # equal pictures have an endless PSNR
        spread = {name: float(np.std(column)) for name, column in values.items()}
    return means | {"spread": spread, "counted": {name: len(column) for name, column in values.items()}}


def lengths(text: str) -> tuple[int, int]:
    first, _, second = text.partition("x")
    if not (first.isdigit() and second.isdigit() and int(first) and int(second)):
        raise argparse.ArgumentTypeError(f"is {text!r}; expected two lengths such as 256x176")
    return int(first), int(second)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--generated", type=Path, required=True, help="folder of pictures that were made")
    parser.add_argument("--targets", type=Path, required=True, help="folder of the true ones")
    parser.add_argument("--sources", type=Path, help="folder of source photos, for faces")
    parser.add_argument("--pairs", type=Path, help="CSV with columns generated, target (, source): paths below the folders")
    parser.add_argument("--protocol", choices=PROTOCOLS, default="cfld",
                        help="whose code to follow, %(default)s unless given; QEN's paper: CFLD's")
    parser.add_argument("--real", type=Path, help="folder of training photos, the papers' real set for FID")
    parser.add_argument("--faces", type=Path, help="insightface's folder (holds models/ENCODER), for faces")
    parser.add_argument("--face-encoder", choices=MODELS, default=ENCODER, help="%(default)s unless given")
    parser.add_argument("--face-size", type=lengths, default=DETECTION, metavar="WxH",
                        help="at which faces are looked for, width first as in insightface, "
                        f"{DETECTION[0]}x{DETECTION[1]} unless given")
    parser.add_argument("--size", type=lengths, default=(256, 176), metavar="HxW",
                        help="at which pictures are measured, 256x176 unless given")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu",
                        help="cpu or cuda; the GPU where there is one unless given")
    parser.add_argument("--batch", type=int, default=8, help="pictures at once, %(default)s unless given")
    parser.add_argument("--vae", type=Path, help="autoencoder (our file, or a diffusers folder): also its own "
                        "reconstruction of the targets, which no latent method is better than")
    parser.add_argument("--vae-size", type=lengths, metavar="HxW", help="at which it encodes; with protocol cfld 512x512, "
                        "else 512x352")
    parser.add_argument("--vae-shift", type=float, default=0.0, metavar="E",
                        help="added to its latents (MCLD's figure 1: 0.2)")
    parser.add_argument("--vae-pictures", type=Path, metavar="FOLDER", help="keeps the reconstructions there")
    parser.add_argument("--lost", type=Path, help="OUT/lost of training/generate_split.py: also all pairs with these, which "
                        "could not be made and have the source photo in the picture's place")
    parser.add_argument("--by-sequence", action="store_true", help="also the mean of each video first, then over videos")
    parser.add_argument("--json", type=Path, help="the measures")
    parser.add_argument("--csv", type=Path, help="the values of each picture")
    parser.add_argument("--markdown", type=Path, help="the table")
    options = parser.parse_args(arguments)
    try:
        if options.batch < 1:
            raise ValueError(f"--batch is {options.batch}; expected 1 or more")
        folders = (options.generated, options.targets, options.sources)
        found = listed_pairs(options.pairs, *folders) if options.pairs else pairs(*folders)
        if options.by_sequence:   # before the work, not after it
            for pair in found:
                sequence_of(pair, options.targets)
        app = load_app(options.faces, options.face_encoder, size=options.face_size) if options.faces else None
        result, rows = measure(found, options.size, options.real, app, protocol=options.protocol, device=options.device,
                               batch=options.batch)
        options_of = {"protocol": options.protocol, "device": options.device, "batch": options.batch}
        if options.vae:
            with TemporaryDirectory() as folder:
                size = options.vae_size or SIZES.get(options.protocol, USUAL)
                kept = options.vae_pictures or Path(folder)
                kept.mkdir(parents=True, exist_ok=True)
                own = reconstructed(found, options.vae, size, kept, device=options.device, batch=options.batch,
                                    shift=options.vae_shift)
                result["autoencoder"] = measure(own, options.size, options.real, app, **options_of)[0]
        if options.lost:
            photos = options.lost / "generated"   # the sources themselves
            lost = pairs(photos, options.lost / "targets", photos if options.sources else None)
            result["all"] = measure([*found, *lost], options.size, options.real, app, **options_of)[0]
    except (ValueError, OSError) as error:
        parser.error(str(error))
    if options.by_sequence:
        result["by_sequence"] = by_sequence(found, rows, options.targets)
    if options.faces:
        result |= {"face_encoder": options.face_encoder, "face_size": list(options.face_size)}
    table = markdown(result, str(options.generated))
    print(table)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2), encoding="utf-8")
    if options.csv:
        write_pictures(options.csv, found, rows)
    if options.markdown:
        options.markdown.write_text(table, encoding="utf-8")


if __name__ == "__main__":
    main()
