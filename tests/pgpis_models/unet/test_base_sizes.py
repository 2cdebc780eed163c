"""Bases of both kinds of Stable Diffusion: sizes to a UNet and back, files, and attention weights in float32."""

import pytest
import torch

from pgpis_models.fpdm.config import CONFIGS
from pgpis_models.fpdm.model import FPDM
from pgpis_models.unet.attention import attend
from pgpis_models.unet.base import SD21, BaseSizes, load_unet, save_unet, sizes_of
from pgpis_models.unet.diffusers_binding import DiffusersBinding
from pgpis_models.unet.shapes import unet_shapes
from tests.helpers.tiny import write_diffusers

TINY21 = BaseSizes((32, 64, 64, 64), cross_attention_dim=24, heads=1, head_dim=32, prediction="v_prediction",
                   linear_projection=True, upcast_attention=True)


def test_stable_diffusion_2_1_has_its_heads_matrices_and_parameters():
    with torch.device("meta"):
        unet, method = SD21.build(), FPDM(CONFIGS["full"])
    assert SD21.heads_of == (5, 10, 20, 20) and unet.config.attention_head_dim == (5, 10, 20, 20)
    assert unet.down_blocks[1].attentions[0].transformer_blocks[0].attn1.heads == 10
    assert sum(value.numel() for value in unet.parameters()) == 865_910_724  # the published count
    shapes = {name: tuple(value.shape) for name, value in unet.named_parameters()}
    assert shapes == method.unet_weight_shapes() and shapes != unet_shapes((320, 640, 1280, 1280), 1024)


@pytest.mark.parametrize("sizes", [TINY21, BaseSizes((32, 64, 64, 64), heads=4, cross_attention_dim=24)])
def test_sizes_come_back_from_a_unet_and_from_files(sizes, tmp_path):
    unet = sizes.build()
    assert sizes_of(unet, sizes.prediction) == sizes
    save_unet(tmp_path / "base.safetensors", unet, sizes, step=0, data="none")
    again, read = load_unet(tmp_path / "base.safetensors")
    assert read == sizes and again.config.upcast_attention == sizes.upcast_attention
    _, found = load_unet(write_diffusers(tmp_path / "sd", sizes))
    assert found == sizes


def test_other_kinds_of_heads_are_refused():
    with pytest.raises(ValueError, match=r"head_dim is 48, which does not divide the widths \[32, 64, 64, 64\]"):
        BaseSizes((32, 64, 64, 64), head_dim=48)
    unet = TINY21.build()
    unet.register_to_config(attention_head_dim=(1, 4, 2, 2))
    with pytest.raises(ValueError, match=r"\(1, 4, 2, 2\) attention heads at widths"):
        sizes_of(unet, "epsilon")


def test_upcast_attention_survives_scores_beyond_half_precision():
    torch.manual_seed(0)
    query, key = (300 * torch.randn(2, 5, 32) for _ in range(2))   # scores of some 1e6; float16 ends at 65504
    value = torch.randn(2, 5, 32)
    expected = attend(*(t.half().double() for t in (query, key, value)), 1)
    half = [t.half() for t in (query, key, value)]
    made = attend(*half, 1, upcast=True)
    assert made.dtype == torch.float16 and (made - expected).abs().max() < 2e-3
    with torch.autocast("cpu", torch.bfloat16):
        inside = attend(query, key, value, 1, upcast=True)
    assert torch.equal(inside, attend(query, key, value, 1))


def test_the_binding_upcasts_where_the_unet_says_so(monkeypatch):
    from pgpis_models.unet import attention
    seen = []
    real = attention.F.scaled_dot_product_attention
    monkeypatch.setattr(attention.F, "scaled_dot_product_attention",
                        lambda q, *rest, **more: seen.append(q.dtype) or real(q, *rest, **more))
    x, t, rows = torch.randn(1, 4, 8, 8), torch.tensor([5]), {f"context.{s}": torch.randn(1, 3, 24)
                                                             for s in ("down", "mid", "up")}
    for sizes, dtype in ((TINY21, torch.float32), (BaseSizes((32, 64, 64, 64), heads=4, cross_attention_dim=24),
                                                   torch.bfloat16)):
        seen.clear()
        with torch.no_grad():
            DiffusersBinding(sizes.build().bfloat16())(x.bfloat16(), t, {k: v.bfloat16() for k, v in rows.items()})
        assert len(seen) == 32 and set(seen) == {dtype}
