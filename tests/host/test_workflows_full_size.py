"""The workflows for photos, with random weights of the real widths in a real ComfyUI server."""

from __future__ import annotations

import pytest
import torch

from tests.helpers.workflows import COMPLAINTS, input_picture, is_a_picture, of_node, only, showing, workflow
from tests.host.random_models import make
from tests.host.saved_workflows import to_api


class Standing(torch.nn.Module):
    """Stands for the public DensePose models: one person in the middle, whose torso fills it."""

    def forward(self, image: torch.Tensor):
        height, width = float(image.shape[1]), float(image.shape[2])
        coarse, fine = torch.zeros(1, 2, 8, 8), torch.zeros(1, 25, 8, 8)
        coarse[:, 1] = 1.0
        fine[:, 2] = 1.0
        half = torch.full((1, 25, 8, 8), 0.5)
        return torch.tensor([[0.3 * width, 0.1 * height, 0.7 * width, 0.9 * height]]), coarse, fine, half, half


@pytest.mark.parametrize("name, kinds, size", [("cfld_sd15", ("sd15", "cfld"), (64, 64)),
                                               ("mcld_sd15", ("sd15", "mcld", "clip"), (64, 64)),
                                               ("fpdm_sd21", ("sd21", "fpdm"), (64, 48))])
def test_a_workflow_for_photos_runs_at_full_width(name, kinds, size, server):
    """Random weights of the real widths through the real loaders, in small pictures, one step: all is found by what is in
    it, loads and fits, nothing overflows, and the photo comes back with another person in it."""
    prompt = to_api(workflow(name), server.object_info)
    models, base = server.base / "models", prompt[only(prompt, "PGPISLoadPreset")]["inputs"]["base_model"]
    places = {"sd15": "checkpoints", "sd21": "checkpoints", "clip": "clip_vision"}
    files = {kind: models / places.get(kind, "pgpis") / (base if kind == kinds[0] else f"any {kind}.safetensors")
             for kind in kinds}
    for path in files.values():
        path.parent.mkdir(exist_ok=True)
    make(**files)
    if "mcld" in kinds:
        detector = server.base / "models" / "pgpis" / "densepose" / "densepose_r50_fpn_dl.torchscript"
        detector.parent.mkdir(exist_ok=True)
        torch.jit.script(Standing()).save(detector)
    prompt[only(prompt, "KSampler")]["inputs"]["steps"] = 1
    start = len(server.log.read_text(errors="replace"))
    outputs = server.run(prompt)
    [made] = of_node(server, outputs, showing(prompt, "PreviewImage", only(prompt, "VAEDecode")))
    is_a_picture(made, size)
    [whole] = of_node(server, outputs, showing(prompt, "SaveImage", only(prompt, "PGPISPasteBack")))
    photo = input_picture("pgpis_source.png")
    is_a_picture(whole, photo.shape[:2])
    assert (whole != photo).any(-1).mean() > 0.1
    said = server.log.read_text(errors="replace")[start:]
    assert not [one for one in (*COMPLAINTS, "invalid value encountered") if one in said], said[-3000:]
    server.request("/free", {"unload_models": True, "free_memory": True})
    for path in files.values():   # gigabytes to whoever counts, and other presets would find them
        path.unlink()
