"""Merge Photos: several photos of one person into one texture map, which MCLD then reads; and MCLD's row of two people."""

from __future__ import annotations

import logging

import pytest
import torch

from tests.host.mcld.helpers import SIZE, embed, rows_of


def merged(nodes, *people, **more):
    first, *others = people
    for number, other in enumerate(others, start=2):
        more |= {f"image_{number}": other.image, f"densepose_{number}": other.densepose}
    return nodes.merging.MergePhotos.execute(first.image, first.densepose, "atlas", "fast", "all", **more).result


@pytest.fixture(scope="module")
def front_and_side(nodes, people):
    return merged(nodes, people[0], people[1], target_densepose=people[2].densepose)


def test_the_joined_texture_goes_into_mcld(nodes, base, method, people, front_and_side):
    texture, mask, seen, sources, posed = front_and_side
    assert texture.shape == sources.shape == (1, 1200, 800, 3) and mask.shape == seen.shape == (1, 1200, 800)
    assert posed.shape == (1, *SIZE, 3) and (seen <= mask).all() and 0 < seen.mean() < mask.mean()
    assert not texture[0][mask[0] == 0].any() and not sources[0][mask[0] == 0].any()
    cond = embed(nodes, method, base, people[0], people[1], texture=texture)
    plain = embed(nodes, method, base, people[0], people[1])
    assert cond.batch == 1 and not torch.allclose(cond.encoded.texture, plain.encoded.texture)


def test_a_batch_is_the_same_as_single_photos(nodes, people, front_and_side):
    photos, poses = torch.cat([people[0].image, people[1].image]), people[0].densepose + people[1].densepose
    both = nodes.merging.MergePhotos.execute(photos, poses, "atlas", "fast", "all").result
    assert torch.equal(both[0], front_and_side[0]) and torch.equal(both[3], front_and_side[3])
    assert both[4].shape == (2, *SIZE, 3), "on the photos themselves"


def test_what_does_not_go_together_is_said(nodes, people, caplog):
    person, execute = people[0], nodes.merging.MergePhotos.execute
    with pytest.raises(ValueError, match="image has 1 photos, densepose 2; expected one DensePose of each photo. Connect"):
        execute(person.image, person.densepose * 2, "atlas", "fast", "all")
    with pytest.raises(ValueError, match="image_3 is connected and densepose_3 is not; expected both or neither. Connect"):
        execute(person.image, person.densepose, "atlas", "fast", "all", image_3=person.image)
    with pytest.raises(ValueError, match="image_2 IMAGE holds values that are not finite"):
        execute(person.image, person.densepose, "atlas", "fast", "all", image_2=person.image * float("nan"),
                densepose_2=person.densepose)
    with pytest.raises(ValueError, match="photo 1 has 96x127 pixels, its DensePose 96x128; expected the same"):
        execute(person.image[:, 1:], person.densepose, "atlas", "fast", "all")
    with caplog.at_level(logging.WARNING):
        merged(nodes, person, type(person)(image=1 - person.image, densepose=person.densepose))
    assert "photos 1 and 2 show the same places of the body in other colours" in caplog.text


def test_two_people_in_a_row_for_mcld(nodes, base, method, people):
    first, second = (embed(nodes, method, base, person, people[1]) for person in (people[0], people[2]))
    row, = nodes.appearance.BlendAppearance.execute(first, second, 0.5, 3).result
    assert row.batch == 3
    ends, starts = rows_of(second.encoded), rows_of(first.encoded)
    for name, value in rows_of(row.encoded).items():
        if name != "pose":
            assert torch.allclose(value[0], starts[name][0], atol=1e-5)
            assert torch.allclose(value[2], ends[name][0], atol=1e-5)
    patched, positive, *_, latent = nodes.sampling.Apply.execute(base.model, row).result
    assert latent["samples"].shape[0] == 3
