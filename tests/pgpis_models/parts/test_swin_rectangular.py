"""Swin on rectangular images and windows, against timm and against attention written out pixel by pixel."""

import pytest
import torch

from pgpis_models.parts.swin import MASKED, SwinBackbone, resize_bias_table, stage_geometries

SMALL = {"width": 16, "depths": (2, 2, 2, 2), "heads": (1, 2, 2, 4)}


def randomised(module, seed=0):
    """Every parameter away from its initial value, so that nothing hides behind a zero bias."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    return module.eval()


@pytest.mark.parametrize(("image_size", "window"), [
    ((64, 64), 4), ((128, 96), (8, 6)), ((128, 96), (4, 6)), ((96, 128), (3, 8)), ((64, 128), (4, 4)),
])  # fmt: skip
def test_features_equal_timm(image_size, window):
    timm = pytest.importorskip("timm.models.swin_transformer")
    ours = randomised(SwinBackbone(image_size, window, **SMALL))
    theirs = timm.SwinTransformer(img_size=image_size, window_size=window, embed_dim=16, depths=(2, 2, 2, 2),
                                  num_heads=(1, 2, 2, 4), num_classes=0).eval()
    state = {}
    for key, value in ours.state_dict().items():
        part = key.split(".")
        if "downsample" in part:  # timm counts the merging with the stage that follows it
            part[1] = str(int(part[1]) + 1)
        state[".".join(part)] = value
    kept = {key: value for key, value in theirs.state_dict().items() if key.startswith("norm.")}
    theirs.load_state_dict(state | kept | {key: value for key, value in theirs.state_dict().items()
                                           if key.endswith(("relative_position_index", "attn_mask"))})
    image = torch.randn(2, 3, *image_size)
    with torch.no_grad():
        expected = theirs.forward_intermediates(image, intermediates_only=True)  # (B, C, h, w)
        features = ours(image)
    assert [f.shape[1] for f in features] == [h * w for h, w in ours.grids]
    for index, (mine, other) in enumerate(zip(features, expected)):
        assert (mine - other.flatten(2).transpose(1, 2)).abs().max() < 2e-5, f"stage {index}"


def test_a_shifted_rectangular_block_equals_attention_written_pixel_by_pixel():
    backbone = randomised(SwinBackbone((48, 64), (3, 4), width=8, depths=(2,), heads=(2,)).double())
    block = backbone.layers[0].blocks[1]
    grid, window, shift, heads = block.grid, block.window, block.shift, 2
    assert (grid, window, shift) == ((12, 16), (3, 4), (1, 2))
    x = torch.randn(1, grid[0] * grid[1], 8, dtype=torch.float64)
    q, k, v = block.attn.qkv(x)[0].unflatten(1, (3, heads, 4)).unbind(1)  # each (H W, heads, d)
    table = block.attn.relative_position_bias_table

    def place(y, x):  # window, and position in it, after the cyclic shift; and whether the pixel wrapped around
        sy, sx = (y - shift[0]) % grid[0], (x - shift[1]) % grid[1]
        return (sy // window[0], sx // window[1]), (sy % window[0], sx % window[1]), (y < shift[0], x < shift[1])

    pixels = [(y, x) for y in range(grid[0]) for x in range(grid[1])]
    expected = torch.zeros(len(pixels), heads, 4, dtype=torch.float64)
    for i, here in enumerate(pixels):
        cell, at, wrapped = place(*here)
        logits, values = [], []
        for j, there in enumerate(pixels):
            other_cell, other_at, other_wrapped = place(*there)
            if other_cell != cell:
                continue
            row = (at[0] - other_at[0] + window[0] - 1) * (2 * window[1] - 1) + at[1] - other_at[1] + window[1] - 1
            logit = (q[i] * k[j]).sum(-1) / 2 + table[row]  # head width 4
            logits.append(logit + (MASKED if wrapped != other_wrapped else 0.0))
            values.append(v[j])
        weights = torch.softmax(torch.stack(logits), 0)  # (keys, heads)
        expected[i] = (weights[..., None] * torch.stack(values)).sum(0)
    expected = block.attn.proj(expected.flatten(1))[None]
    assert (block._attention(x) - expected).abs().max() < 1e-12


def test_stages_of_the_demo_never_shift_where_the_window_fills_the_grid():
    stages = stage_geometries((128, 96), 4, (8, 6), 4)
    assert [stage.grid for stage in stages] == [(32, 24), (16, 12), (8, 6), (4, 3)]
    assert [stage.window for stage in stages] == [(8, 6), (8, 6), (8, 6), (4, 3)]
    assert [stage.shift for stage in stages] == [(4, 3), (4, 3), (0, 0), (0, 0)]


def test_sizes_that_do_not_divide_are_refused_with_both_numbers():
    with pytest.raises(ValueError, match=r"\(32, 24\).*\(8, 8\)|\(16, 12\).*\(8, 8\)"):
        SwinBackbone((128, 96), 8, **SMALL)
    with pytest.raises(ValueError, match=r"\(130, 96\).*4"):
        SwinBackbone((130, 96), 2, **SMALL)
    with pytest.raises(ValueError, match=r"odd grid of \(32, 25\)"):
        SwinBackbone((128, 100), (8, 5), **SMALL)
    with pytest.raises(ValueError, match=r"\(2, 3, 64, 64\).*128, 96"):
        SwinBackbone((128, 96), (8, 6), **SMALL)(torch.zeros(2, 3, 64, 64))


def test_a_module_built_on_the_meta_device_computes_what_an_ordinary_one_does():
    ordinary = randomised(SwinBackbone((64, 96), (4, 6), **SMALL))
    with torch.device("meta"):
        built = SwinBackbone((64, 96), (4, 6), **SMALL)
    built.load_state_dict(ordinary.state_dict(), assign=True)
    image = torch.randn(1, 3, 64, 96)
    for mine, other in zip(built.eval()(image), ordinary(image)):
        assert torch.equal(mine, other)


def test_bias_tables_are_resized_to_rectangular_windows():
    table = torch.randn(11 * 11, 3)  # window 6
    assert resize_bias_table(table, (6, 6)) is table
    assert resize_bias_table(table, (8, 5)).shape == (15 * 9, 3)
    smooth = torch.linspace(-1, 1, 11)[:, None].expand(11, 11).reshape(-1, 1)  # grows downwards only
    resized = resize_bias_table(smooth, (12, 4)).view(23, 7)
    assert (resized[1:] > resized[:-1]).all() and torch.allclose(resized, resized[:, :1].expand(-1, 7), atol=1e-6)
    with pytest.raises(ValueError, match="120 rows"):
        resize_bias_table(torch.randn(120, 3), (8, 8))


def test_loading_another_architecture_names_what_differs():
    backbone = SwinBackbone((64, 64), 4, **SMALL)
    state = backbone.state_dict() | {"head.weight": torch.zeros(10, 128), "norm.weight": torch.zeros(128)}
    backbone.load_imagenet({"model": state})  # the published file's top key
    state["layers.0.blocks.0.mlp.fc3.weight"] = state.pop("layers.0.blocks.0.mlp.fc1.weight")
    with pytest.raises(ValueError, match=r"2 keys differ.*missing layers.0.blocks.0.mlp.fc1.weight.*fc3"):
        backbone.load_imagenet(state)


def test_stochastic_depth_keeps_the_mean_and_is_off_in_evaluation():
    backbone = randomised(SwinBackbone((16, 16), 4, width=8, depths=(2,), heads=(2,), drop_path=0.5))
    assert [block.drop_path for block in backbone.layers[0].blocks] == [0.0, 0.5]
    block, x = backbone.layers[0].blocks[1], torch.randn(1, 16, 8).expand(4000, -1, -1)
    with torch.no_grad():
        assert torch.equal(block(x)[0], block(x)[1])
        branch = block.train()._drop(torch.ones(4000, 2, 2))
    assert set(branch.unique().tolist()) == {0.0, 2.0} and abs(branch.mean().item() - 1) < 0.1
    assert (branch == branch[:, :1, :1]).all()  # whole samples
