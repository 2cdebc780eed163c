"""The demo's methods in four steps of one row, distilled, beside the 20 steps of their teachers: rows, time and pictures.

    python benchmarks/few_steps.py [--people 64] [--methods qen mcld cfld fpdm] [--loras FOLDER] [--out FOLDER] [--threads 1]

People that no model has seen, half of the targets closer views, the demo's guidance. Of each method three rows: the teacher
in 20 steps, the teacher in as many steps as its student (what distilling is worth), and the student, which is the LoRA on
the teacher as its file says. unet_rows: of the UNet, a picture. seconds: a picture, encoders and decoder counted. The other
measures are of `make demo`. Writes few_steps.json and few_steps.png: source, pose, the three, and the target.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pgpis_models.pipeline import DEMO_FOLDER, Generator  # noqa: E402
from pgpis_models.poses.drawing import draw_openpose  # noqa: E402
from pgpis_models.unet.autoencoder import decode_latents, encode_latents, load_vae  # noqa: E402
from training.demo import METHODS, SIZE, drawn_by, quantised, show  # noqa: E402
from training.engine.config import DataConfig  # noqa: E402
from training.world.bank import Bank, open_bank  # noqa: E402
from training.world.closeups import sheet  # noqa: E402
from training.world.measures import SOURCE_VIEW, TARGET_VIEW, pictures, score  # noqa: E402

TEACHER_STEPS, SHOWN = 20, 8
MEASURES = ("mask_iou", "legs", "part_colour", "sharpness", "eyes", "texel_error_seen", "texel_error_hidden")


def measured(generator: Generator, bank: Bank, batch: int, steps: int, decoded: Tensor) -> tuple[Tensor, dict[str, float]]:
    """Pictures of everybody, and their row."""
    rows: list[int] = []
    hook = generator.unet.register_forward_pre_hook(lambda _, given: rows.append(len(given[0])))
    began = time.perf_counter()
    made = quantised(drawn_by(generator, bank, batch, 0, steps))
    seconds = time.perf_counter() - began
    hook.remove()
    found = score(made, bank, decoded)
    return made, {"unet_rows": sum(rows) / bank.people, "seconds": seconds / bank.people,
                  **{name: found[name] for name in MEASURES}}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, default=64)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--loras", type=Path, default=DEMO_FOLDER.with_name("loras"),
                        help="folder of demo_METHOD_lcm.safetensors")
    parser.add_argument("--out", type=Path, default=ROOT / "output" / "few_steps")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    bank = open_bank(DataConfig(size=SIZE, views=2, cache=str(options.out / "cache")), held_out=options.people)
    target, table, columns = pictures(bank, TARGET_VIEW), {}, {}
    vae = load_vae(DEMO_FOLDER / "demo_vae.safetensors")
    with torch.no_grad():
        decoded = quantised(decode_latents(vae, encode_latents(vae, target * 2 - 1)))
    for name in options.methods:
        path, lora = DEMO_FOLDER / f"demo_{name}.safetensors", options.loras / f"demo_{name}_lcm.safetensors"
        teacher, student = Generator(path), Generator(path, lora=lora)
        few = student.defaults["steps"]
        three = (("teacher", teacher, TEACHER_STEPS), ("teacher", teacher, few), ("student", student, few))
        for who, generator, steps in three:
            row = f"{name} {who} {steps}"
            columns[row], table[row] = measured(generator, bank, options.batch, steps, decoded)
    show(table)
    result = {"people": bank.people, "threads": options.threads, "machine": platform.machine(), "rows": table}
    (options.out / "few_steps.json").write_text(json.dumps(result, indent=2))
    people = np.arange(bank.people)
    poses = [draw_openpose(pose, SIZE) for pose in bank.poses(people, np.full(bank.people, TARGET_VIEW))]
    drawn = torch.from_numpy(np.stack(poses)).permute(0, 3, 1, 2).float() / 255
    whole = {"source": pictures(bank, SOURCE_VIEW), "pose": drawn, **columns, "target": target}
    grid = sheet({name: column[:SHOWN] for name, column in whole.items()}, bank)
    Image.fromarray(grid).save(options.out / "few_steps.png")


if __name__ == "__main__":
    main()
