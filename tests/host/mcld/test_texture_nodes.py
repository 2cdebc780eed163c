"""Warp, Render and Edit Texture."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.host.mcld.helpers import SIZE, embed, face_of, sampled, texture_of


def test_a_texture_map_drawn_in_its_own_pose_is_the_photo(nodes, people):
    person = people[0]
    made = nodes.texture.WarpTexture.execute(person.image, person.densepose, "atlas", "exact", "near").result
    assert made[0].shape == (1, 1200, 800, 3) and made[1].shape == (1, 1200, 800)
    picture, mask = nodes.texture.RenderTexture.execute(made[0], person.densepose, 7).result
    inside = person.iuv[..., 0] > 0
    assert np.array_equal(mask[0].bool().numpy(), inside)
    assert torch.allclose(picture[0][~torch.from_numpy(inside)], torch.tensor(7 / 255))
    # pixels that share a texel show the later one, and colours may drop by a level
    near = (picture[0] - person.image[0]).abs()[torch.from_numpy(inside)].amax(-1) <= 1.5 / 255
    assert near.float().mean() > 0.9
    both = nodes.texture.RenderTexture.execute(made[0], person.densepose + people[1].densepose, 0).result[0]
    assert both.shape == (2, *SIZE, 3)


def test_edit_takes_the_named_parts_and_nothing_else(nodes, pack, people, caplog):
    own, donor = texture_of(nodes, people[0]), texture_of(nodes, people[2])
    mixed = nodes.texture.EditTexture.execute(own, donor, "torso, 7", False).result[0]
    chosen = torch.from_numpy(np.isin(pack.texture.part_map("atlas"), (1, 2, 7)))
    assert torch.equal(mixed[0][chosen], donor[0][chosen]) and torch.equal(mixed[0][~chosen], own[0][~chosen])
    assert not torch.equal(own[0][chosen], donor[0][chosen])
    mask = torch.zeros(1, 1200, 800)
    mask[:, :300, :100] = 1
    masked = nodes.texture.EditTexture.execute(own, donor, "", False, mask).result[0]
    assert torch.equal(masked[:, :300, :100], donor[:, :300, :100]) and torch.equal(masked[:, :, 100:], own[:, :, 100:])
    assert "stays as it was" not in caplog.text
    nodes.texture.EditTexture.execute(own, donor, "head", False, mask)   # of which nothing lies in the mask's corner
    assert "Texture 1 stays as it was: mask and parts (head) share no texel" in caplog.text
    known = nodes.texture.EditTexture.execute(own, torch.zeros_like(donor), "body", True).result[0]
    assert torch.equal(known, own)


def test_a_mask_of_the_photo_becomes_the_mask_of_its_texels(nodes, people):
    """Drawn in the photo's own pose, the texels of an upper half are that half."""
    person = people[0]
    half = torch.zeros(person.image.shape[:3])
    half[:, :person.iuv.shape[0] // 2] = 1
    settings = ("atlas", "fast", "all")
    plain = nodes.texture.WarpTexture.execute(person.image, person.densepose, *settings).result
    made = nodes.texture.WarpTexture.execute(person.image, person.densepose, *settings, half).result
    assert torch.equal(made[0], plain[0]) and (made[1] <= plain[1]).all() and not torch.equal(made[1], plain[1])
    shown = nodes.texture.RenderTexture.execute(made[1][..., None].repeat(1, 1, 1, 3), person.densepose, 0).result[0]
    inside = torch.from_numpy(person.iuv[..., 0] > 0)
    assert ((shown[0, ..., 0] > 0.5) == half[0].bool())[inside].float().mean() > 0.95   # pixels may share a texel
    with pytest.raises(ValueError, match="the mask has the shape .* expected the same"):
        nodes.texture.WarpTexture.execute(person.image, person.densepose, *settings, half[:, 1:])


def test_garments_and_identity_swap_through_texture_and_face(nodes, base, method, people):
    """Paper, section 4.4: the three edits change the picture, each in its own way."""
    source, target, other = people
    own, lent = texture_of(nodes, source), texture_of(nodes, other)
    garment = nodes.texture.EditTexture.execute(own, lent, "clothes", True).result[0]
    head = nodes.texture.EditTexture.execute(own, lent, "head", True).result[0]
    face = face_of(nodes, method, other)
    made = [sampled(nodes, base, embed(nodes, method, base, source, target, **changes)) for changes in (
        {}, {"texture": garment}, {"texture": head, "face": face}, {"face": face})]
    for index, first in enumerate(made):
        for second in made[index + 1:]:
            assert not torch.allclose(first, second, atol=1e-4)
