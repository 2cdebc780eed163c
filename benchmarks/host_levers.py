"""What the host's own step caches leave out and what that does to the picture, on drawn people never trained on.

    COMFYUI_PATH=~/comfy/ComfyUI python benchmarks/host_levers.py [--method qen] [--people 4] [--json FILE] [--picture FILE]

Runs the workflow METHOD_pose_transfer in a ComfyUI of its own, plain and with EasyCache or LazyCache between Apply PGPIS and
KSampler. steps: of the sampling that the UNet ran, as the host's log says. psnr: against the plain picture, dB, mean over
people. overlap: of the person with the true one. sharpness: mean absolute gradient on the true person, over the plain
picture's. --picture writes one row per lever, one column per person, the truth below.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

HERE = Path(__file__).resolve().parent
for folder in (str(HERE), str(HERE.parent)):   # the script beside, and the pack
    if folder not in sys.path:
        sys.path.insert(0, folder)

from second_pass import SOURCE, TARGET, as_tensor, frame_of, view  # noqa: E402

from tests.host.http_host import WORKFLOWS, Host, make_base, serve  # noqa: E402
from tests.host.saved_workflows import to_api  # noqa: E402
from training.world.measures import gradient, mask_overlap, person_mask  # noqa: E402

EMBEDDINGS = {"cfld": "PGPISAppearanceEmbedding", "qen": "PGPISQueryEmbedding"}
LEVERS = {"none": None, **{f"{name} {threshold}": (name, threshold) for name in ("EasyCache", "LazyCache")
                           for threshold in (0.05, 0.1, 0.2, 0.4)}}


def with_lever(prompt: dict, lever: tuple[str, float] | None) -> dict:
    """The prompt with a cache of the host between the method and its sampler."""
    if lever is None:
        return prompt
    [sampler] = [key for key, node in prompt.items() if node["class_type"] == "KSampler"]
    changed = json.loads(json.dumps(prompt))
    given = {"model": changed[sampler]["inputs"]["model"], "reuse_threshold": lever[1], "start_percent": 0.15,
             "end_percent": 0.95, "verbose": False}
    changed["lever"] = {"class_type": lever[0], "inputs": given}
    changed[sampler]["inputs"]["model"] = ["lever", 0]
    return changed


def ran(host: Host, prompt: dict, method: str, number: int) -> tuple[np.ndarray, int]:
    """One person's picture (H, W, 3) uint8, and how many steps the UNet left out."""
    name = f"lever_{number}.png"
    Image.fromarray(view(number, SOURCE).image).save(host.base / "input" / name)
    kinds = {node["class_type"]: key for key, node in prompt.items()}
    prompt[kinds["PGPISLoadPose"]]["inputs"]["text"] = json.dumps(frame_of(view(number, TARGET)))
    photo = prompt[kinds[EMBEDDINGS[method]]]["inputs"]["source"][0]
    prompt[photo] = {"class_type": "LoadImage", "inputs": {"image": name}}
    decoded = {"images": [kinds["VAEDecode"], 0], "filename_prefix": "lever"}
    before = len(host.log.read_text())
    outputs = host.run(prompt | {"made": {"class_type": "SaveImage", "inputs": decoded}})
    skipped = re.findall(r"skipped (\d+)/\d+ steps", host.log.read_text()[before:])
    return host.picture(outputs["made"]["images"][0]), int(skipped[-1]) if skipped else 0


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", choices=list(EMBEDDINGS), default="qen")
    parser.add_argument("--people", type=int, default=4, help="how many, from the first held-out one on")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    parser.add_argument("--picture", type=Path, help="also write the pictures to this file")
    arguments = parser.parse_args()
    people, made, ran_steps = range(arguments.people), {}, {}
    with tempfile.TemporaryDirectory(prefix="pgpis-levers-") as folder, serve(make_base(Path(folder))) as host:
        prompt = to_api(json.loads((WORKFLOWS / f"{arguments.method}_pose_transfer.json").read_text()), host.object_info)
        [steps] = [node["inputs"]["steps"] for node in prompt.values() if node["class_type"] == "KSampler"]
        version = host.json("/system_stats")["system"].get("comfyui_version")
        for name, lever in LEVERS.items():
            found = [ran(host, with_lever(prompt, lever), arguments.method, number) for number in people]
            made[name] = torch.stack([as_tensor(picture) for picture, _ in found])
            ran_steps[name] = statistics.mean(steps - skipped for _, skipped in found)
            print(f"{name}: {ran_steps[name]:.1f} of {steps} steps", flush=True)
    truth = torch.stack([as_tensor(view(number, TARGET).image) for number in people])
    where, rows = person_mask(truth), []
    for name, pictures in made.items():
        error = (pictures - made["none"]).double().square().mean((1, 2, 3))
        values = {"steps": ran_steps[name], "psnr": None if name == "none" else float((-10 * error.log10()).mean()),
                  "overlap": float(mask_overlap(pictures, truth).mean()),
                  "sharpness": float(gradient(pictures, where) / gradient(made["none"], where))}
        rows += [{"name": f"{arguments.method}, {name}, {key}", "value": value, "unit": "dB" if key == "psnr" else "",
                  "settings": {"people": arguments.people, "steps": steps},
                  "versions": {"torch": torch.__version__, "comfyui": version, "python": platform.python_version()}}
                 for key, value in values.items()]
        cells = (f"{key} {'-' if value is None else f'{value:.3f}'}" for key, value in values.items())
        print(f"{name:<16}" + "  ".join(cells))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    if arguments.picture:
        grid = torch.cat([torch.cat(list(row), dim=-1) for row in (*made.values(), truth)], dim=-2)
        Image.fromarray((grid.movedim(0, -1).numpy() * 255).round().astype(np.uint8)).save(arguments.picture)


if __name__ == "__main__":
    main()
