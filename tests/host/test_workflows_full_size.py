"""The workflows for photos, with random weights of the real widths in a real ComfyUI server."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.helpers.workflows import COMPLAINTS, input_picture, is_a_picture, of_node, only, showing, workflow
from tests.host.random_models import lora, make
from tests.host.saved_workflows import to_api

WIDTHS = (320, 640, 1280, 1280)   # of Stable Diffusion 1.5's levels
SAMPLING = ("cfg", "sampler_name", "scheduler")


class Standing(torch.nn.Module):
    """Stands for the public DensePose models: one person in the middle, whose torso fills it."""

    def forward(self, image: torch.Tensor):
        height, width = float(image.shape[1]), float(image.shape[2])
        coarse, fine = torch.zeros(1, 2, 8, 8), torch.zeros(1, 25, 8, 8)
        coarse[:, 1] = 1.0
        fine[:, 2] = 1.0
        half = torch.full((1, 25, 8, 8), 0.5)
        return torch.tensor([[0.3 * width, 0.1 * height, 0.7 * width, 0.9 * height]]), coarse, fine, half, half


@pytest.mark.parametrize("names, kinds, size", [(("cfld_sd15", "few_steps_sd15"), ("sd15", "cfld"), (64, 64)),
                                                (("mcld_sd15",), ("sd15", "mcld", "clip"), (64, 64)),
                                                (("fpdm_sd21",), ("sd21", "fpdm"), (64, 48))])
def test_workflows_for_photos_run_at_full_width(names, kinds, size, server):
    """Random weights of the real widths through the real loaders, in small pictures, one step: all is found by what is in
    it, loads and fits, nothing overflows, and the photo comes back with another person in it."""
    prompts = [to_api(workflow(name), server.object_info) for name in names]
    models, base = server.base / "models", prompts[0][only(prompts[0], "PGPISLoadPreset")]["inputs"]["base_model"]
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
    for node in prompts[-1].values():
        if node["class_type"] == "LoraLoaderModelOnly":   # in the naming of public ones
            files["lora"] = models / "loras" / node["inputs"]["lora_name"]
            files["lora"].parent.mkdir(exist_ok=True)
            lora(files["lora"], WIDTHS)
    start, results = len(server.log.read_text(errors="replace")), []
    for prompt in prompts:
        sampling = prompts[0][only(prompts[0], "KSampler")]["inputs"]
        prompt[only(prompt, "KSampler")]["inputs"] |= {"steps": 1, **{name: sampling[name] for name in SAMPLING}}
        outputs = server.run(prompt)
        [made] = of_node(server, outputs, showing(prompt, "PreviewImage", only(prompt, "VAEDecode")))
        is_a_picture(made, size)
        results.append(made)
        [whole] = of_node(server, outputs, showing(prompt, "SaveImage", only(prompt, "PGPISPasteBack")))
        photo = input_picture("pgpis_source.png")
        is_a_picture(whole, photo.shape[:2])
        assert (whole != photo).any(-1).mean() > 0.1
    assert len(results) == 1 or not np.array_equal(*results)   # but for the LoRA the two are one
    said = server.log.read_text(errors="replace")[start:]
    assert not [one for one in (*COMPLAINTS, "invalid value encountered") if one in said], said[-3000:]
    server.request("/free", {"unload_models": True, "free_memory": True})
    for path in files.values():   # gigabytes to whoever counts, and other presets would find them
        path.unlink()
