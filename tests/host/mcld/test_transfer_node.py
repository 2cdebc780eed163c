"""Pose Transfer with MCLD: from DensePose, with what is not connected made of the photo."""

from __future__ import annotations

import pytest
import torch

from tests.host.mcld.helpers import Clip, embed, rows_of, sampled
from tests.host.test_pose_transfer import refused_layouts


@pytest.fixture(scope="module")
def transfer(host):
    return host.pack("nodes.transfer")


def made(transfer, method, base, source, target, **given):
    settings = {"densepose": target.densepose, "source_densepose": source.densepose, "vae": base.vae, "model": base.model}
    return transfer.transferred(method, source.image, settings | given)


def test_texture_and_face_are_made_of_the_photo_as_the_experts_nodes_make_them(transfer, nodes, method, base, people):
    source, target, _ = people
    ours, theirs = made(transfer, method, base, source, target), embed(nodes, method, base, source, target)
    rows, expected = rows_of(ours.encoded), rows_of(theirs.encoded)
    assert rows.keys() == expected.keys() and any(name.startswith("reference") for name in rows)
    assert all(torch.equal(rows[name], expected[name]) for name in rows)
    assert torch.equal(sampled(nodes, base, ours), sampled(nodes, base, theirs))


@pytest.mark.hosts
def test_the_node_samples_as_the_chain_of_experts(transfer, nodes, method, base, people):
    import comfy.sample
    source, target, _ = people
    patched, positive, negative, latent = transfer.PoseTransfer.execute(
        base.model, method=method, image=source.image, densepose=target.densepose, source_densepose=source.densepose,
        vae=base.vae, face_weight=0.5, fit=False).result[:4]
    found = comfy.sample.sample(patched, comfy.sample.prepare_noise(latent["samples"], 5), 2, 2.0, "euler", "sgm_uniform",
                                positive, negative, latent["samples"], disable_pbar=True, seed=5)
    assert torch.equal(found, sampled(nodes, base, embed(nodes, method, base, source, target)))


def test_latents_of_another_family_or_of_a_video_are_refused(transfer, method, base, people):
    source, target, _ = people
    refused_layouts(*transfer.PoseTransfer.execute(
        base.model, method=method, image=source.image, densepose=target.densepose, source_densepose=source.densepose,
        vae=base.vae, fit=False).result[:4])


def test_what_is_connected_goes_before_what_the_photo_shows(transfer, nodes, method, base, people):
    from tests.host.mcld.helpers import face_of, texture_of
    source, target, other = people
    ours = made(transfer, method, base, source, target, texture=texture_of(nodes, other), face=face_of(nodes, method, other))
    theirs = embed(nodes, method, base, source, target, texture=texture_of(nodes, other), face=face_of(nodes, method, other))
    assert all(torch.equal(value, rows_of(theirs.encoded)[name]) for name, value in rows_of(ours.encoded).items())


def test_without_anything_of_the_photo_it_says_what_is_left_out(transfer, method, base, people, caplog):
    source, target, _ = people
    cond = made(transfer, method, base, source, target, source_densepose=None)
    assert not cond.encoded.reference and not cond.encoded.texture.any()
    assert "sees no texture map: connect source_densepose" in caplog.text


def test_what_the_photo_does_not_show_of_the_target_is_said(transfer, method, base, people, caplog):
    import dataclasses

    import numpy as np
    source, target, _ = people
    [own] = source.densepose
    legs = np.isin(own.part, (7, 8, 9, 10, 11, 12, 13, 14))
    bare = dataclasses.replace(own, part=np.where(legs, own.part, 0).astype(np.uint8))   # the photo shows legs alone
    for of_photo, expected in ((own, False), (bare, True)):
        caplog.clear()
        transfer.PoseTransfer.execute(base.model, method=method, image=source.image, densepose=source.densepose,
                                      source_densepose=(of_photo,), vae=base.vae, fit=False)
        assert ("of the body's surface that target 1 shows" in caplog.text) == expected


def test_what_is_missing_is_named_with_its_input(transfer, nodes, method, files, base, people):
    source, target, _ = people
    with pytest.raises(ValueError, match="has no vae; expected vae .*texture map.*Connect it"):
        made(transfer, method, base, source, target, vae=None)
    published = nodes.loaders.LoadCheckpoint.execute("mcld_published.safetensors").result[0]
    clip = Clip(published.checkpoint.method.config.prompt_width)
    assert made(transfer, published, base, source, target, source_densepose=None, clip_vision=clip).batch == 1
