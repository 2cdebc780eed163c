"""Injections for latents of half the size, against means over cells written out, and what samplers are given."""

import torch

from pgpis_models.unet.guidance import Guidance, Term
from pgpis_models.unet.injections import Control, Injections, everywhere
from training.engine.halved import halved, halved_guidance

LATENT = (16, 8)


def made(seed=0) -> Injections:
    torch.manual_seed(seed)
    maps = {f"map_{n}": torch.randn(2, 6, 16 >> n, 8 >> n) for n in range(3)}
    control = Control(lambda *_: None, {"tokens": torch.randn(2, 5, 6), "region": torch.ones(2, 1, 64, 32),
                                        "stem": torch.randn(2, 6, 16, 8), **maps}, scale=0.5, on=torch.tensor([1, 0]))
    return Injections(context=everywhere(torch.randn(2, 5, 6)), stem=torch.randn(2, 6, 16, 8), control=control,
                      query_bias={"up.3.0": torch.randn(2, 128, 6), "up.2.1": torch.randn(2, 32, 6)},
                      self_reference={"mid.0": torch.randn(2, 7, 6)}, time_embedding=torch.randn(2, 9),
                      down_residuals=tuple(torch.randn(2, 6, 16 >> n, 8 >> n) for n in range(3)))


def mean(value):
    """Of 2x2 cells."""
    batch, channels, height, width = value.shape
    return value.view(batch, channels, height // 2, 2, width // 2, 2).mean((3, 5))


def test_what_lies_on_the_latents_grid_is_averaged_and_the_rest_stays():
    full = made()
    half = halved(full, LATENT)
    assert torch.allclose(half.stem, mean(full.stem), atol=1e-6) and half.stem.shape == (2, 6, 8, 4)
    for before, after in zip(full.down_residuals, half.down_residuals, strict=True):
        assert torch.allclose(after, mean(before), atol=1e-6)
    for site, (height, width) in {"up.3.0": (16, 8), "up.2.1": (8, 4)}.items():
        expected = full.query_bias[site].view(2, height // 2, 2, width // 2, 2, 6).mean((2, 4)).flatten(1, 2)
        assert torch.allclose(half.query_bias[site], expected, atol=1e-6), site
    inputs = full.control.inputs
    for name, value in half.control.inputs.items():
        same = name in ("tokens", "region")
        assert torch.equal(value, inputs[name]) if same else torch.allclose(value, mean(inputs[name]), atol=1e-6), name
    assert half.control.on is full.control.on and half.control.scale == 0.5
    assert all(half.context[stage] is full.context[stage] for stage in full.context)
    assert half.self_reference is full.self_reference and half.time_embedding is full.time_embedding


def test_levels_with_odd_sides_come_out_as_the_unet_halves_them():
    """Latents of 16 x 12 have 4 x 3 at level 2; those of 8 x 6 have 2 x 2."""
    half = halved(Injections(down_residuals=(torch.ones(1, 2, 16, 12), torch.ones(1, 2, 8, 6), torch.ones(1, 2, 4, 3))),
                  (16, 12))
    assert [tuple(value.shape[2:]) for value in half.down_residuals] == [(8, 6), (4, 3), (2, 2)]
    assert all(torch.equal(value, torch.ones_like(value)) for value in half.down_residuals)


def test_all_terms_of_a_chain_are_halved():
    chain = Guidance((Term("null", Injections(context=everywhere(torch.zeros(1, 5, 6)))), Term("all", made(), 1.5)))
    found = halved_guidance(chain, LATENT)
    assert [(term.name, term.weight) for term in found.terms] == [("null", 1.0), ("all", 1.5)]
    assert found.terms[0].injections.stem is None and found.terms[1].injections.stem.shape == (2, 6, 8, 4)
