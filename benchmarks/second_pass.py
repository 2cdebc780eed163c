"""What the workflow hires_second_pass gains: sharpness and pose of its second pass, on drawn people never trained on.

    COMFYUI_PATH=~/comfy/ComfyUI python benchmarks/second_pass.py [--people 16] [--preset NAME] [--json FILE]

Runs the saved workflow in a ComfyUI of its own, once per person, and holds both pictures against the person drawn at the
larger size: the first pass enlarged as a user would (bicubic), and the second pass. sharpness: mean absolute gradient on the
true person, over that of the true picture. overlap: of the person with the true one, intersection over union.

--views: only targets that show the whole figure, or only closer ones, which enlarged are larger than any person that the
demo was trained on (2.4 to 3.5 times a whole figure; training has 1 and 1.6 to 2.3). --cfg, --denoise: of the second pass.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pgpis_models.poses.formats import to_pose_keypoint  # noqa: E402
from pgpis_models.poses.keypoints import Keypoints  # noqa: E402
from tests.host.http_host import WORKFLOWS, Host, make_base, serve  # noqa: E402
from tests.host.saved_workflows import to_api  # noqa: E402
from training.world.bank import HELD_OUT, pose_seed  # noqa: E402
from training.world.drawing import Rendering, render  # noqa: E402
from training.world.measures import gradient, mask_overlap, person_mask  # noqa: E402
from training.world.poses import sample_pose  # noqa: E402
from training.world.wardrobe import sample_identity  # noqa: E402

SIZE, LARGER = (256, 192), 1.5
PRESET, SECOND = "PGPISLoadPreset", ("cfg", "denoise")
LARGE = tuple(int(side * LARGER) for side in SIZE)
SOURCE, TARGET = 0, 1   # views of a person
VIEWS = {"whole": lambda zoom: zoom == 1, "closer": lambda zoom: zoom > 1, "all": lambda zoom: True}


def people_of(views: str, count: int) -> list[int]:
    """The first held-out people whose target is such a view, by number."""
    fits = (number for number in itertools.count() if VIEWS[views](sample_pose(pose_seed(HELD_OUT + number, TARGET)).zoom))
    return list(itertools.islice(fits, count))


def view(number: int, pose: int, size: tuple[int, int] = SIZE) -> Rendering:
    """A held-out person in one of its poses."""
    return render(sample_identity(HELD_OUT + number), sample_pose(pose_seed(HELD_OUT + number, pose)), size)


def as_tensor(picture: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 -> (3, H, W) in 0..1."""
    return torch.from_numpy(picture.copy()).movedim(-1, 0).float() / 255


def frame_of(drawn: Rendering) -> list[dict]:
    """The pose of a picture as POSE_KEYPOINT."""
    return to_pose_keypoint(Keypoints(drawn.keypoints, drawn.detected, SIZE))


def measured(first: Tensor, second: Tensor, truth: Tensor) -> dict[str, float]:
    """Pictures (N, 3, H, W) in 0..1: the first pass enlarged, the second pass, and the people drawn at that size."""
    where = person_mask(truth)
    true = gradient(truth, where)
    return {"sharpness, first pass": float(gradient(first, where) / true),
            "sharpness, second pass": float(gradient(second, where) / true),
            "overlap, first pass": float(mask_overlap(first, truth).mean()),
            "overlap, second pass": float(mask_overlap(second, truth).mean()),
            "overlap of the two": float(mask_overlap(second, first).mean())}


def ran(host: Host, prompt: dict, number: int) -> tuple[np.ndarray, np.ndarray]:
    """First pass enlarged and second pass of one person, (H, W, 3) uint8 each."""
    name = f"second_pass_{number}.png"
    Image.fromarray(view(number, SOURCE).image).save(host.base / "input" / name)
    kinds = {node["class_type"]: key for key, node in prompt.items()}
    prompt[kinds["PGPISLoadPose"]]["inputs"]["text"] = json.dumps(frame_of(view(number, TARGET)))
    prompt[kinds["PGPISPoseTransfer"]]["inputs"]["fit"] = False   # the true person stands where its own pose has it
    photo = kinds.get("PGPISDemoPicture") or kinds["LoadImage"]
    prompt[photo] = {"class_type": "LoadImage", "inputs": {"image": name}}
    shown = {"images": [kinds["ImageScaleBy"], 0], "filename_prefix": "first"}
    outputs = host.run(prompt | {"first": {"class_type": "SaveImage", "inputs": shown}})
    return tuple(host.picture(outputs[key]["images"][0]) for key in ("first", kinds["SaveImage"]))


def of_people(made: list[tuple[np.ndarray, np.ndarray]], people: list[int]) -> dict[str, float]:
    """`measured` of what `ran` gave for the first of these people."""
    first, second = (torch.stack([as_tensor(pair[index]) for pair in made]) for index in (0, 1))
    truth = torch.stack([as_tensor(view(number, TARGET, LARGE).image) for number in people[:len(made)]])
    return measured(first, second, truth)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=16, help="how many, from the first held-out one on")
    parser.add_argument("--views", choices=VIEWS, default="all", help="which targets")
    parser.add_argument("--preset", help="of Load Pose Transfer, in place of the workflow's")
    for name in SECOND:
        parser.add_argument(f"--{name}", type=float, help="of the second pass, in place of the workflow's")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    arguments = parser.parse_args()
    workflow, made = json.loads((WORKFLOWS / "hires_second_pass.json").read_text()), []
    people = people_of(arguments.views, arguments.people)
    with tempfile.TemporaryDirectory(prefix="pgpis-second-pass-") as folder, serve(make_base(Path(folder))) as host:
        prompt, system = to_api(workflow, host.object_info), host.json("/system_stats")["system"]
        loader = next(node["inputs"] for node in prompt.values() if node["class_type"] == PRESET)
        loader["preset"] = arguments.preset or loader["preset"]
        samplers = [node["inputs"] for node in prompt.values() if node["class_type"] == "KSampler"]
        min(samplers, key=lambda one: one["denoise"]).update(
            {name: value for name in SECOND if (value := getattr(arguments, name)) is not None})
        settings = {"views": arguments.views, "preset": loader["preset"], "size": list(LARGE),
                    "passes": [{key: one[key] for key in ("steps", "cfg", "sampler_name", "scheduler", "denoise")}
                               for one in sorted(samplers, key=lambda one: -one["denoise"])]}
        versions = {"torch": torch.__version__, "comfyui": system.get("comfyui_version"),
                    "python": platform.python_version()}
        for number in people:
            made.append(ran(host, prompt, number))
            print(f"{len(made)} of {len(people)} people", end="\r", flush=True)
            rows = [{"name": name, "value": value, "unit": "", "settings": settings | {"people": len(made)},
                     "versions": versions} for name, value in of_people(made, people).items()]
            if arguments.json:   # after each person, so that a run that is stopped has said what it saw
                arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    for row in rows:
        print(f"{row['name']:<24} {row['value']:.3f}")


if __name__ == "__main__":
    main()
