"""`make demo`: every shipped method on people never trained on, as a labelled picture grid and a table.

Writes output/demo/: grid.png, what each method made as a strip without loss, metrics.json, and the table on the terminal.
"copy" shows the source as the answer; "autoencoder" is the target through the autoencoder, the best that any method on it
could do.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
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

from pgpis_models.checkpoint import load_checkpoint  # noqa: E402
from pgpis_models.pipeline import DEMO_FOLDER, Generator  # noqa: E402
from pgpis_models.poses.drawing import draw_openpose  # noqa: E402
from pgpis_models.unet.autoencoder import decode_latents, encode_latents, load_vae  # noqa: E402
from training.engine.config import DataConfig  # noqa: E402
from training.world.bank import Bank, open_bank  # noqa: E402
from training.world.closeups import sheet  # noqa: E402
from training.world.faces import score_faces  # noqa: E402
from training.world.focal import iuvs  # noqa: E402
from training.world.measures import SOURCE_VIEW, TARGET_VIEW, pictures, score  # noqa: E402

METHODS = ("cfld", "mcld", "fpdm", "qen")
SIZE = (256, 192)
GRID_PEOPLE = 16
STEPS = 12       # as people sample


def quantised(made: Tensor) -> Tensor:
    """As an 8-bit file would hold them."""
    return (made.clamp(0, 1) * 255).round() / 255


def strip(pictures: Tensor) -> Image.Image:
    """(N, 3, H, W) in 0..1 side by side."""
    return Image.fromarray((pictures.permute(2, 0, 3, 1).flatten(1, 2) * 255).round().byte().numpy())


def generate(path: Path, bank: Bank, batch: int, seed: int, steps: int = STEPS, people: range | None = None) -> Tensor:
    """The method of a checkpoint, on the base beside it -> (N, 3, H, W) in 0..1. people: of the bank; all when None."""
    generator = Generator(path, path.with_name("demo_base.safetensors"), path.with_name("demo_vae.safetensors"))
    return drawn_by(generator, bank, batch, seed, steps, people)


def drawn_by(generator: Generator, bank: Bank, batch: int, seed: int, steps: int, people: range | None = None) -> Tensor:
    """What a loaded method makes of the bank's people, all when None: (N, 3, H, W) in 0..1."""
    people, made = people or range(bank.people), []
    with tqdm(total=len(people) * steps, desc=generator.meta.method, unit="step") as bar:
        for start in people[::batch]:
            who = np.arange(start, min(start + batch, people.stop))
            source, target = np.full(len(who), SOURCE_VIEW), np.full(len(who), TARGET_VIEW)
            made.append(generator(bank.images(who, source), bank.poses(who, target), seed=seed, first=start, steps=steps,
                                  **extras(generator.meta.method, bank, who, source, target),
                                  callback=lambda *_, rows=len(who): bar.update(rows)).cpu())  # noqa: B008 - bound now
    return torch.cat(made)


def extras(method: str, bank: Bank, who: np.ndarray, source: np.ndarray, target: np.ndarray) -> dict[str, Any]:
    """What a method's `encode_pictures` wants beside source photos and target keypoints. source, target: views of `who`."""
    if method == "mcld":
        return {"densepose": iuvs(bank, who, target), "source_densepose": iuvs(bank, who, source)}
    return {}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "output" / "demo")
    parser.add_argument("--models", type=Path, default=DEMO_FOLDER, help="folder of demo_*.safetensors")
    parser.add_argument("--people", type=int, default=16, help="identities never trained on")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    bank = open_bank(DataConfig(size=SIZE, views=2, cache=str(options.out / "cache")), held_out=options.people)
    source, target = pictures(bank, SOURCE_VIEW), pictures(bank, TARGET_VIEW)
    vae = load_vae(options.models / "demo_vae.safetensors")
    with torch.no_grad():
        decoded = quantised(decode_latents(vae, encode_latents(vae, target * 2 - 1)))
    table = {"copy": score(source, bank, decoded), "autoencoder": score(decoded, bank, decoded)}
    people = np.arange(bank.people)
    poses = [draw_openpose(pose, SIZE) for pose in bank.poses(people, np.full(bank.people, TARGET_VIEW))]
    columns = {"source": source, "pose": torch.from_numpy(np.stack(poses)).permute(0, 3, 1, 2).float() / 255}
    for name in METHODS:
        path = options.models / f"demo_{name}.safetensors"
        if path.is_file():
            columns[name.upper()] = made = quantised(generate(path, bank, options.batch, options.seed, options.steps))
            table[name] = score(made, bank, decoded)
            strip(made[:GRID_PEOPLE]).save(options.out / f"{name}.webp", lossless=True)
    columns["target"] = target
    shown = {name: column[:GRID_PEOPLE] for name, column in columns.items()}
    Image.fromarray(sheet(shown, bank)).save(options.out / "grid.png")
    methods = {name: row for name, row in table.items() if name in METHODS}
    result = {"images": bank.people, "size": list(SIZE), "seed": options.seed, "steps": options.steps, "copy": table["copy"],
              "autoencoder": table["autoencoder"], "methods": methods}
    encoder = options.models / "demo_mcld.safetensors"   # which brings the demo's face encoder
    if encoder.is_file():
        made = {name: columns[name.upper()] for name in methods}
        result["faces"] = score_faces({"autoencoder": decoded, **made}, bank, load_checkpoint(encoder).method)
    (options.out / "metrics.json").write_text(json.dumps(result, indent=2))
    show(table)
    show(result.get("faces", {}))
    print("MCLD, which is shown a texture map, keeps clothes best; FPDM, with the fewest images, is the roughest.")
    print(f"{bank.people} people never trained on, {time.monotonic() - began:.0f} s; pictures: {options.out / 'grid.png'}")


def show(table: dict[str, dict[str, float]]) -> None:
    """Prints the measures, one row per method."""
    names = list(dict.fromkeys(name for row in table.values() for name in row))
    if not table:
        return
    print(f"{'':13}" + "".join(f"{name.replace('texel_error', 'texel'):>14}" for name in names))
    for who, row in table.items():
        print(f"{who:13}" + "".join(f"{row[name]:14.3f}" if name in row else f"{'':14}" for name in names))


if __name__ == "__main__":
    main()
