"""The pose mask and its attention against equations (3) to (5) and (9) of the QEN paper, written out in float64."""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pgpis_models.poses.drawing import draw_openpose
from pgpis_models.poses.keypoints import Keypoints
from pgpis_models.poses.region import any_pool, checked_region, skeleton_region
from pgpis_models.unet.masked_attention import MASK_MODES, pose_masked_attention, seen_by_level, seen_queries

LOCAL, TOTAL = 3, 5
# (latents, picture): the demo's, one that no level divides, and SD1.5's at 512 x 512 and at DeepFashion's shape
LATENTS = [((16, 12), (128, 96)), ((7, 9), (56, 72)), ((64, 64), (512, 512)), ((64, 44), (512, 352))]


def plain_mask(region: np.ndarray, h: int, w: int, mode: str) -> np.ndarray:
    """M (L, N) of one picture: region (H, W) bool. A patch is in when any pixel that it touches is."""
    height, width = region.shape
    result = np.zeros((h * w, TOTAL))
    for i in range(h * w):
        row, column = divmod(i, w)
        rows = range(row * height // h, -(-(row + 1) * height // h))              # all pixels that the patch touches
        columns = range(column * width // w, -(-(column + 1) * width // w))
        inside = any(region[y, x] for y in rows for x in columns)
        for j in range(TOTAL):
            is_global = j >= LOCAL
            if mode == "none":
                seen = True
            elif mode == "simple":          # eq. (9)
                seen = inside
            elif mode == "simple_local":    # eq. (9) on the local queries, which alone are attended to
                seen = inside and not is_global
            else:                           # eq. (5)
                seen = inside or is_global
            result[i, j] = 0.0 if seen else -np.inf
    return result


def plain_attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, heads: int, mask: np.ndarray) -> np.ndarray:
    """Eqs. (3) and (4), head by head and row by row, in float64; a row without a key is 0."""
    length, width = q.shape
    size = width // heads
    out = np.zeros((length, width))
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        for i in range(length):
            logits = np.array([q[i, part] @ k[j, part] / math.sqrt(size) + mask[i, j] for j in range(len(k))])
            if np.isneginf(logits).all():
                continue
            weights = np.exp(logits - logits.max())
            out[i, part] = (weights / weights.sum()) @ v[:, part]
    return out


def regions(size, seed=0):
    """Two regions: a few pixels here and there, and one single pixel."""
    g = torch.Generator().manual_seed(seed)
    region = torch.zeros(2, 1, *size)
    region[0] = (torch.rand(1, *size, generator=g) > 0.998).float()
    region[1, 0, size[0] // 3, size[1] - 1] = 1
    return region


@pytest.mark.parametrize("mode", MASK_MODES)
@pytest.mark.parametrize("latent, picture", LATENTS)
def test_mask_and_attention_are_the_equations_at_every_site_size(latent, picture, mode):
    region, heads, width = regions(picture), 2, 8
    g = torch.Generator().manual_seed(1)
    levels = seen_by_level(region, latent, LOCAL, TOTAL, mode)
    assert len(levels) == 4
    blind = 0
    for level, seen in enumerate(levels):
        h, w = (-(-side // 2 ** level) for side in latent)
        q, k, v = (torch.randn(2, n, width, generator=g, dtype=torch.float64) for n in (h * w, TOTAL, TOTAL))
        for row in range(2):
            expected = plain_mask(region[row, 0].numpy() > 0.5, h, w, mode)
            if seen is not None:
                assert np.array_equal(seen[row].numpy(), expected == 0)
            else:
                assert mode == "none" and not expected.any()
            blind += int(np.isneginf(expected).all(1).sum())
            found = pose_masked_attention(*(t[row:row + 1].float() for t in (q, k, v)), heads,
                                          None if seen is None else seen[row:row + 1])
            plain = plain_attention(*(t[row].numpy() for t in (q, k, v)), heads, expected)
            assert np.abs(found[0].double().numpy() - plain).max() < 1e-5
    assert (blind > 0) == mode.startswith("simple"), "rows without a key must occur, or the test does not see them"


def test_equation_5_with_no_global_queries_is_equation_9_on_all():
    region = regions((128, 96))
    small = any_pool(region, (8, 6))
    assert torch.equal(seen_queries(small, 5, 5, "full"), seen_queries(small, 5, 5, "simple"))
    assert torch.equal(seen_queries(small, 5, 5, "full"), seen_queries(small, 5, 5, "simple_local"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("mode", MASK_MODES)
def test_rows_without_a_key_are_zero_and_gradients_finite_in_every_precision(mode, dtype):
    g = torch.Generator().manual_seed(2)
    region = regions((128, 96))
    region[1] = 0   # nothing inside at all
    seen = seen_by_level(region, (16, 12), LOCAL, TOTAL, mode)[1]
    inputs = [(3 * torch.randn(2, n, 16, generator=g)).to(dtype).requires_grad_() for n in (48, TOTAL, TOTAL)]
    out = pose_masked_attention(*inputs, 4, seen)
    assert out.dtype == dtype and torch.isfinite(out).all()
    blind = torch.zeros(2, 48, dtype=torch.bool) if seen is None else ~seen.any(-1)
    assert blind.any() == mode.startswith("simple")
    assert not out[blind].any() and out[~blind].any(-1).all()
    out.float().square().sum().backward()
    assert all(torch.isfinite(value.grad).all() for value in inputs)
    assert not inputs[0].grad[blind].any(), "what a blind row asked for changes nothing"


def test_the_fused_attention_gets_a_boolean_mask(monkeypatch):
    masks, real = [], F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention",
                        lambda *args, **kwargs: masks.append(kwargs.get("attn_mask")) or real(*args, **kwargs))
    seen = seen_by_level(regions((128, 96)), (16, 12), LOCAL, TOTAL, "simple")[2]
    pose_masked_attention(torch.rand(2, 12, 8), torch.rand(2, 5, 8), torch.rand(2, 5, 8), 2, seen)
    [mask] = masks
    assert mask.dtype == torch.bool and mask.shape == (2, 1, 12, 5) and mask.any(-1).all()


# --- the region ---------------------------------------------------------------------------------------------

def person(size):
    xy = np.random.default_rng(0).uniform(0.2, 0.8, (18, 2)) * (size[1], size[0])
    return Keypoints(xy, [True] * 18, size)


@pytest.mark.parametrize("size, sigma", [((64, 48), 24.0), ((64, 48), 60.0), ((40, 56), 0.0)])
def test_the_region_is_binarise_blur_and_threshold_written_out(size, sigma):
    drawn = draw_openpose(person(size))
    found = skeleton_region(torch.from_numpy(drawn).permute(2, 0, 1)[None], size, sigma)[0, 0].numpy() > 0
    binary = (drawn > 25.5).any(-1).astype(np.float64)
    if sigma == 0:
        assert np.array_equal(found, binary > 0)
        return
    spread = sigma * size[0] / 512
    y, x = np.arange(size[0]), np.arange(size[1])
    rows = np.exp(-(y[:, None] - y) ** 2 / (2 * spread ** 2))       # the sums over the kernel cancel in the comparison
    columns = np.exp(-(x[:, None] - x) ** 2 / (2 * spread ** 2))
    blurred = rows @ binary @ columns.T
    share = blurred / blurred.max() * 255
    clear = np.abs(share - 1) > 1e-2     # at the very edge float32 and the cut of the kernel may decide otherwise
    assert clear.mean() > 0.95 and np.array_equal(found[clear], (share > 1)[clear])
    assert found.sum() > (binary > 0).sum() and not found.all() and found[binary > 0].all()


def test_the_region_grows_with_the_blur_and_shrinks_with_the_threshold():
    picture = torch.from_numpy(draw_openpose(person((64, 48)))).permute(2, 0, 1)[None]
    sizes = [float(skeleton_region(picture, (64, 48), sigma).mean()) for sigma in (0.0, 8.0, 16.0, 32.0)]
    assert sizes == sorted(sizes) and len(set(sizes)) == 4
    assert skeleton_region(picture, (64, 48), 16.0, 0.2).mean() < skeleton_region(picture, (64, 48), 16.0).mean()
    same = skeleton_region(picture.float() / 255, (64, 48), 16.0)
    assert torch.equal(same, skeleton_region(picture, (64, 48), 16.0)), "bytes and 0..1 are the same drawing"


@pytest.mark.parametrize("size", [(3, 3), (16, 12), (128, 96), (200, 100)])
def test_a_mask_of_another_size_is_any_pooled(size):
    mask = torch.zeros(1, 1, 97, 61)
    mask[0, 0, 40, 13] = 1
    found = any_pool(mask, size)[0, 0]
    for row in range(size[0]):
        for column in range(size[1]):
            touches = (40 < (row + 1) * 97 / size[0] and 41 > row * 97 / size[0]
                       and 13 < (column + 1) * 61 / size[1] and 14 > column * 61 / size[1])
            assert bool(found[row, column]) == touches
    assert found.any()


def test_no_person_is_no_mask_with_a_warning(caplog):
    mask = torch.zeros(2, 1, 30, 20)
    mask[0, 0, 3, 3] = 1
    with caplog.at_level(logging.WARNING):
        found = checked_region(mask, (16, 12))
    assert "1 of 2 pose masks have no person" in caplog.text
    assert found[1].all() and 0 < found[0].sum() < 5
    black = skeleton_region(torch.zeros(1, 3, 64, 48), (64, 48))
    assert not black.any()


@pytest.mark.parametrize("wrong, words", [(torch.zeros(2, 30, 20), r"\(2, 30, 20\)"), ("mask", "str"), (None, "NoneType")])
def test_other_things_in_place_of_a_mask_are_refused(wrong, words):
    with pytest.raises(ValueError, match=f"{words}; expected a mask"):
        checked_region(wrong, (16, 12))
    with pytest.raises(ValueError, match="'soft'; expected one of"):
        seen_queries(torch.zeros(1, 1, 2, 2), 1, 2, "soft")
