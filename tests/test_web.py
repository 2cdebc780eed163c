"""What the pack adds to the host's frontend, run by node with a stand-in for the page."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from pgpis_models.methods import METHODS, guidance_modes, method_classes
from pgpis_models.poses.files import POSE_SUFFIXES

PACK = Path(__file__).resolve().parents[1]
SCRIPT = """
import { app } from "../../scripts/app.js"
import "./guider.js"
const [extension] = app.extensions
const names = ["mode", "pose", "appearance", "biases", "prompt", "source", "fusion", "start_percent"]
const node = { comfyClass: "PGPISGuider", size: [200, 10], inputs: [{ widget: { name: "prompt" }, link: null }],
  widgets: names.map((name) => ({ name, options: {}, value: name === "mode" ? "default" : 2 })),
  computeSize() { return [1, this.widgets.filter((one) => !one.hidden).length * 20] }, setSize(size) { this.size = size } }
const shown = () => node.widgets.filter((one) => !one.hidden && !one.options.hidden).map((one) => one.name)
extension.nodeCreated({ comfyClass: "KSampler", widgets: [] })
extension.nodeCreated(node)
const found = { default: shown() }
for (const mode of ["uc_full", "uc_down_updown_cdown", "uc_source_fusion", "mode of tomorrow"]) {
  node.widgets[0].value = mode
  node.widgets[0].callback(mode)
  found[mode] = shown()
}
node.widgets[0].value = "uc_full"
node.inputs[0].link = 3
extension.loadedGraphNode(node)
found.linked = shown()
console.log(JSON.stringify({ found, height: node.size[1] }))
"""

UPLOAD = """
import { app } from "../../scripts/app.js"
import { api } from "../../scripts/api.js"
import "./pose_upload.js"
const said = { sent: [], buttons: [], chosen: [], toasts: [] }
globalThis.FormData = class extends Map { append(name, value) { this.set(name, value.name ?? value) } }
let input
globalThis.document = { createElement: () => (input = { files: [], click() {} }) }
app.extensionManager = { toast: { add: (one) => said.toasts.push(one.detail) } }
const node = { comfyClass: "PGPISLoadPose",
  widgets: [{ name: "file", value: "", options: { values: ["(the text below)"] },
    callback: (value) => said.chosen.push(value) }],
  addWidget(type, name, value, callback) { const one = { type, name, callback }; said.buttons.push(one); return one } }
const [extension] = app.extensions
extension.nodeCreated({ comfyClass: "KSampler", widgets: [] })
extension.nodeCreated(node)
api.fetchApi = async (route, { method, body }) => {
  said.sent.push([route, method, ...body.entries()])
  return { status: said.sent.length < 2 ? 200 : 413, statusText: "too large",
           json: async () => ({ name: "dance.json", subfolder: "" }) }
}
for (const name of ["dance.json", "huge.json"]) {
  said.buttons[0].callback()
  input.files = [{ name }]
  await input.onchange()
}
console.log(JSON.stringify({ ...said, accept: input.accept, value: node.widgets[0].value,
  values: node.widgets[0].options.values, serialized: said.buttons[0].serialize }))
"""


def page(folder: Path, script: str, *files: str) -> dict:
    """What a script says that node runs beside these files of web/, with a stand-in for the page."""
    extension = folder / "extensions" / "pgpis"
    extension.mkdir(parents=True)
    (folder / "scripts").mkdir()
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "scripts" / "app.js").write_text(
        "export const app = { extensions: [], registerExtension(one) { this.extensions.push(one) } }\n")
    (folder / "scripts" / "api.js").write_text("export const api = {}\n")
    for name in files:
        shutil.copy(PACK / "web" / name, extension)
    (extension / "run.js").write_text(script)
    result = subprocess.run(["node", str(extension / "run.js")], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def table() -> dict[str, list[str]]:
    text = (PACK / "web" / "guider.js").read_text()
    return json.loads(re.search(r"const WEIGHTS = (\{.*?\n\})", text, re.DOTALL)[1])


def test_the_weights_of_each_mode_are_those_that_its_methods_use():
    modes = guidance_modes()
    usual = {scale for name in METHODS if (modes_of := getattr(method_classes(name)[1], "guidance_modes", ()))
             for scale in method_classes(name)[1].guidance_scales(modes_of[0])}
    expected = {mode: {scale for scales in methods.values() for scale in scales} for mode, methods in modes.items()}
    assert {mode: set(weights) for mode, weights in table().items()} == {"default": usual, **expected}


@pytest.mark.skipif(not shutil.which("node"), reason="node is not installed (Debian: apt-get install nodejs)")
def test_the_guider_shows_the_weights_of_its_mode(tmp_path):
    said = page(tmp_path, SCRIPT, "guider.js")
    always, others = ["mode"], ["start_percent"]
    assert said["found"] == {
        "default": [*always, "pose", "appearance", "source", "fusion", *others],
        "uc_full": [*always, "appearance", *others],
        "uc_down_updown_cdown": [*always, "pose", "biases", "prompt", *others],
        "uc_source_fusion": [*always, "source", "fusion", *others],
        "mode of tomorrow": [*always, "pose", "appearance", "biases", "prompt", "source", "fusion", *others],
        "linked": [*always, "appearance", "prompt", *others]}
    assert said["height"] == 4 * 20, "the node shrinks to what it shows"


@pytest.mark.skipif(not shutil.which("node"), reason="node is not installed (Debian: apt-get install nodejs)")
def test_a_pose_file_is_uploaded_and_chosen(tmp_path):
    said = page(tmp_path, UPLOAD, "pose_upload.js")
    assert said["sent"][0] == ["/upload/image", "POST", ["image", "dance.json"], ["type", "input"]]
    assert said["chosen"] == ["dance.json"] and said["value"] == "dance.json"
    assert said["values"] == ["(the text below)", "dance.json"] and len(said["buttons"]) == 1
    assert said["serialized"] is False, "a saved workflow keeps the values of the schema's widgets alone"
    assert said["toasts"] == ["The pose file huge.json was not uploaded: 413 too large"]
    assert set(said["accept"].split(",")) == set(POSE_SUFFIXES)


def test_the_host_is_told_where_the_files_are():
    assert 'WEB_DIRECTORY = "./web"' in (PACK / "__init__.py").read_text()
