"""MCLD with several photos of one person: texture maps and faces of all of them, in both bindings."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.host.mcld.helpers import embed, face_of, largest_error, rows_of, sampled, texture_of
from tests.host.mcld.test_transfer_node import made, transfer  # noqa: F401  a fixture


def both(one, other):
    return SimpleNamespace(image=torch.cat([one.image, other.image]), densepose=one.densepose + other.densepose)


def test_one_photo_given_twice_is_that_photo_given_once(transfer, nodes, method, base, people):  # noqa: F811
    source, target, other = people
    once = sampled(nodes, base, made(transfer, method, base, source, target))
    twice = transfer.transferred(method, both(source, source).image, {
        "densepose": target.densepose, "source_densepose": source.densepose * 2, "vae": base.vae, "model": base.model},
        "one person together")
    assert float((sampled(nodes, base, twice) - once).abs().max() / once.abs().max()) < 1e-4
    of_each = embed(nodes, method, base, both(source, source), target, photos="one person together",
                    texture=torch.cat([texture_of(nodes, source)] * 2))
    assert of_each.encoded.reference_parts == 2
    assert float((sampled(nodes, base, of_each) - once).abs().max() / once.abs().max()) < 1e-4
    two = transfer.transferred(method, both(source, other).image, {
        "densepose": target.densepose, "source_densepose": source.densepose + other.densepose, "vae": base.vae,
        "model": base.model}, "one person together")
    assert float((sampled(nodes, base, two) - once).abs().max() / once.abs().max()) > 1e-3


@pytest.mark.parametrize("own", [False, True], ids=["merged", "a texture each"])
def test_both_bindings_see_the_same_of_two_photos(own, host, pack, transfer, nodes, method, base, people):  # noqa: F811
    """What the nodes encode against `encode_pictures`, and one UNet call of either binding."""
    source, _, other = people
    pair, target = both(source, other), people[1]
    given = {"texture": torch.cat([texture_of(nodes, one) for one in (source, other)])} if own else {}
    cond = transfer.transferred(method, pair.image, {
        "densepose": target.densepose, "source_densepose": pair.densepose, "vae": base.vae, "model": base.model} | given,
        "one person together")
    assert cond.batch == 1 and cond.encoded.reference_parts == (2 if own else 1)
    vae = host.pack("pgpis_models.unet.autoencoder").load_vae(host.base / "models" / "pgpis" / "demo_vae.safetensors")
    textures = None if not own else (given["texture"] * 255).round().byte().numpy()
    with torch.no_grad():
        theirs = pack.mcld_inputs.encode_pictures(
            method.checkpoint.method, pair.image.movedim(-1, 1) * 2 - 1, [None], torch.device("cpu"), vae=vae,
            densepose=target.densepose, source_densepose=pair.densepose, textures=textures,
            one_person=torch.full((1, 2), 0.5), reference=nodes.reference.reference_of(method, base.model))
    assert largest_error(rows_of(cond.encoded), rows_of(theirs)) < 1e-2   # features pass through float16


def test_texture_maps_of_two_people_are_told_and_photos_that_nothing_compares(nodes, method, base, people, caplog):
    source, target, _ = people
    own, pair = texture_of(nodes, source), both(source, source)
    other = torch.where(own > 0, 1 - own, 0)   # the opposite of every colour
    apart, unknown = "photos 1 and 2 differ in the colours of skin and clothes", "the photos were not compared"
    for photos, texture, said in ((pair, [own, other], apart), (pair, [own, own], ""), (pair, [own], ""),
                                  (pair, [], unknown), (source, [], "")):
        caplog.clear()
        with caplog.at_level("INFO"):
            embed(nodes, method, base, photos, target, face=None, photos="one person together",
                  texture=torch.cat(texture) if texture else None)
        assert [one for one in (apart, unknown) if one in caplog.text] == ([said] if said else [])
        assert not texture or all(record.levelname == "WARNING" for record in caplog.records if apart in record.message)


def test_faces_are_weighed_by_length_and_in_pose_transfer_by_how_large_they_are_seen(transfer, nodes, pack, method, base,  # noqa: F811
                                                                                     people):
    """The embedding node has no DensePose of the photos. Against the one face that NumPy's mean of the two makes."""
    source, target, other = people
    pair, plain = both(source, other), torch.cat([face_of(nodes, method, one).vectors for one in (source, other)])

    def of_one(vectors, weights=None):
        mean = np.average(vectors.double().numpy(), axis=0, weights=weights)
        face = dataclasses.replace(face_of(nodes, method, source), vectors=torch.from_numpy(mean).float()[None])
        return embed(nodes, method, base, source, target, face=face).encoded.face

    long = plain * torch.tensor([[1.0], [3.0]])
    faces = dataclasses.replace(face_of(nodes, method, source), vectors=long)
    found = embed(nodes, method, base, pair, target, face=faces, texture=texture_of(nodes, source),
                  photos="one person together").encoded.face
    assert (found - of_one(long, long.double().norm(dim=1).numpy())).abs().max() < 1e-5
    assert (found - of_one(long)).abs().max() > 1e-3
    found = transfer.transferred(method, pair.image, {
        "densepose": target.densepose, "source_densepose": pair.densepose, "vae": base.vae, "model": base.model},
        "one person together").encoded.face
    assert (found - of_one(plain, pack.mcld_inputs.face_quality(pair.densepose).numpy())).abs().max() < 1e-5
    assert (found - of_one(plain, plain.double().norm(dim=1).numpy())).abs().max() > 1e-3
    with pytest.raises(ValueError, match="2 sources, 3 textures"):
        embed(nodes, method, base, pair, target, face=None, photos="one person together",
              texture=torch.cat([texture_of(nodes, source)] * 3))
