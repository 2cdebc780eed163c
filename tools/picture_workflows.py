"""Draws the workflows' input pictures (--inputs), and takes the pictures of their graphs and results.

    python tools/picture_workflows.py                  all of them, with a ComfyUI of its own: some minutes on a CPU
    python tools/picture_workflows.py --only NAME      of one workflow, or some
    python tools/picture_workflows.py --host URL       uses a running one that has the pack and its demo models
    python tools/picture_workflows.py --inputs         draws workflows/inputs/*.png and stops
    python tools/picture_workflows.py --thumbnails     makes workflows/*.jpg of the pictures that are there, and stops

The thumbnails are what ComfyUI's list of templates shows; they are made with the pictures too.
Needs chromium and node; playwright-core is installed below ~/.cache/pgpis/browser. Workflows that the host has no models
for get a picture of the graph only.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from tests.browser.chromium import drive, missing_tools  # noqa: E402
from tests.host.http_host import (  # noqa: E402
    DEMO,
    WORKFLOWS,
    Host,
    add_missing_methods,
    add_random_demo,
    demo_is_trained,
    make_base,
    serve,
)
from tests.host.saved_workflows import to_api, workflow_files  # noqa: E402

SIZE = (256, 192)              # (H, W) of the demo world
DRESSED, PLAIN = 29, 49        # held-out people, counted from the first: whose clothes are lent, and who gets them
TURNED = 5                     # with a star on the chest, of which the back says nothing
# file name -> (person, view): a full figure, and two closer views; full figures, turned by so many degrees
VIEWS = {"pgpis_source.png": (DRESSED, 0), "pgpis_target.png": (DRESSED, 2), "pgpis_person.png": (PLAIN, 3),
         "pgpis_view_front.png": (TURNED, 1), "pgpis_view_back.png": (TURNED, 2), "pgpis_view_target.png": (TURNED, 5)}
HEADINGS = {"pgpis_view_front.png": 0.0, "pgpis_view_back.png": 180.0, "pgpis_view_target.png": 150.0}
# the first person in a wider picture: (height, width), and where the person's own begins, (top, left)
PHOTO, PHOTO_SIZE, PHOTO_AT = "pgpis_photo.png", (300, 400), (24, 40)
# workflows whose models are not in this repository
NEEDS_DOWNLOADS = {"cfld_sd15", "mcld_sd15", "fpdm_sd21", "qen_sd15", "few_steps_sd15"}
ANIMATED = {"fpdm_sequence", "mcld_walk_around", "walk_still"}   # workflows whose result is a film
FRAME, FRAME_COLOUR = 6, (222, 120, 20)    # around the best of several results, pixels
THUMBNAIL, FILM_FRAMES = 480, 4        # largest width of a thumbnail, pixels; frames of a film that it shows


# --- inputs -------------------------------------------------------------------------------------------------

def drawn(name: str):
    """The rendering of an input picture."""
    from training.world import drawing as mannequins
    from training.world.bank import HELD_OUT, pose_seed
    person, view = VIEWS[name]
    identity, pose = HELD_OUT + person, mannequins.sample_pose(pose_seed(HELD_OUT + person, view))
    if name in HEADINGS:
        pose = replace(pose, heading=math.radians(HEADINGS[name]), head_turn=0.0)
    return mannequins.render(mannequins.sample_identity(identity), pose, SIZE)


def input_pictures() -> dict[str, np.ndarray]:
    """File name -> picture (H, W, 3) uint8 of everything in workflows/inputs."""
    pictures = {name: drawn(name).image for name in VIEWS}
    photo = np.broadcast_to(drawn("pgpis_source.png").image[0, 0], (*PHOTO_SIZE, 3)).copy()   # its ground is one colour
    photo[PHOTO_AT[0]:PHOTO_AT[0] + SIZE[0], PHOTO_AT[1]:PHOTO_AT[1] + SIZE[1]] = drawn("pgpis_source.png").image
    pictures[PHOTO] = photo
    # DensePose as Read IUV takes it: V, U and part in red, green and blue
    pictures |= {name.replace(".png", "_iuv.png"): drawn(name).iuv()[..., ::-1] for name in VIEWS}
    return pictures


def pose_text(name: str) -> str:
    """The pose of an input picture as Load Pose reads it: one frame of OpenPose JSON."""
    from pgpis_models.poses.formats import to_pose_keypoint
    from pgpis_models.poses.keypoints import Keypoints
    person = drawn(name)
    [frame] = to_pose_keypoint(Keypoints(person.keypoints, person.detected, SIZE))
    joints = [int(value) if value == int(value) else round(value, 1) for value in frame["people"][0]["pose_keypoints_2d"]]
    return json.dumps({"canvas_width": SIZE[1], "canvas_height": SIZE[0], "people": [{"pose_keypoints_2d": joints}]})


# --- pictures of graphs and results -------------------------------------------------------------------------

@contextmanager
def host_of(url: str | None):
    """The host at the address, or one of our own in a temporary folder."""
    if url:
        yield Host(url)
        return
    with tempfile.TemporaryDirectory(prefix="pgpis-pictures-") as folder:
        base = make_base(Path(folder))
        stand_in(base)
        if not demo_is_trained():
            print("models/demo is not complete: random models stand in for it, and the results mean nothing")
            add_random_demo(base)
        for name in add_missing_methods(base):
            print(f"models/demo has no {name}: a random one stands in for it, and its results mean nothing")
        with serve(base) as host:
            yield host


def stand_in(base: Path) -> None:
    """Empty files under the names of models that have to be downloaded, so that the frontend does not ask for them."""
    for path in workflow_files():
        if path.stem in NEEDS_DOWNLOADS:
            for node in json.loads(path.read_text())["nodes"]:
                for model in node.get("properties", {}).get("models", []):
                    (base / "models" / model["directory"] / model["name"]).touch()


def result_kind(name: str) -> str:
    """The ending of the file that shows a workflow's result."""
    return "webp" if name in ANIMATED else "png"


def runs(path: Path) -> bool:
    """Whether the pack ships the demo models that a workflow names; so do those whose models are a download."""
    folders = {"PGPISLoadCheckpoint": DEMO, "LoraLoaderModelOnly": DEMO.with_name("loras")}
    named = [folders[node["type"]] / node["widgets_values"][0] for node in json.loads(path.read_text())["nodes"]
             if node["type"] in folders]
    return path.stem in NEEDS_DOWNLOADS or all(file.is_file() for file in named)


def result_of(host: Host, path: Path) -> bytes:
    """Runs a workflow; the file of its film, its attention maps in rows, all results with a frame around the best, the file
    of its grid, or of its last picture if it has none of these."""
    workflow = json.loads(path.read_text())
    prompt = to_api(workflow, host.object_info)
    outputs = host.run(prompt)
    # in the order of the nodes, not in that in which the host happened to run them
    shown = {number: outputs[number]["images"] for number in sorted(outputs, key=int) if outputs[number].get("images")}

    def fed_by(kind: str) -> list[list]:
        sources = {number for number, node in prompt.items() if node["class_type"] == kind}
        return [files for number, files in shown.items()
                if any(isinstance(value, list) and value[0] in sources for value in prompt[number]["inputs"].values())]
    maps, of_grid = fed_by("PGPISAttentionMaps"), fed_by("PGPISCompareGrid")
    if maps:
        return in_rows([[host.picture(file) for file in files] for files in maps])
    best = fed_by("PGPISPoseScore")
    if best:
        [[chosen]], [several] = best, [files for files in shown.values() if len(files) > 1]
        return with_frame([host.picture(file) for file in several], host.picture(chosen))
    of_film = [files for number, files in shown.items() if prompt[number]["class_type"] == "SaveAnimatedWEBP"]
    return host.picture_bytes((of_film or of_grid or list(shown.values()))[-1][-1])


def thumbnail(folder: Path, name: str) -> Image.Image:
    """A workflow's result, or its graph where there is none, at most THUMBNAIL pixels wide; of a film some frames."""
    path = folder / f"{name}.result.{result_kind(name)}"
    with Image.open(path if path.is_file() else folder / f"{name}.graph.png") as picture:
        frames = []
        for number in range(FILM_FRAMES if name in ANIMATED else 1):
            picture.seek(number * getattr(picture, "n_frames", 1) // FILM_FRAMES)
            frames.append(np.array(picture.convert("RGB")))
    row = Image.fromarray(np.concatenate(frames, axis=1))
    row.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    return row


def write_thumbnail(folder: Path, name: str) -> Path:
    path = folder / f"{name}.jpg"
    thumbnail(folder, name).save(path, quality=90, optimize=True)
    return path


def with_frame(pictures: list[np.ndarray], chosen: np.ndarray) -> bytes:
    """A PNG file of pictures (H, W, 3) uint8 in two rows, the chosen one in a frame."""
    framed = []
    for picture in pictures:
        edge = FRAME_COLOUR if np.array_equal(picture, chosen) else (255, 255, 255)
        wide = np.full((picture.shape[0] + 2 * FRAME, picture.shape[1] + 2 * FRAME, 3), edge, np.uint8)
        wide[FRAME:-FRAME, FRAME:-FRAME] = picture
        framed.append(wide)
    half = len(framed) // 2
    return in_rows([framed[:half], framed[half:]])


def in_rows(rows: list[list[np.ndarray]]) -> bytes:
    """A PNG file of rows of pictures (H, W, 3) uint8, all of one size and as many in each row."""
    sheet = np.concatenate([np.concatenate(row, axis=1) for row in rows])
    file = io.BytesIO()
    Image.fromarray(sheet).save(file, format="PNG")
    return file.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--host", help="address of a running ComfyUI, such as http://127.0.0.1:8188")
    parser.add_argument("--inputs", action="store_true", help="draw workflows/inputs and stop")
    parser.add_argument("--thumbnails", action="store_true", help="make the thumbnails and stop")
    parser.add_argument("--width", type=int, default=1600, help="of the graphs' pictures, in pixels")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="of these workflows alone, such as cfld_pose_transfer")
    parser.add_argument("--out", type=Path, default=WORKFLOWS, help="folder for the pictures")
    options = parser.parse_args()
    files = [path for path in workflow_files() if not options.only or path.stem in options.only]
    unknown = set(options.only or ()) - {path.stem for path in files}
    if unknown:
        parser.error(f"no workflow {', '.join(sorted(unknown))}; expected {', '.join(p.stem for p in workflow_files())}")
    if options.inputs:
        (WORKFLOWS / "inputs").mkdir(parents=True, exist_ok=True)
        for name, picture in input_pictures().items():
            Image.fromarray(np.ascontiguousarray(picture)).save(WORKFLOWS / "inputs" / name, optimize=True)
            print(WORKFLOWS / "inputs" / name)
        return
    if options.thumbnails:
        for path in files:
            print(write_thumbnail(options.out, path.stem))
        return
    lacking = missing_tools()
    if lacking:
        sys.exit(f"cannot take pictures: {lacking}")
    began = time.monotonic()
    options.out.mkdir(parents=True, exist_ok=True)
    with host_of(options.host) as host:
        jobs = []
        for path in files:
            queue = path.stem not in NEEDS_DOWNLOADS
            jobs.append({"name": path.stem, "workflow": json.loads(path.read_text()), "queue": queue, "width": options.width,
                         "screenshot": str(options.out / f"{path.stem}.graph.png")})
        report = drive(host.url, jobs)
        # After the frontend: of what is cached the host tells no pictures but those of the last nodes.
        for job, seen in zip(jobs, report["workflows"], strict=True):
            if seen["missing"] or (job["queue"] and seen["execution"] != "execution_success"):
                sys.exit(f"{job['name']}: {json.dumps(seen, indent=2)[:3000]}")
            path = WORKFLOWS / f"{job['name']}.json"
            result = job["queue"] and runs(path)
            if result:
                (options.out / f"{path.stem}.result.{result_kind(path.stem)}").write_bytes(result_of(host, path))
            write_thumbnail(options.out, path.stem)
            print(job["screenshot"] + (" and its result" if result else " (no result: its models are not here)"))
    print(f"{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
