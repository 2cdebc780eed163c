"""Colour errors by part and by texel against plain loops."""

import numpy as np
import pytest
import torch

from training.world.part_errors import part_colour, part_colour_counts, texel_error


def body(seed: int, batch=4, size=(40, 30), parts=6):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, parts, (batch, 8, 6), generator=generator)
    part = coarse.repeat_interleave(5, 1).repeat_interleave(5, 2)
    return part, torch.rand(batch, *size, generator=generator), torch.rand(batch, *size, generator=generator)


def test_part_colour_equals_a_loop_over_the_parts():
    source, target_parts = body(0)[0], body(1)[0]
    target = torch.rand(4, 3, 40, 30, generator=torch.Generator().manual_seed(2))
    generated = target.clone()
    for part in range(1, 6):
        generated += (target_parts == part)[:, None] * 0.03 * part  # distances 0.05, 0.10, 0.16, ...
    hits = total = 0
    for i in range(4):
        for part in range(1, 6):
            pixels = target_parts[i] == part
            if pixels.sum() >= 200 and (source[i] == part).sum() >= 200:
                total += 1
                hits += (generated[i][:, pixels].mean(1) - target[i][:, pixels].mean(1)).norm().item() <= 0.12
    counts = part_colour_counts(generated, target, source, target_parts, min_pixels=200)
    assert (counts[0].sum().item(), counts[1].sum().item()) == (hits, total)
    assert 0 < hits < total < 20, "the case has parts of every kind"
    assert part_colour(generated, target, source, target_parts, min_pixels=200) == pytest.approx(hits / total)


def test_part_colour_needs_enough_pixels_in_source_and_target():
    parts = torch.zeros(1, 20, 20, dtype=torch.uint8)
    parts[0, 0, :] = 1  # 20 pixels: too few
    parts[0, 2:4, :15] = 2  # 30 pixels: just enough
    picture = torch.zeros(1, 3, 20, 20)
    assert part_colour_counts(picture + 0.06, picture, parts, parts)[1].item() == 1
    assert part_colour(picture + 0.06, picture, parts, parts) == 1.0  # 0.06 * sqrt(3) = 0.104
    assert part_colour(picture + 0.08, picture, parts, parts) == 0.0  # 0.139
    assert np.isnan(part_colour(picture, picture, torch.zeros_like(parts), parts))


def test_texel_error_equals_a_loop_over_the_pixels():
    (part, u, v), (source_part, source_u, source_v) = body(3), body(4)
    generator = torch.Generator().manual_seed(5)
    generated, target = torch.rand(2, 4, 3, 40, 30, generator=generator)
    u[0, 0, 0] = source_u[0, 0, 0] = 1.0  # the edge belongs to the last texel
    errors = {True: [], False: []}
    for i in range(4):
        def texel(p, x, y):
            return int(p), min(int(x * 16), 15), min(int(y * 16), 15)

        maps = source_part[i].flatten().tolist(), source_u[i].flatten().tolist(), source_v[i].flatten().tolist()
        shown = {texel(*pixel) for pixel in zip(*maps)}
        for row in range(40):
            for column in range(30):
                if part[i, row, column] > 0:
                    seen = texel(part[i, row, column], u[i, row, column].item(), v[i, row, column].item()) in shown
                    difference = (generated[i, :, row, column] - target[i, :, row, column]).abs().mean().item()
                    errors[seen].append(difference)
    seen, hidden = texel_error(generated, target, part, u, v, source_part, source_u, source_v)
    assert min(map(len, errors.values())) > 100
    assert seen == pytest.approx(np.mean(errors[True]), abs=1e-6)
    assert hidden == pytest.approx(np.mean(errors[False]), abs=1e-6)


def test_a_copy_of_the_pose_hides_nothing():
    part, u, v = body(6)
    picture = torch.zeros(4, 3, 40, 30)
    seen, hidden = texel_error(picture + 0.25, picture, part, u, v, part, u, v)
    assert seen == pytest.approx(0.25) and np.isnan(hidden)


def test_bad_maps_are_refused():
    part, u, v = body(7)
    picture = torch.zeros(4, 3, 40, 30)
    with pytest.raises(ValueError, match=r"target_u.*expected \(B, H, W\)"):
        texel_error(picture, picture, part, u[:, 1:], v, part, u, v)
    with pytest.raises(ValueError, match="u of the person reaches.*Divide 8-bit"):
        texel_error(picture, picture, part, u * 255, v, part, u, v)
    with pytest.raises(ValueError, match="source_parts"):
        part_colour(picture, picture, part[:1], part)
