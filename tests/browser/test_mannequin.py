"""The mannequin's canvas in ComfyUI's own frontend, in headless Chromium, in the classic node view and in the new one."""

from __future__ import annotations

import json
import shutil
import subprocess

import numpy as np
import pytest

from pgpis_models.body.skeleton import Build, build_skeleton
from pgpis_models.body.state import from_text
from tests.browser.chromium import HERE, browser, missing_tools, playwright
from tests.host.http_host import COMFY, make_base, serve

NODE = "PGPISPoseMannequin"


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """Node view -> what mannequin.mjs saw."""
    if not (COMFY / "main.py").is_file():
        pytest.skip(f"no ComfyUI at {COMFY}; set COMFYUI_PATH to a ComfyUI folder to run the browser tests")
    lacking = missing_tools()
    if lacking:
        pytest.skip(lacking)
    folder = tmp_path_factory.mktemp("mannequin")
    found = {}
    with serve(make_base(folder / "base")) as host:
        for view in ("classic", "new"):
            job, report = folder / f"{view}.json", folder / f"{view}.report.json"
            job.write_text(json.dumps({"url": host.url, "browser": browser(), "playwright": str(playwright()),
                                       "report": str(report), "vue": view == "new"}))
            result = subprocess.run([shutil.which("node"), str(HERE / "mannequin.mjs"), str(job)], capture_output=True,
                                    text=True, timeout=600)
            assert result.returncode == 0, result.stderr[-3000:]
            found[view] = json.loads(report.read_text())
    return found


@pytest.mark.parametrize("view", ["classic", "new"])
def test_a_wrist_is_dragged_the_camera_turned_and_the_workflow_keeps_both(view, reports):
    seen = reports[view]
    assert seen["errors"] == [] and seen["before"] == "" and seen["hidden"]
    assert np.abs(np.subtract(*seen["handle"].values())).max() < 3, "the wrist is under the pointer"
    moved, turned = from_text(seen["moved"]), from_text(seen["turned"])
    joints = build_skeleton(Build(), moved.pose()).joints
    assert joints[4, 1] > joints[2, 1] - 0.05 and moved.legs == from_text(turned.to_text()).legs
    assert moved.camera.yaw == 0 and abs(turned.camera.yaw) > 20 and turned.camera.zoom < moved.camera.zoom
    [prompt] = seen["again"].values()
    assert prompt["class_type"] == NODE and prompt["inputs"]["state"] == seen["turned"]
    assert seen["saved"]["nodes"][0]["widgets_values"] == [seen["turned"], 352, 512, 1, 1, 1, 1, 1, 1, -1]


@pytest.mark.parametrize("view", ["classic", "new"])
def test_a_pose_of_the_library_is_taken_and_taken_back(view, reports):
    seen = reports[view]
    assert from_text(seen["picked"]).root[1] in (180, -180), "a handstand"
    assert seen["undone"] == seen["turned"]
