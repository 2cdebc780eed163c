"""The demo's base in the host: its previews, and its copies for other devices."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

PICTURES = ("pgpis_source.png", "pgpis_target.png", "pgpis_person.png")


@pytest.fixture(scope="module")
def shipped(host):
    """The MODEL and VAE that come with the pack."""
    loaders = host.pack("nodes.loaders")
    return SimpleNamespace(model=loaders.native_unet(loaders.DEMO_FOLDER / loaders.DEMO_BASE),
                           vae=loaders.native_vae(loaders.DEMO_FOLDER / loaders.DEMO_VAE))


@pytest.mark.hosts
@torch.no_grad()
def test_a_preview_has_the_colours_of_the_decoded_picture(host, shipped, monkeypatch):
    """Mean error against the decoded picture's means over 8x8 pixels, in 0..1; SD1.5's factors for comparison."""
    import comfy.latent_formats
    import latent_preview
    monkeypatch.setattr(latent_preview.args, "preview_method", latent_preview.LatentPreviewMethod.Latent2RGB)
    device = shipped.model.load_device
    previewers = [latent_preview.get_previewer(device, one)
                  for one in (shipped.model.model.latent_format, comfy.latent_formats.SD15())]
    errors = []
    for name in PICTURES:
        latent = shipped.vae.encode(host.pack("nodes.demo").DemoPicture.execute(name).result[0])
        truth = F.avg_pool2d(shipped.vae.decode(latent).movedim(-1, 1), 8)[0].movedim(0, -1).numpy()
        sampled = shipped.model.model.process_latent_in(latent)
        shown = [np.asarray(one.decode_latent_to_preview(sampled.to(device))) / 255 for one in previewers]
        errors.append([float(np.abs(one - truth).mean()) for one in shown])
    ours, sd15 = np.mean(errors, 0)
    print(f"mean error of the previews: {ours:.3f}, with SD1.5's factors {sd15:.3f}")
    assert ours < 0.05 and ours < sd15 / 3


@pytest.mark.hosts
def test_the_host_can_load_both_again_for_another_device(shipped):
    for patcher in (shipped.model, shipped.vae.patcher):
        load, arguments = patcher.cached_patcher_init
        other = load(*arguments, disable_dynamic=True)
        assert other.model is not patcher.model
        state, again = patcher.model.state_dict(), other.model.state_dict()
        assert state.keys() == again.keys() and all(torch.equal(state[key], again[key]) for key in state)
        if hasattr(patcher, "deepclone_multigpu"):   # hosts of 2026
            copy = patcher.deepclone_multigpu(torch.device("cpu"))
            assert copy.model is not patcher.model and copy.load_device == torch.device("cpu")
