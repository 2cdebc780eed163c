"""Noise that follows the body: whose draw each cell takes, against shifts, statistics and drawn people's exact geometry."""

import numpy as np
import pytest
import torch

from pgpis_models.noise.samplers import BESIDE, STEP_NOISE, numbered_noise, sample_latents, start_noise
from pgpis_models.noise.schedule import NoiseSchedule
from pgpis_models.surface.carrying import carried_by
from pgpis_models.surface.densepose import IUV
from training.world.motion import walk
from training.world.wardrobe import sample_identity

SIZE, CELLS = (256, 192), (32, 24)
COUNT = CELLS[0] * CELLS[1]


@pytest.fixture(scope="module")
def frames():
    """Six frames of a walk, DensePose exact to the pixel."""
    return [IUV(one.part, one.u, one.v) for one in walk(sample_identity(1_000_000), 6, SIZE)]


@pytest.fixture(scope="module")
def carried(frames):
    return carried_by(frames, CELLS)


def block(row, column):
    """A body of one part, 10 x 6 cells of 8 pixels, its first cell at a place."""
    part, u, v = np.zeros(SIZE, np.uint8), np.zeros(SIZE, np.float32), np.zeros(SIZE, np.float32)
    place = np.s_[8 * row:8 * row + 80, 8 * column:8 * column + 48]
    part[place] = 2
    v[place], u[place] = np.meshgrid((np.arange(80) + 0.5) / 80, (np.arange(48) + 0.5) / 48, indexing="ij")
    return IUV(part, u, v)


def test_a_body_that_moves_by_whole_cells_takes_its_noise_with_it_and_the_ground_stays():
    made = carried_by([block(5, 6), block(8, 9), block(5, 6)], CELLS)
    plain, moved, back = made.index
    assert torch.equal(plain.flatten(), torch.arange(COUNT)) and torch.equal(back, plain)
    assert torch.equal(moved[8:18, 9:15], plain[5:15, 6:12])
    ground = torch.ones(CELLS, dtype=torch.bool)
    ground[5:15, 6:12] = ground[8:18, 9:15] = False
    assert torch.equal(moved[ground], plain[ground])
    uncovered = moved[5:8, 6:12]
    assert (uncovered >= COUNT).all()   # the body took the draws that were there
    again = carried_by([block(5, 6), block(8, 9), block(12, 9)], CELLS).index
    assert torch.equal(again[2][5:8, 6:12], uncovered)


def test_no_frame_takes_a_draw_twice_so_that_noise_stays_unit_normal_and_white(carried):
    for frame in carried.index:
        assert len(frame.unique()) == COUNT and 0 <= frame.min() and frame.max() < COUNT + carried.more
    draws = torch.Generator().manual_seed(0)
    many = 600   # independent noises
    noise = carried.spread(torch.randn(many, *CELLS, generator=draws), torch.randn(many, carried.more, generator=draws))
    assert noise.shape == (6, many, *CELLS)
    for frame in noise:
        error = 1 / (many * COUNT) ** 0.5   # of a mean of that many
        assert abs(frame.mean()) < 5 * error and abs(frame.var() - 1) < 5 * 2 ** 0.5 * error
        for one, other in ((frame[:, 1:], frame[:, :-1]), (frame[:, :, 1:], frame[:, :, :-1])):
            assert abs((one * other).mean()) < 6 * error
        assert abs(frame.var(0) - 1).max() < 6 * (2 / many) ** 0.5   # at every single place


def test_the_same_texel_carries_the_same_noise_in_two_frames(frames, carried):
    """Of each pixel the pixel of the first frame that shows the nearest texel, found by comparing with all of them: a cell
    whose pixels come from one place of the first frame has the draw from there, or from next to there, in 99 of 100."""
    pixel = (np.arange(SIZE[0]) // 8)[:, None] * CELLS[1] + np.arange(SIZE[1]) // 8
    first, kept, visible = frames[0], [], 0
    for number in range(1, 6):
        frame, index = frames[number], carried.index[number].flatten().numpy()
        origin = np.full(SIZE, -1)
        for part in range(1, 25):
            there, here = first.part == part, frame.part == part
            if there.any() and here.any():
                known = np.stack([first.u[there], first.v[there]], 1)
                wanted = np.stack([frame.u[here], frame.v[here]], 1)
                gap = np.abs(wanted[:, None] - known).max(-1)
                origin[here] = np.where(gap.min(1) < 0.04, pixel[there][gap.argmin(1)], -1)
        for cell in range(COUNT):
            inside = pixel == cell
            found = origin[inside & (frame.part > 0)]
            if len(found) < 48 or (found >= 0).mean() < 0.75:
                continue
            places = np.stack(np.divmod(found[found >= 0], CELLS[1]))
            near = np.abs(places - np.median(places, axis=1, keepdims=True)).max(0) <= 1
            if near.mean() < 0.75:   # of two limbs side by side
                continue
            visible += 1
            if index[cell] < COUNT:
                distance = np.abs(places - np.array(np.divmod(index[cell], CELLS[1]))[:, None]).max(0)
                kept.append((distance <= 1).mean() > 0.5)
    # A draw may move where the surface between was seen in part only: 1 of 471 here.
    assert visible > 200 and len(kept) > 0.85 * visible and np.mean(kept) > 0.99, (visible, len(kept), np.mean(kept))


def test_latents_are_sampled_from_what_is_carried(carried):
    seen = []
    some = carried.frames([0, 3])
    sample_latents(lambda x, t: seen.append(x.clone()) or x * 0, NoiseSchedule(), (2, 4, *CELLS), steps=2, seed=9,
                   sampler="ddpm", carried=some)
    assert torch.equal(seen[0][0], start_noise((1, 4, *CELLS), 9)[0])   # the first frame is the plain picture's
    [beside] = numbered_noise((4, carried.more), 9, [BESIDE])
    flat = torch.cat([seen[0][0].flatten(1), beside], 1)
    assert torch.equal(seen[0][1], flat[:, carried.index[3]])
    step = (seen[1][1] - seen[1][0]).flatten(1)   # the noise of the step is carried by the same cells
    same = (carried.index[3] == carried.index[0]).flatten()
    assert step[:, same].abs().max() < 1e-5 < step[:, ~same].abs().max() and STEP_NOISE != BESIDE


def test_what_cannot_be_carried_is_said():
    with pytest.raises(ValueError, match="with no frames; expected DensePose of the pictures' own size"):
        carried_by([], CELLS)
    with pytest.raises(ValueError, match="latents of 24x32 was asked for with DensePose of 16x20 pixels"):
        carried_by([IUV(np.zeros((20, 16), np.uint8), *(np.zeros((20, 16), np.float32),) * 2)], CELLS)
    nobody = IUV(np.zeros(SIZE, np.uint8), *(np.zeros(SIZE, np.float32),) * 2)
    made = carried_by([nobody, block(5, 6), block(5, 6)], CELLS)
    assert torch.equal(made.index[1], made.index[2]) and (made.index[1][5:15, 6:12] >= COUNT).all()
    with pytest.raises(ValueError, match=r"the noise is \(8, 6\) with 3 draws beside; expected \(32, 24\) with 60"):
        made.spread(torch.zeros(4, 8, 6), torch.zeros(4, 3))
