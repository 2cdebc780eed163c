"""Spatial rows for latents of another size, against means over cells written out and torch's own enlarging."""

import pytest
import torch

from pgpis_models.unet.fitting import at_level, fitted_map, fitted_rows, fitted_tokens, resized_map, resized_tokens


def mean(value):
    """Of 2x2 cells."""
    batch, channels, height, width = value.shape
    return value.view(batch, channels, height // 2, 2, width // 2, 2).mean((3, 5))


def rows():
    torch.manual_seed(0)
    return {"stem": torch.randn(2, 6, 16, 8), "query_bias.up.3.0": torch.randn(2, 128, 6),
            "query_bias.up.2.1": torch.randn(2, 32, 6), "context.down": torch.randn(2, 5, 6),
            "self_reference.mid.0": torch.randn(2, 7, 6), "time_embedding": torch.randn(2, 9),
            "control.region": torch.ones(2, 1, 64, 32), "control.stem": torch.randn(2, 6, 16, 8),
            **{f"down_residual.{level}": torch.randn(2, 6, 16 >> level, 8 >> level) for level in range(3)}}


def test_rows_that_fit_pass_untouched():
    given = rows()
    found = fitted_rows(given, (16, 8))
    assert found.keys() == given.keys() and all(found[name] is value for name, value in given.items())


def test_on_latents_of_half_the_size_cells_are_averaged_and_the_rest_stays():
    given = rows()
    found = fitted_rows(given, (8, 4))
    maps = ("stem", *(f"down_residual.{level}" for level in range(3)))
    assert all(torch.allclose(found[name], mean(given[name]), atol=1e-6) for name in maps)
    for name, (height, width) in {"query_bias.up.3.0": (16, 8), "query_bias.up.2.1": (8, 4)}.items():
        expected = given[name].view(2, height // 2, 2, width // 2, 2, 6).mean((2, 4)).flatten(1, 2)
        assert torch.allclose(found[name], expected, atol=1e-6), name
    others = given.keys() - {*maps, "query_bias.up.3.0", "query_bias.up.2.1"}
    assert len(others) == 5 and all(found[name] is given[name] for name in others)   # a network fits its own inputs


def test_on_larger_latents_maps_are_enlarged_smoothly():
    given = rows()
    found = fitted_rows(given, (32, 16))
    plain = torch.nn.functional.interpolate(given["stem"], scale_factor=2, mode="bilinear")
    assert torch.equal(found["stem"], plain)
    tokens = given["query_bias.up.3.0"].transpose(1, 2).reshape(2, 6, 16, 8)
    expected = torch.nn.functional.interpolate(tokens, scale_factor=2, mode="bilinear").flatten(2).transpose(1, 2)
    assert torch.equal(found["query_bias.up.3.0"], expected)


def test_levels_with_odd_sides_come_out_as_the_unet_halves_them():
    """Latents of 16 x 12 have 4 x 3 at level 2; those of 8 x 6 have 2 x 2."""
    assert [at_level((16, 12), level) for level in range(4)] == [(16, 12), (8, 6), (4, 3), (2, 2)]
    assert [at_level((8, 6), level) for level in range(4)] == [(8, 6), (4, 3), (2, 2), (1, 1)]
    found = fitted_rows({"down_residual.2": torch.ones(1, 2, 4, 3), "query_bias.up.1.0": torch.ones(1, 12, 2)}, (8, 6))
    assert found["down_residual.2"].shape == (1, 2, 2, 2) and torch.equal(found["query_bias.up.1.0"], torch.ones(1, 4, 2))


def test_latents_of_another_aspect_are_refused_with_both_shapes():
    with pytest.raises(ValueError, match="stem was made for a picture of aspect 16:8 .height:width., the latents here are "
                                         "12:12"):
        fitted_rows({"stem": torch.zeros(1, 2, 16, 8)}, (12, 12))
    with pytest.raises(ValueError, match="the map was made for a picture of aspect 16:8"):
        fitted_map(torch.zeros(1, 2, 16, 8), (8, 16))
    with pytest.raises(ValueError, match="query_bias.up.3.0 has 128 tokens, which make no grid of the latents' aspect 5:5"):
        fitted_tokens(torch.zeros(1, 128, 2), (5, 5), "query_bias.up.3.0")


def test_inside_the_unet_any_size_will_do():
    """Deep shrink by 1.85 rounds 16 x 12 to 9 x 6: each cell is the mean of those that it touches."""
    value = torch.randn(2, 3, 16, 12)
    found = resized_map(value, (9, 6))
    for y in range(9):
        for x in range(6):
            cells = value[..., 16 * y // 9:-(-16 * (y + 1) // 9), 2 * x:2 * x + 2]
            assert torch.allclose(found[..., y, x], cells.mean((2, 3)), atol=1e-6)
    tokens = resized_tokens(value.flatten(2).transpose(1, 2), (16, 12), (9, 6))
    assert torch.equal(tokens.transpose(1, 2).unflatten(2, (9, 6)), found)
