"""MCLD with several photos of one person: one that comes twice changes nothing, two weigh as one."""

import numpy as np
import pytest
import torch

from pgpis_models.mcld.inputs import face_quality
from pgpis_models.mcld.joining import appearance_of_one, mean_face
from pgpis_models.surface.densepose import IUV
from pgpis_models.unet.attention import self_attention
from tests.pgpis_models.mcld.test_mcld import binding, inputs, method, predict, unet, writer  # noqa: F401  fixtures


def of_one(method, writer, numbers, merged=False):  # noqa: F811
    """Photos `numbers` of `inputs` as one person, with the pose of the first; merged: one texture map for all."""
    given = {name: value[numbers] for name, value in inputs(3).items()}
    texture = {name: given[name][:1] if merged else given[name] for name in ("texture", "texture_latent")}
    with torch.no_grad():
        found = appearance_of_one(method, given["image"], face=mean_face(given["face"]), reference=writer, **texture)
        return found.with_pose(method.encode_pose(inputs(3)["pose"][:1]))


@pytest.mark.parametrize("merged", [False, True], ids=["a texture each", "one texture"])
def test_a_photo_that_comes_twice_changes_nothing(merged, method, writer, binding):  # noqa: F811
    alone = {name: value[:1] for name, value in inputs(3).items()}
    with torch.no_grad():
        plain = method.encode(**alone, reference=writer)
    once, twice, other = (of_one(method, writer, numbers, merged) for numbers in ([0], [0, 0], [0, 1]))
    expected = predict(binding, method.injections(plain), 1)
    assert (predict(binding, method.injections(once), 1) - expected).abs().max() < 1e-5
    assert (predict(binding, method.injections(twice), 1) - expected).abs().max() < 1e-5
    assert (predict(binding, method.injections(other), 1) - expected).abs().max() > 1e-3
    null = predict(binding, method.null_injections(plain), 1)
    assert (predict(binding, method.null_injections(other), 1) - null).abs().max() < 1e-5


def test_the_order_of_the_photos_does_not_matter(method, writer, binding):  # noqa: F811
    there, back = (predict(binding, method.injections(of_one(method, writer, numbers)), 1)
                   for numbers in ([0, 1, 2], [2, 0, 1]))
    assert (there - back).abs().max() < 1e-5


def test_self_attention_weighs_parts_as_one_in_float64():
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(3, 6, 8, generator=g, dtype=torch.float64) for _ in range(3))
    rk, rv = (torch.randn(3, 10, 8, generator=g, dtype=torch.float64) for _ in range(2))
    on = torch.tensor([0, 2, 1])
    out = self_attention(q, k, v, 2, rk, rv, on)
    for row, parts in enumerate(on.tolist()):
        for head in (slice(0, 4), slice(4, 8)):
            logits = q[row, :, head] @ torch.cat([k[row], rk[row]])[:, head].T / 2
            weight = logits.exp() * torch.tensor([1.0] * 6 + [1 / parts if parts else 0.0] * 10, dtype=torch.float64)
            expected = weight / weight.sum(1, keepdim=True) @ torch.cat([v[row], rv[row]])[:, head]
            assert torch.allclose(out[row, :, head], expected, atol=1e-6)


def test_faces_are_averaged_by_quality():
    faces = torch.tensor([[3.0, 4.0], [0.0, 0.0], [0.0, 1.0]])
    assert torch.allclose(mean_face(faces), torch.tensor([[15.0, 21.0]]) / 6)   # lengths 5, none and 1
    assert torch.allclose(mean_face(faces, torch.tensor([1.0, 9.0, 3.0])), torch.tensor([[0.75, 1.75]]))
    assert torch.allclose(mean_face(faces, torch.tensor([0.0, 9.0, 0.0])), torch.tensor([[1.5, 2.5]]))   # of those there
    assert torch.equal(mean_face(torch.zeros(2, 3)), torch.zeros(1, 3))


def test_a_faces_quality_is_how_many_pixels_of_it_are_seen_from_the_front():
    def standing(size, front, back):
        """Head parts and trunk of so many pixels: front on its left, back on its right."""
        part = np.zeros((64, 64), np.uint8)
        part[:size, :size // 2], part[:size, size // 2:size] = 23, 24
        part[32:, :front], part[32:, 63 - back:63] = 2, 1
        return IUV(part, *(np.zeros((64, 64), np.float32) for _ in "uv"))
    views = [standing(20, 30, 0), standing(10, 30, 0), standing(20, 30, 10), standing(20, 0, 30), standing(0, 30, 0)]
    assert face_quality(views).tolist() == [400.0, 100.0, 300.0, 0.0, 0.0]
