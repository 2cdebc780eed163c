"""What the pack adds to the host's frontend, run by node with a stand-in for the page."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from pgpis_models.files.presets import PRESETS, pages
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
const node = { comfyClass: "PGPISLoadPose", title: "Load Pose",
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

OPENING = """
import { app } from "../../scripts/app.js"
import "./presets.js"
const said = { opened: [], listed: [], labels: [] }
globalThis.window = { open: (...given) => said.opened.push(given) }
const part = (tag) => ({ tag, style: {}, parts: [], append(...more) { this.parts.push(...more) }, addEventListener() {},
  showModal() { said.listed.push(texts(this)) } })
const texts = (one) => [one.href ?? one.textContent, ...one.parts.map(texts)].flat().filter(Boolean)
globalThis.document = { createElement: part, body: { append() {} } }
const made = (comfyClass) => ({ comfyClass, widgets: [{ name: "preset", value: "" }],
  addWidget(type, label, value, callback, options) {
    const one = { type, callback, options }
    said.labels.push([comfyClass, type, label])
    return (this.button = one)
  } })
const [extension] = app.extensions
extension.nodeCreated(made("PGPISLoadPreset"))    // a host that sends no pages
const preset = (pgpis_pages) => ({ required: { preset: [["a"], { pgpis_pages }] } })
extension.beforeRegisterNodeDef(null, { name: "KSampler", input: preset({ other: [] }) })
extension.beforeRegisterNodeDef(null, { name: "PGPISLoadPreset", input: preset(PAGES) })
extension.nodeCreated(made("KSampler"))
const node = made("PGPISLoadPreset")
extension.nodeCreated(node)
for (const name of [...Object.keys(PAGES), "preset of tomorrow"]) {
  node.widgets[0].value = name
  node.button.callback()
}
console.log(JSON.stringify({ ...said, kept: [node.button.serialize, node.button.options.serialize] }))
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


@pytest.mark.skipif(not shutil.which("node"), reason="node is not installed (Debian: apt-get install nodejs)")
def test_the_pages_of_a_preset_are_opened_or_listed(tmp_path):
    """One page is opened, several are listed; an address that is none of the web is neither."""
    bad = {"bad": [{"what": "x", "page": address, "folder": "y"} for address in ("javascript:alert(1)", "no address")]}
    given = {name: pages(name) for name in PRESETS} | bad
    said = page(tmp_path, OPENING.replace("PAGES", json.dumps(given)), "presets.js")
    assert said["labels"] == [["PGPISLoadPreset", "button", "get its files"]] and said["kept"] == [False, False]
    addresses = {name: [one["page"] for one in needs] for name, needs in given.items() if name != "bad"}
    single = [set(found).pop() for found in addresses.values() if len(set(found)) == 1]
    assert said["opened"] == [[address, "_blank", "noopener,noreferrer"] for address in single] and len(single) == 4
    several = {name: found for name, found in addresses.items() if len(set(found)) > 1}
    assert [one[0] for one in said["listed"]] == [f"{name} needs" for name in several]
    for shown, name in zip(said["listed"], several, strict=True):
        assert [text for text in shown if text.startswith("https:")] == addresses[name]
        for one in given[name]:
            assert f"{one['what']}, into {one['folder']}: " in shown


def test_every_preset_has_a_page_for_what_is_published():
    for name, preset in PRESETS.items():
        own = {need.what for need in preset.needs.values() if "your own training" in need.page}
        assert len(pages(name)) == len(preset.needs) - len(own), name
        assert all(re.fullmatch(r"https://[\w./-]+", one["page"]) for one in pages(name)), name


def test_the_host_is_told_where_the_files_are():
    assert 'WEB_DIRECTORY = "./web"' in (PACK / "__init__.py").read_text()
