"""One host and one browser for all browser tests: what driver.mjs saw of every workflow."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import pytest
from PIL import Image

from tests.browser.chromium import drive, missing_tools
from tests.browser.own_photo import SEED, own_photo
from tests.host.http_host import COMFY, add_missing_methods, add_random_demo, demo_is_trained, make_base, serve
from tests.host.saved_workflows import blueprint_files, subgraphs, workflow_files
from tools.picture_workflows import NEEDS_DOWNLOADS, pose_text, stand_in

HERE = Path(__file__).resolve().parent
START = "00_start_here"
STEPS = 2       # of a blueprint's run
# The newer view of nodes draws for seconds: a list in a node, the fullest columns, a mannequin. tools/modern_nodes.py looks
# at every workflow.
MODERN = ("00_start_here", "mcld_identity_swap", "mcld_walk_around", "two_photos")
EMPTY = {"last_node_id": 0, "last_link_id": 0, "nodes": [], "links": [], "groups": [], "config": {}, "extra": {},
         "version": 0.4}
# What people type -> the node that they want.
SEARCHES = {"pose transfer": "PGPISPoseTransfer", "openpose": "PGPISLoadPose", "person": "PGPISFitPerson",
            "try on": "PGPISMaskedSampler", "skeleton": "PGPISDrawPose", "garment": "PGPISEditTexture"}


def node(number: int, kind: str, inputs: list[dict], outputs: list[dict], values: list) -> dict:
    return {"id": number, "type": kind, "pos": [60 + 420 * (number - 1), 120], "size": [400, 526], "flags": {},
            "order": number, "mode": 0, "inputs": inputs, "outputs": outputs, "properties": {}, "widgets_values": values}


def editor_workflow() -> dict:
    """A Pose Editor whose picture and pose are shown."""
    return {
        "last_node_id": 3, "last_link_id": 2, "version": 0.4, "groups": [], "config": {}, "extra": {},
        "nodes": [node(1, "PGPISPoseEditor", [{"name": "pose", "type": "POSE_KEYPOINT", "link": None},
                                              {"name": "image", "type": "IMAGE", "link": None}],
                       [{"name": "pose", "type": "POSE_KEYPOINT", "links": [2]},
                        {"name": "image", "type": "IMAGE", "links": [1]}],
                       ["", 512, 768]),
                  node(2, "PreviewImage", [{"name": "images", "type": "IMAGE", "link": 1}], [], []),
                  node(3, "PreviewAny", [{"name": "source", "type": "*", "link": 2}], [], [])],
        "links": [[1, 1, 1, 2, 0, "IMAGE"], [2, 1, 0, 3, 0, "POSE_KEYPOINT"]]}


def library_workflow() -> dict:
    """A Pose Library whose pose is shown."""
    return {
        "last_node_id": 2, "last_link_id": 1, "version": 0.4, "groups": [], "config": {}, "extra": {},
        "nodes": [node(1, "PGPISPoseLibrary", [{"name": "as_person", "type": "POSE_KEYPOINT", "link": None}],
                       [{"name": "pose", "type": "POSE_KEYPOINT", "links": [1]}], ["T pose", 512, 768, -1]),
                  node(2, "PreviewAny", [{"name": "source", "type": "*", "link": 1}], [], [])],
        "links": [[1, 1, 0, 2, 0, "POSE_KEYPOINT"]]}


@pytest.fixture(scope="session")
def driven(tmp_path_factory):
    """What driver.mjs reports, its workflows by name, with the saved file and the host's node types beside each."""
    if not (COMFY / "main.py").is_file():
        pytest.skip(f"no ComfyUI at {COMFY}; set COMFYUI_PATH to a ComfyUI folder to run the browser tests")
    lacking = missing_tools()
    if lacking:
        pytest.skip(lacking)
    folder = tmp_path_factory.mktemp("browser")
    base = make_base(folder / "base")
    stand_in(base)
    if not demo_is_trained():
        add_random_demo(base)
    add_missing_methods(base)
    (base / "custom_nodes" / "detector.py").symlink_to(HERE / "detector.py")
    (base / "models" / "pgpis" / "body_pose_model.pth").touch()
    saved = {path.stem: json.loads(path.read_text()) for path in workflow_files()}
    jobs = [{"name": name, "workflow": workflow, "queue": name not in NEEDS_DOWNLOADS, "width": 1600,
             "screenshot": str(folder / f"{name}.png")} for name, workflow in saved.items()]
    broken = json.loads(json.dumps(saved["cfld_pose_transfer"]))
    next(node for node in broken["nodes"] if node["type"] == "PGPISApply")["type"] = "PGPISNoSuch"
    jobs.append({"name": "broken", "workflow": broken, "queue": False, "width": 1600, "screenshot": None})
    jobs.append({"name": "pose editor", "workflow": editor_workflow(), "queue": False, "width": 1600, "screenshot": None,
                 "module": str(HERE / "pose_editor.mjs")})
    jobs.append({"name": "pose library", "workflow": library_workflow(), "queue": False, "width": 1600, "screenshot": None,
                 "module": str(HERE / "pose_library.mjs")})
    jobs.append({"name": "bypass", "workflow": saved["hires_second_pass"], "queue": False, "width": 1600, "screenshot": None,
                 "module": str(HERE / "bypass.mjs")})
    jobs += [own_person(saved[START]), *(blueprint(path.stem, json.loads(path.read_text())) for path in blueprint_files())]
    with serve(base) as host:
        listed = host.json("/global_subgraphs")
        modern = [{"name": name, "workflow": saved[name], "screenshot": None} for name in MODERN]
        report = drive(host.url, jobs, searches=SEARCHES, modern=modern)
        print(f"frontend of ComfyUI {report['version'].get('comfyui_version')}")
        workflows = {one["name"]: one | {"file": saved.get(one["name"]), "info": host.object_info, "base": base,
                                         "listed": listed, "screenshot": folder / f"{one['name']}.png"}
                     for one in report["workflows"]}
        return report | {"workflows": workflows, "info": host.object_info,
                         "modern": {one["name"]: one["boxes"] for one in report["modern"]}}


@pytest.fixture(scope="session")
def seen(driven):
    """name -> what driver.mjs saw of a workflow."""
    return driven["workflows"]


def own_person(saved: dict) -> dict:
    """The first workflow with a photo of one's own dropped onto Load Image, and with a seed that the command line knows."""
    changed, file = json.loads(json.dumps(saved)), io.BytesIO()
    Image.fromarray(own_photo().picture).save(file, "PNG")
    [load] = [node for node in changed["nodes"] if node["type"] == "LoadImage"]
    [sampling] = [node for node in changed["nodes"] if node["type"] in subgraphs(changed)]
    values = [one["name"] for one in sampling["inputs"] if "widget" in one]
    sampling["widgets_values"][values.index("seed")] = SEED * 1_000_003   # what start_noise makes of a seed
    [save] = [node for node in changed["nodes"] if node["type"] == "SaveImage"]
    save["widgets_values"] = ["own"]
    return {"name": "own", "workflow": changed, "queue": True, "width": 1600, "screenshot": None,
            "drop": {"node": load["id"], "name": "own.png", "base64": base64.b64encode(file.getvalue()).decode()}}


def blueprint(name: str, saved: dict) -> dict:
    """A subgraph of the pack alone in a graph, with nodes before it that give what its inputs want, and Save Image."""
    def picture(file: str) -> list:
        return ["PGPISDemoPicture", {"picture": file}]
    photo, other = [picture("pgpis_source.png")], [picture("pgpis_person.png")]
    surface, other_surface = ([picture(f"pgpis_{who}_iuv.png"), ["PGPISReadIUV", {}]] for who in ("source", "person"))
    sources = {"photo": photo, "person": photo, "clothes": other, "pose_photo": other, "densepose": other_surface,
               "pose": [["PGPISLoadPose", {"text": pose_text("pgpis_target.png")}]], "source_densepose": surface,
               "person_densepose": surface, "clothes_densepose": other_surface}
    inputs = {one["name"]: sources[one["name"]] for one in saved["nodes"][0]["inputs"] if one["name"] in sources}
    return {"name": name, "workflow": EMPTY, "queue": True, "width": 1600, "screenshot": None,
            "blueprint": {"name": name, "inputs": inputs, "values": {"steps": STEPS}}}
